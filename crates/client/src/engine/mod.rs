//! Keeps the tunnel up: runs the states of [`crate::state`] one after the other, and answers front
//! ends meanwhile.

mod datagrams;
mod front_end;
mod live;
mod pump;
mod surroundings;
mod wake;

use anyhow::Context;
use cipherwall_cli::Failure;
use cipherwall_ipc::Listener;
use cipherwall_netcfg::{Host, MARK_DEFAULT};
use tokio::{sync::mpsc, task::JoinSet};

pub(crate) use datagrams::{IsOurs, Receiver, deliver};
pub(crate) use front_end::{Asked, serve as serve_front_ends};
pub(crate) use live::Live;
pub(crate) use pump::Pump;
pub(crate) use surroundings::{Change, Paths, Surroundings};

use crate::{
    dial::Dialer,
    profile::{Profile, Profiles},
    settings::{CipherChoice, TransportChoice},
    state::{Context as Shared, State, User, Way},
};

/// What `connect` was told.
pub(crate) struct Options {
    /// The profile to connect with.
    pub(crate) profile: Profile,
    /// Where changes of the profile are kept.
    pub(crate) profiles: Profiles,
    /// The cipher to offer.
    pub(crate) cipher: CipherChoice,
    /// Whether packets shall go in datagrams.
    pub(crate) transport: TransportChoice,
    /// Whether the local network stays reachable.
    pub(crate) allow_lan: bool,
    /// Instead of the gateway's MTU, in bytes.
    pub(crate) mtu: Option<u16>,
    /// Whether a resume is hinted at in TLS early data.
    pub(crate) early_data: bool,
    /// The host settings, recovered.
    pub(crate) host: Host,
    /// The socket for front ends.
    pub(crate) listener: Listener,
}

/// Runs until `stop` resolves, a front end asks to disconnect, or the gateway lets this client in
/// no more. Then nothing is left of the tunnel on this host.
///
/// # Errors
/// The first connection failed, or the gateway ended the session for good, or the host could not
/// be put back as it was.
pub(crate) async fn run(
    options: Options,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let Options {
        profile,
        profiles,
        cipher,
        transport,
        allow_lan,
        mtu,
        early_data,
        host,
        listener,
    } = options;
    let live = Live::new(&profile.name);
    let (disconnect, disconnects) = mpsc::channel(1);
    let mut front_ends = JoinSet::new();
    let accept = front_ends.spawn(front_end::serve(listener, live.clone(), disconnect));

    let ciphers = cipher.of_stream();
    let datagrams = cipher.of_datagrams(transport);
    let wanted = !datagrams.is_empty();
    let dialer = Dialer::new(profile.clone(), profiles.clone(), MARK_DEFAULT, ciphers);
    let mut shared = Shared {
        dialer: dialer.with_early_data(early_data).with_datagrams(datagrams),
        way: Way::new(wanted),
        profile_name: profile.name,
        profiles,
        allow_lan,
        mtu,
        host,
        tun: None,
        pump: None,
        addresses: Vec::new(),
        live,
        surroundings: Surroundings::watch(),
        user: User { disconnects, waiting: Vec::new(), stop: Box::pin(stop) },
    };
    let mut state = State::Connecting;
    let ended = loop {
        shared.live.enter(state.name());
        state = match state {
            State::Connecting => shared.connecting().await,
            State::Connected(dialed) => shared.connected(*dialed).await,
            State::Reconnecting(why, redial) => shared.reconnecting(&why, redial).await,
            State::Disconnecting(link, why) => shared.disconnecting(link, why).await,
            State::Disconnected(ended) => break ended,
        };
    };
    // the next instance can start before whoever asked to disconnect is told
    accept.abort();
    let waiting = shared.release();
    while front_ends.join_next().await.is_some() {}
    for asked in waiting {
        asked.answer(&ended).await;
    }
    ended
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
