//! Links, addresses, routes and rules, by rtnetlink.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        AddressFamily, IpProtocol,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkMessage},
        route::{RouteMessage, RouteProtocol, RouteScope},
        rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange},
    },
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The origin ("protocol") that our routes and rules carry, so that `ip rule` shows whose they are.
pub(super) const ORIGIN: RouteProtocol = RouteProtocol::Other(119);

/// Packets that a TUN device holds until they are read. Four times the kernel's default: where many
/// sessions are at work, a pause of the reader must not cost acknowledgements. It is read without
/// pause, so that nothing stands in line there.
pub(super) const TUN_QUEUE: u32 = 2_000;

/// The connection to the kernel.
#[derive(Debug, Clone)]
pub(super) struct Netlink {
    handle: Handle,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    /// Packets that it holds.
    pub queue: u32,
    pub up: bool,
    /// How the kernel makes up IPv6 addresses; `None` without IPv6.
    pub address_generation: Option<u8>,
}

/// The kernel makes up no IPv6 addresses for the interface.
pub(super) const GENERATE_NONE: u8 = 1;

/// A rule of the routing policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rule {
    pub ipv6: bool,
    pub priority: u32,
    pub selector: Selector,
    pub action: Action,
}

/// Which packets a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Selector {
    Marked(u32),
    NotMarked(u32),
    To(IpNet),
    From {
        interface: String,
    },
    /// Of one TCP connection of this host.
    Connection {
        local: SocketAddr,
        peer: SocketAddr,
    },
}

/// What a rule does with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    Lookup(u32),
    /// As `Lookup`, but default routes do not count.
    LookupMoreSpecific(u32),
    /// The sender is told by ICMP.
    Prohibit,
}

impl Netlink {
    /// Opens the connection; needs a tokio runtime.
    pub(super) fn open() -> Result<Netlink, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| {
            Error::Netlink { what: "talk to the kernel".into(), detail: error.to_string() }
        })?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    /// All interfaces.
    pub(super) async fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        let links: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| refused("list the interfaces", &error))?;
        Ok(links.iter().map(interface).collect())
    }

    /// The interface of this name, if there is one.
    pub(super) async fn interface(&self, name: &str) -> Result<Option<Interface>, Error> {
        Ok(self.interfaces().await?.into_iter().find(|interface| interface.name == name))
    }

    /// Every address of the host with its interface's name.
    pub(super) async fn addresses(&self) -> Result<Vec<(String, IpNet)>, Error> {
        let names: HashMap<u32, String> =
            self.interfaces().await?.into_iter().map(|i| (i.index, i.name)).collect();
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| refused("list the addresses", &error))?;
        Ok(messages
            .iter()
            .filter_map(|message| {
                Some((names.get(&message.header.index)?.clone(), address(message)?))
            })
            .collect())
    }

    pub(super) async fn set_link(
        &self,
        interface: &Interface,
        mtu: u32,
        queue: u32,
        up: bool,
    ) -> Result<(), Error> {
        let link = LinkUnspec::new_with_index(interface.index)
            .mtu(mtu)
            .append_extra_attribute(LinkAttribute::TxQueueLen(queue));
        let link = if up { link.up() } else { link.down() };
        self.handle.link().set(link.build()).execute().await.map_err(|error| {
            let state = if up { "up" } else { "down" };
            refused(&format!("set {} {state} with MTU {mtu}", interface.name), &error)
        })
    }

    /// Sets how the kernel makes up IPv6 addresses. (The setting under `/proc/sys` would make one
    /// up at once, even for an interface that is down.)
    pub(super) async fn set_address_generation(
        &self,
        interface: &Interface,
        mode: u8,
    ) -> Result<(), Error> {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode.into())]);
        let link = LinkUnspec::new_with_index(interface.index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6]));
        self.handle.link().set(link.build()).execute().await.map_err(|error| {
            refused(&format!("set the address generation of {}", interface.name), &error)
        })
    }

    /// Adds an address; `quiet` keeps the kernel from adding a route for its network.
    pub(super) async fn add_address(
        &self,
        interface: &Interface,
        address: IpNet,
        quiet: bool,
    ) -> Result<(), Error> {
        let mut request =
            self.handle.address().add(interface.index, address.addr(), address.prefix_len());
        let mut flags = AddressFlags::Nodad;
        if quiet {
            flags |= AddressFlags::Noprefixroute;
        }
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        accept(request.execute().await, &[Errno::EXIST]).map(drop).map_err(|error| {
            refused(&format!("add the address {address} to {}", interface.name), &error)
        })
    }

    /// Removes an address; false if it was not there.
    pub(super) async fn remove_address(
        &self,
        interface: &Interface,
        address: IpNet,
    ) -> Result<bool, Error> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.index = interface.index;
        message.header.prefix_len = address.prefix_len();
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        let result = self.handle.address().del(message).execute().await;
        accept(result, &[Errno::ADDRNOTAVAIL, Errno::NODEV, Errno::NOENT]).map_err(|error| {
            refused(&format!("remove the address {address} from {}", interface.name), &error)
        })
    }

    /// Adds a route to `network` through the interface.
    pub(super) async fn add_route(
        &self,
        interface: &Interface,
        table: u32,
        network: IpNet,
    ) -> Result<(), Error> {
        let message = route(interface, table, network);
        let result = self.handle.route().add(message).execute().await;
        accept(result, &[Errno::EXIST]).map(drop).map_err(|error| {
            refused(&format!("add the route to {network} through {}", interface.name), &error)
        })
    }

    /// Removes that route; false if it was not there.
    pub(super) async fn remove_route(
        &self,
        interface: &Interface,
        table: u32,
        network: IpNet,
    ) -> Result<bool, Error> {
        let message = route(interface, table, network);
        let result = self.handle.route().del(message).execute().await;
        accept(result, &[Errno::SRCH, Errno::NODEV, Errno::NOENT]).map_err(|error| {
            refused(&format!("remove the route to {network} through {}", interface.name), &error)
        })
    }

    pub(super) async fn add_rule(&self, rule: &Rule) -> Result<(), Error> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule_message(rule);
        accept(request.execute().await, &[Errno::EXIST])
            .map(drop)
            .map_err(|error| refused(&format!("add the rule {}", rule.priority), &error))
    }

    /// Removes a rule; false if it was not there.
    pub(super) async fn remove_rule(&self, rule: &Rule) -> Result<bool, Error> {
        let result = self.handle.rule().del(rule_message(rule)).execute().await;
        accept(result, &[Errno::NOENT, Errno::SRCH])
            .map_err(|error| refused(&format!("remove the rule {}", rule.priority), &error))
    }
}

fn interface(message: &LinkMessage) -> Interface {
    let mut interface = Interface {
        name: String::new(),
        index: message.header.index,
        mtu: 0,
        queue: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        address_generation: None,
    };
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            interface.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            interface.mtu = *mtu;
        } else if let LinkAttribute::TxQueueLen(queue) = attribute {
            interface.queue = *queue;
        } else if let LinkAttribute::AfSpecUnspec(families) = attribute {
            interface.address_generation = address_generation(families);
        }
    }
    interface
}

fn address_generation(families: &[AfSpecUnspec]) -> Option<u8> {
    for family in families {
        let AfSpecUnspec::Inet6(attributes) = family else { continue };
        for attribute in attributes {
            if let AfSpecInet6::AddrGenMode(mode) = attribute {
                return Some(mode.into());
            }
        }
    }
    None
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    // On point-to-point links "address" is the peer's, "local" is ours; IPv6 often has no "local".
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            local = Some(*ip);
        } else if let AddressAttribute::Address(ip) = attribute {
            other = Some(*ip);
        }
    }
    let ip: IpAddr = local.or(other)?;
    IpNet::new(ip, message.header.prefix_len).ok()
}

fn route(interface: &Interface, table: u32, network: IpNet) -> RouteMessage {
    match network {
        IpNet::V4(network) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network.network(), network.prefix_len())
            .scope(RouteScope::Link)
            .output_interface(interface.index)
            .table_id(table)
            .protocol(ORIGIN)
            .build(),
        IpNet::V6(network) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(network.network(), network.prefix_len())
            .output_interface(interface.index)
            .table_id(table)
            .protocol(ORIGIN)
            .build(),
    }
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Protocol(ORIGIN));
    match &rule.selector {
        Selector::Marked(mark) => attributes.push(RuleAttribute::FwMark(*mark)),
        Selector::NotMarked(mark) => {
            attributes.push(RuleAttribute::FwMark(*mark));
            message.header.flags = RuleFlags::Invert;
        }
        Selector::To(network) => {
            message.header.dst_len = network.prefix_len();
            attributes.push(RuleAttribute::Destination(network.network()));
        }
        Selector::From { interface } => {
            attributes.push(RuleAttribute::Iifname(interface.clone()));
        }
        Selector::Connection { local, peer } => {
            let only = |port| RulePortRange { start: port, end: port };
            let length = IpNet::from(local.ip()).max_prefix_len();
            (message.header.src_len, message.header.dst_len) = (length, length);
            attributes.push(RuleAttribute::Source(local.ip()));
            attributes.push(RuleAttribute::Destination(peer.ip()));
            attributes.push(RuleAttribute::IpProtocol(IpProtocol::Tcp));
            attributes.push(RuleAttribute::SourcePortRange(only(local.port())));
            attributes.push(RuleAttribute::DestinationPortRange(only(peer.port())));
        }
    }
    match rule.action {
        Action::Lookup(table) => attributes.push(RuleAttribute::Table(table)),
        Action::LookupMoreSpecific(table) => {
            attributes.push(RuleAttribute::Table(table));
            attributes.push(RuleAttribute::SuppressPrefixLen(0));
        }
        Action::Prohibit => {}
    }
    message.header.action = match rule.action {
        Action::Lookup(_) | Action::LookupMoreSpecific(_) => RuleAction::ToTable,
        Action::Prohibit => RuleAction::Prohibit,
    };
    message
}

fn family(address: IpNet) -> AddressFamily {
    match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    }
}

/// Takes the given errors for "it is so already": true if something was changed.
fn accept(
    result: Result<(), rtnetlink::Error>,
    already: &[Errno],
) -> Result<bool, rtnetlink::Error> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if errno(&error).is_some_and(|errno| already.contains(&errno)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    let rtnetlink::Error::NetlinkError(message) = error else { return None };
    Some(Errno::from_raw_os_error(message.raw_code().abs()))
}

fn refused(what: &str, error: &rtnetlink::Error) -> Error {
    match errno(error) {
        Some(Errno::PERM | Errno::ACCESS) => Error::NotPermitted { what: what.to_owned() },
        Some(errno) => Error::Netlink { what: what.to_owned(), detail: errno.to_string() },
        None => Error::Netlink { what: what.to_owned(), detail: error.to_string() },
    }
}
