//! What a person at a terminal is told of work that takes its time.

use std::{
    fmt::Display,
    io::{IsTerminal, Write, stderr},
    pin::pin,
    time::Duration,
};

use cipherwall_cli::print_error;

use crate::profile::Profile;

/// After this the person is told that something is going on.
const PATIENCE: Duration = Duration::from_secs(1);

/// Does the work; where it takes longer than a second, one line on the terminal says what is
/// going on. Quiet where nobody watches.
pub(crate) async fn tell<T>(what: impl Display, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    match tokio::time::timeout(PATIENCE, work.as_mut()).await {
        Ok(done) => done,
        Err(_) => {
            if stderr().is_terminal() {
                print_error(format_args!("{what} ..."));
            }
            work.await
        }
    }
}

/// [`tell`] for a conversation with a profile's gateway.
pub(crate) async fn tell_of_gateway<T>(
    doing: &str,
    profile: &Profile,
    work: impl Future<Output = T>,
) -> T {
    let host = profile.endpoints.first().map_or("the gateway", |endpoint| &endpoint.host);
    tell(format_args!("{doing} {host}"), work).await
}

/// A line on the terminal that is written over again and again, and gone in the end. Nothing where
/// nobody watches.
#[derive(Debug)]
pub(crate) struct ChangingLine {
    shown: bool,
}

impl ChangingLine {
    /// `watched`: whether to show anything at all, on a terminal.
    pub(crate) fn new(watched: bool) -> ChangingLine {
        ChangingLine { shown: watched && stderr().is_terminal() }
    }

    /// What it says from now on.
    pub(crate) fn show(&self, text: impl Display) {
        self.write(format_args!("\r{text}\x1b[K"));
    }

    fn write(&self, text: impl Display) {
        if self.shown {
            let mut terminal = stderr().lock();
            // there is nobody to tell when that fails
            let _ = write!(terminal, "{text}").and_then(|()| terminal.flush());
        }
    }
}

impl Drop for ChangingLine {
    fn drop(&mut self) {
        self.write("\r\x1b[K");
    }
}
