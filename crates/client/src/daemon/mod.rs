//! The daemon: connects and disconnects as front ends ask, from the computer's start to its end.
//!
//! What the user wants is kept in a file ([`Target`]), so that a daemon that comes back after a crash
//! connects again by itself. Until then, and while it is stopped, traffic outside of the tunnel stays
//! blocked: only the user opens.

mod systemd;
mod target;

use std::path::Path;

use anyhow::{Context, anyhow};
use cipherwall_ipc::daemon::State;

use self::{systemd::Watchdog, target::Target};
use crate::{
    engine::{self, Ended, Order, Service, Wanted},
    settings::Settings,
    state::{Next, Over},
};

/// What the daemon does next.
enum Step {
    /// Rest: blocked, or open.
    Rest,
    Connect(Box<Wanted>),
    Quit,
}

/// Runs until it is signalled.
///
/// # Errors
/// The host cannot be put into a safe state at the start.
pub(crate) async fn run(mut service: Service, state_dir: &Path) -> anyhow::Result<()> {
    let target = Target::new(state_dir);
    let mut step = begin(&mut service, &target).await?;
    cipherwall_cli::print("ready")?;
    let _watchdog = Watchdog::start();
    systemd::ready();
    loop {
        step = match step {
            Step::Rest => rest(&mut service, &target).await,
            Step::Connect(wanted) => session(*wanted, &mut service, &target).await,
            Step::Quit => break,
        };
    }
    systemd::stopping();
    service.answer_waiting(&Err(anyhow!("the daemon is being stopped")));
    Ok(())
}

/// Nobody wants to be connected any more: a daemon that is started later does not connect by itself.
pub(crate) fn forget_target(state_dir: &Path) {
    if let Err(error) = Target::new(state_dir).forget() {
        tracing::warn!("{:#}", anyhow::Error::new(error));
    }
}

/// Closes what was closed, before anything else.
async fn begin(service: &mut Service, target: &Target) -> anyhow::Result<Step> {
    let wanted = match target.load() {
        Some(request) => again(service, &request),
        None => None,
    };
    if service.protection.is_closed() || wanted.is_some() {
        let allow_lan = match &wanted {
            Some(wanted) => wanted.exceptions.allow_lan,
            None => service.allow_lan(),
        };
        service.protection.set_allow_lan(allow_lan).await?;
    }
    let Some(wanted) = wanted else {
        if service.protection.is_closed() && !service.protection.is_lockdown() {
            service.live.failed(
                "a process that was connected has died; traffic stays blocked until you connect, \
                 or open it with: cipherwall disconnect",
            );
        }
        return Ok(Step::Rest);
    };
    tracing::info!(profile = wanted.profile.name, "connecting again");
    Ok(Step::Connect(Box::new(wanted)))
}

/// What was wanted before this process began.
fn again(service: &Service, request: &cipherwall_ipc::daemon::Connect) -> Option<Wanted> {
    let settings = Settings::load(&service.config_path).context("the settings");
    let wanted = settings.and_then(|it| Wanted::new(request, &it, &service.profiles));
    match wanted {
        Ok(wanted) => Some(Wanted { insist: true, ..wanted }),
        Err(error) => {
            tracing::error!("cannot connect again: {error:#}");
            service.live.failed(&format!("cannot connect again: {error:#}"));
            None
        }
    }
}

async fn rest(service: &mut Service, target: &Target) -> Step {
    let next = if service.protection.is_closed() {
        service.blocked().await
    } else {
        service.disconnected().await
    };
    match next {
        Next::Changed => Step::Rest,
        Next::Order(order) => obey(order, service, target, Ok(())).await,
    }
}

async fn session(wanted: Wanted, service: &mut Service, target: &Target) -> Step {
    if let Err(error) = target.keep(&wanted.request) {
        tracing::warn!("after a crash, it will not connect by itself: {error:#}");
    }
    // by a session before this one, or by a process before this one
    let was_protected = service.protection.is_wanted();
    let Ended { over, was_up, answer } = engine::run(wanted, service).await;
    let why = over.why();
    let step = match over {
        Over::Order(order) => obey(order, service, target, Ok(())).await,
        Over::Failed(error) if was_up || was_protected => {
            tracing::error!("{error:#}; traffic stays blocked until the user disconnects");
            service.answer_waiting(&Err(error));
            show_rest(service);
            Step::Rest
        }
        // whoever wanted to connect reads why that failed
        Over::Failed(error) => {
            tracing::warn!("{error:#}");
            obey(Order::Disconnect, service, target, Err(error)).await
        }
    };
    if let Some(answer) = answer {
        answer.fail(&why);
    }
    step
}

/// So that whoever is told of the end finds it so.
fn show_rest(service: &Service) {
    let closed = service.protection.is_closed();
    service.live.ended();
    service.live.enter(if closed { State::Blocked } else { State::Disconnected });
}

/// Nothing of a session is left when this is called. `ended`: how the last one did.
async fn obey(
    order: Order,
    service: &mut Service,
    target: &Target,
    ended: anyhow::Result<()>,
) -> Step {
    match order {
        Order::Disconnect => {
            if let Err(error) = target.forget() {
                tracing::warn!("{error:#}");
            }
            let by_user = ended.is_ok();
            let released = service.release(ended).await;
            if by_user && released.is_ok() {
                service.live.forget_error();
            }
            show_rest(service);
            service.answer_waiting(&released);
            Step::Rest
        }
        Order::Connect(wanted) => Step::Connect(wanted),
        Order::Quit => Step::Quit,
    }
}
