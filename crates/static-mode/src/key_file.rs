//! The key file.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use cipherwall_proto::datagram::static_mode::{KEY_DIGITS, KeyError, StaticKey};
use zeroize::Zeroizing;

/// Only for its owner.
const MODE: u32 = 0o600;
/// A key file has a line end behind its digits at most; what is longer is something else.
const READ_MAX: u64 = KEY_DIGITS as u64 + 1_024;

/// Why a key file cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is none.
    #[error(
        "there is no key file {}; make one with `keygen {}`, or copy the other side's here",
        path.display(), path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There is one already.
    #[error(
        "{} exists already; both sides need the same key, so it is not replaced; use another \
         name, or --force to lose the old key",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The user lacks the rights.
    #[error("no permission to {what} {}; run it with sudo", path.display())]
    NotPermitted {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// It is no key.
    #[error(
        "{} is not a key file: {reason}; it has to hold {KEY_DIGITS} hexadecimal digits and a \
         newline, as `keygen` makes it", path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: KeyError,
    },
    /// Anything else.
    #[error("cannot {what} {}: {source}; check the path and the disk", path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl KeyFileError {
    /// Whether the user lacks rights.
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, Self::NotPermitted { .. })
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() == io::ErrorKind::PermissionDenied {
            true => Self::NotPermitted { what, path },
            false => Self::Io { what, path, source },
        }
    }
}

/// Reads a key file, and logs a warning if others than its owner may read it.
///
/// # Errors
/// It is missing, unreadable, or holds anything but a key.
pub fn load_key_file(path: &Path) -> Result<StaticKey, KeyFileError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeyFileError::Missing { path: path.to_owned() });
        }
        result => result.map_err(KeyFileError::io("read", path))?,
    };
    let mode = file.metadata().map_err(KeyFileError::io("read", path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            "others may read the key file {} (mode {mode:04o}): chmod 600 {}",
            path.display(),
            path.display()
        );
    }
    let mut text = Zeroizing::new(Vec::with_capacity(READ_MAX as usize + 1));
    file.take(READ_MAX).read_to_end(&mut text).map_err(KeyFileError::io("read", path))?;
    StaticKey::parse(&text)
        .map_err(|reason| KeyFileError::Content { path: path.to_owned(), reason })
}

/// Makes a key file with a new key, for its owner only; `force` replaces one that is there.
///
/// # Errors
/// There is one, or it cannot be written.
pub fn create_key_file(path: &Path, force: bool) -> Result<(), KeyFileError> {
    if !force && fs::symlink_metadata(path).is_ok() {
        return Err(KeyFileError::Exists { path: path.to_owned() });
    }
    let mut bytes = Zeroizing::new([0; 64]);
    let random = getrandom::fill(bytes.as_mut_slice()).map_err(io::Error::other);
    random.map_err(KeyFileError::io("find random bytes for", path))?;
    let text = StaticKey::new(*bytes).to_text();
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        // without --force not even one that was made meanwhile is replaced
        if force {
            file.persist(path)?
        } else {
            file.persist_noclobber(path)?
        };
        File::open(dir)?.sync_all()
    };
    match write() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(KeyFileError::Exists { path: path.to_owned() })
        }
        result => result.map_err(KeyFileError::io("write", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_can_be_read_and_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_key_file(&path, false).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.ends_with('\n')), (KEY_DIGITS + 1, true));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(*load_key_file(&path).unwrap().to_text(), text);

        let error = create_key_file(&path, false).unwrap_err().to_string();
        assert!(error.contains("exists already") && error.contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        create_key_file(&path, true).unwrap();
        assert_ne!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn errors_name_the_file_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let error = load_key_file(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("keygen"), "{error}");
        for (text, reason) in [("0123\n", "4 hexadecimal digits"), ("0x12", "character 2")] {
            fs::write(&path, text).unwrap();
            let error = load_key_file(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains(reason) && error.contains("128 hexadecimal digits"), "{error}");
        }
        fs::write(&path, vec![b'a'; 1 << 20]).unwrap();
        assert!(load_key_file(&path).is_err(), "read in part only");
        let nowhere = dir.path().join("no").join("key");
        assert!(create_key_file(&nowhere, false).unwrap_err().to_string().contains("write"));
    }
}
