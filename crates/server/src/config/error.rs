//! What is wrong with the configuration file: file, line, key, remedy (A25).

use std::io;
use std::path::{Path, PathBuf};

use serde_saphyr::Error as Yaml;
use thiserror::Error;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// `init` has not run yet.
    #[error(
        "{path} is missing: this gateway is not set up yet; run `cipherwall-server init \
         --endpoint HOST[:PORT]` first"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is there, but cannot be read.
    #[error("cannot read {path}; run this as root")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}, line {line}: {message}", path = path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What, with the key, and what to write instead.
        message: String,
    },
}

impl ConfigError {
    /// Whether the caller lacks rights (exit code 3) rather than anything being wrong.
    pub fn is_not_permitted(&self) -> bool {
        match self {
            ConfigError::Unreadable { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            ConfigError::Missing { .. } | ConfigError::Wrong { .. } => false,
        }
    }

    pub(super) fn from_io(path: &Path, source: io::Error) -> ConfigError {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            return ConfigError::Missing { path };
        }
        ConfigError::Unreadable { path, source }
    }

    pub(super) fn from_yaml(path: &Path, text: &str, error: &Yaml) -> ConfigError {
        let error = error.without_snippet();
        let line = error.location().map_or(1, |location| location.line());
        let message = explain(error, &key_at(text, line));
        ConfigError::Wrong { path: path.to_owned(), line, message }
    }
}

fn explain(error: &Yaml, key: &str) -> String {
    #[allow(clippy::wildcard_enum_match_arm)] // non-exhaustive
    match error {
        Yaml::SerdeUnknownField { field, expected, .. } => {
            format!("unknown key {field:?}{}", suggestion(field, expected))
        }
        Yaml::SerdeUnknownVariant { variant, expected, .. } => {
            format!("{key}: {variant:?} is not known{}", suggestion(variant, expected))
        }
        Yaml::SerdeMissingField { field, .. } => {
            format!("the key {field:?} is missing{}", whose(key))
        }
        Yaml::DuplicateMappingKey { .. } => format!("{key}: this key is given twice; remove one"),
        Yaml::Message { msg, .. } => format!("{key}: {msg}"),
        other => format!("{key}: {other}"),
    }
}

fn suggestion(given: &str, expected: &[&str]) -> String {
    let distance = |known: &&&str| strsim::damerau_levenshtein(given, known);
    match expected.iter().min_by_key(distance) {
        Some(best) if strsim::damerau_levenshtein(given, best) <= 2.max(given.len() / 3) => {
            format!("; did you mean {best:?}?")
        }
        _ => format!("; known are: {}", expected.join(", ")),
    }
}

fn whose(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!(" in {key}") }
}

/// The key that stands at a line, with those it is nested in, such as `dns.upstreams`.
fn key_at(text: &str, line: u64) -> String {
    let upto = usize::try_from(line).unwrap_or(usize::MAX);
    let lines: Vec<_> = text.lines().take(upto).collect();
    let mut keys = Vec::new();
    let mut indent = usize::MAX;
    for line in lines.iter().rev() {
        let content = line.trim_start();
        let depth = line.len() - content.len();
        let Some((key, _)) = content.split_once(':') else { continue };
        let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if depth < indent && plain && !key.is_empty() {
            keys.push(key);
            indent = depth;
        }
        if indent == 0 {
            break;
        }
    }
    keys.reverse();
    keys.join(".")
}
