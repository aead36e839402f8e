//! Signals to the gateway, and what systemd is told in turn.

use std::{io, path::Path};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Ended;
use crate::config::Config;

/// What the gateway can be told.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until the gateway has to end. It does not start anew with a configuration that is
    /// wrong.
    pub(super) async fn wait(&mut self, config_path: &Path) -> Ended {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Ended::Stopped,
                _ = self.interrupt.recv() => return Ended::Stopped,
                _ = self.hang_up.recv() => match Config::load(config_path) {
                    Ok(_) => return Ended::Reload,
                    Err(error) => tracing::error!(%error, "not reloaded"),
                },
            }
        }
    }
}

/// Tells systemd. Outside of it there is nobody to tell.
pub(super) fn notify_end(ended: &anyhow::Result<Ended>) {
    let _ = match (ended, sd_notify::NotifyState::monotonic_usec_now()) {
        (Ok(Ended::Reload), Ok(now)) => {
            sd_notify::notify(&[sd_notify::NotifyState::Reloading, now])
        }
        (Ok(_) | Err(_), _) => sd_notify::notify(&[sd_notify::NotifyState::Stopping]),
    };
}
