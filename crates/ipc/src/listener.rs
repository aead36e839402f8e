//! The privileged side: the socket file and the check of whoever connects.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::connection::{Connection, peer_uid};
use crate::frame;
use crate::lock::Lock;

const ROOT: u32 = 0;

/// Listens on a socket file of mode 0600. While it lives no second instance can listen there;
/// dropping it removes the file.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
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
    /// Listens at `path`. Its directory is made if it is missing; a socket file that a dead
    /// process left is replaced.
    ///
    /// # Errors
    /// A live process listens there, or the file cannot be made.
    #[expect(clippy::unused_async, reason = "needs a runtime, and says so")]
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        bind(path).map_err(|source| {
            if source.kind() == io::ErrorKind::PermissionDenied {
                BindError::NotPermitted(path.to_path_buf())
            } else {
                BindError::Io { path: path.to_path_buf(), source }
            }
        })?
    }

    /// The next peer that may talk to us: root, or the user this process itself runs as. Others
    /// are told so and dropped.
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
            let uid = peer_uid(&stream).map_err(failed)?;
            if is_allowed(uid) {
                return Ok(Connection::new(stream, uid));
            }
            tracing::warn!(uid, "refused a local connection: not root");
            refuse(&stream);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn bind(path: &Path) -> io::Result<Result<Listener, BindError>> {
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
    fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
    fs::rename(&temporary, path)?;
    Ok(Ok(Listener { listener, path: path.to_path_buf(), _lock: lock }))
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

fn is_allowed(uid: u32) -> bool {
    uid == ROOT || uid == rustix::process::geteuid().as_raw()
}

/// Short enough for the empty socket buffer; whoever does not read it learns nothing.
fn refuse(stream: &UnixStream) {
    if let Ok(bytes) = frame::encode_refusal("only root may do this: run it with sudo") {
        let _ = stream.try_write(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReceiveError;
    use crate::daemon::Reply;

    #[test]
    fn root_and_our_own_user_are_allowed() {
        assert!(is_allowed(ROOT));
        assert!(is_allowed(rustix::process::geteuid().as_raw()));
        assert!(!is_allowed(rustix::process::geteuid().as_raw() + 1));
    }

    #[tokio::test]
    async fn a_refused_peer_is_told_why() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        refuse(&ours);
        drop(ours);
        let mut peer = Connection::new(theirs, ROOT);
        let error = peer.receive::<Reply>().await.expect_err("refused");
        assert!(matches!(&error, ReceiveError::Refused(why) if why.contains("sudo")), "{error}");
    }
}
