//! The resolver file `/etc/resolv.conf`, where nothing else rules it.
//!
//! A symbolic link is replaced as a link, so that the file it leads to (another program's) is never
//! written. Where the file cannot be renamed over, because it is a bind mount (containers,
//! `ip netns exec`) or the directory is read-only, it is written in place. Where somebody protected it
//! from changes (`chattr +i`), ours is protected in its stead.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use serde::{Deserialize, Serialize};

use crate::{Error, linux::change::Undone};

const HEADER: &str = "# Written by CipherWall while it is connected; then the old file returns.\n";

/// The attributes that keep everybody from changing a file (`chattr`).
const PROTECTION: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// The changed resolver file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::linux) struct ResolverFile {
    pub path: PathBuf,
    /// What was there.
    before: State,
    /// What we wrote.
    ours: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Missing,
    Link(PathBuf),
    File {
        content: Content,
        mode: u32,
        uid: u32,
        gid: u32,
        /// Those of [`PROTECTION`] that it has.
        #[serde(default, skip_serializing_if = "is_none")]
        protection: u32,
    },
}

/// The bytes of a file; as text in the journal where they are text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Bytes(Vec<u8>),
}

impl ResolverFile {
    /// The change to these DNS servers. Search domains and options stay as they are. `journaled` is
    /// our last change of the file, if it was changed already.
    pub(in crate::linux) fn to(
        path: &Path,
        servers: &[IpAddr],
        journaled: Option<&ResolverFile>,
    ) -> Result<ResolverFile, Error> {
        let now = State::of(path).map_err(|error| failed("read", path, error))?;
        let old = match fs::read(path) {
            Ok(old) => String::from_utf8_lossy(&old).into_owned(),
            Err(_) => String::new(),
        };
        let before = match journaled.filter(|journaled| journaled.is_ours(&now)) {
            Some(journaled) => journaled.before.clone(),
            None => now,
        };
        let ours = Content::Text(text(servers, &old));
        Ok(ResolverFile { path: path.to_path_buf(), before, ours })
    }

    /// Whether the file says already what we want.
    pub(in crate::linux) fn in_place(&self) -> bool {
        matches!(State::of(&self.path), Ok(State::File { content, .. }) if content == self.ours)
    }

    /// What the file said before, where it is `path`.
    pub(in crate::linux) fn text_before(&self, path: &Path) -> String {
        let bytes = match &self.before {
            State::Missing => Vec::new(),
            State::Link(target) => {
                let dir = path.parent().unwrap_or(path);
                fs::read(dir.join(target)).unwrap_or_default()
            }
            State::File { content, .. } => content.bytes().to_vec(),
        };
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(in crate::linux) fn make(&self) -> Result<(), Error> {
        let (mode, uid, gid, protection) = match &self.before {
            State::File { mode, uid, gid, protection, .. } => (*mode, *uid, *gid, *protection),
            State::Missing | State::Link(_) => (0o644, 0, 0, 0),
        };
        let new = State::File { content: self.ours.clone(), mode, uid, gid, protection };
        new.put(&self.path).map_err(|error| failed("write", &self.path, error))
    }

    /// Puts back what was there, if nobody else wrote the file in the meantime.
    pub(in crate::linux) fn undo(&self) -> Result<Undone, Error> {
        let path = &self.path;
        let wrong = |error| failed("put back", path, error);
        remove(&temporary_path(path)).map_err(wrong)?;
        let now = State::of(path).map_err(wrong)?;
        if now == self.before {
            return Ok(Undone::Nothing);
        }
        if !self.is_ours(&now) {
            return Ok(Undone::LeftAlone(format!(
                "{} was changed by another program in the meantime and stays as it is",
                path.display()
            )));
        }
        self.before.put(path).map_err(wrong)?;
        Ok(Undone::Done(format!("{} is as before", path.display())))
    }

    /// Whether the file is what we wrote, or what we were writing, in place, when we were cut off.
    fn is_ours(&self, now: &State) -> bool {
        let State::File { content: now, .. } = now else { return false };
        let being_put_back = match &self.before {
            State::File { content, .. } => content.bytes().starts_with(now.bytes()),
            State::Missing | State::Link(_) => false,
        };
        self.ours.bytes().starts_with(now.bytes()) || being_put_back
    }
}

impl State {
    fn of(path: &Path) -> io::Result<State> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Missing),
            Err(error) => return Err(error),
        };
        if metadata.is_symlink() {
            return Ok(State::Link(fs::read_link(path)?));
        }
        Ok(State::File {
            content: Content::new(fs::read(path)?),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            protection: (flags(&open(path)?) & PROTECTION).bits(),
        })
    }

    /// Makes the path be this.
    fn put(&self, path: &Path) -> io::Result<()> {
        let new_path = temporary_path(path);
        remove(&new_path)?;
        protect(path, 0)?;
        match self {
            State::Missing => remove(path)?,
            State::Link(target) => {
                symlink(target, &new_path)?;
                fs::rename(&new_path, path)?;
            }
            State::File { content, mode, uid, gid, protection } => {
                let renamed = write_new(&new_path, content.bytes(), *mode, *uid, *gid)
                    .and_then(|()| fs::rename(&new_path, path));
                if renamed.is_err() {
                    remove(&new_path).ok();
                    write_in_place(path, content.bytes())?;
                }
                protect(path, *protection)?;
            }
        }
        if let Some(dir) = path.parent() {
            // Some file systems cannot sync directories; the journal holds the content anyway.
            File::open(dir)?.sync_all().ok();
        }
        Ok(())
    }
}

impl Content {
    fn new(bytes: Vec<u8>) -> Content {
        String::from_utf8(bytes)
            .map_or_else(|error| Content::Bytes(error.into_bytes()), Content::Text)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Content::Text(text) => text.as_bytes(),
            Content::Bytes(bytes) => bytes,
        }
    }
}

/// The file with these servers, and what an old one said of anything else.
pub(in crate::linux) fn text(servers: &[IpAddr], old: &str) -> String {
    let servers = servers.iter().map(|server| format!("nameserver {server}\n"));
    let kept = old
        .lines()
        .filter(|line| {
            let word = line.split_whitespace().next();
            matches!(word, Some("search" | "domain" | "options"))
        })
        .map(|line| format!("{line}\n"));
    std::iter::once(HEADER.to_owned()).chain(servers).chain(kept).collect()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// None, where the file system has no such attributes.
fn flags(file: &File) -> IFlags {
    ioctl_getflags(file).unwrap_or(IFlags::empty())
}

/// Gives the file this protection and no other. A link, or a missing file, cannot have any.
fn protect(path: &Path, protection: u32) -> io::Result<()> {
    let Ok(file) = open(path) else { return Ok(()) };
    let now = flags(&file);
    let wanted = now.difference(PROTECTION) | IFlags::from_bits_truncate(protection);
    if now != wanted {
        ioctl_setflags(&file, wanted)?;
    }
    Ok(())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none(protection: &u32) -> bool {
    *protection == 0
}

fn write_new(path: &Path, content: &[u8], mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    fchown(&file, Some(uid), Some(gid))?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn temporary_path(path: &Path) -> PathBuf {
    path.with_extension("conf.cipherwall")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    let denied = source.kind() == io::ErrorKind::PermissionDenied;
    if denied && !rustix::process::geteuid().is_root() {
        return Error::NotPermitted { what: format!("{what} {}", path.display()) };
    }
    Error::ResolverFile { what, path: path.to_path_buf(), source }
}

/// Whether the file is one that we wrote.
pub(super) fn is_written_by_us(path: &Path) -> bool {
    open(path).and_then(io::read_to_string).is_ok_and(|text| text.starts_with(HEADER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> Vec<IpAddr> {
        vec!["10.66.0.1".parse().unwrap()]
    }

    fn undone(change: &ResolverFile) -> Undone {
        // As it would be read from the journal.
        let text = serde_json::to_string(change).unwrap();
        serde_json::from_str::<ResolverFile>(&text).unwrap().undo().unwrap()
    }

    #[test]
    fn content_and_mode_return_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        for old in [&b"search lan\nnameserver 192.0.2.1\n\n"[..], b"# \xff\r\nnameserver ::1", b""]
        {
            fs::write(&path, old).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            let change = ResolverFile::to(&path, &servers(), None).unwrap();
            assert!(!change.in_place());
            change.make().unwrap();
            let ours = fs::read_to_string(&path).unwrap();
            assert!(ours.contains("nameserver 10.66.0.1\n"), "{ours}");
            assert!(!ours.contains("192.0.2.1"), "{ours}");
            assert_eq!(ours.contains("search lan"), old.starts_with(b"search"));
            assert!(ResolverFile::to(&path, &servers(), None).unwrap().in_place());

            assert!(matches!(undone(&change), Undone::Done(_)));
            assert_eq!(fs::read(&path).unwrap(), old);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
            assert_eq!(undone(&change), Undone::Nothing);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something is left behind");
        }
    }

    #[test]
    fn a_link_is_replaced_and_returns_and_its_target_is_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("resolv.conf"), dir.path().join("of-another"));
        fs::write(&target, "nameserver 192.0.2.1\n").unwrap();
        symlink("of-another", &path).unwrap();
        let change = ResolverFile::to(&path, &servers(), None).unwrap();
        change.make().unwrap();
        assert!(!path.is_symlink());
        assert!(matches!(undone(&change), Undone::Done(_)));
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("of-another"));
        assert_eq!(fs::read_to_string(&target).unwrap(), "nameserver 192.0.2.1\n");
    }

    #[test]
    fn a_missing_file_is_missing_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let change = ResolverFile::to(&path, &servers(), None).unwrap();
        assert_eq!(undone(&change), Undone::Nothing);
        change.make().unwrap();
        assert!(matches!(undone(&change), Undone::Done(_)));
        assert!(!path.exists());
    }

    #[test]
    fn what_another_program_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let change = ResolverFile::to(&path, &servers(), None).unwrap();
        change.make().unwrap();
        fs::write(&path, "nameserver 192.0.2.99\n").unwrap();
        assert!(matches!(undone(&change), Undone::LeftAlone(_)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 192.0.2.99\n");
    }

    #[test]
    fn a_write_in_place_that_was_cut_at_any_byte_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let change = ResolverFile::to(&path, &servers(), None).unwrap();
        let (ours, before) = (change.ours.bytes().to_vec(), b"nameserver 192.0.2.1\n".to_vec());
        for text in [ours, before] {
            for cut in 0..=text.len() {
                fs::write(&path, &text[..cut]).unwrap();
                undone(&change);
                assert_eq!(fs::read(&path).unwrap(), b"nameserver 192.0.2.1\n", "cut at {cut}");
            }
        }
    }
}
