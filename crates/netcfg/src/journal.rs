//! The journal: what was changed, written and synced before each change, so that it can be undone
//! after the process was killed or the power cut at any moment.
//!
//! One JSON value a line: first where the changes are made ([`Origin`]), then the changes in order.
//! Lines are only ever appended; a last line that was cut is ignored, because the change it speaks of
//! was not made yet. Undoing rewrites the file as a whole (a new file, then a rename), and an empty
//! journal is removed. A lock beside it, held as long as the journal is open, keeps a second process
//! out; the kernel releases it with the process.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Error;

/// Which kernel state the changes belong to. After a reboot, or in another network namespace (a
/// container that was started again), only changes to files are still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// The inode of the network namespace.
    pub net_namespace: u64,
}

/// The open journal, with the changes that are in force.
#[derive(Debug)]
pub(crate) struct Journal<C> {
    path: PathBuf,
    state_dir: PathBuf,
    here: Origin,
    file: Option<File>,
    changes: Vec<C>,
    _lock: File,
}

/// What a killed process left, apart from the changes themselves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// The changes were made by another boot or in another network namespace.
    pub elsewhere: bool,
    /// Lines that could not be understood.
    pub unreadable: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<C> {
    Origin(Origin),
    Change(C),
}

impl<C: Serialize + DeserializeOwned + Clone> Journal<C> {
    /// Takes the lock and reads what is there; `name` is the file's name without extension.
    pub(crate) fn open(
        state_dir: &Path,
        name: &str,
        here: Origin,
    ) -> Result<(Journal<C>, Left), Error> {
        let lock = lock(state_dir, &state_dir.join(format!("{name}.lock")))?;
        let path = state_dir.join(format!("{name}.json"));
        let parsed = match fs::read(&path) {
            Ok(bytes) => parse::<C>(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Parsed::default(),
            Err(error) => return Err(failed("cannot read the journal", &path, error)),
        };
        // A rewrite that was cut; the journal itself is whole.
        fs::remove_file(new_path(&path)).ok();
        let left = Left {
            elsewhere: parsed.origin.is_some_and(|origin| origin != here),
            unreadable: parsed.unreadable,
        };
        let state_dir = state_dir.to_path_buf();
        let changes = parsed.changes;
        Ok((Journal { path, state_dir, here, file: None, changes, _lock: lock }, left))
    }

    /// The changes in force, oldest first.
    pub(crate) fn changes(&self) -> &[C] {
        &self.changes
    }

    /// Writes changes that are about to be made; when this returns they are on the disk.
    pub(crate) fn add(&mut self, changes: &[C]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let Some(file) = &mut self.file else {
            let all = [self.changes.as_slice(), changes].concat();
            return self.replace(all);
        };
        lines(changes)
            .and_then(|text| file.write_all(&text))
            .and_then(|()| file.sync_data())
            .map_err(|error| failed("cannot write the journal", &self.path, error))?;
        self.changes.extend_from_slice(changes);
        Ok(())
    }

    /// Replaces all changes at once; none removes the file.
    pub(crate) fn replace(&mut self, changes: Vec<C>) -> Result<(), Error> {
        let wrong = |error| failed("cannot write the journal", &self.path, error);
        if changes.is_empty() {
            self.file = None;
            match fs::remove_file(&self.path) {
                Ok(()) => sync_dir(&self.state_dir).map_err(wrong)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(wrong(error)),
            }
        } else {
            let file = line(&Line::<C>::Origin(self.here.clone())).and_then(|mut content| {
                content.extend(lines(&changes)?);
                replace_file(&self.path, &self.state_dir, &content)
            });
            self.file = Some(file.map_err(wrong)?);
        }
        self.changes = changes;
        Ok(())
    }
}

/// What a journal's text says.
pub(crate) struct Parsed<C> {
    origin: Option<Origin>,
    pub(crate) changes: Vec<C>,
    pub(crate) unreadable: usize,
}

impl<C> Default for Parsed<C> {
    fn default() -> Self {
        Parsed { origin: None, changes: Vec::new(), unreadable: 0 }
    }
}

pub(crate) fn parse<C: DeserializeOwned>(bytes: &[u8]) -> Parsed<C> {
    let mut parsed = Parsed::default();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    for text in bytes[..whole].split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
        match serde_json::from_slice(text) {
            Ok(Line::Origin(origin)) => parsed.origin = Some(origin),
            Ok(Line::Change(change)) => parsed.changes.push(change),
            Err(_) => parsed.unreadable += 1,
        }
    }
    parsed
}

fn line<C: Serialize>(line: &Line<C>) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

pub(crate) fn lines<C: Serialize + Clone>(changes: &[C]) -> io::Result<Vec<u8>> {
    let lines: io::Result<Vec<_>> =
        changes.iter().map(|change| line(&Line::Change(change.clone()))).collect();
    Ok(lines?.concat())
}

/// Writes the file anew beside the old one and renames it over; returns it open for appending.
fn replace_file(path: &Path, dir: &Path, content: &[u8]) -> io::Result<File> {
    let new_path = new_path(path);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new_path)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new_path, path)?;
    sync_dir(dir)?;
    Ok(file)
}

fn new_path(path: &Path) -> PathBuf {
    path.with_extension("json.new")
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// How long to wait for the lock: a killed process's last `nft` may still be at work.
const LOCK_TIME: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock and writes our process id into it, for the message that the next one shows.
fn lock(state_dir: &Path, path: &Path) -> Result<File, Error> {
    let wrong = |error| failed("cannot lock the journal", path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(wrong)?;
    let since = Instant::now();
    while let Err(error) = file.try_lock() {
        match error {
            TryLockError::WouldBlock if since.elapsed() < LOCK_TIME => thread::sleep(LOCK_PAUSE),
            TryLockError::WouldBlock => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok();
                let pid = pid.and_then(|_| text.trim().parse().ok());
                return Err(Error::InUse { pid, state_dir: state_dir.to_path_buf() });
            }
            TryLockError::Error(error) => return Err(wrong(error)),
        }
    }
    // A program that we started and that outlives us holds the lock until it has made its change,
    // so that whoever repairs after us sees it.
    fcntl_setfd(&file, FdFlags::empty()).map_err(|error| wrong(error.into()))?;
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(wrong)?;
    Ok(file)
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::PermissionDenied {
        return Error::NotPermitted { what: format!("{what} {}", path.display()) };
    }
    Error::Journal { what, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Origin {
        Origin { boot_id: "b".into(), net_namespace: 1 }
    }

    fn open(dir: &Path) -> (Journal<String>, Left) {
        Journal::open(dir, "netcfg-test", here()).unwrap()
    }

    #[test]
    fn changes_are_there_after_a_crash_and_an_empty_journal_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path());
        journal.add(&["one".into(), "two".into()]).unwrap();
        journal.add(&["three".into()]).unwrap();
        drop(journal);

        let (mut journal, left) = open(dir.path());
        assert_eq!(journal.changes(), ["one", "two", "three"]);
        assert_eq!(left, Left::default());
        journal.add(&["four".into()]).unwrap();
        drop(journal);
        let (mut journal, _) = open(dir.path());
        assert_eq!(journal.changes(), ["one", "two", "three", "four"]);
        journal.replace(Vec::new()).unwrap();
        assert!(!dir.path().join("netcfg-test.json").exists());
    }

    #[test]
    fn a_cut_at_any_byte_loses_only_what_was_not_synced() {
        let mut whole = line(&Line::<String>::Origin(here())).unwrap();
        whole.extend(lines(&["a".to_owned(), "bb\n".to_owned()]).unwrap());
        let after_first = whole.len() - lines(&["bb\n".to_owned()]).unwrap().len();
        for cut in 0..whole.len() {
            let parsed = parse::<String>(&whole[..cut]);
            assert_eq!(parsed.changes.len(), usize::from(cut >= after_first), "cut at {cut}");
            assert_eq!(parsed.unreadable, 0, "cut at {cut}");
        }
        assert_eq!(parse::<String>(&whole).changes, ["a", "bb\n"]);
    }

    #[test]
    fn damage_in_the_middle_does_not_hide_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("netcfg-test.json"),
            b"\0\0\0\n{\"change\":\"a\"}\n{\"change\":1}\n\xff\n{\"change\":\"b\"}\n",
        )
        .unwrap();
        let (journal, left) = open(dir.path());
        assert_eq!(journal.changes(), ["a", "b"]);
        assert_eq!(left, Left { elsewhere: false, unreadable: 3 });
    }

    #[test]
    fn another_boot_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path());
        journal.add(&["one".into()]).unwrap();
        drop(journal);
        let now = Origin { boot_id: "later".into(), net_namespace: 1 };
        let (_, left) = Journal::<String>::open(dir.path(), "netcfg-test", now).unwrap();
        assert!(left.elsewhere);
    }

    #[test]
    fn a_second_instance_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path());
        let error = Journal::<String>::open(dir.path(), "netcfg-test", here()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
    }
}
