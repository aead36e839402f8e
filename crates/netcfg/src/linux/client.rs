//! The client's settings: everything into the tunnel but the tunnel's own connection and, where it
//! is allowed, private networks (A11, A12).

use std::net::SocketAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    change::{Address, Change, Route},
    dns,
    gateway::refuse_networks_in_use,
    netlink::{Action, Netlink, Rule, Selector},
    nft,
    plan::{Plan, existing, usable},
    sysctl,
};
use crate::{ClientNetwork, Error, Kept};

/// The kernel's table with the host's own routes.
const MAIN_TABLE: u32 = 254;

/// Our rules' places: behind the local addresses (0), before everything else, so that no other
/// program's route decides about traffic of the tunnel (TunnelVision, CVE-2024-3661).
mod priority {
    /// The tunnel's own connection takes the host's own routes, and so do connections that are kept.
    pub(super) const TUNNEL_CONNECTION: u32 = 5180;
    /// The inner network, before private networks, which it may be part of.
    pub(super) const INNER_NETWORK: u32 = 5181;
    /// Private networks, if they are allowed, and those that stay outside.
    pub(super) const OUTSIDE: u32 = 5182;
    /// Everything else goes into the tunnel.
    pub(super) const EVERYTHING: u32 = 5183;
}

pub(super) async fn plan(
    wanted: &ClientNetwork,
    netlink: &Netlink,
    journaled: &[Change],
) -> Result<Plan, Error> {
    let interface = existing(netlink, &wanted.interface).await?;
    refuse_networks_in_use(&wanted.interface, &wider_than_a_host(&wanted.addresses), netlink)
        .await?;
    let mut plan = Plan::default();
    plan.quiet_interface(&interface.name);
    // The mark counts when the source of an answer to the tunnel's own packets is checked.
    let needed = strict_interface(&interface.name).is_some();
    plan.sysctl("net/ipv4/conf/all/src_valid_mark", "1", &[], needed);
    hide_inner_address(&mut plan);
    packet_filter(&mut plan, wanted, journaled).await?;

    for address in wanted.addresses.iter().copied().filter(usable) {
        let interface = interface.name.clone();
        plan.address(netlink, Address { interface, address, quiet: true }).await?;
    }
    plan.link(&interface, wanted.mtu);
    for network in routes(wanted).into_iter().filter(usable) {
        let interface = interface.name.clone();
        plan.route(Route { interface, table: wanted.table, network });
    }
    for rule in rules(wanted) {
        plan.rule(rule);
    }
    if !wanted.dns.is_empty() {
        dns::plan(&mut plan, &wanted.interface, &wanted.dns, journaled).await?;
    }
    Ok(plan)
}

/// The networks of addresses that were given with one.
fn wider_than_a_host(addresses: &[IpNet]) -> Vec<IpNet> {
    let wider = |address: &&IpNet| address.prefix_len() < address.max_prefix_len();
    addresses.iter().filter(wider).map(IpNet::trunc).collect()
}

/// Neighbours that ask who has the inner address get no answer. 1 is enough for that; 2 would cut
/// off hosts whose router is not in their own subnet, as is usual in clouds.
fn hide_inner_address(plan: &mut Plan) {
    const KEY: &str = "net/ipv4/conf/all/arp_ignore";
    if sysctl::read(KEY).is_some_and(|now| now == "0" || now == "1") {
        plan.sysctl(KEY, "1", &[], false);
    }
}

/// Without `nft` the tunnel works where no reverse path filter is strict.
async fn packet_filter(
    plan: &mut Plan,
    wanted: &ClientNetwork,
    journaled: &[Change],
) -> Result<(), Error> {
    if nft::installed() {
        return plan.table(nft::client::table(wanted), journaled).await;
    }
    if let Some(interface) = strict_interface(&wanted.interface) {
        return Err(Error::ProgramMissing {
            program: "nft",
            package: "nftables",
            why: format!(
                "and net.ipv4.conf.{interface}.rp_filter=1 drops the answers to the tunnel \
                 without it"
            ),
        });
    }
    plan.warnings.push(
        "the program `nft` is missing, so neighbours on the local network can send packets to the \
         inner address; install it: apt-get install nftables"
            .into(),
    );
    Ok(())
}

/// An interface, now there or to come (`default`), whose reverse path filter is strict.
fn strict_interface(tun: &str) -> Option<String> {
    let filter = |interface: &str| -> u32 {
        let value = sysctl::read(&format!("net/ipv4/conf/{interface}/rp_filter"));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let all = filter("all");
    sysctl::interfaces("ipv4")
        .into_iter()
        .filter(|interface| !["all", "lo", tun].contains(&interface.as_str()))
        .find(|interface| filter(interface).max(all) == 1)
}

/// The inner network: that of the addresses, and the DNS servers.
fn inner_networks(wanted: &ClientNetwork) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = wanted.addresses.iter().map(IpNet::trunc).collect();
    networks.extend(wanted.dns.iter().map(|server| IpNet::from(*server)));
    IpNet::aggregate(&networks)
}

/// The routes of our table: what is wanted, and the inner network where that does not hold it.
fn routes(wanted: &ClientNetwork) -> Vec<IpNet> {
    let mut routes = wanted.routes.clone();
    for inner in inner_networks(wanted) {
        if !routes.iter().any(|route| route.contains(&inner)) {
            routes.push(inner);
        }
    }
    routes
}

fn rules(wanted: &ClientNetwork) -> Vec<Rule> {
    let mut rules = Vec::new();
    for ipv6 in [false, true] {
        let selector = Selector::Marked(wanted.mark);
        let (priority, action) = (priority::TUNNEL_CONNECTION, Action::Lookup(MAIN_TABLE));
        rules.push(Rule { ipv6, priority, selector, action });
        rules.extend(into_tunnel(wanted, ipv6));
    }
    rules.extend(wanted.keep.iter().filter_map(kept));
    for network in inner_networks(wanted) {
        rules.push(to(network, priority::INNER_NETWORK, Action::Lookup(wanted.table)));
    }
    if wanted.allow_lan {
        let action = Action::LookupMoreSpecific(MAIN_TABLE);
        let private = private_networks().into_iter();
        rules.extend(private.map(|network| to(network, priority::OUTSIDE, action.clone())));
    }
    let neighbours = if wanted.allow_lan { neighbours() } else { Vec::new() };
    for network in neighbours.into_iter().chain(IpNet::aggregate(&wanted.direct)) {
        rules.push(to(network, priority::OUTSIDE, Action::Lookup(MAIN_TABLE)));
    }
    rules.retain(|rule| !rule.ipv6 || sysctl::has_ipv6());
    // The rule for everything comes last, so that nothing allowed is cut off in between.
    rules.sort_by_key(|rule| rule.priority);
    rules
}

fn to(network: IpNet, priority: u32, action: Action) -> Rule {
    let ipv6 = matches!(network, IpNet::V6(_));
    Rule { ipv6, priority, selector: Selector::To(network), action }
}

/// The rule for one connection; `None` for one that cannot be. Listeners for both families call an
/// IPv4 address `::ffff:...`.
fn kept(connection: &Kept) -> Option<Rule> {
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let (local, peer) = (canonical(connection.local), canonical(connection.peer));
    (local.is_ipv4() == peer.is_ipv4()).then(|| Rule {
        ipv6: peer.is_ipv6(),
        priority: priority::TUNNEL_CONNECTION,
        selector: Selector::Connection { local, peer },
        action: Action::Lookup(MAIN_TABLE),
    })
}

/// All packets that nothing else was said about ask our table. Where there is no IPv6 inside,
/// programs are told so at once and go on with IPv4, instead of waiting, or of going around the
/// tunnel; of that only what should go into it.
fn into_tunnel(wanted: &ClientNetwork, ipv6: bool) -> Vec<Rule> {
    if ipv6 && !wanted.addresses.iter().any(|address| matches!(address, IpNet::V6(_))) {
        let routes = wanted.routes.iter().filter(|route| matches!(route, IpNet::V6(_)));
        return routes.map(|route| to(*route, priority::EVERYTHING, Action::Prohibit)).collect();
    }
    let selector = Selector::NotMarked(wanted.mark);
    let action = Action::Lookup(wanted.table);
    vec![Rule { ipv6, priority: priority::EVERYTHING, selector, action }]
}

/// Networks that are nobody's on the internet: never "the connected subnet", which may be hostile
/// and claim public addresses (TunnelCrack LocalNet, CVE-2023-36672). Default routes do not count.
pub(super) fn private_networks() -> Vec<IpNet> {
    const V4: [([u8; 4], u8); 4] =
        [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([169, 254, 0, 0], 16)];
    let v4 = V4.map(|(address, length)| Ipv4Net::new_assert(address.into(), length).into());
    let v6 = [([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10)]
        .map(|(address, length)| Ipv6Net::new_assert(address.into(), length).into());
    v4.into_iter().chain(v6).collect()
}

/// Multicast of the local network (discovery of printers and the like) and broadcast, which need
/// the default route to find their interface. IPv6 knows its multicast from the local table.
pub(super) fn neighbours() -> Vec<IpNet> {
    [([224, 0, 0, 0], 24), ([239, 0, 0, 0], 8), ([255, 255, 255, 255], 32)]
        .map(|(address, length)| Ipv4Net::new_assert(address.into(), length).into())
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MARK_DEFAULT, TABLE_DEFAULT, default_routes};

    fn wanted() -> ClientNetwork {
        ClientNetwork {
            interface: "cw0".into(),
            addresses: vec!["10.66.0.2/32".parse().unwrap(), "fd66::2/128".parse().unwrap()],
            mtu: 1420,
            mark: MARK_DEFAULT,
            table: TABLE_DEFAULT,
            routes: default_routes(),
            allow_lan: true,
            direct: Vec::new(),
            keep: Vec::new(),
            dns: vec!["10.66.0.1".parse().unwrap()],
        }
    }

    #[test]
    fn the_inner_network_comes_before_the_private_networks_and_everything_comes_last() {
        let rules = rules(&wanted());
        let place = |text: &str| {
            let network: IpNet = text.parse().unwrap();
            rules.iter().position(|rule| rule.selector == Selector::To(network)).unwrap()
        };
        assert!(place("10.66.0.1/32") < place("10.0.0.0/8"));
        assert!(matches!(rules.last().unwrap().selector, Selector::NotMarked(MARK_DEFAULT)));
    }

    #[test]
    fn no_private_network_is_excepted_when_the_lan_is_not_allowed() {
        let rules = rules(&ClientNetwork { allow_lan: false, ..wanted() });
        assert!(rules.iter().all(|rule| rule.priority != priority::OUTSIDE));
    }

    #[test]
    fn without_ipv6_inside_it_is_refused_instead_of_lost() {
        let of_everything = |addresses: &[IpNet]| -> Vec<(bool, Action)> {
            let rules = rules(&ClientNetwork { addresses: addresses.to_vec(), ..wanted() });
            let last = rules.into_iter().filter(|rule| rule.priority == priority::EVERYTHING);
            last.map(|rule| (rule.ipv6, rule.action)).collect()
        };
        let [v4, v6] = ["10.66.0.2/24", "fd66::2/64"].map(|text| text.parse().unwrap());
        let into_tunnel = Action::Lookup(TABLE_DEFAULT);
        for (ipv6, action) in of_everything(&[v4]) {
            assert_eq!(action, if ipv6 { Action::Prohibit } else { into_tunnel.clone() });
        }
        assert!(of_everything(&[v4, v6]).iter().all(|(_, action)| *action == into_tunnel));
    }

    #[test]
    fn routes_hold_the_inner_network_even_if_only_part_of_the_traffic_is_wanted() {
        assert_eq!(routes(&wanted()), default_routes());
        let only = "198.51.100.0/24".parse().unwrap();
        let routes = routes(&ClientNetwork { routes: vec![only], ..wanted() });
        assert!(routes.contains(&"10.66.0.1/32".parse().unwrap()), "{routes:?}");
    }
}
