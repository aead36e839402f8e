//! The client's table: the tunnel's own packets pass a strict reverse path filter, nobody outside can
//! talk to the inner address, and connections from before the tunnel end at once.

use super::{chain, hosts, sets, table::Table};
use crate::ClientNetwork;

/// The name of the client's table.
pub(super) const NAME: &str = "cipherwall";

/// The client's table.
pub(in crate::linux) fn table(wanted: &ClientNetwork) -> Table {
    let text = [
        chain(
            "to_outside",
            "filter hook output priority mangle",
            [remember_tunnel_connections(wanted.mark)],
        ),
        chain(
            "from_outside",
            "filter hook prerouting priority mangle",
            [mark_answers_to_tunnel_connections(wanted.mark)],
        ),
        chain(
            "to_inner_address",
            "filter hook prerouting priority raw",
            drop_to_inner_address_from_outside(wanted),
        ),
        chain("into_tunnel", "filter hook output priority filter", end_what_began_outside(wanted)),
    ];
    Table { name: NAME.into(), text: text.concat() }
}

/// Connections of our own sockets to the gateway are remembered ...
fn remember_tunnel_connections(mark: u32) -> String {
    format!("meta mark {mark:#x} ct mark set meta mark")
}

/// ... so that the answers carry the mark too: the reverse path filter then looks for their source
/// in the main table and finds it where the packet came from, instead of in the tunnel.
fn mark_answers_to_tunnel_connections(mark: u32) -> String {
    format!("ct mark {mark:#x} meta mark set ct mark")
}

/// A neighbour that guesses the inner address could otherwise probe and inject into connections
/// inside the tunnel (CVE-2019-14899).
fn drop_to_inner_address_from_outside(wanted: &ClientNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    sets(&hosts(&wanted.addresses))
        .iter()
        .map(|(family, set)| {
            format!(
                "iifname != {{ \"{interface}\", \"lo\" }} {family} daddr {set} counter drop \
                 comment \"to the inner address from outside\""
            )
        })
        .collect()
}

/// The gateway takes packets from the inner address only. Programs whose connections began outside
/// would wait for answers until they give up; so they open new ones.
fn end_what_began_outside(wanted: &ClientNetwork) -> Vec<String> {
    let interface = &wanted.interface;
    sets(&hosts(&wanted.addresses))
        .iter()
        .flat_map(|(family, set)| {
            let begun = format!("oifname \"{interface}\" {family} saddr != {set}");
            [
                format!("{begun} meta l4proto tcp reject with tcp reset"),
                format!("{begun} meta l4proto udp reject with icmpx type admin-prohibited"),
            ]
        })
        .collect()
}
