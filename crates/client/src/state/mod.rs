//! The states of the connection, one file each.
//!
//! ```text
//!  connecting ──► connected ◄──► reconnecting
//!      │              │               │
//!      ▼              ▼               ▼
//!      └────────► disconnecting ◄─────┘ ──► disconnected
//! ```
//!
//! Each is a method of [`Context`] that runs until it is over and names the next one.

mod connected;
mod connecting;
mod disconnecting;
mod reconnecting;
mod redial;
mod way;

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use cipherwall_ipc::daemon;
use cipherwall_netcfg::Host;
use cipherwall_proto::invitation::Endpoint;
use cipherwall_transport::tunnel::Link;
use cipherwall_tun::Device;
use tokio::sync::mpsc;

use redial::Redial;
pub(crate) use way::Way;

use crate::{
    dial::{Dialed, Dialer},
    engine::{Asked, Live, Pump, Surroundings},
    profile::Profiles,
};

/// Where a gateway can be reached.
pub(crate) type Addresses = Vec<(Endpoint, SocketAddr)>;

/// A state, with what it begins with.
pub(crate) enum State {
    /// On the way to the first connection.
    Connecting,
    /// A connection is there.
    Connected(Box<Dialed>),
    /// The connection was lost, for this reason; with the tries that are under way already.
    Reconnecting(String, Option<Box<Redial>>),
    /// Taking everything back; with an error if it was not the user who wanted it.
    Disconnecting(Option<Box<Link>>, anyhow::Result<()>),
    /// Over, and how.
    Disconnected(anyhow::Result<()>),
}

impl State {
    /// As front ends know it.
    pub(crate) fn name(&self) -> daemon::State {
        match self {
            State::Connecting => daemon::State::Connecting,
            State::Connected(_) => daemon::State::Connected,
            State::Reconnecting(..) => daemon::State::Reconnecting,
            State::Disconnecting(..) => daemon::State::Disconnecting,
            State::Disconnected(_) => daemon::State::Disconnected,
        }
    }
}

/// What the states have in common.
pub(crate) struct Context<'a> {
    /// Opens connections.
    pub(crate) dialer: Dialer,
    /// The profile in use.
    pub(crate) profile_name: String,
    /// Where the profile is kept.
    pub(crate) profiles: Profiles,
    /// Whether the local network stays reachable.
    pub(crate) allow_lan: bool,
    /// Instead of the gateway's MTU, in bytes.
    pub(crate) mtu: Option<u16>,
    /// The host settings.
    pub(crate) host: Host,
    /// The tunnel's device, from the first connection on.
    pub(crate) tun: Option<Arc<Device>>,
    /// What moves packets from there to the gateway, or keeps them for its next connection.
    pub(crate) pump: Option<Pump>,
    /// Where the gateway can be reached, as known before the tunnel was up: while it is down,
    /// names cannot be resolved.
    pub(crate) addresses: Addresses,
    /// What carries packets.
    pub(crate) way: Way,
    /// What front ends are shown.
    pub(crate) live: Live,
    /// What may cut the connection or bring it back.
    pub(crate) surroundings: Surroundings,
    /// Who may want to end it.
    pub(crate) user: User<'a>,
}

/// Whoever may want to end the connection.
pub(crate) struct User<'a> {
    /// Front ends that want to disconnect.
    pub(crate) disconnects: mpsc::Receiver<Asked>,
    /// Those that wait for the end of it.
    pub(crate) waiting: Vec<Asked>,
    /// Resolves when the process shall end.
    pub(crate) stop: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl Context<'_> {
    /// Gives up what the process holds, and hands out who waits for that.
    pub(crate) fn release(self) -> Vec<Asked> {
        self.user.waiting
    }
}

impl User<'_> {
    /// Waits until the user wants to end the connection. May be dropped and called again.
    async fn asked_to_stop(&mut self) {
        tokio::select! {
            () = &mut self.stop => {}
            Some(asked) = self.disconnects.recv() => self.waiting.push(asked),
        }
    }
}
