//! What has to be changed for a wanted state, in order.

use super::{
    change::{Address, Change, Link, Route},
    netlink::{GENERATE_NONE, Interface, Netlink, Rule, TUN_QUEUE},
    nft::table::Table,
    sysctl::{self, Sysctl},
};
use crate::Error;

/// The ordered changes. Those that are so already are in it too, so that it is known what belongs
/// to the wanted state.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// One change of the plan.
#[derive(Debug)]
pub(super) struct Step {
    pub change: Change,
    /// It is so already.
    pub in_place: bool,
    /// Without it nothing works; without the others the user is warned.
    pub needed: bool,
}

impl Plan {
    pub(super) fn push(&mut self, change: Change, in_place: bool) {
        self.steps.push(Step { change, in_place, needed: true });
    }

    /// A kernel setting; one that this kernel does not have is left out.
    pub(super) fn sysctl(&mut self, key: &str, value: &str, along: &[String], needed: bool) {
        if let Some(sysctl) = Sysctl::to(key, value, along) {
            let in_place = sysctl.in_place();
            self.steps.push(Step { change: Change::Sysctl(sysctl), in_place, needed });
        }
    }

    /// The TUN device can have IPv6 addresses, and takes none from advertisements that arrive through
    /// the tunnel.
    pub(super) fn quiet_interface(&mut self, interface: &str) {
        let conf = format!("net/ipv6/conf/{interface}");
        self.sysctl(&format!("{conf}/disable_ipv6"), "0", &[], true);
        self.sysctl(&format!("{conf}/accept_ra"), "0", &[], false);
    }

    pub(super) fn link(&mut self, interface: &Interface, mtu: u32) {
        let change = Change::Link(Link {
            interface: interface.name.clone(),
            mtu,
            old_mtu: interface.mtu,
            old_queue: interface.queue,
            old_up: interface.up,
            old_address_generation: interface.address_generation,
        });
        let quiet = interface.address_generation.is_none_or(|mode| mode == GENERATE_NONE);
        let is_set = interface.mtu == mtu && interface.queue == TUN_QUEUE;
        self.push(change, interface.up && is_set && quiet);
    }

    pub(super) async fn address(
        &mut self,
        netlink: &Netlink,
        address: Address,
    ) -> Result<(), Error> {
        let there =
            netlink.addresses().await?.iter().any(|(interface, there)| {
                *interface == address.interface && *there == address.address
            });
        self.push(Change::Address(address), there);
        Ok(())
    }

    pub(super) fn route(&mut self, route: Route) {
        self.push(Change::Route(route), false);
    }

    pub(super) fn rule(&mut self, rule: Rule) {
        self.push(Change::Rule(rule), false);
    }

    /// Our own table; `journaled` is what was put in place before.
    pub(super) async fn table(&mut self, table: Table, journaled: &[Change]) -> Result<(), Error> {
        let change = Change::Table(table.clone());
        let in_place = journaled.contains(&change) && table.exists().await?;
        self.push(change, in_place);
        Ok(())
    }
}

/// The interface with its present state.
pub(super) async fn existing(netlink: &Netlink, name: &str) -> Result<Interface, Error> {
    check_name(name)?;
    let interface = netlink.interface(name).await?;
    interface.ok_or_else(|| Error::NoInterface { interface: name.to_owned() })
}

/// Names go into packet filter rules and paths, so only what is usual is taken.
pub(super) fn check_name(interface: &str) -> Result<(), Error> {
    let usual = |c: char| c.is_ascii_alphanumeric() || "._-@:+".contains(c);
    if (1..=15).contains(&interface.len())
        && interface.chars().all(usual)
        && ![".", "..", "all", "default"].contains(&interface)
    {
        return Ok(());
    }
    Err(Error::NoInterface { interface: interface.to_owned() })
}

/// Whether addresses of this family can be used here.
pub(super) fn usable(network: &ipnet::IpNet) -> bool {
    matches!(network, ipnet::IpNet::V4(_)) || sysctl::has_ipv6()
}
