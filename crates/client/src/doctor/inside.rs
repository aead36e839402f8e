//! A connection that is there: whether it leads anywhere.

use std::{fs, net::SocketAddr};

use cipherwall_transport::{resolver::Resolver, socket::SocketFactory};

use super::{
    names::NameSeen,
    portal::{self, PROBE_NAME, Portal},
};

const RESOLVER_PATH: &str = "/etc/resolv.conf";

/// How programs on this host see the world through the tunnel.
#[derive(Debug)]
pub(super) struct InsideSeen {
    /// What the resolvers of the tunnel say of the name that is probed.
    pub(super) name: NameSeen,
    /// What answers under that name.
    pub(super) page: Portal,
}

impl InsideSeen {
    /// As any program does it: by sockets without a mark, with the servers of the resolver file.
    pub(super) async fn look() -> Self {
        let sockets = SocketFactory::default();
        let resolver = Resolver::new(sockets, servers());
        let (name, page) =
            tokio::join!(NameSeen::look(&resolver, PROBE_NAME), portal::probe(&resolver, &sockets));
        Self { name, page }
    }
}

/// Those that programs are told to ask.
pub(crate) fn servers() -> Vec<SocketAddr> {
    let text = fs::read_to_string(RESOLVER_PATH).unwrap_or_default();
    let server = |line: &str| {
        let address = line.trim().strip_prefix("nameserver")?.trim();
        Some(SocketAddr::new(address.parse().ok()?, 53))
    };
    text.lines().filter_map(server).collect()
}
