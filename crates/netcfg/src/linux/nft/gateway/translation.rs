//! The translation of clients' addresses and ports to the gateway's.

use super::super::sets;
use crate::GatewayNetwork;

/// The hook of the chain. Before the place of other programs' NAT: whoever comes first decides, and a
/// `masquerade` of somebody else would keep the ports that a client chose.
pub(super) const HOOK: &str = "nat hook postrouting priority srcnat - 10";

/// The lowest port used for translated connections: above the ports of the host's own services, so
/// that no client can take the place of one of them in the connection table (CVE-2021-3773).
const LOWEST_SOURCE_PORT: u16 = 32_768;

/// Clients appear with the gateway's address (A10, B6).
pub(super) fn masquerade_inside(wanted: &GatewayNetwork) -> Vec<String> {
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
pub(super) fn masquerade_to_allowed_private(wanted: &GatewayNetwork) -> Vec<String> {
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

/// Ports, and the numbers of echo requests, are random: nobody outside can guess them, and no client
/// can choose those of another or of the gateway.
fn masquerade(matching: &str, ports: &str) -> [String; 2] {
    [
        format!("{matching} meta l4proto {{ tcp, udp }} masquerade to :{ports} fully-random"),
        format!("{matching} masquerade fully-random"),
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
}
