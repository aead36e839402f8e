//! The states of the client, one file each.
//!
//! ```text
//!  disconnected ──► connecting ──► connected ◄──► reconnecting
//!    ▲     │  ▲         │              │               │
//!    │     ▼  │         └──────────────┼───────────────┘
//!  blocked    │                        ▼
//!    ▲        └────────────────── disconnecting
//!    └─────────────────────────────────┘
//! ```
//!
//! Those of a session are methods of [`Context`] that run until they are over and name the next one.
//! Disconnected and blocked, in which the daemon rests, are methods of
//! [`Service`].

mod blocked;
mod climb;
mod connected;
mod connecting;
mod disconnected;
mod disconnecting;
mod race;
mod reconnecting;
mod redial;
mod way;

use std::{net::SocketAddr, pin::pin, sync::Arc};

use anyhow::anyhow;
use cipherwall_cli::{Failure, code_of};
use cipherwall_ipc::daemon;
use cipherwall_netcfg::{Opening, Protocol};
use cipherwall_proto::invitation::Transport;
use cipherwall_transport::tunnel::Link;
use cipherwall_tun::Device;

pub(crate) use disconnected::Next;
use redial::Redial;
pub(crate) use way::Way;

use crate::{
    dial::{Address, Dialed, Dialer, Found},
    engine::{Live, Order, Pump, Service, Surroundings, Wanted, Wish, opening},
    profile::{Network, Profiles},
};

/// Where a gateway can be reached.
pub(crate) type Addresses = Vec<Address>;

/// A state, with what it begins with.
pub(crate) enum State {
    /// On the way to the first connection.
    Connecting,
    /// A connection is there.
    Connected(Box<Dialed>),
    /// The connection was lost, for this reason; with the tries that are under way already.
    Reconnecting(String, Option<Box<Redial>>),
    /// Taking everything back, and why.
    Disconnecting(Option<Box<Link>>, Over),
    /// The session is over, and why.
    Over(Over),
}

/// Why a session ends.
#[derive(Debug)]
pub(crate) enum Over {
    /// Somebody wants it.
    Order(Order),
    /// It cannot go on.
    Failed(anyhow::Error),
}

impl Over {
    /// For whoever waits for the connection.
    pub(crate) fn why(&self) -> anyhow::Error {
        match self {
            Over::Failed(error) => again(error),
            Over::Order(Order::Disconnect) => anyhow!("somebody has disconnected meanwhile"),
            Over::Order(Order::Connect(_)) => anyhow!("somebody connects in another way"),
            Over::Order(Order::Quit) => anyhow!("the daemon is being stopped"),
        }
    }
}

/// The same message and exit code.
fn again(error: &anyhow::Error) -> anyhow::Error {
    Failure::new(code_of(error), format!("{error:#}")).into()
}

impl State {
    /// As front ends are told from its beginning on: of a connection once it can be used.
    pub(crate) fn name(&self) -> Option<daemon::State> {
        match self {
            State::Connecting => Some(daemon::State::Connecting),
            State::Reconnecting(..) => Some(daemon::State::Reconnecting),
            State::Disconnecting(..) => Some(daemon::State::Disconnecting),
            State::Connected(_) | State::Over(_) => None,
        }
    }

    /// The end that somebody wants.
    fn ordered(order: Order) -> State {
        State::Disconnecting(None, Over::Order(order))
    }

    fn failed(error: anyhow::Error) -> State {
        State::Disconnecting(None, Over::Failed(error))
    }
}

/// What the states of a session have in common.
pub(crate) struct Context<'a> {
    /// The host, the user, and all else that outlives the session.
    pub(crate) service: &'a mut Service,
    /// What the session is to be like.
    pub(crate) wanted: Wanted,
    /// Opens connections.
    pub(crate) dialer: Dialer,
    /// Where the profile is kept.
    pub(crate) profiles: Profiles,
    /// The tunnel's device, from the first connection on.
    pub(crate) tun: Option<Arc<Device>>,
    /// What moves packets from there to the gateway, or keeps them for its next connection.
    pub(crate) pump: Option<Pump>,
    /// Where the gateway can be reached, as known last.
    pub(crate) addresses: Addresses,
    /// The address that worked last.
    pub(crate) good: Option<SocketAddr>,
    /// What carries packets.
    pub(crate) way: Way,
    /// What front ends are shown.
    pub(crate) live: Live,
    /// What may cut the connection or bring it back.
    pub(crate) surroundings: Surroundings,
}

impl Context<'_> {
    /// Does what somebody wants, or says what ends the session.
    async fn heed(&mut self, wish: Wish) -> Option<Order> {
        self.service.heed(wish).await
    }

    /// Does the work, unless somebody wants an end of the session before it is done.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Order> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                wish = self.service.wish() => {
                    if let Some(order) = self.heed(wish).await {
                        return Err(order);
                    }
                }
            }
        }
    }

    /// Our own sockets may go to the gateway, as far as it is known where that is.
    fn gateways(&self) -> Vec<Opening> {
        let open = |(endpoint, address): &Address| {
            let protocol = match endpoint.transport {
                Transport::Tls => Protocol::Tcp,
                Transport::Kcp => Protocol::Udp,
            };
            opening(*address, protocol)
        };
        let mut all: Vec<_> = self.addresses.iter().map(open).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What names lead to now; whether there are addresses that were not known.
    async fn learn(&mut self, found: Found) -> bool {
        let before = self.gateways();
        let known = match self.dialer.known(found, &self.addresses, self.good) {
            Ok(known) => known,
            Err(error) => {
                tracing::info!(%error, "the gateway's names");
                self.addresses.clone()
            }
        };
        let is_new = known.iter().any(|address| !self.addresses.contains(address));
        self.addresses = known;
        let mut gateways = self.gateways();
        let changed = self.service.protection.flow(|flow| {
            // those of datagrams
            let others = flow.gateways.iter().filter(|it| !before.contains(it));
            gateways.extend(others.copied());
            gateways.sort_unstable();
            gateways.dedup();
            flow.gateways = gateways;
            flow.resolvers = false;
        });
        if let Err(error) = changed.await {
            tracing::error!("{error:#}");
        }
        is_new
    }

    /// What is known of the ways to the gateway is that of the network where this host is now.
    async fn look_at_network(&self) {
        let addresses = self.addresses.iter().map(|(_, address)| address.ip());
        if let Some((path, router)) = self.surroundings.network(addresses).await {
            let network = Network::new(self.dialer.profile(), &path, router.as_deref());
            self.dialer.rungs().enter(network);
        }
    }
}
