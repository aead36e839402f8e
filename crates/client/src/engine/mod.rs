//! Keeps the tunnel up: runs the states of [`crate::state`] one after the other, and answers front
//! ends meanwhile.

mod datagrams;
mod desk;
mod front_ends;
mod live;
mod lockdown;
mod protection;
mod pump;
mod quality;
mod service;
mod surroundings;
mod user;
mod wake;
mod wanted;

use anyhow::Context;
use cipherwall_cli::Failure;
use cipherwall_netcfg::MARK_DEFAULT;

pub(crate) use datagrams::{IsOurs, Receiver, deliver};
pub(crate) use desk::Desk;
pub(crate) use front_ends::FrontEnds;
pub(crate) use live::Live;
pub(crate) use lockdown::Lockdown;
pub(crate) use protection::{Exceptions, PORTAL_TIME, Protection, opening, warn};
pub(crate) use pump::Pump;
pub(crate) use quality::{Monitor, Second};
pub(crate) use service::{Answer, Order, STAYS_LOCKED, Service};
pub(crate) use surroundings::{Change, Paths, Surroundings};
pub(crate) use user::{User, Wish};
pub(crate) use wanted::Wanted;

use crate::{
    dial::Dialer,
    state::{Context as Shared, Over, State, Way},
};

/// How a session ended.
pub(crate) struct Ended {
    /// On somebody's order, or by itself.
    pub(crate) over: Over,
    /// Whether it was connected before, or supposed to be.
    pub(crate) was_up: bool,
    /// Who waits to be told why there is no connection, once all that follows from it is done.
    pub(crate) answer: Option<Answer>,
}

/// Runs a session until the user wants something else, or the gateway lets this client in no more.
/// Then no routes and no DNS settings of it are left on this host; the packet policy is the caller's.
pub(crate) async fn run(wanted: Wanted, service: &mut Service) -> Ended {
    service.live.begin(&wanted);
    let datagrams = wanted.cipher.of_datagrams(wanted.transport);
    let ciphers = wanted.cipher.of_stream();
    let way = Way::new(!datagrams.is_empty());
    let profile = wanted.profile.clone();
    let dialer = Dialer::new(profile, service.profiles.clone(), MARK_DEFAULT, ciphers);
    service.live.ladder(dialer.rungs());
    let insist = wanted.insist;
    let mut shared = Shared {
        dialer: dialer.with_early_data(wanted.early_data).with_datagrams(datagrams),
        way,
        profiles: service.profiles.clone(),
        live: service.live.clone(),
        service,
        wanted,
        tun: None,
        pump: None,
        addresses: Vec::new(),
        good: None,
        surroundings: Surroundings::watch(),
    };
    let mut state = State::Connecting;
    let over = loop {
        if let Some(name) = state.name() {
            shared.live.enter(name);
        }
        state = match state {
            State::Connecting => shared.connecting().await,
            State::Connected(dialed) => shared.connected(*dialed).await,
            State::Reconnecting(why, redial) => shared.reconnecting(&why, redial).await,
            State::Disconnecting(link, why) => shared.disconnecting(link, why).await,
            State::Over(over) => break over,
        };
    };
    let was_up = insist || shared.live.status().since.is_some();
    Ended { over, was_up, answer: shared.wanted.answer }
}

/// An error of the host settings, with its exit code.
pub(crate) fn host_error(error: cipherwall_netcfg::Error) -> anyhow::Error {
    if matches!(error, cipherwall_netcfg::Error::NotPermitted { .. }) {
        Failure::not_permitted(error.to_string()).into()
    } else {
        anyhow::Error::from(error).context("the network settings of this computer")
    }
}

/// A TUN device for the tunnel.
///
/// # Errors
/// With exit code and remedy.
pub(crate) fn open_tun() -> anyhow::Result<cipherwall_tun::Device> {
    open_tun_named("cw%d")
}

/// As [`open_tun`], with a name of the user's choice, in which `%d` stands for a number.
///
/// # Errors
/// With exit code and remedy.
pub(crate) fn open_tun_named(name: &str) -> anyhow::Result<cipherwall_tun::Device> {
    match cipherwall_tun::Device::open(name) {
        Ok(device) => Ok(device),
        Err(error @ cipherwall_tun::OpenError::NotPermitted) => {
            Err(Failure::not_permitted(error.to_string()).into())
        }
        Err(error) => Err(error).context("the tunnel's network device"),
    }
}
