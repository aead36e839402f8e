//! What outlives a process: run numbers and the peer's progress (B4), as JSON.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use cipherwall_proto::datagram::static_mode::{Role, StaticKey, Stored};

const DIR_MODE: u32 = 0o700;
const MODE: u32 = 0o600;

/// The file for one key and role.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

/// Why the state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It cannot be read or written.
    #[error(
        "cannot {what} {}: {source}; without it no packet is sent, because an IV could be used \
         twice", path.display()
    )]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{}: {source}; remove it if nobody can have recorded packets of this key, else make a new \
         key for both sides", path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl StateFile {
    /// In the state directory, which is made if it is missing: static mode needs no `init` and no
    /// `import` before it.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state_dir: &Path, key: &StaticKey, role: Role) -> Result<Self, StateFileError> {
        let made = fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(state_dir);
        let io = |source| StateFileError::Io { what: "make", path: state_dir.into(), source };
        made.map_err(io)?;
        Ok(Self::new(state_dir, key, role))
    }

    fn new(state_dir: &Path, key: &StaticKey, role: Role) -> Self {
        let role = match role {
            Role::Client => "client",
            Role::Gateway => "gateway",
        };
        Self { path: state_dir.join(format!("static-{role}-{}.json", key.id())) }
    }

    /// What was stored last; nothing the first time.
    ///
    /// # Errors
    /// [`StateFileError`].
    pub fn load(&self) -> Result<Stored, StateFileError> {
        match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stored::default()),
            Err(error) => Err(self.io("read")(error)),
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| StateFileError::Content { path: self.path.clone(), source }),
        }
    }

    /// Replaces what is stored; it is on the disk when this returns.
    ///
    /// # Errors
    /// [`StateFileError::Io`].
    pub fn store(&self, state: Stored) -> Result<(), StateFileError> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix(".new-")
                .permissions(Permissions::from_mode(MODE))
                .tempfile_in(dir)?;
            file.write_all(&serde_json::to_vec_pretty(&state)?)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(self.io("write"))
    }

    fn io(&self, what: &'static str) -> impl FnOnce(io::Error) -> StateFileError {
        let path = self.path.clone();
        move |source| StateFileError::Io { what, path, source }
    }
}

#[cfg(test)]
mod tests {
    use cipherwall_proto::datagram::static_mode::Progress;

    use super::*;

    #[test]
    fn what_is_stored_is_loaded_and_each_key_and_role_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        let (one, other) = (StaticKey::new([1; 64]), StaticKey::new([2; 64]));
        let file = StateFile::open(&state_dir, &one, Role::Client).unwrap();
        assert_eq!(file.load().unwrap(), Stored::default());
        let peer = Some(Progress { run: 5, counter: 9 });
        let state = Stored { run: 1_790_000_000_000, peer, nailed: true };
        file.store(state).unwrap();
        assert_eq!(file.load().unwrap(), state);
        for (key, role) in [(&one, Role::Gateway), (&other, Role::Client)] {
            let file = StateFile::new(&state_dir, key, role);
            assert_eq!(file.load().unwrap(), Stored::default());
        }
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), &StaticKey::new([1; 64]), Role::Client);
        for text in ["", "{\"run\": 3", "{\"run\": \"x\"}"] {
            fs::write(&file.path, text).unwrap();
            let error = file.load().unwrap_err().to_string();
            assert!(error.contains("static-client-") && error.contains("new key"), "{error}");
        }
    }
}
