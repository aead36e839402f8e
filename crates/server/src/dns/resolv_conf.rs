//! The host's own resolvers, which are asked unless others are configured.

use std::net::{IpAddr, SocketAddr};

use super::DNS_PORT;

/// Resolvers taken from `resolv.conf`, as many as the C library's.
const MAX_HOST_RESOLVERS: usize = 3;

/// The resolvers in the text of a `resolv.conf` (see resolv.conf(5)): at most the first three
/// `nameserver` lines, port 53. An address with a zone (`fe80::1%eth0`) is left out.
pub fn host_resolvers(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, DNS_PORT))
        .take(MAX_HOST_RESOLVERS)
        .collect()
}
