//! How many connections each client may have at a time: the kernel's table of connections is one for
//! all, and whoever could fill it would keep everybody else from making new ones.

use super::super::chain;
use crate::GatewayNetwork;

/// How many clients are counted at a time; nobody has more inside addresses.
const CLIENTS_MAX: u16 = u16::MAX;

/// The chains, with a set of counters for each address family. What goes through the gateway counts
/// apart from what goes to it, so that names can be asked for however busy a client is.
pub(super) fn limit(wanted: &GatewayNetwork) -> String {
    let Some(limit) = wanted.connections_each else { return String::new() };
    let places = [
        ("through", "filter hook forward priority filter + 10"),
        ("to_gateway", "filter hook input priority filter + 10"),
    ];
    let place = |(place, hook): (&str, &str)| {
        let families = [("ip", "ipv4_addr"), ("ip6", "ipv6_addr")];
        let sets = families.map(|(family, kind)| {
            format!(
                "\tset {family}_{place} {{\n\t\ttype {kind}; size {CLIENTS_MAX}; flags dynamic;\n\t}}\n"
            )
        });
        let rules = families.map(|(family, _)| {
            format!(
                "iifname \"{}\" ct state new add @{family}_{place} {{ {family} saddr ct count over \
                 {limit} }} counter drop comment \"too many connections\"",
                wanted.interface
            )
        });
        sets.concat() + &chain(&format!("connections_{place}"), hook, rules)
    };
    places.map(place).concat()
}
