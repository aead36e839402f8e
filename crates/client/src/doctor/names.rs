//! What the DNS servers say of the gateway's names.

use std::net::IpAddr;

use cipherwall_transport::resolver::{Opinion, ResolveError, Resolver, ServerError};

/// What is said of one name.
#[derive(Debug)]
pub(super) struct NameSeen {
    /// The name.
    pub(super) host: String,
    /// Of each server; empty where nobody had to be asked.
    pub(super) opinions: Vec<Opinion>,
    /// What it leads to: all addresses that were given.
    pub(super) addresses: Vec<IpAddr>,
    /// Why nobody could be asked.
    pub(super) error: Option<ResolveError>,
}

impl NameSeen {
    /// Asks all servers.
    pub(super) async fn look(resolver: &Resolver, host: &str) -> Self {
        let (opinions, known, error) = match resolver.known(host) {
            Some(addresses) => (Vec::new(), addresses, None),
            None => match resolver.opinions(host).await {
                Ok(opinions) => (opinions, Vec::new(), None),
                Err(error) => (Vec::new(), Vec::new(), Some(error)),
            },
        };
        let mut addresses = known;
        for address in
            opinions.iter().filter_map(|opinion| opinion.addresses.as_ref().ok()).flatten()
        {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        Self { host: host.to_owned(), opinions, addresses, error }
    }

    /// Whether a server knows that there is no address.
    pub(super) fn is_denied(&self) -> bool {
        let denied = |opinion: &Opinion| matches!(opinion.addresses, Err(ServerError::NotFound));
        self.addresses.is_empty() && self.opinions.iter().any(denied)
    }

    /// Whether one of these servers was heard of at all, of whatever kind its answer was.
    pub(super) fn is_answered_by(&self, servers: impl Fn(IpAddr) -> bool) -> bool {
        let opinions = self.opinions.iter().filter(|opinion| servers(opinion.server.ip()));
        opinions.map(|opinion| &opinion.addresses).any(|answer| match answer {
            Ok(_) | Err(ServerError::NotFound | ServerError::Refused(_)) => true,
            Err(ServerError::Silent | ServerError::Unreachable(_)) => false,
        })
    }

    /// Each server with what it said.
    pub(super) fn describe(&self) -> String {
        if let Some(error) = &self.error {
            return error.to_string();
        }
        if self.opinions.is_empty() {
            return format!("{} is written down on this computer", self.host);
        }
        let describe = |opinion: &Opinion| match &opinion.addresses {
            Ok(addresses) => format!("{} says {}", opinion.server, list(addresses)),
            Err(error) => format!("the DNS server {} {error}", opinion.server),
        };
        let opinions: Vec<_> = self.opinions.iter().map(describe).collect();
        format!("{}: {}", self.host, opinions.join("; "))
    }
}

/// Separated by commas.
pub(super) fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
