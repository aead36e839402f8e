//! The packet policy: which packets may leave and enter this host now (A13, C2).
//!
//! `docs/security.md` says what may flow in each state of the client, and why; this is the data of
//! it. The client makes one [`Policy`] for each state and gives it to
//! [`Host::protect`](crate::Host::protect).

use std::net::SocketAddr;

use ipnet::IpNet;

/// Everything that is not named here is refused: from this host, to it, and through it.
///
/// Always allowed are loopback, DHCP as a client, neighbour and router discovery, and the
/// membership reports of multicast. Nothing is allowed merely because its connection is older than
/// the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The mark of the client's own sockets; [`MARK_DEFAULT`](crate::MARK_DEFAULT).
    pub mark: u32,
    /// Where marked sockets may connect to. Other programs may not, even to the same place.
    pub gateways: Vec<Opening>,
    /// The name of the TUN device, which may be absent. Open both ways, also for what this host
    /// forwards.
    pub tunnel: Option<String>,
    /// Whether private and link-local networks, and local multicast, may be reached and may reach
    /// this host. Their DNS servers (ports 53 and 853) may not be asked even then.
    pub allow_lan: bool,
    /// Whether marked sockets may ask DNS servers anywhere (port 53): while a name of the gateway
    /// has to be found.
    pub resolvers: bool,
    /// Whether programs may use DNS, and TCP ports 80 and 443, outside: to log in to a captive
    /// portal.
    pub portal: bool,
    /// Networks that programs reach outside the tunnel, except for DNS (split by network).
    pub direct: Vec<IpNet>,
    /// TCP connections that go on outside the tunnel (ssh).
    pub keep: Vec<Kept>,
}

/// A place of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Opening {
    /// Address and port.
    pub address: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
}

/// The protocol of an [`Opening`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// An established TCP connection, by both its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kept {
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}
