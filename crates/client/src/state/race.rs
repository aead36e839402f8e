//! Another connection, tried beside one that may be dead (A8).

use std::time::Instant;

use super::Redial;
use crate::dial::Dialed;

/// The race of one connection.
#[derive(Default)]
pub(super) struct Race {
    /// The tries.
    pub(super) redial: Option<Box<Redial>>,
    since: Option<Instant>,
    was_run: bool,
}

impl Race {
    /// Begins at once, as soon as [`Race::won`] is waited for.
    pub(super) fn start(&mut self, redial: Redial) {
        self.was_run = true;
        self.since = Some(Instant::now());
        self.redial = Some(Box::new(redial));
    }

    /// The old connection has come back to life; whether there was a race.
    pub(super) fn call_off(&mut self) -> bool {
        self.redial.take().is_some()
    }

    /// Since when there is one.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since.filter(|_| self.redial.is_some())
    }

    /// Whether a second connection was ever tried: the gateway may know of it though we do not.
    pub(super) fn was_run(&self) -> bool {
        self.was_run
    }

    /// Waits for the other connection; for ever if there is none, or the gateway wants none.
    pub(super) async fn won(&mut self) -> Box<Dialed> {
        if let Some(redial) = &mut self.redial {
            match redial.done().await {
                Ok(dialed) => return dialed,
                Err(error) => tracing::info!(%error, "no other connection either"),
            }
            self.redial = None;
        }
        std::future::pending().await
    }
}
