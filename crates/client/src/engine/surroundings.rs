//! What changes around this program and may have cut its connection, or made another one possible.

use std::{net::IpAddr, time::Duration};

use cipherwall_netcfg::{MARK_DEFAULT, NetworkPath, NetworkWatch};

use super::wake::WakeWatch;

/// Watches the network and the clocks of this computer.
pub(crate) struct Surroundings {
    network: Option<NetworkWatch>,
    wake: Option<WakeWatch>,
}

/// What was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A link, an address or a route; see [`Surroundings::paths`].
    Network,
    /// The end of a sleep of this length.
    Woke(Duration),
}

/// The paths to some addresses, in their order.
pub(crate) type Paths = Vec<Option<NetworkPath>>;

impl Surroundings {
    /// Watches from now on; what cannot be watched is reported and done without.
    pub(crate) fn watch() -> Self {
        let network = NetworkWatch::open();
        if let Err(error) = &network {
            tracing::warn!(%error, "changes of the network will be noticed late");
        }
        let wake = WakeWatch::start();
        if let Err(error) = &wake {
            tracing::warn!(%error, "the end of a sleep will be noticed late");
        }
        Self { network: network.ok(), wake: wake.ok() }
    }

    /// Waits for the next change. May be dropped and called again.
    pub(crate) async fn changed(&mut self) -> Change {
        let network = async {
            match &mut self.network {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        let wake = async {
            match &mut self.wake {
                Some(watch) => watch.woke().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = network => Change::Network,
            asleep = wake => Change::Woke(asleep),
        }
    }

    /// How packets of the tunnel's own connection get to these addresses now.
    pub(crate) async fn paths(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Paths {
        let mut paths = Vec::new();
        if let Some(watch) = &self.network {
            for address in addresses {
                paths.push(watch.path(address, MARK_DEFAULT).await);
            }
        }
        paths
    }

    /// The network that leads to the first of these addresses that can be reached: the path, and the
    /// hardware address of its router, where that is known.
    pub(crate) async fn network(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Option<(NetworkPath, Option<Vec<u8>>)> {
        let watch = self.network.as_ref()?;
        for address in addresses {
            if let Some(path) = watch.path(address, MARK_DEFAULT).await {
                let router = watch.router_hardware(&path).await;
                return Some((path, router));
            }
        }
        None
    }
}
