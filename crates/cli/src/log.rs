//! Logging of both programs: to standard error, or to a file that is rotated daily; never to
//! standard output, which belongs to results.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::{Failure, RecentLog};

/// All crates of this workspace begin with this.
const OWN_CRATES: &str = "cipherwall";

/// Files kept: a week, and the one being written.
const FILES_KEPT: usize = 8;

/// The logging options, the same for every command of both programs.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Logging")]
pub struct LogOptions {
    /// How much is logged
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,

    /// How a log line is written [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Log to this file instead of standard error
    ///
    /// A new file is begun each day (UTC), named FILE.YEAR-MONTH-DAY; a week of them is kept, and
    /// FILE itself is a link to the newest.
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

/// A level of [`LogOptions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the usual names")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Writes out what is still buffered when dropped; hold it until the program ends.
#[derive(Debug)]
#[must_use = "log lines are lost once it is dropped"]
pub struct LogGuard {
    _worker: Option<WorkerGuard>,
}

impl LogOptions {
    /// Starts logging, at `default_level` unless the person chose another.
    ///
    /// # Errors
    /// The log file cannot be written, or logging was started before.
    pub fn start(&self, default_level: LogLevel) -> anyhow::Result<LogGuard> {
        self.start_keeping(default_level, None)
    }

    /// As [`LogOptions::start`]; the last lines are kept in memory, too.
    ///
    /// # Errors
    /// As [`LogOptions::start`].
    pub fn start_keeping(
        &self,
        default_level: LogLevel,
        recent: Option<RecentLog>,
    ) -> anyhow::Result<LogGuard> {
        let level = self.log_level.unwrap_or(default_level);
        let Some(log_path) = &self.log_file else {
            let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            self.install(level, io::stderr, ansi, recent)?;
            return Ok(LogGuard { _worker: None });
        };
        let (writer, worker) = open(log_path)?;
        self.install(level, writer, false, recent)?;
        Ok(LogGuard { _worker: Some(worker) })
    }

    fn install<W>(
        &self,
        level: LogLevel,
        writer: W,
        ansi: bool,
        recent: Option<RecentLog>,
    ) -> anyhow::Result<()>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi);
        let layer = match self.log_format.unwrap_or_default() {
            LogFormat::Text => layer.boxed(),
            LogFormat::Json => layer.json().flatten_event(true).boxed(),
        };
        let recent = recent.map(|recent| {
            let layer = tracing_subscriber::fmt::layer().with_writer(recent).with_ansi(false);
            layer.with_filter(filter(level))
        });
        tracing_subscriber::registry()
            .with(layer.with_filter(filter(level)))
            .with(recent)
            .try_init()
            .context("cannot start logging")
    }
}

/// Libraries log in detail what only matters to their authors: they are held at warnings.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        // it warns of each connection to the kernel that is closed
        .with_target("netlink_proto", level.min(LevelFilter::ERROR))
        .with_target(OWN_CRATES, level)
}

fn open(log_path: &Path) -> anyhow::Result<(NonBlocking, WorkerGuard)> {
    let cannot = || format!("cannot write the log file {}", log_path.display());
    let log_path = std::path::absolute(log_path).with_context(cannot)?;
    let name = log_path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Failure::usage("it has no file name in UTF-8"))
        .with_context(cannot)?;
    let dir = log_path.parent().unwrap_or(Path::new("/"));
    refuse_foreign_files(dir, name).with_context(cannot)?;
    let appender = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(name)
        .latest_symlink(name)
        .max_log_files(FILES_KEPT)
        .build(dir)
        .with_context(cannot)?;
    Ok(tracing_appender::non_blocking(appender))
}

/// The rotation removes the oldest files whose names *begin* with the log file's: with a name
/// such as `/var/log/c` that would be other programs' logs.
fn refuse_foreign_files(dir: &Path, name: &str) -> anyhow::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", dir.display())),
    };
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = file_name.strip_prefix(name) else { continue };
        if !is_date_suffix(rest) && entry.file_type()?.is_file() {
            return Err(Failure::usage(format!(
                "rotation would in time remove {}, whose name begins alike: choose another name \
                 or directory",
                entry.path().display(),
            ))
            .into());
        }
    }
    Ok(())
}

/// Whether `rest` is what the rotation appends, `.YYYY-MM-DD`.
fn is_date_suffix(rest: &str) -> bool {
    rest.len() == 11
        && rest.bytes().zip(".0000-00-00".bytes()).all(|(byte, pattern)| match pattern {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_held_at_warnings() {
        let debug = filter(LogLevel::Debug);
        assert!(debug.would_enable("cipherwall_server::gateway", &tracing::Level::DEBUG));
        assert!(!debug.would_enable("sqlx::query", &tracing::Level::INFO));
        assert!(debug.would_enable("sqlx::query", &tracing::Level::WARN));
        let off = filter(LogLevel::Off);
        assert!(!off.would_enable("sqlx::query", &tracing::Level::ERROR));
    }

    #[test]
    fn a_log_file_is_written_dated_and_linked() {
        let dir = tempfile::tempdir().expect("a directory");
        let log_path = dir.path().join("new").join("gateway.log");
        let (writer, worker) = open(&log_path).expect("a writer");
        io::Write::write_all(&mut writer.make_writer(), b"hello\n").expect("written");
        drop(worker);
        assert_eq!(fs::read_to_string(&log_path).expect("the link"), "hello\n");
        assert!(log_path.is_symlink());
        // A second start must take the first one's files as its own.
        drop(open(&log_path).expect("a writer again"));
    }

    #[test]
    fn only_seven_older_files_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        for day in 10..30 {
            fs::write(dir.path().join(format!("gw.log.2020-01-{day}")), "").expect("written");
        }
        drop(open(&dir.path().join("gw.log")).expect("a writer"));
        let files = fs::read_dir(dir.path()).expect("a listing");
        assert_eq!(
            files.filter(|entry| !entry.as_ref().expect("it").path().is_symlink()).count(),
            8
        );
    }

    #[test]
    fn an_unwritable_log_file_is_a_clear_error() {
        let error = open(Path::new("/proc/nowhere/gateway.log")).expect_err("not writable");
        assert!(format!("{error:#}").contains("/proc/nowhere/gateway.log"), "{error:#}");
    }

    #[test]
    fn other_files_are_never_rotated_away() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("mail.log"), "precious").expect("written");
        let error = open(&dir.path().join("mail")).expect_err("begins alike");
        assert!(format!("{error:#}").contains("mail.log"), "{error:#}");
        fs::write(dir.path().join("plain"), "precious").expect("written");
        assert!(open(&dir.path().join("plain")).is_err());
    }
}
