//! Accepts connections, and bounds how many there may be before they have logged in
//! (docs/protocol.md, "Bounds before authentication").

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::net::TcpListener;

use crate::{config::Limits, gateway::Gateway, visitor};

/// Accepts connections for as long as the gateway runs.
pub async fn run(listener: TcpListener, gateway: Arc<Gateway>) {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let Some(place) = gateway.places.take(peer.ip()) else {
                    tracing::debug!(%peer, "too many connections that have not logged in");
                    continue;
                };
                tokio::spawn(visitor::serve(gateway.clone(), tcp, peer, place));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // too many open files, most likely; they do not go away at once
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Places for connections that have not logged in.
pub struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: u32,
    by_network: HashMap<IpAddr, u32>,
}

/// One such place, given back when dropped.
pub struct Place {
    places: Arc<Places>,
    network: IpAddr,
}

impl Places {
    /// With these bounds.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// A place for a connection from this address, if one is left.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let here = taken.by_network.get(&network).copied().unwrap_or(0);
        if taken.all >= self.limits.connections || here >= self.limits.connections_per_address {
            return None;
        }
        taken.all += 1;
        taken.by_network.insert(network, here + 1);
        Some(Place { places: self.clone(), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(here) = taken.by_network.get_mut(&self.network) {
            *here -= 1;
            if *here == 0 {
                taken.by_network.remove(&self.network);
            }
        }
    }
}

/// Whom an address is counted with: itself, or its /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_bounded_by_network_and_in_all_and_come_back() {
        let limits = Limits { connections: 4, connections_per_address: 2, ..Limits::default() };
        let places = Places::new(limits);
        let first = places.take(ip("192.0.2.1")).unwrap();
        let _second = places.take(ip("192.0.2.1")).unwrap();
        assert!(places.take(ip("192.0.2.1")).is_none());
        // addresses of one /64 count as one
        let _third = places.take(ip("2001:db8::1")).unwrap();
        let _fourth = places.take(ip("2001:db8::ffff")).unwrap();
        assert!(places.take(ip("192.0.2.2")).is_none(), "all are taken");
        drop(first);
        assert!(places.take(ip("2001:db8::2")).is_none());
        assert!(places.take(ip("192.0.2.1")).is_some());
    }
}
