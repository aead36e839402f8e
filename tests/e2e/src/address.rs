//! The addresses of the laboratory (documentation ranges, where the address has to be public).

use std::net::{Ipv4Addr, Ipv6Addr};

/// The gateway's public address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The gateway's public IPv6 address, if it has one.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);
/// Another gateway, where a test adds one.
pub const SECOND_GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 2);
/// The web host, `www.lab.test`.
pub const WEB: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
/// The web host over IPv6.
pub const WEB_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 0x80);
/// The DNS server of this internet (on the web host); the gateway's resolver.
pub const DNS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// What the internet sees of every client: the carrier's NAT address.
pub const CARRIER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// A host in the private network behind the gateway.
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// A cloud provider's metadata service, on the same host.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The gateway's address inside the tunnel, which is the clients' resolver.
pub const INNER_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

/// The address of a client (from 0) in its home network.
pub fn client(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, index + 1, 2)
}

/// A client's router in the home network, which is its resolver as well.
pub fn router(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, index + 1, 1)
}

/// The global IPv6 address of a client (from 0), if clients have IPv6.
pub fn client_v6(index: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xc, u16::from(index) + 1, 0, 0, 0, 2)
}
