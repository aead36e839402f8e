//! What the commands have in common that keep tunnels up: `daemon`, `connect --foreground`, `static`.

use cipherwall_cli::{RecentLog, print_error};
use cipherwall_ipc::{
    Listener,
    daemon::{LOG_LINES, State},
};
use tokio::sync::mpsc;

use super::failure::coded;
use super::{Place, running};
use crate::engine::{Desk, FrontEnds, Live, Protection, Service, User};

/// The process's part that talks with front ends, and the one that does what they want.
pub(super) struct Process {
    pub(super) front_ends: FrontEnds,
    pub(super) service: Service,
}

/// Takes the socket and the host over, so that no second process does, and undoes what a dead one
/// left. Signals that end the process are noticed from now on.
pub(super) async fn start(place: &Place, foreground: bool) -> anyhow::Result<Process> {
    let stop = stop_signal()?;
    let listener = running::become_the_only_one(&place.paths).await?;
    let protection = take_host(place).await?;
    Ok(serve(place, listener, protection, stop, foreground))
}

/// The host settings, rid of what a killed process left; closed, if that one was.
pub(super) async fn take_host(place: &Place) -> anyhow::Result<Protection> {
    let (protection, report) = Protection::open(&place.paths.state_dir).await.map_err(coded)?;
    if !report.is_empty() {
        print_error(report.to_string().trim_end());
    }
    Ok(protection)
}

fn serve(
    place: &Place,
    listener: Listener,
    protection: Protection,
    stop: impl Future<Output = ()> + Send + 'static,
    foreground: bool,
) -> Process {
    let live = Live::new();
    if protection.is_closed() {
        // before anybody can ask
        live.enter(State::Blocked);
        live.protection(true, protection.is_lockdown(), None);
    }
    let (engine, requests) = mpsc::channel(1);
    let desk = Desk {
        live: live.clone(),
        log: place.log.clone(),
        profiles: place.profiles.clone(),
        config_path: place.paths.config_path.clone(),
        engine,
    };
    let user = User::new(requests, stop);
    let (profiles, config_path) = (place.profiles.clone(), place.paths.config_path.clone());
    let service = Service::new(protection, live, user, profiles, config_path, foreground);
    Process { front_ends: FrontEnds::serve(listener, desk), service }
}

/// Keeps as many lines as front ends may ask for.
pub(super) fn recent_log() -> RecentLog {
    RecentLog::new(LOG_LINES)
}

impl Process {
    /// Opens the host after the only session of this process, unless lockdown is on, and ends.
    /// `ended`: how the session did.
    pub(super) async fn end(mut self, ended: anyhow::Result<()>) -> anyhow::Result<()> {
        let ended = self.service.release(ended).await;
        self.give_up(ended).await
    }

    /// Ends, and leaves the host as it is.
    pub(super) async fn give_up(self, ended: anyhow::Result<()>) -> anyhow::Result<()> {
        let Self { front_ends, service } = self;
        let Service { protection, mut waiting, .. } = service;
        let is_lockdown = protection.is_lockdown();
        // the next process can start before whoever asked to disconnect is told
        drop(protection);
        front_ends.close(|| waiting.answer(&ended, is_lockdown)).await;
        ended
    }
}

/// Resolves at SIGINT (Ctrl-C), SIGTERM or SIGHUP (the terminal is gone), from now on.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + use<>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}
