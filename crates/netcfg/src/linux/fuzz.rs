//! What reads texts of other programs, for fuzz targets and the tests that replay their corpora
//! (docs/fuzzing.md). Pure: nothing on the host is looked at or changed.

use std::net::{IpAddr, SocketAddr};

use super::{change::Change, dns, nft::foreign, uplink};
use crate::{GatewayNetwork, journal};

/// The rules that other firewalls need, as lines of a script for `nft`, if this is what
/// `nft -j -a list ruleset` may print.
#[must_use]
pub fn foreign_rules(text: &str, wanted: &GatewayNetwork) -> Option<Vec<String>> {
    let rules = foreign::rules_in_text(text, wanted)?;
    Some(rules.iter().map(|(rule, _)| rule.insertion()).collect())
}

/// The rules that are missing in what `iptables-legacy -S` printed.
#[must_use]
pub fn legacy_rules(wanted: &GatewayNetwork, rules: &str) -> Vec<String> {
    foreign::legacy_rules(wanted, "ip", rules)
}

/// The DNS servers that a resolver file names.
#[must_use]
pub fn resolvers(text: &str) -> Vec<SocketAddr> {
    dns::outside::servers(text)
}

/// The words behind `nameserver` of a resolver file with these servers in place of those of `old`.
#[must_use]
pub fn replaced_resolvers(servers: &[IpAddr], old: &str) -> Vec<String> {
    let text = dns::resolver_file::text(servers, old);
    dns::words_after("nameserver", &text).map(str::to_owned).collect()
}

/// Whether `/proc/net/ipv6_route` has a default route.
#[must_use]
pub fn has_default_route(routes: &str) -> bool {
    uplink::has_default(routes)
}

/// How many changes a journal holds, and how many of its lines make no sense. What was read is
/// written and read again, and has to be the same.
#[must_use]
pub fn journal(bytes: &[u8]) -> (usize, usize) {
    let parsed = journal::parse::<Change>(bytes);
    let again = journal::lines(&parsed.changes).map(|text| journal::parse::<Change>(&text));
    assert!(again.is_ok_and(|again| again.changes == parsed.changes && again.unreadable == 0));
    (parsed.changes.len(), parsed.unreadable)
}
