//! The gateway's settings: forwarding, translation of addresses, and what clients may reach (A10).

use ipnet::IpNet;

use super::{
    change::{Address, Change, Route},
    netlink::{Action, Netlink, Rule, Selector},
    nft,
    plan::{Plan, check_name, existing, usable},
    sysctl,
};
use crate::{Error, GatewayNetwork};

const MAIN_TABLE: u32 = 254;

/// The place of the rule that refuses IPv6: behind the local addresses (0).
const NO_IPV6_PRIORITY: u32 = 5179;

pub(super) async fn plan(
    wanted: &GatewayNetwork,
    netlink: &Netlink,
    journaled: &[Change],
) -> Result<Plan, Error> {
    let interface = existing(netlink, &wanted.interface).await?;
    if let Some(uplink) = &wanted.uplink {
        check_name(uplink)?;
    }
    refuse_networks_in_use(&wanted.interface, &wanted.networks, netlink).await?;

    let mut plan = Plan::default();
    plan.quiet_interface(&interface.name);
    plan.table(nft::gateway::table(wanted), journaled).await?;
    pass_other_firewalls(&mut plan, wanted).await?;
    if !wanted.ipv6_uplink && sysctl::has_ipv6() {
        plan.rule(refuse_ipv6(wanted));
    }
    for address in wanted.addresses.iter().copied().filter(usable) {
        let interface = interface.name.clone();
        plan.address(netlink, Address { interface, address, quiet: false }).await?;
    }
    plan.link(&interface, wanted.mtu);
    for network in wanted.networks.iter().map(IpNet::trunc).filter(usable) {
        // The kernel has a route to the networks of the addresses.
        if !wanted.addresses.iter().any(|address| address.contains(&network)) {
            let interface = interface.name.clone();
            plan.route(Route { interface, table: MAIN_TABLE, network });
        }
    }
    // Last, when the packet filter is in place.
    forward_ipv4(&mut plan);
    if wanted.ipv6_uplink {
        forward_ipv6(&mut plan, &interface.name);
    }
    Ok(plan)
}

/// An `nft` that cannot list rules as JSON (it is a build option) is no reason not to serve.
async fn pass_other_firewalls(plan: &mut Plan, wanted: &GatewayNetwork) -> Result<(), Error> {
    match nft::foreign::rules(wanted).await {
        Ok(rules) => {
            for (rule, there) in rules {
                plan.push(Change::ForeignRule(rule), there);
            }
        }
        Err(error @ Error::Program { .. }) => plan.warnings.push(format!(
            "{error}; if another firewall runs here, let it forward from and to {}",
            wanted.interface
        )),
        Err(error) => return Err(error),
    }
    plan.warnings.extend(nft::foreign::legacy_warning(wanted).await);
    Ok(())
}

/// An inside network that this host has outside too would cut it off from its neighbours.
pub(super) async fn refuse_networks_in_use(
    tun: &str,
    networks: &[IpNet],
    netlink: &Netlink,
) -> Result<(), Error> {
    for (interface, address) in netlink.addresses().await? {
        let overlaps =
            |network: &&IpNet| network.contains(&address.trunc()) || address.contains(*network);
        if interface == tun {
            continue;
        }
        if let Some(network) = networks.iter().find(overlaps) {
            return Err(Error::NetworkInUse { network: *network, address, interface });
        }
    }
    Ok(())
}

/// The sender gets an ICMPv6 error at once and goes on with IPv4, instead of waiting. As a rule of
/// the routing policy this works with and without forwarding.
fn refuse_ipv6(wanted: &GatewayNetwork) -> Rule {
    Rule {
        ipv6: true,
        priority: NO_IPV6_PRIORITY,
        selector: Selector::From { interface: wanted.interface.clone() },
        action: Action::Prohibit,
    }
}

/// The kernel sets forwarding of every interface, and more, along with it.
fn forward_ipv4(plan: &mut Plan) {
    let mut along = forwarding_of_interfaces("ipv4");
    along.push("net/ipv4/conf/all/accept_redirects".into());
    plan.sysctl("net/ipv4/ip_forward", "1", &along, true);
}

/// An interface that forwards no longer listens to router advertisements, from which the host may
/// have its address and default route, unless it is told to.
fn forward_ipv6(plan: &mut Plan, tun: &str) {
    for interface in sysctl::interfaces("ipv6") {
        let key = format!("net/ipv6/conf/{interface}/accept_ra");
        let special = ["all", "default", "lo", tun].contains(&interface.as_str());
        if !special && sysctl::read(&key).is_some_and(|now| now == "1" || now == "2") {
            plan.sysctl(&key, "2", &[], true);
        }
    }
    plan.sysctl("net/ipv6/conf/all/forwarding", "1", &forwarding_of_interfaces("ipv6"), true);
}

fn forwarding_of_interfaces(family: &str) -> Vec<String> {
    sysctl::interfaces(family)
        .into_iter()
        .filter(|interface| interface != "all")
        .map(|interface| format!("net/{family}/conf/{interface}/forwarding"))
        .collect()
}
