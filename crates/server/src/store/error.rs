//! What can be wrong with the database, in the administrator's words.

use std::io;
use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateError;
use thiserror::Error;

/// An error of the database, with the file and the remedy.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file or its folder cannot be written.
    #[error(
        "{path} cannot be opened for writing: {detail}; run this as root, and check that the \
         folder exists and its file system is mounted writable"
    )]
    NotWritable {
        /// The database file.
        path: PathBuf,
        /// What the system says.
        detail: String,
        /// Whether rights are what is missing.
        denied: bool,
    },
    /// No room left for it.
    #[error("the file system of {path} is full; free some space and try again")]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// Another process holds the write lock for longer than five seconds.
    #[error("{path} is locked by another process (find it by `fuser {path}`); try again later")]
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// Not a database, or a damaged one.
    #[error("{path} is damaged ({detail}); restore it from a backup or move it away: {path}")]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What the database says.
        detail: String,
    },
    /// Written by a later version.
    #[error(
        "{path} was written by a newer cipherwall-server (table version {version}); install that \
         version, or restore a backup made before the upgrade"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The version in the file.
        version: i64,
    },
    /// Anything else.
    #[error("{path} cannot be used: {detail}")]
    Other {
        /// The database file.
        path: PathBuf,
        /// What the database says.
        detail: String,
    },
}

impl StoreError {
    /// Whether the caller lacks rights (exit code 3) rather than anything being wrong.
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, StoreError::NotWritable { denied: true, .. })
    }

    pub(super) fn from_io(path: &Path, error: io::Error) -> StoreError {
        let path = path.to_owned();
        if error.kind() == io::ErrorKind::StorageFull {
            return StoreError::Full { path };
        }
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        StoreError::NotWritable { path, detail: error.to_string(), denied }
    }

    pub(super) fn from_sqlx(path: &Path, error: sqlx::Error) -> StoreError {
        let path = path.to_owned();
        let sqlite_code = error.as_database_error().and_then(|e| e.code()?.parse::<u32>().ok());
        let database_error = error.as_database_error();
        let detail = database_error.map_or_else(|| error.to_string(), |e| e.message().to_owned());
        // The low byte of an extended result code is the primary one: sqlite.org/rescode.html
        match sqlite_code.map(|code| code & 0xff) {
            // SQLITE_IOERR_SHMSIZE: no room for the index of the write-ahead log
            Some(_) if sqlite_code == Some(4874) => StoreError::Full { path },
            Some(3 | 8 | 14 | 23) => StoreError::NotWritable { path, detail, denied: false },
            Some(5 | 6) => StoreError::Locked { path },
            Some(11 | 26) => StoreError::Corrupt { path, detail },
            Some(13) => StoreError::Full { path },
            Some(_) | None => StoreError::Other { path, detail },
        }
    }

    pub(super) fn from_migration(path: &Path, error: MigrateError) -> StoreError {
        #[allow(clippy::wildcard_enum_match_arm)] // non-exhaustive
        match error {
            MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
                StoreError::Newer { path: path.to_owned(), version }
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                StoreError::from_sqlx(path, error)
            }
            other => StoreError::Other { path: path.to_owned(), detail: other.to_string() },
        }
    }
}
