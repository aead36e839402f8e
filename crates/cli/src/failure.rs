//! Exit codes, and the one place where a program's error becomes text on standard error.

use std::process::ExitCode;

use crate::output::{self, OutputClosed};

/// The exit codes of both programs. Scripts rely on them.
pub mod exit {
    /// Done what was asked.
    pub const DONE: u8 = 0;
    /// Failed, for a reason that has no code of its own.
    pub const FAILED: u8 = 1;
    /// Wrong usage: unknown command or option, or a value that makes no sense.
    pub const USAGE: u8 = 2;
    /// Not permitted: needs root, or a file or socket that this user may not use.
    pub const NOT_PERMITTED: u8 = 3;
    /// The daemon or the running gateway is not reachable.
    pub const NOT_REACHABLE: u8 = 4;
    /// Rejected: the gateway refused the password, the invitation or this device.
    pub const REJECTED: u8 = 5;
}

/// An error that carries its exit code. It may stand anywhere in a chain of `anyhow` contexts;
/// the outermost one decides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One of [`exit`].
    pub code: u8,
    /// What went wrong, where, and what to do about it.
    pub message: String,
}

impl Failure {
    /// A failure with any code of [`exit`].
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(exit::FAILED, message)
    }

    /// Code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(exit::USAGE, message)
    }

    /// Code 3.
    pub fn not_permitted(message: impl Into<String>) -> Self {
        Self::new(exit::NOT_PERMITTED, message)
    }

    /// Code 4.
    pub fn not_reachable(message: impl Into<String>) -> Self {
        Self::new(exit::NOT_REACHABLE, message)
    }

    /// Code 5.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::new(exit::REJECTED, message)
    }
}

/// Ends a program: shows the error with all its contexts on standard error and picks the exit
/// code, that of the outermost [`Failure`] in the chain or else 1.
///
/// A reader that closed standard output (`| head`) is no error.
pub fn finish(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::from(exit::DONE) };
    if error.chain().any(|cause| cause.is::<OutputClosed>()) {
        return ExitCode::from(exit::DONE);
    }
    output::print_error(format_args!("error: {error:#}"));
    ExitCode::from(code_of(&error))
}

/// The exit code of a command that fails with this: that of the outermost [`Failure`] in the chain,
/// or else 1.
pub fn code_of(error: &anyhow::Error) -> u8 {
    // `anyhow` hands out a context's type by its own `downcast_ref` only, not by the chain.
    let outermost = error.downcast_ref::<Failure>();
    let in_chain = || error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    outermost.or_else(in_chain).map_or(exit::FAILED, |failure| failure.code)
}

/// Refuses, with the remedy, to go on as an ordinary user.
///
/// # Errors
/// `what` needs root and this process has another effective user id (code 3).
pub fn require_root(what: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::not_permitted(format!("{what} needs root: run it with sudo")))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn the_failure_decides_the_code_wherever_it_stands() {
        let plain = anyhow!("disk full");
        assert_eq!(code_of(&plain), exit::FAILED);

        let direct = anyhow::Error::from(Failure::rejected("wrong password"));
        assert_eq!(code_of(&direct), exit::REJECTED);
        assert_eq!(code_of(&direct.context("logging in").context("connecting")), exit::REJECTED);

        let cause: Result<(), std::io::Error> = Err(std::io::ErrorKind::NotFound.into());
        let as_context = cause.context(Failure::not_reachable("no daemon")).context("status");
        assert_eq!(code_of(&as_context.expect_err("an error")), exit::NOT_REACHABLE);
    }
}
