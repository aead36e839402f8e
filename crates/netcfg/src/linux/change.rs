//! One change of the host: how it is made and how it is undone.
//!
//! A change holds all that is needed for both, and goes into the journal as it is.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    dns::{
        network_manager::NetworkManager, openresolv::Openresolv, resolved::Resolved,
        resolver_file::ResolverFile,
    },
    netlink::{GENERATE_NONE, Interface, Netlink, Rule, TUN_QUEUE},
    nft::{foreign::ForeignRule, table::Table},
    sysctl::Sysctl,
};
use crate::{Error, Report};

/// A change, as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    Sysctl(Sysctl),
    Link(Link),
    Address(Address),
    Route(Route),
    Rule(Rule),
    Table(Table),
    ForeignRule(ForeignRule),
    ResolverFile(ResolverFile),
    Resolved(Resolved),
    Openresolv(Openresolv),
    NetworkManager(NetworkManager),
}

/// An interface is up with our MTU, and the kernel makes up no IPv6 addresses for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    pub interface: String,
    pub mtu: u32,
    pub old_mtu: u32,
    pub old_queue: u32,
    pub old_up: bool,
    pub old_address_generation: Option<u8>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Address {
    pub interface: String,
    pub address: IpNet,
    /// The kernel adds no route for the address's network.
    pub quiet: bool,
}

/// A route through an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Route {
    pub interface: String,
    pub table: u32,
    pub network: IpNet,
}

/// What undoing did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// Something was put back; says what.
    Done(String),
    /// It was gone already.
    Nothing,
    /// It is another program's now; says what the user should know.
    LeftAlone(String),
}

impl Change {
    /// What the change is about: two changes with the same key set the same thing.
    pub(super) fn key(&self) -> String {
        match self {
            Change::Sysctl(sysctl) => format!("sysctl {}", sysctl.key),
            Change::Link(link) => format!("link {}", link.interface),
            Change::Address(address) => {
                format!("address {} {}", address.interface, address.address)
            }
            Change::Route(route) => {
                format!("route {} {} {}", route.interface, route.table, route.network)
            }
            Change::Rule(rule) => format!("rule {rule:?}"),
            Change::Table(table) => format!("table {}", table.name),
            Change::ForeignRule(rule) => format!("foreign rule {rule:?}"),
            Change::ResolverFile(file) => format!("file {}", file.path.display()),
            Change::Resolved(resolved) => format!("resolved {}", resolved.interface),
            Change::Openresolv(openresolv) => format!("openresolv {}", openresolv.name),
            Change::NetworkManager(_) => "NetworkManager".to_owned(),
        }
    }

    pub(super) fn resolver_file(&self) -> Option<&ResolverFile> {
        if let Change::ResolverFile(file) = self { Some(file) } else { None }
    }

    /// Whether the change is still there after a reboot.
    pub(super) fn survives_reboot(&self) -> bool {
        matches!(self, Change::ResolverFile(_) | Change::Openresolv(_))
    }

    pub(super) async fn make(&self, netlink: &Netlink, report: &mut Report) -> Result<(), Error> {
        match self {
            Change::Sysctl(sysctl) => sysctl.make(),
            Change::Link(link) => {
                let interface = existing(netlink, &link.interface).await?;
                if link.old_address_generation.is_some() {
                    netlink.set_address_generation(&interface, GENERATE_NONE).await?;
                }
                netlink.set_link(&interface, link.mtu, TUN_QUEUE, true).await
            }
            Change::Address(address) => {
                let interface = existing(netlink, &address.interface).await?;
                netlink.add_address(&interface, address.address, address.quiet).await
            }
            Change::Route(route) => {
                let interface = existing(netlink, &route.interface).await?;
                netlink.add_route(&interface, route.table, route.network).await
            }
            Change::Rule(rule) => netlink.add_rule(rule).await,
            Change::Table(table) => table.make().await,
            Change::ForeignRule(rule) => {
                report.warnings.extend(rule.make().await?);
                Ok(())
            }
            Change::ResolverFile(file) => file.make(),
            Change::Resolved(resolved) => resolved.make().await,
            Change::Openresolv(openresolv) => openresolv.make().await,
            Change::NetworkManager(manager) => manager.make().await,
        }
    }

    /// Undoes the change. May be called again and for a change that was never made.
    pub(super) async fn undo(&self, netlink: &Netlink) -> Result<Undone, Error> {
        match self {
            Change::Sysctl(sysctl) => sysctl.undo(),
            Change::Link(link) => link.undo(netlink).await,
            Change::Address(address) => address.undo(netlink).await,
            Change::Route(route) => route.undo(netlink).await,
            Change::Rule(rule) => Ok(done(netlink.remove_rule(rule).await?, || {
                format!("routing rule {} is removed", rule.priority)
            })),
            Change::Table(table) => table.undo().await,
            Change::ForeignRule(rule) => rule.undo().await,
            Change::ResolverFile(file) => file.undo(),
            Change::Resolved(resolved) => resolved.undo(netlink).await,
            Change::Openresolv(openresolv) => openresolv.undo().await,
            Change::NetworkManager(manager) => manager.undo().await,
        }
    }
}

impl Link {
    async fn undo(&self, netlink: &Netlink) -> Result<Undone, Error> {
        let Some(now) = netlink.interface(&self.interface).await? else {
            return Ok(Undone::Nothing);
        };
        if now.mtu == self.old_mtu
            && now.queue == self.old_queue
            && now.up == self.old_up
            && now.address_generation == self.old_address_generation
        {
            return Ok(Undone::Nothing);
        }
        netlink.set_link(&now, self.old_mtu, self.old_queue, self.old_up).await?;
        if let Some(mode) = self.old_address_generation {
            netlink.set_address_generation(&now, mode).await?;
        }
        Ok(Undone::Done(format!("interface {} is as before", self.interface)))
    }
}

impl Address {
    async fn undo(&self, netlink: &Netlink) -> Result<Undone, Error> {
        let Some(interface) = netlink.interface(&self.interface).await? else {
            return Ok(Undone::Nothing);
        };
        let removed = netlink.remove_address(&interface, self.address).await?;
        Ok(done(removed, || format!("address {} is removed from {}", self.address, self.interface)))
    }
}

impl Route {
    async fn undo(&self, netlink: &Netlink) -> Result<Undone, Error> {
        let Some(interface) = netlink.interface(&self.interface).await? else {
            return Ok(Undone::Nothing);
        };
        let removed = netlink.remove_route(&interface, self.table, self.network).await?;
        Ok(done(removed, || {
            format!("route to {} through {} is removed", self.network, self.interface)
        }))
    }
}

fn done(changed: bool, what: impl FnOnce() -> String) -> Undone {
    if changed { Undone::Done(what()) } else { Undone::Nothing }
}

async fn existing(netlink: &Netlink, name: &str) -> Result<Interface, Error> {
    let found = netlink.interface(name).await?;
    found.ok_or_else(|| Error::NoInterface { interface: name.to_owned() })
}
