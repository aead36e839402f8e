//! Whether packets have a way out of this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cipherwall_netcfg::{NetworkPath, NetworkWatch};
use rustix::net::{AddressFamily, SocketType, netdevice::index_to_name, socket};

/// Addresses of which no network has a route of its own (RFC 5737, RFC 3849), to ask the kernel for
/// the way to the internet. Nothing is sent there.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The ways to the internet that this host has.
#[derive(Debug)]
pub(super) struct NetworkSeen {
    ways: Vec<NetworkPath>,
}

impl NetworkSeen {
    /// For packets with this mark. `None` if the kernel does not tell.
    pub(super) async fn look(mark: u32, gateways: &[IpAddr]) -> Option<Self> {
        let watch = NetworkWatch::open().ok()?;
        let mut ways = Vec::new();
        for address in gateways.iter().chain(&ANYWHERE) {
            ways.extend(watch.path(*address, mark).await);
        }
        Some(Self { ways })
    }

    /// What is wrong.
    pub(super) fn problem(&self) -> Option<String> {
        let Some(first) = self.ways.first() else {
            return Some("this computer has no route to the internet: no network is set up".into());
        };
        if self.ways.iter().any(|way| way.carrier) {
            return None;
        }
        Some(format!("the interface {} is down or has no carrier", name(first.interface)))
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let way = self.ways.iter().find(|way| way.carrier).or(self.ways.first());
        let Some(way) = way else { return "no route".into() };
        match way.router {
            Some(router) => format!("by {} over the router {router}", name(way.interface)),
            None => format!("by {}", name(way.interface)),
        }
    }
}

fn name(interface: u32) -> String {
    let name = || {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
        index_to_name(socket, interface).ok()
    };
    name().unwrap_or_else(|| format!("number {interface}"))
}
