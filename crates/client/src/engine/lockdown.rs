//! Lockdown: traffic outside the tunnel is blocked always, from before the network comes up, and
//! only the user ends that. A file says so, since it has to outlive everything else.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// Whether lockdown is on, and where that is kept.
#[derive(Debug)]
pub(crate) struct Lockdown {
    path: PathBuf,
    on: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    on: bool,
}

impl Lockdown {
    /// As the file in `state_dir` says. One that cannot be read was there for a reason: then it is on.
    pub(crate) fn load(state_dir: &Path) -> Lockdown {
        let path = state_dir.join("lockdown.json");
        let on = match files::read_json::<Kept>(&path) {
            Ok(kept) => kept.is_some_and(|kept| kept.on),
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::error!("taken for on, until it is switched off: {error:#}");
                true
            }
        };
        Lockdown { path, on }
    }

    /// Whether it is on.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Keeps it, so that it holds after a power cut, too.
    ///
    /// # Errors
    /// It cannot be written; nothing has changed then.
    pub(crate) fn set(&mut self, on: bool) -> Result<(), FileError> {
        if on {
            files::write_json(&self.path, &Kept { on }, 0o644)?;
        } else {
            match files::remove(&self.path) {
                Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        self.on = on;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_and_a_damaged_file_counts_as_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut lockdown = Lockdown::load(dir.path());
        assert!(!lockdown.is_on());
        lockdown.set(false).expect("off twice");
        lockdown.set(true).expect("kept");
        assert!(Lockdown::load(dir.path()).is_on());

        std::fs::write(dir.path().join("lockdown.json"), "{\"on\": fal").expect("written");
        let mut damaged = Lockdown::load(dir.path());
        assert!(damaged.is_on());
        damaged.set(false).expect("removed");
        assert!(!Lockdown::load(dir.path()).is_on());
    }
}
