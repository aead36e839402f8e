//! What the user wants to be connected with, kept for the next process in case that this one dies.
//! It holds until he disconnects or the computer is started again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cipherwall_ipc::daemon::Connect;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// Different after each start of the computer.
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The file that says so.
pub(super) struct Target {
    path: PathBuf,
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    boot_id: String,
    connect: Connect,
}

impl Target {
    /// In this directory.
    pub(super) fn new(state_dir: &Path) -> Target {
        let boot_id = fs::read_to_string(BOOT_ID_PATH).unwrap_or_default();
        Target { path: state_dir.join("target.json"), boot_id: boot_id.trim().to_owned() }
    }

    /// What was wanted, if it was since the computer was started.
    pub(super) fn load(&self) -> Option<Connect> {
        match files::read_json::<Kept>(&self.path) {
            Ok(kept) => kept.filter(|kept| kept.boot_id == self.boot_id).map(|kept| kept.connect),
            Err(error) => {
                tracing::error!("{:#}", anyhow::Error::new(error));
                None
            }
        }
    }

    /// # Errors
    /// It cannot be written.
    pub(super) fn keep(&self, connect: &Connect) -> Result<(), FileError> {
        let kept = Kept { boot_id: self.boot_id.clone(), connect: connect.clone() };
        files::write_json(&self.path, &kept, 0o600)
    }

    /// # Errors
    /// It cannot be removed.
    pub(super) fn forget(&self) -> Result<(), FileError> {
        match files::remove(&self.path) {
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_until_it_is_forgotten_or_the_computer_starts_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = Target::new(dir.path());
        assert_eq!(target.load(), None);
        let connect = Connect { profile: Some("home".into()), no_lan: true, ..Connect::default() };
        target.keep(&connect).expect("kept");
        assert_eq!(Target::new(dir.path()).load(), Some(connect.clone()));

        let later = Target { boot_id: "another".into(), ..Target::new(dir.path()) };
        assert_eq!(later.load(), None);
        fs::write(&target.path, "{").expect("written");
        assert_eq!(target.load(), None);
        target.forget().expect("removed");
        target.forget().expect("nothing to remove");
    }
}
