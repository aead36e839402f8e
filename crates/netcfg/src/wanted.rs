//! The wanted state of the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Kept;

/// The mark of the client's own sockets to the gateway (`SO_MARK`), which keeps them out of the
/// tunnel (A11).
pub const MARK_DEFAULT: u32 = 0x6377;

/// The routing table that leads into the tunnel.
pub const TABLE_DEFAULT: u32 = 25_463;

/// How many connections a client may have at a time: more than busy programs need, and few enough that
/// several clients together do not fill the kernel's table, 65,536 on a small machine.
pub const CONNECTIONS_EACH_DEFAULT: u32 = 4_096;

/// Everything into the tunnel: the two halves of each address family, which leave the host's own
/// default route in place (A11).
#[must_use]
pub fn default_routes() -> Vec<IpNet> {
    vec![
        Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 1).into(),
        Ipv4Net::new_assert(Ipv4Addr::new(128, 0, 0, 0), 1).into(),
        Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 1).into(),
        Ipv6Net::new_assert(Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0), 1).into(),
    ]
}

/// Which side of the tunnel this host is. Each has its own journal, packet filter table and rules,
/// so that one host can be both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The host whose traffic goes into the tunnel.
    Client,
    /// The host through which the traffic of the clients reaches the internet.
    Gateway,
}

/// The whole wanted state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A client's settings.
    Client(ClientNetwork),
    /// A gateway's settings.
    Gateway(GatewayNetwork),
}

/// What a client's host should look like while it is connected (A11, A12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientNetwork {
    /// The name of the TUN device, which exists already.
    pub interface: String,
    /// The inner addresses, each with the length of the inner network's prefix or as a single host.
    pub addresses: Vec<IpNet>,
    /// The MTU of the TUN device, in bytes.
    pub mtu: u32,
    /// The mark of the client's own sockets to the gateway; [`MARK_DEFAULT`].
    pub mark: u32,
    /// The number of the routing table to use; [`TABLE_DEFAULT`].
    pub table: u32,
    /// What goes into the tunnel; [`default_routes`].
    pub routes: Vec<IpNet>,
    /// Whether private and link-local networks stay reachable outside the tunnel.
    pub allow_lan: bool,
    /// Networks that stay outside the tunnel, although `routes` hold them (split by network); never
    /// the inner network.
    pub direct: Vec<IpNet>,
    /// TCP connections that stay outside the tunnel (ssh).
    pub keep: Vec<Kept>,
    /// The DNS servers, inside the tunnel; empty leaves the host's DNS as it is.
    pub dns: Vec<IpAddr>,
}

/// What a gateway's host should look like while it serves (A10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayNetwork {
    /// The name of the TUN device, which exists already.
    pub interface: String,
    /// The gateway's inner addresses; clients reach DNS and echo there.
    pub addresses: Vec<IpNet>,
    /// The MTU of the TUN device, in bytes.
    pub mtu: u32,
    /// The inside networks, from which the clients' addresses come.
    pub networks: Vec<IpNet>,
    /// The interface that leads to the internet; `None` is whatever interface the host's routes
    /// choose, other than the TUN device.
    pub uplink: Option<String>,
    /// Private networks, reachable through the gateway, that clients may reach.
    pub allow_private: Vec<IpNet>,
    /// The TCP ports on which the gateway accepts clients.
    pub listen_tcp: Vec<u16>,
    /// The UDP ports on which it takes their datagrams.
    pub listen_udp: Vec<RangeInclusive<u16>>,
    /// The TCP ports of services on its inner addresses, beside DNS, that clients may reach.
    pub inside_tcp: Vec<u16>,
    /// How many connections each client may have through the gateway at a time, and as many to it;
    /// none: any number. [`CONNECTIONS_EACH_DEFAULT`].
    pub connections_each: Option<u32>,
    /// Whether the gateway has IPv6 to the internet. Where it has none, IPv6 from inside is refused
    /// at once with an ICMPv6 error.
    pub ipv6_uplink: bool,
}
