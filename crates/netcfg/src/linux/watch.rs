//! Which way packets take to a destination, and when that may have changed.
//!
//! The client compares the [`NetworkPath`] to its gateway before and after: what does not change it, as
//! our own TUN device and routes, or other programs' interfaces, is of no interest.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        link::{LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};

use tokio::time::{Instant, sleep_until};

use crate::Error;

/// Changes come in bursts: a link that comes up gets addresses, then routes.
const QUIET: Duration = Duration::from_millis(50);
/// A burst without an end is reported all the same.
const BURST_MAX: Duration = Duration::from_millis(250);

/// How this host's packets get to a destination. Two that are equal are one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPath {
    /// The index of the interface that they leave by.
    pub interface: u32,
    /// The router that they go to, if it is not their destination itself.
    pub router: Option<IpAddr>,
    /// The source address that they get.
    pub source: Option<IpAddr>,
    /// Whether the interface is up and has a carrier.
    pub carrier: bool,
}

/// Watches links, addresses and routes of both families.
pub struct NetworkWatch {
    handle: Handle,
    changes: BoxStream<'static, ()>,
    /// The changes that are not reported yet.
    burst: Option<Burst>,
}

#[derive(Debug, Clone, Copy)]
struct Burst {
    quiet_at: Instant,
    end_at: Instant,
}

impl NetworkWatch {
    /// Watches from now on. Needs a tokio runtime, no privileges.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open() -> Result<NetworkWatch, Error> {
        let failed = |error: std::io::Error| Error::Netlink {
            what: "watch the network".into(),
            detail: error.to_string(),
        };
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(failed)?;
        tokio::spawn(connection);
        // requests have a connection of their own: their answers do not wait behind a burst
        let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
        tokio::spawn(connection);
        // whatever the message, and if some were lost: it is looked up how things are
        Ok(NetworkWatch { handle, changes: messages.map(drop).boxed(), burst: None })
    }

    /// Waits until something has changed and things are quiet again, 250 ms at the most. May be
    /// dropped and called again: nothing is forgotten.
    pub async fn changed(&mut self) {
        loop {
            let over_at = self.burst.map(|burst| burst.quiet_at.min(burst.end_at));
            let over = async {
                match over_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = self.changes.next() => {
                    if change.is_none() {
                        // the kernel hung up; there is nothing to be told any more
                        return std::future::pending().await;
                    }
                    let now = Instant::now();
                    let end_at = self.burst.map_or(now + BURST_MAX, |burst| burst.end_at);
                    self.burst = Some(Burst { quiet_at: now + QUIET, end_at });
                }
                () = over => {
                    self.burst = None;
                    return;
                }
            }
        }
    }

    /// The path to `destination` for packets with this mark; `None` if there is none.
    pub async fn path(&self, destination: IpAddr, mark: u32) -> Option<NetworkPath> {
        let mut message = match destination {
            IpAddr::V4(to) => {
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).build()
            }
            IpAddr::V6(to) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128).build()
            }
        };
        message.header.table = 0;
        message.attributes.push(RouteAttribute::Mark(mark));
        let route: RouteMessage =
            self.handle.route().get(message).execute().try_next().await.ok()??;
        let mut path = path(&route)?;
        let links = self.handle.link().get().match_index(path.interface).execute();
        let link: Option<LinkMessage> = links.boxed().try_next().await.ok()?;
        path.carrier =
            link.is_some_and(|link| link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp));
        Some(path)
    }

    /// The hardware address of a path's router, by which a network can be told from another one
    /// with the same addresses; `None` while this host does not know it.
    pub async fn router_hardware(&self, path: &NetworkPath) -> Option<Vec<u8>> {
        let router = path.router?;
        let mut all = self.handle.neighbours().get().execute().boxed();
        while let Ok(Some(neighbour)) = all.try_next().await {
            if neighbour.header.ifindex == path.interface
                && let Some(hardware) = hardware_of(&neighbour, router)
            {
                return Some(hardware);
            }
        }
        None
    }
}

impl std::fmt::Debug for NetworkWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkWatch").finish_non_exhaustive()
    }
}

/// What a route says; `None` if it refuses.
fn path(route: &RouteMessage) -> Option<NetworkPath> {
    let (mut interface, mut router, mut source) = (None, None, None);
    for attribute in &route.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            interface = Some(*index);
        } else if let RouteAttribute::Gateway(address) = attribute {
            router = ip(address);
        } else if let RouteAttribute::PrefSource(address) = attribute {
            source = ip(address);
        }
    }
    Some(NetworkPath { interface: interface?, router, source, carrier: false })
}

/// The hardware address of this neighbour, if it is the one that is asked for.
fn hardware_of(neighbour: &NeighbourMessage, address: IpAddr) -> Option<Vec<u8>> {
    let (mut is_it, mut hardware) = (false, None);
    for attribute in &neighbour.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) = attribute {
            is_it = IpAddr::V4(*v4) == address;
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) = attribute {
            is_it = IpAddr::V6(*v6) == address;
        } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            hardware = Some(bytes.clone());
        }
    }
    hardware.filter(|_| is_it)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(v4) = address {
        Some((*v4).into())
    } else if let RouteAddress::Inet6(v6) = address {
        Some((*v6).into())
    } else {
        None
    }
}
