//! Clients that come over KCP (A20): the sockets for them, and how many may be there that have not
//! logged in. What they say is served as what comes over TCP is ([`crate::visitor`]), only that a
//! stranger gets no answer at all, not even the web site.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use cipherwall_proto::keys::DoorKey;
use cipherwall_transport::{
    kcp::Gate,
    socket::{ListenError, SocketFactory},
    udp::UdpSocket,
};

use crate::{
    config::{Config, Limits},
    gateway::Gateway,
    places::Places,
    visitor,
};

/// Conversations before log-in, and how many of them from one network (design 3.10).
const CONVERSATIONS: u32 = 1_024;
const CONVERSATIONS_PER_ADDRESS: u32 = 16;
/// Pause after a failure to receive.
const PAUSE: Duration = Duration::from_millis(100);

/// What the sockets for KCP have in common.
pub struct Kcp {
    port: u16,
    gate: Arc<Gate>,
    places: Arc<Places>,
}

impl Kcp {
    /// As configured; `None` if it is off.
    pub fn new(config: &Config) -> Option<Self> {
        let port = config.kcp_port()?;
        let bounds = Limits {
            connections: CONVERSATIONS.min(config.limits.connections),
            connections_per_address: CONVERSATIONS_PER_ADDRESS
                .min(config.limits.connections_per_address),
            ..config.limits
        };
        Some(Self { port, gate: Gate::new(), places: Places::new(bounds) })
    }

    /// A socket on each address that the gateway listens on.
    ///
    /// # Errors
    /// The port is taken, or an address is not of this machine.
    pub fn listen(&self, config: &Config) -> Result<Vec<UdpSocket>, ListenError> {
        let addresses: BTreeSet<IpAddr> = config.listen.iter().map(SocketAddr::ip).collect();
        let all = addresses.into_iter().map(|address| SocketAddr::new(address, self.port));
        all.map(|address| SocketFactory::default().udp_listen(address)).collect()
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Receives for as long as the gateway runs.
pub(crate) async fn receive(gateway: Arc<Gateway>, socket: Arc<UdpSocket>) {
    let Some(kcp) = &gateway.kcp else { return };
    let keys = gateway.accounts.door_keys();
    kcp.gate.set_keys([Some(keys.current), keys.previous].into_iter().flatten().map(DoorKey));
    loop {
        let admit = |peer: SocketAddr| kcp.places.take(peer.ip());
        let received = kcp.gate.receive(&socket, admit, |carrier, peer, (place, shed)| {
            gateway.lobby.spawn(visitor::serve(gateway.clone(), carrier, peer, place, shed));
        });
        if let Err(error) = received.await {
            tracing::warn!(%error, "cannot receive datagrams of KCP");
            tokio::time::sleep(PAUSE).await;
        }
        tokio::task::yield_now().await;
    }
}
