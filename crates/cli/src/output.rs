//! Standard output for results, standard error for messages to the person.
//!
//! Unlike `println!` neither panics when the other end is gone.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;

/// Nobody reads standard output any more; [`finish`](crate::finish) takes it as a quiet end.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct OutputClosed;

/// Writes `text` and a line feed to standard output at once, also where that is a pipe.
///
/// # Errors
/// Standard output is closed or full.
pub fn print(text: impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        other => other.context("cannot write to standard output"),
    }
}

/// Writes a line to standard error; there is nobody to tell when that fails.
pub fn print_error(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
