//! The gateway's table: what clients may reach, and the translation of their addresses.
//!
//! Other tables stay in force beside it: what they drop is dropped, whatever is accepted here.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{chain, hosts, sets, table::Table};
use crate::GatewayNetwork;

/// The lowest port used for translated connections: above the ports of the host's own services, so
/// that no client can take the place of one of them in the connection table (CVE-2021-3773).
const LOWEST_SOURCE_PORT: u16 = 32_768;

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
                accept_allowed_private(wanted),
                drop_to_private(wanted, "of the gateway"),
            ]
            .concat(),
        ),
        chain(
            "through_gateway",
            "filter hook forward priority filter",
            [
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
        chain(
            "translate",
            "nat hook postrouting priority srcnat",
            [masquerade_inside(wanted), masquerade_to_allowed_private(wanted)].concat(),
        ),
    ];
    Table { name: "cipherwall-gw".into(), text: text.concat() }
}

/// Networks that no client should reach through the gateway unless it is allowed: private, shared,
/// loopback, link-local (with the clouds' metadata service), reserved and multicast.
fn private_networks() -> Vec<IpNet> {
    const V4: [([u8; 4], u8); 12] = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([224, 0, 0, 0], 4),
        ([240, 0, 0, 0], 4),
        ([255, 255, 255, 255], 32),
    ];
    const V6: [([u16; 8], u8); 6] = [
        ([0, 0, 0, 0, 0, 0, 0, 0], 96), // unspecified, loopback, IPv4-compatible
        ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), // IPv4-mapped
        ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), // local-use translation
        ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), // unique local
        ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), // link-local
        ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), // multicast
    ];
    let v4 = V4.map(|(address, length)| Ipv4Net::new_assert(address.into(), length));
    let translated = v4.map(through_nat64);
    let v6 = V6.map(|(address, length)| Ipv6Net::new_assert(address.into(), length));
    v4.into_iter()
        .map(IpNet::V4)
        .chain(translated.into_iter().map(IpNet::V6))
        .chain(v6.into_iter().map(IpNet::V6))
        .collect()
}

/// The same network written for a NAT64 translator (RFC 6052), behind which it would be reached.
fn through_nat64(network: Ipv4Net) -> Ipv6Net {
    let [a, b, c, d] = network.network().octets().map(u16::from);
    let address = [0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d];
    Ipv6Net::new_assert(address.into(), 96 + network.prefix_len())
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

/// Private networks that the configuration allows.
fn accept_allowed_private(wanted: &GatewayNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    sets(&wanted.allow_private)
        .iter()
        .map(|(family, set)| format!("iifname \"{interface}\" {family} daddr {set} accept"))
        .collect()
}

/// All others. The gateway's own public addresses are not among them, so that its public services
/// can be used through the tunnel as from anywhere.
fn drop_to_private(wanted: &GatewayNetwork, whose: &str) -> Vec<String> {
    let interface = &wanted.interface;
    sets(&private_networks())
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

/// Clients appear with the gateway's address (A10, B6).
fn masquerade_inside(wanted: &GatewayNetwork) -> Vec<String> {
    let leaving = match &wanted.uplink {
        Some(uplink) => format!("oifname \"{uplink}\""),
        None => format!("oifname != {{ \"{}\", \"lo\" }}", wanted.interface),
    };
    let ports = source_ports(&listened(wanted));
    sets(&wanted.networks)
        .iter()
        .flat_map(|(family, set)| masquerade(&format!("{family} saddr {set} {leaving}"), &ports))
        .collect()
}

/// Also in the allowed private networks, which may lie elsewhere than the uplink.
fn masquerade_to_allowed_private(wanted: &GatewayNetwork) -> Vec<String> {
    if wanted.uplink.is_none() {
        return Vec::new();
    }
    let ports = source_ports(&listened(wanted));
    let allowed = sets(&wanted.allow_private);
    let mut rules = Vec::new();
    for (family, inside) in sets(&wanted.networks) {
        if let Some((_, allowed)) = allowed.iter().find(|(of, _)| *of == family) {
            let matching = format!("{family} saddr {inside} {family} daddr {allowed}");
            rules.extend(masquerade(&matching, &ports));
        }
    }
    rules
}

fn masquerade(matching: &str, ports: &str) -> [String; 2] {
    [
        format!("{matching} meta l4proto {{ tcp, udp }} masquerade to :{ports} fully-random"),
        format!("{matching} masquerade"),
    ]
}

/// The ports that clients connect to.
fn listened(wanted: &GatewayNetwork) -> Vec<u16> {
    let udp = wanted.listen_udp.iter().cloned().flatten();
    wanted.listen_tcp.iter().copied().chain(udp).collect()
}

/// The largest range of ports from [`LOWEST_SOURCE_PORT`] up without a port we listen on.
fn source_ports(listen: &[u16]) -> String {
    let mut taken: Vec<u16> =
        listen.iter().copied().filter(|port| *port >= LOWEST_SOURCE_PORT).collect();
    taken.sort_unstable();
    let starts = std::iter::once(LOWEST_SOURCE_PORT)
        .chain(taken.iter().filter_map(|port| port.checked_add(1)));
    let ends = taken.iter().map(|port| port - 1).chain(std::iter::once(u16::MAX));
    let (start, end) = starts
        .zip(ends)
        .max_by_key(|(start, end)| end.saturating_sub(*start))
        .unwrap_or((LOWEST_SOURCE_PORT, u16::MAX));
    format!("{start}-{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translated_connections_never_take_a_listening_port() {
        assert_eq!(source_ports(&[8443, 443]), "32768-65535");
        assert_eq!(source_ports(&[40_000]), "40001-65535");
        assert_eq!(source_ports(&[60_000, 60_001]), "32768-59999");
        assert_eq!(source_ports(&[u16::MAX]), "32768-65534");
        assert_eq!(source_ports(&[32_768]), "32769-65535");
    }

    #[test]
    fn private_networks_are_also_known_as_a_translator_writes_them() {
        let network = through_nat64("10.0.0.0/8".parse().unwrap());
        assert_eq!(network, "64:ff9b::a00:0/104".parse().unwrap());
        let metadata = through_nat64("169.254.0.0/16".parse().unwrap());
        assert!(
            metadata.contains(&"64:ff9b::169.254.169.254".parse::<std::net::Ipv6Addr>().unwrap())
        );
    }
}
