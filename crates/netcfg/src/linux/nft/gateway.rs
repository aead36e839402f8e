//! The gateway's table: what clients may reach, and the translation of their addresses.
//!
//! Other tables stay in force beside it: what they drop is dropped, whatever is accepted here.

mod connections;
mod private;
mod translation;

use std::collections::BTreeSet;

use super::{chain, foreign::span, hosts, sets, table::Table};
use crate::GatewayNetwork;

/// The gateway's table.
pub(in crate::linux) fn table(wanted: &GatewayNetwork) -> Table {
    let text = [
        chain(
            "before_routing",
            "filter hook prerouting priority raw",
            [
                drop_foreign_source(wanted),
                drop_client_to_client(wanted),
                drop_to_inside_from_outside(wanted),
            ]
            .concat(),
        ),
        chain(
            "to_gateway",
            "filter hook input priority filter",
            [
                accept_answers(wanted),
                accept_echo(wanted),
                accept_dns(wanted),
                accept_inside_services(wanted),
                refuse_listening_ports(wanted),
                accept_allowed_private(wanted),
                drop_to_private(wanted, "of the gateway"),
            ]
            .concat(),
        ),
        chain(
            "through_gateway",
            "filter hook forward priority filter",
            [
                drop_untranslatable(wanted),
                accept_allowed_private(wanted),
                drop_to_private(wanted, "behind the gateway"),
                drop_past_uplink(wanted),
            ]
            .concat(),
        ),
        chain(
            "segment_size",
            "filter hook forward priority mangle",
            clamp_segment_size_to_path(wanted),
        ),
        connections::limit(wanted),
        chain(
            "translate",
            translation::HOOK,
            [
                translation::masquerade_inside(wanted),
                translation::masquerade_to_allowed_private(wanted),
            ]
            .concat(),
        ),
    ];
    Table { name: "cipherwall-gw".into(), text: text.concat() }
}

/// Each session may only use its own inner address; whatever else comes out of the tunnel is none
/// of ours.
fn drop_foreign_source(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    let sets = sets(&wanted.networks);
    ["ip", "ip6"]
        .iter()
        .map(|family| {
            let source = sets.iter().find(|(of, _)| of == family).map_or_else(
                || format!("meta nfproto {}", if *family == "ip" { "ipv4" } else { "ipv6" }),
                |(_, set)| format!("{family} saddr != {set}"),
            );
            format!(
                "iifname \"{interface}\" {source} counter drop comment \"source not from inside\""
            )
        })
        .collect()
}

/// Clients are kept apart (A5); only the gateway's own inner address is for them.
fn drop_client_to_client(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    let inner = sets(&hosts(&wanted.addresses));
    sets(&wanted.networks)
        .iter()
        .map(|(family, set)| {
            let but_gateway = inner
                .iter()
                .find(|(of, _)| of == family)
                .map(|(_, inner)| format!(" {family} daddr != {inner}"))
                .unwrap_or_default();
            format!(
                "iifname \"{interface}\" {family} daddr {set}{but_gateway} counter drop \
                 comment \"client to client\""
            )
        })
        .collect()
}

/// Answers to clients arrive for the gateway's own address and are translated later, so nothing
/// from outside carries an inside address here.
fn drop_to_inside_from_outside(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    sets(&wanted.networks)
        .iter()
        .map(|(family, set)| {
            format!(
                "iifname != {{ \"{interface}\", \"lo\" }} {family} daddr {set} counter drop \
                 comment \"to inside from outside\""
            )
        })
        .collect()
}

/// What the gateway itself asked a client for.
fn accept_answers(wanted: &GatewayNetwork) -> Vec<String> {
    vec![format!("iifname \"{}\" ct state established,related accept", wanted.interface)]
}

/// Ping to the gateway's inner address.
fn accept_echo(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    sets(&hosts(&wanted.addresses))
        .iter()
        .map(|(family, set)| {
            let icmp = if *family == "ip" { "icmp" } else { "icmpv6" };
            format!("iifname \"{interface}\" {family} daddr {set} {icmp} type echo-request accept")
        })
        .collect()
}

/// The gateway's DNS on its inner address (A12).
fn accept_dns(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    sets(&hosts(&wanted.addresses))
        .iter()
        .map(|(family, set)| {
            format!(
                "iifname \"{interface}\" {family} daddr {set} \
                 meta l4proto {{ tcp, udp }} th dport 53 accept"
            )
        })
        .collect()
}

/// The gateway's other services on its inner address (A28).
fn accept_inside_services(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    let inner = sets(&hosts(&wanted.addresses));
    let rule = |port| {
        inner.iter().map(move |(family, set)| {
            format!("iifname \"{interface}\" {family} daddr {set} tcp dport {port} accept")
        })
    };
    wanted.inside_tcp.iter().flat_map(rule).collect()
}

/// The ports on which the gateway accepts clients, on any of its addresses: a tunnel inside the
/// tunnel would let a client appear under inside addresses, which no limit is made for, and lead the
/// gateway's answers back into itself.
fn refuse_listening_ports(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    let tcp = port_set(wanted.listen_tcp.iter().map(ToString::to_string));
    let udp = port_set(wanted.listen_udp.iter().map(|ports| span(ports, '-')));
    let rule = |protocol: &str, ports: &str, answer: &str| {
        format!(
            "iifname \"{interface}\" {protocol} dport {ports} counter reject with {answer} \
             comment \"tunnel in the tunnel\""
        )
    };
    let tcp = tcp.map(|ports| rule("tcp", &ports, "tcp reset"));
    tcp.into_iter().chain(udp.map(|ports| rule("udp", &ports, "icmpx admin-prohibited"))).collect()
}

/// Ports and ranges as an nft set; none if there are none.
fn port_set(ports: impl Iterator<Item = String>) -> Option<String> {
    let ports: BTreeSet<String> = ports.collect();
    let ports: Vec<String> = ports.into_iter().collect();
    (!ports.is_empty()).then(|| format!("{{ {} }}", ports.join(", ")))
}

/// What belongs to no connection is not translated, and would leave with an inside address.
fn drop_untranslatable(wanted: &GatewayNetwork) -> Vec<String> {
    vec![format!(
        "iifname \"{}\" ct state {{ invalid, untracked }} counter drop \
         comment \"of no connection\"",
        wanted.interface
    )]
}

/// Private networks that the configuration allows.
fn accept_allowed_private(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    sets(&wanted.allow_private)
        .iter()
        .map(|(family, set)| format!("iifname \"{interface}\" {family} daddr {set} accept"))
        .collect()
}

/// All others. The gateway's own public addresses are not among them, so that its other public
/// services (ssh, a web site) can be used through the tunnel as from anywhere.
fn drop_to_private(wanted: &GatewayNetwork, whose: &str) -> Vec<String> {
    let interface = &wanted.interface;
    sets(&private::networks())
        .iter()
        .map(|(family, set)| {
            format!(
                "iifname \"{interface}\" {family} daddr {set} counter drop \
                 comment \"private network {whose}\""
            )
        })
        .collect()
}

/// Where an uplink is configured, nothing leaves by another interface (with its inside address).
fn drop_past_uplink(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    let rule = |uplink| {
        format!(
            "iifname \"{interface}\" oifname != \"{uplink}\" counter drop comment \"not by the uplink\""
        )
    };
    wanted.uplink.iter().map(rule).collect()
}

/// TCP in both directions learns the size that fits through the tunnel, because the ICMP messages
/// that would say so are often lost on the way.
fn clamp_segment_size_to_path(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    ["iifname", "oifname"]
        .map(|direction| {
            format!(
                "{direction} \"{interface}\" tcp flags & (syn | rst) == syn \
                 tcp option maxseg size set rt mtu"
            )
        })
        .into()
}
