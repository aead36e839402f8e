//! Notices when somebody else takes away our tables, rules or routes, or writes the resolver file:
//! `nft flush ruleset`, a firewall that is loaded anew, a network manager that removes what it does
//! not know, a DHCP client.
//!
//! The daemon has one as long as it wants anything of the host, and makes everything as wanted again
//! ([`Host::protect`](crate::Host::protect), [`Host::apply`](crate::Host::apply)).

use std::io;

use futures_util::{StreamExt, stream::BoxStream};
use libc::{
    NFNL_SUBSYS_NFTABLES, NFNLGRP_NFTABLES, NFPROTO_INET, NFT_MSG_NEWGEN, NFT_MSG_NEWTABLE,
};
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    packet_route::{RouteNetlinkMessage, rule::RuleAttribute},
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER},
};

use super::{dns::watch::ResolverWatch, netlink::ORIGIN, nft};
use crate::Error;

/// Watches the tables, rules and routes that are ours, and the resolver file. Needs the rights of an
/// administrator.
pub struct Guard {
    tables: TokioSocket,
    transaction: Transaction,
    /// Removed rules and routes of ours.
    ways: BoxStream<'static, ()>,
    resolver: ResolverWatch,
}

impl Guard {
    /// Watches from now on. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Netlink`]; [`Error::ResolverFile`].
    pub fn watch() -> Result<Guard, Error> {
        let failed = |error: io::Error| Error::Netlink {
            what: "watch the packet filter and the routing rules".into(),
            detail: error.to_string(),
        };
        let mut tables = TokioSocket::new(NETLINK_NETFILTER).map_err(failed)?;
        let groups = 1 << (NFNLGRP_NFTABLES - 1);
        tables.socket_mut().bind(&SocketAddr::new(0, groups)).map_err(failed)?;
        let groups = [
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(failed)?;
        tokio::spawn(connection);
        let ways = messages
            .filter_map(async |(message, _)| takes_a_way_of_ours(&message.payload).then_some(()))
            .boxed();
        let resolver = ResolverWatch::open()?;
        Ok(Guard { tables, transaction: Transaction::default(), ways, resolver })
    }

    /// Waits until something of ours was taken away or changed. What this process replaces with
    /// [`Host::protect`](crate::Host::protect) or [`Host::apply`](crate::Host::apply) does not
    /// count; what it removes does. May be dropped and called again: nothing is forgotten.
    pub async fn disturbed(&mut self) {
        let Guard { tables, transaction, ways, resolver } = self;
        tokio::select! {
            () = tables_disturbed(tables, transaction) => {}
            Some(()) = ways.next() => {}
            () = resolver.changed() => {}
        }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

fn takes_a_way_of_ours(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    let NetlinkPayload::InnerMessage(message) = payload else { return false };
    if let RouteNetlinkMessage::DelRule(rule) = message {
        rule.attributes.contains(&RuleAttribute::Protocol(ORIGIN))
    } else if let RouteNetlinkMessage::DelRoute(route) = message {
        route.header.protocol == ORIGIN
    } else {
        false
    }
}

async fn tables_disturbed(socket: &TokioSocket, transaction: &mut Transaction) {
    loop {
        match socket.recv_from_full().await {
            Ok((datagram, _)) => {
                let mut disturbed = false;
                for message in Messages(&datagram) {
                    disturbed |= transaction.see(&message);
                }
                if disturbed {
                    return;
                }
            }
            // more was told than the socket holds: who knows what
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                *transaction = Transaction::default();
                return;
            }
            Err(error) => {
                tracing::error!("changes of the packet filter are no longer noticed: {error}");
                return std::future::pending().await;
            }
        }
    }
}

/// The changes of one transaction as far as they concern us. We always replace a table as a whole.
#[derive(Debug, Default)]
struct Transaction {
    touched: Vec<String>,
    replaced: Vec<String>,
}

impl Transaction {
    /// Takes a message; true at the end of a transaction that took something from us.
    fn see(&mut self, message: &Message<'_>) -> bool {
        if message.kind == NFT_MSG_NEWGEN {
            let seen = std::mem::take(self);
            return seen.touched.iter().any(|table| !seen.replaced.contains(table));
        }
        let Some(table) = message.table().filter(|table| nft::OURS.contains(&table.as_str()))
        else {
            return false;
        };
        let list =
            if message.kind == NFT_MSG_NEWTABLE { &mut self.replaced } else { &mut self.touched };
        if !list.contains(&table) {
            list.push(table);
        }
        false
    }
}

/// A message about nftables: what happened, in which table.
#[derive(Debug)]
struct Message<'a> {
    /// One of `NFT_MSG_`.
    kind: i32,
    family: u8,
    attributes: &'a [u8],
}

impl Message<'_> {
    /// The name of the table of the `inet` family that it is about: the first attribute in all
    /// messages about tables, chains, rules and sets.
    fn table(&self) -> Option<String> {
        const NAME: u16 = 1;
        let inet = i32::from(self.family) == NFPROTO_INET;
        let length = usize::from(u16_at(self.attributes, 0)?);
        let named = u16_at(self.attributes, 2)? == NAME;
        let name = self.attributes.get(4..length)?.strip_suffix(&[0])?;
        (inet && named).then(|| String::from_utf8_lossy(name).into_owned())
    }
}

/// The messages of a datagram: `struct nlmsghdr`, `struct nfgenmsg`, attributes.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        const FAMILY: usize = 16;
        const HEADERS: usize = FAMILY + 4;
        loop {
            let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
            let kind = u16_at(self.0, 4)?;
            let message = self.0.get(..length)?;
            let (family, attributes) = (*message.get(FAMILY)?, message.get(HEADERS..)?);
            self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
            let [subsystem, kind] = [kind >> 8, kind & 0xff].map(i32::from);
            if subsystem == NFNL_SUBSYS_NFTABLES {
                return Some(Message { kind, family, attributes });
            }
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
