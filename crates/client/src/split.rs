//! Split by network: which networks go through the tunnel, and which do not.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Everything of both address families but these networks, as few networks as possible.
pub(crate) fn all_but(networks: &[IpNet]) -> Vec<IpNet> {
    let everything = [
        IpNet::from(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpNet::from(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    ];
    let mut rest = Vec::new();
    everything.into_iter().for_each(|all| take_out(all, networks, &mut rest));
    rest
}

/// Adds what is left of `from` to `rest`.
fn take_out(from: IpNet, networks: &[IpNet], rest: &mut Vec<IpNet>) {
    if networks.iter().any(|network| network.contains(&from)) {
        return;
    }
    if !networks.iter().any(|network| from.contains(network)) {
        return rest.push(from);
    }
    // a part of it only: each half on its own
    if let Ok(halves) = from.subnets(from.prefix_len() + 1) {
        halves.for_each(|half| take_out(half, networks, rest));
    }
}

/// Routes into the tunnel for these networks.
pub(crate) fn routes_of(networks: &[IpNet]) -> Vec<IpNet> {
    // the two halves leave the host's own default route in place (A11)
    let halves = |network: &IpNet| match network.prefix_len() {
        0 => network.subnets(1).map_or_else(|_| vec![*network], Iterator::collect),
        _ => vec![*network],
    };
    let mut routes: Vec<IpNet> = networks.iter().flat_map(halves).collect();
    routes.sort();
    routes.dedup();
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    #[test]
    fn what_is_left_has_all_other_addresses_and_none_of_these() {
        assert_eq!(all_but(&[]), nets(&["0.0.0.0/0", "::/0"]));
        assert_eq!(
            all_but(&nets(&["0.0.0.0/1", "192.0.0.0/2", "::/1"])),
            nets(&["128.0.0.0/2", "8000::/1"])
        );
        let one = nets(&["192.0.2.1/32"]);
        let rest = all_but(&one);
        assert_eq!(rest.len(), 33, "32 networks beside one address, and all of IPv6");
        let holds = |text: &str| {
            let address: std::net::IpAddr = text.parse().expect(text);
            rest.iter().any(|network| network.contains(&address))
        };
        assert!(!holds("192.0.2.1"));
        assert!(
            ["192.0.2.0", "192.0.2.2", "10.0.0.1", "255.255.255.255", "2001:db8::1"]
                .into_iter()
                .all(holds)
        );
        assert_eq!(all_but(&nets(&["0.0.0.0/0", "::/0"])), nets(&[]));
    }

    #[test]
    fn a_route_to_everything_is_two_halves() {
        assert_eq!(
            routes_of(&nets(&["0.0.0.0/0", "2001:db8::/32", "2001:db8::/32"])),
            nets(&["0.0.0.0/1", "128.0.0.0/1", "2001:db8::/32"])
        );
    }
}
