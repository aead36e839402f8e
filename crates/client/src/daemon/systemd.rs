//! What systemd is told: that the daemon is ready, that it lives, that it stops. Without systemd,
//! nobody.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

/// It accepts front ends.
pub(super) fn ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// It ends.
pub(super) fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Says that this process lives, for as long as its one thread gets around to it.
pub(super) struct Watchdog {
    task: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// As often as systemd wants it, if it does.
    pub(super) fn start() -> Watchdog {
        let task = sd_notify::watchdog_enabled().map(|limit| tokio::spawn(bark(limit / 3)));
        Watchdog { task }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn bark(every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}
