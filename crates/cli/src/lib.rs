//! What the command lines of both programs share, so that they look and behave alike: exit codes
//! and how an error is shown ([`finish`], [`Failure`]), logging ([`LogOptions`]), where files lie
//! ([`Paths`]), and how numbers and durations are read and written ([`human`]).
//!
//! Used by `cipherwall` and `cipherwall-server` only; libraries have their own error types.

mod failure;
pub mod human;
mod log;
mod output;
mod paths;
mod recent;

pub use failure::{Failure, code_of, exit, finish, require_root};
pub use log::{LogFormat, LogGuard, LogLevel, LogOptions};
pub use output::{print, print_error};
pub use paths::Paths;
pub use recent::RecentLog;
