//! Kernel settings under `/proc/sys`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::change::Undone;
use crate::Error;

/// A changed kernel setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sysctl {
    /// The path below `/proc/sys`.
    pub key: String,
    /// The value before.
    pub old: String,
    /// The value we set.
    pub ours: String,
    /// Other settings that the kernel changes together with this one, with their values before;
    /// they are put back after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub along: Vec<(String, String)>,
}

impl Sysctl {
    /// The change to `value`; `None` where this kernel has no such setting.
    pub(super) fn to(key: &str, value: &str, along: &[String]) -> Option<Sysctl> {
        Some(Sysctl {
            key: key.to_owned(),
            old: read(key)?,
            ours: value.to_owned(),
            along: along.iter().filter_map(|key| Some((key.clone(), read(key)?))).collect(),
        })
    }

    /// Whether there is nothing to change.
    pub(super) fn in_place(&self) -> bool {
        self.old == self.ours
    }

    pub(super) fn make(&self) -> Result<(), Error> {
        write(&self.key, &self.ours)
    }

    /// Puts the old value back if nobody else changed it in the meantime.
    pub(super) fn undo(&self) -> Result<Undone, Error> {
        let undone = match read(&self.key) {
            None => return Ok(Undone::Nothing),
            Some(now) if now == self.old => Undone::Nothing,
            Some(now) if now == self.ours => {
                write(&self.key, &self.old)?;
                Undone::Done(format!("{} is {} again", name(&self.key), self.old))
            }
            Some(now) => {
                return Ok(Undone::LeftAlone(format!(
                    "{} was changed to {now} by another program and stays so",
                    name(&self.key)
                )));
            }
        };
        for (key, old) in &self.along {
            if read(key).is_some_and(|now| now != *old) {
                write(key, old)?;
            }
        }
        Ok(undone)
    }
}

/// The value of a setting; `None` where there is none.
pub(super) fn read(key: &str) -> Option<String> {
    fs::read_to_string(path(key)).ok().map(|value| value.trim_end().to_owned())
}

/// The interfaces that have settings below `net/FAMILY/conf`, and `all` and `default`.
pub(super) fn interfaces(family: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path(&format!("net/{family}/conf"))) else {
        return Vec::new();
    };
    let mut names: Vec<_> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Whether this kernel has IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    path("net/ipv6/conf").is_dir()
}

fn write(key: &str, value: &str) -> Result<(), Error> {
    fs::write(path(key), value).map_err(|source| {
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Error::NotPermitted { what: format!("set {} to {value}", name(key)) };
        }
        Error::Sysctl { key: name(key), value: value.to_owned(), source }
    })
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

/// The setting's name as `sysctl` takes it (which keeps slashes where a part holds a dot).
fn name(key: &str) -> String {
    if key.contains('.') { key.to_owned() } else { key.replace('/', ".") }
}
