//! The privileged side: the socket file and the check of whoever connects.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::connection::Connection;
use crate::frame;
use crate::lock::Lock;
use crate::peer::{self, Peer};

const ROOT: u32 = 0;

/// Listens on a socket file that only those can open who may talk to this process. While it lives
/// no second instance can listen there; dropping it removes the file.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    allowed: Allowed,
    /// Dropped after the socket file is gone.
    _lock: Lock,
}

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A live process listens there.
    #[error("already running: another process serves {}", .0.display())]
    InUse(PathBuf),
    /// The directory belongs to somebody else.
    #[error("this user may not create {}: run it with sudo", .0.display())]
    NotPermitted(PathBuf),
    /// Anything else.
    #[error("cannot listen at {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// The socket does not work any more, or the process has too many files open.
#[derive(Debug, thiserror::Error)]
#[error("cannot accept a connection at {}", path.display())]
pub struct AcceptError {
    path: PathBuf,
    source: io::Error,
}

impl Listener {
    /// Listens at `path` for root (mode 0600). Its directory is made if it is missing; a socket
    /// file that a dead process left is replaced.
    ///
    /// # Errors
    /// A live process listens there, or the file cannot be made.
    #[expect(clippy::unused_async, reason = "needs a runtime, and says so")]
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        bind(path, Allowed { group: None }).map_err(|source| bind_error(path, source))?
    }

    /// As [`Listener::bind`], for members of the group of this name as well (mode 0660). Where there
    /// is no such group, for root alone: see [`Listener::group`].
    ///
    /// # Errors
    /// As [`Listener::bind`], or the groups of this host cannot be read.
    #[expect(clippy::unused_async, reason = "needs a runtime, and says so")]
    pub async fn bind_for_group(path: &Path, group: &str) -> Result<Self, BindError> {
        let bound = peer::group_id(group).and_then(|group| bind(path, Allowed { group }));
        bound.map_err(|source| bind_error(path, source))?
    }

    /// The id of the group whose members may connect, if there is one.
    pub fn group(&self) -> Option<u32> {
        self.allowed.group
    }

    /// The next peer that may talk to us: root, the user this process itself runs as, or a member of
    /// the group. Others are told so and dropped.
    ///
    /// # Errors
    /// See [`AcceptError`]; wait a moment before trying again.
    pub async fn accept(&self) -> Result<Connection, AcceptError> {
        loop {
            let accepted = self.listener.accept().await;
            let failed = |source| AcceptError { path: self.path.clone(), source };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(failed(error)),
            };
            let peer = match Peer::of(&stream) {
                Ok(peer) => peer,
                // it is gone already
                Err(error) => {
                    tracing::debug!(%error, "a local connection from nobody");
                    continue;
                }
            };
            if self.allowed.includes(&peer) {
                return Ok(Connection::new(stream, peer.uid));
            }
            tracing::warn!(uid = peer.uid, "refused a local connection: no permission");
            refuse(&stream, self.allowed.whom());
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Who may connect, besides root and our own user.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    group: Option<u32>,
}

impl Allowed {
    fn includes(self, peer: &Peer) -> bool {
        let by_user = peer.uid == ROOT || peer.uid == rustix::process::geteuid().as_raw();
        by_user || self.group.is_some_and(|group| peer.groups.contains(&group))
    }

    /// For those who are not.
    fn whom(self) -> &'static str {
        match self.group {
            None => "only root may do this: run it with sudo",
            Some(_) => {
                "only root and members of the socket's group may do this: run it with sudo, or let \
                 root add you to that group"
            }
        }
    }
}

fn bind_error(path: &Path, source: io::Error) -> BindError {
    if source.kind() == io::ErrorKind::PermissionDenied {
        BindError::NotPermitted(path.to_path_buf())
    } else {
        BindError::Io { path: path.to_path_buf(), source }
    }
}

fn bind(path: &Path, allowed: Allowed) -> io::Result<Result<Listener, BindError>> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    }
    let Some(lock) = Lock::acquire(&with_suffix(path, ".lock"))? else {
        return Ok(Err(BindError::InUse(path.to_path_buf())));
    };
    refuse_other_file(path)?;
    // Made under another name, so that it never stands there with other rights.
    let temporary = with_suffix(path, ".new");
    remove_if_there(&temporary)?;
    let listener = UnixListener::bind(&temporary)?;
    let mode = if allowed.group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
    if allowed.group.is_some() {
        chown(&temporary, None, allowed.group)?;
    }
    fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
    fs::rename(&temporary, path)?;
    Ok(Ok(Listener { listener, path: path.to_path_buf(), allowed, _lock: lock }))
}

/// Only a socket is ever replaced.
fn refuse_other_file(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there: remove it")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Short enough for the empty socket buffer; whoever does not read it learns nothing.
fn refuse(stream: &UnixStream, whom: &str) {
    if let Ok(bytes) = frame::encode_refusal(whom) {
        let _ = stream.try_write(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReceiveError;
    use crate::daemon::Reply;

    #[test]
    fn root_our_own_user_and_the_group_are_allowed() {
        let own = rustix::process::geteuid().as_raw();
        let peer = |uid, groups: &[u32]| Peer { uid, groups: groups.to_vec() };
        let (root_only, group) = (Allowed { group: None }, Allowed { group: Some(7) });
        for allowed in [root_only, group] {
            assert!(allowed.includes(&peer(ROOT, &[])));
            assert!(allowed.includes(&peer(own, &[])));
            assert!(!allowed.includes(&peer(own + 1, &[0, 6, 8])));
        }
        assert!(group.includes(&peer(own + 1, &[6, 7])));
        assert!(!root_only.includes(&peer(own + 1, &[6, 7])));
    }

    #[tokio::test]
    async fn a_refused_peer_is_told_why() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        refuse(&ours, Allowed { group: None }.whom());
        drop(ours);
        let mut peer = Connection::new(theirs, ROOT);
        let error = peer.receive::<Reply>().await.expect_err("refused");
        assert!(matches!(&error, ReceiveError::Refused(why) if why.contains("sudo")), "{error}");
    }
}
