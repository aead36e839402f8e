//! Where the rungs of a profile lead to: addresses of names (A23).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use cipherwall_proto::invitation::Endpoint;
use tokio::time::timeout;

use super::{Address, DialError, Dialer};

/// How long a name may take to resolve.
const RESOLVE_TIME: Duration = Duration::from_secs(5);
/// How many addresses that worked earlier are tried beside those that the names have now.
const LAST_GOOD: usize = 2;

impl Dialer {
    /// Whether names have to be asked for to know all addresses.
    pub(crate) fn has_names(&self) -> bool {
        self.profile.endpoints.iter().any(|endpoint| endpoint.host.parse::<IpAddr>().is_err())
    }

    /// The addresses of the profile's rungs, best first. Names that cannot be resolved are replaced
    /// by the addresses that worked last.
    pub(crate) async fn resolve(&self) -> Result<Vec<Address>, DialError> {
        let mut found: Vec<Address> = Vec::new();
        let mut names: Vec<(&str, Option<Vec<IpAddr>>)> = Vec::new();
        let mut failed = None;
        for endpoint in &self.profile.endpoints {
            // one name may be that of many rungs
            let known = names.iter().find(|(host, _)| *host == endpoint.host);
            let addresses = match known {
                Some((_, known)) => known.clone(),
                None => {
                    let answer = self.lookup(&endpoint.host).await;
                    let addresses = answer.map_err(|cause| {
                        let host = endpoint.host.clone();
                        failed.get_or_insert(DialError::Resolve { host, cause });
                    });
                    names.push((&endpoint.host, addresses.clone().ok()));
                    addresses.ok()
                }
            };
            match addresses {
                Some(addresses) => found.extend(
                    addresses
                        .into_iter()
                        .map(|address| (endpoint.clone(), SocketAddr::new(address, endpoint.port))),
                ),
                None => found.extend(self.last_good(endpoint)),
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            Some(_) | None => Ok(found),
        }
    }

    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        match (host.parse::<IpAddr>(), &self.resolver) {
            (Ok(address), _) => Ok(vec![address]),
            (Err(_), Some(resolver)) => resolver.addresses(host).await.map_err(io::Error::other),
            (Err(_), None) => {
                let found = timeout(RESOLVE_TIME, tokio::net::lookup_host((host, 0))).await;
                let found = found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                Ok(found.map(|address| address.ip()).collect())
            }
        }
    }

    /// The same addresses and, in case that a name leads elsewhere now, the last good ones.
    pub(crate) fn with_last_good(&self, mut addresses: Vec<Address>) -> Vec<Address> {
        for endpoint in &self.profile.endpoints {
            for (endpoint, good) in self.last_good(endpoint).take(LAST_GOOD) {
                let is_others = |(other, address): &Address| {
                    *address == good && (*other == endpoint || other.pins != endpoint.pins)
                };
                if !addresses.iter().any(is_others) {
                    addresses.push((endpoint, good));
                }
            }
        }
        addresses
    }

    /// Those with the port of this rung, if it goes by a name. Another gateway's may be among them:
    /// its key tells.
    fn last_good(&self, endpoint: &Endpoint) -> impl Iterator<Item = Address> + use<> {
        let is_name = endpoint.host.parse::<IpAddr>().is_err();
        let good = self.profile.last_good_addresses.clone().into_iter();
        let (endpoint, port) = (endpoint.clone(), endpoint.port);
        good.filter(move |address| is_name && address.port() == port)
            .map(move |address| (endpoint.clone(), address))
    }
}
