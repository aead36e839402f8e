//! Where the rungs of a profile lead to: addresses of names (A23).

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use cipherwall_proto::invitation::Endpoint;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{Address, DialError, Dialer};

/// How long a name may take to resolve.
const RESOLVE_TIME: Duration = Duration::from_secs(5);
/// How long all of them may take, which are asked for at the same time.
pub(crate) const LOOK_UP_TIME: Duration = Duration::from_secs(6);
/// How many addresses that worked earlier are tried beside those that the names have now: a network
/// may answer with wrong ones.
const LAST_GOOD: usize = 2;
/// How many addresses of each family a name may have, as with our own resolver.
const OF_A_FAMILY: usize = 8;

/// What names lead to.
#[derive(Debug, Default)]
pub(crate) struct Found {
    addresses: Vec<Address>,
    /// The endpoints whose names have no address.
    unknown: Vec<Endpoint>,
    /// Why one of them has none.
    error: Option<DialError>,
    /// Whether an answer was not waited for.
    pub(crate) is_cut_short: bool,
}

type Answers = HashMap<String, io::Result<Vec<IpAddr>>>;

impl Dialer {
    /// Whether names have to be asked for to know all addresses.
    pub(crate) fn has_names(&self) -> bool {
        self.profile.endpoints.iter().any(is_named)
    }

    /// Whether some addresses are known without asking for names.
    pub(crate) fn has_addresses(&self) -> bool {
        !self.profile.endpoints.iter().all(is_named)
    }

    /// The addresses of the profile's rungs, best first. Names that cannot be resolved are replaced
    /// by the addresses that worked last.
    pub(crate) async fn resolve(&self) -> Result<Vec<Address>, DialError> {
        self.known(self.look_up(LOOK_UP_TIME).await, &[], None)
    }

    /// Asks for all names at once, but no longer than so.
    pub(crate) async fn look_up(&self, time: Duration) -> Found {
        let names = self.profile.endpoints.iter().filter(|endpoint| is_named(endpoint));
        // one name may be that of many rungs
        let names: BTreeSet<String> = names.map(|endpoint| endpoint.host.clone()).collect();
        let mut asked = JoinSet::new();
        for host in names {
            let dialer = self.clone();
            asked.spawn(async move {
                let answer = dialer.ask_for(&host).await;
                (host, answer)
            });
        }
        let (mut answers, until) = (Answers::new(), Instant::now() + time);
        while let Ok(Some(answer)) = timeout_at(until, asked.join_next()).await {
            answers.extend(answer);
        }
        Found { is_cut_short: !asked.is_empty(), ..self.found(answers) }
    }

    fn found(&self, answers: Answers) -> Found {
        let mut found = Found::default();
        for endpoint in &self.profile.endpoints {
            let (host, port) = (&endpoint.host, endpoint.port);
            let at = |ip: IpAddr| (endpoint.clone(), SocketAddr::new(ip, port));
            if let Ok(literal) = host.parse() {
                found.addresses.push(at(literal));
                continue;
            }
            let cause = match answers.get(host) {
                Some(Ok(ips)) => {
                    found.addresses.extend(ips.iter().copied().map(at));
                    continue;
                }
                Some(Err(error)) => io::Error::new(error.kind(), error.to_string()),
                None => io::ErrorKind::TimedOut.into(),
            };
            self.rungs.unresolved(endpoint, format!("its name has no address: {cause}"));
            found.unknown.push(endpoint.clone());
            found.error.get_or_insert(DialError::Resolve { host: host.clone(), cause });
        }
        found
    }

    async fn ask_for(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Some(resolver) = &self.resolver {
            return resolver.addresses(host).await.map_err(io::Error::other);
        }
        let found = timeout(RESOLVE_TIME, tokio::net::lookup_host((host, 0))).await;
        let found = found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (v6, v4): (Vec<_>, Vec<_>) =
            found.map(|address| address.ip()).partition(IpAddr::is_ipv6);
        Ok([v6, v4].iter().flat_map(|of| of.iter().copied().take(OF_A_FAMILY)).collect())
    }

    /// The addresses to try from now on: what was found; of names that were not, those known
    /// `before`; the one in use; and the last good ones, in case that a name leads elsewhere now.
    /// What else was known before is forgotten.
    ///
    /// # Errors
    /// There is none at all.
    pub(crate) fn known(
        &self,
        found: Found,
        before: &[Address],
        in_use: Option<SocketAddr>,
    ) -> Result<Vec<Address>, DialError> {
        let Found { mut addresses, unknown, error, .. } = found;
        let is_kept = |(endpoint, address): &&Address| {
            unknown.contains(endpoint) || is_named(endpoint) && in_use == Some(*address)
        };
        for kept in before.iter().filter(is_kept) {
            if !addresses.contains(kept) {
                addresses.push(kept.clone());
            }
        }
        let mut good: Vec<IpAddr> = Vec::new();
        for address in in_use.iter().chain(&self.profile.last_good_addresses) {
            if !good.contains(&address.ip()) {
                good.push(address.ip());
            }
        }
        for endpoint in self.profile.endpoints.iter().filter(|it| is_named(it)) {
            let count = if unknown.contains(endpoint) { good.len() } else { LAST_GOOD };
            for ip in good.iter().take(count) {
                add_good(&mut addresses, endpoint, *ip);
            }
        }
        match error {
            Some(error) if addresses.is_empty() => Err(error),
            Some(_) | None => Ok(addresses),
        }
    }
}

/// A gateway has the same address whatever the port. It may be another gateway's: if nobody knows,
/// its key tells.
fn add_good(addresses: &mut Vec<Address>, endpoint: &Endpoint, ip: IpAddr) {
    let good = SocketAddr::new(ip, endpoint.port);
    let is_there = |(other, address): &Address| {
        let is_others = other.pins != endpoint.pins && address.ip() == ip;
        is_others || other == endpoint && *address == good
    };
    if !addresses.iter().any(is_there) {
        addresses.push((endpoint.clone(), good));
    }
}

fn is_named(endpoint: &Endpoint) -> bool {
    endpoint.host.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests;
