//! Reading and writing the client's JSON files.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// This user has not the rights.
    #[error("no permission to {what} {}: run it with sudo", path.display())]
    NotPermitted { what: &'static str, path: PathBuf },
    /// Anything else that the operating system said.
    #[error("cannot {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// The content is wrong.
    #[error("{}, line {line}: {detail}", path.display())]
    Content { path: PathBuf, line: usize, detail: String },
}

impl FileError {
    /// For `map_err`.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() == io::ErrorKind::PermissionDenied {
            true => Self::NotPermitted { what, path },
            false => Self::Io { what, path, source },
        }
    }
}

/// Reads a JSON file; `None` if there is none.
///
/// # Errors
/// It cannot be read, or its content is wrong; that error names file, line and key.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => zeroize::Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::io("read", path)(error)),
    };
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let key = error.path().to_string();
        content_error(path, Some(key), error.inner())
    })?;
    json.end().map_err(|error| content_error(path, None, &error))?;
    Ok(Some(value))
}

fn content_error(path: &Path, key: Option<String>, error: &serde_json::Error) -> FileError {
    // serde_json ends its message with the position, which stands in front here.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    // Where the JSON itself is broken the key is only a guess; unknown keys are in the message.
    let key = key.filter(|_| error.is_data() && !message.starts_with("unknown field"));
    let detail = match key {
        Some(key) => format!("{key}: {message}; correct or remove it"),
        None => format!("{message}; correct or remove it"),
    };
    FileError::Content { path: path.to_path_buf(), line: error.line(), detail }
}

/// Replaces a file so that after a crash either the old or the new content is there, whole.
///
/// # Errors
/// The directory is missing or not writable, or the disk is full.
pub(crate) fn write_json(path: &Path, value: &impl Serialize, mode: u32) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let write = || -> io::Result<()> {
        let mut bytes = zeroize::Zeroizing::new(serde_json::to_vec_pretty(value)?);
        bytes.push(b'\n');
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(dir)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(FileError::io("write", path))
}

/// Removes a file for good.
///
/// # Errors
/// It is not there, or the directory is not writable.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let remove = || -> io::Result<()> {
        fs::remove_file(path)?;
        File::open(dir)?.sync_all()
    };
    remove().map_err(FileError::io("remove", path))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        number: u16,
    }

    fn read(text: &str) -> Result<Option<Sample>, FileError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sample.json");
        fs::write(&path, text).expect("written");
        read_json(&path)
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let unknown = read("{\n \"number\": 1,\n \"nmber\": 2\n}").expect_err("unknown");
        let unknown = unknown.to_string();
        assert!(unknown.contains("sample.json, line 3: unknown field `nmber`"), "{unknown}");
        let wrong = read("{\n\n\"number\": \"x\"}").expect_err("wrong").to_string();
        assert!(wrong.contains("sample.json, line 3: number: invalid type"), "{wrong}");
        let cut = read("{\n").expect_err("cut").to_string();
        assert!(cut.contains("sample.json, line 2: EOF"), "{cut}");
        let trailing = read("{\"number\": 1}\n{}").expect_err("more").to_string();
        assert!(trailing.contains("line 2: trailing characters"), "{trailing}");
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sample.json");
        for number in [1, 2] {
            write_json(&path, &Sample { number }, 0o600).expect("written");
            assert_eq!(read_json(&path).expect("read"), Some(Sample { number }));
        }
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_missing_file_is_none() {
        assert_eq!(read_json::<Sample>(Path::new("/nowhere/x.json")).expect("none"), None);
    }
}
