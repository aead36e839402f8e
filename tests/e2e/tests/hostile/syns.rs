//! Raw SYNs: connections that are begun and never completed, without sockets of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{Node, address};
use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};

/// The ports they come from; no others have anything to do with these.
const PORTS: std::ops::Range<u16> = 1_024..30_000;
/// IPPROTO_RAW: packets with their own IP header.
const RAW: i32 = 255;

/// Has the sender's own kernel drop the answers, which it would refuse.
pub(crate) fn ignore_answers(node: &Node) -> Result<()> {
    let (first, last) = (PORTS.start, PORTS.end - 1);
    node.nft(&format!(
        "table ip syns {{\n chain answers {{\n type filter hook input priority 0;\n \
         ip saddr {} tcp dport {first}-{last} drop\n }}\n }}\n",
        address::GATEWAY
    ))
}

/// Sends so many a second from these addresses of `node`, until told to stop. Returns how many.
pub(crate) fn send(
    node: &Node,
    addresses: &[Ipv4Addr],
    rate: u64,
    stop: &AtomicBool,
) -> Result<u64> {
    node.enter_network()?;
    let socket =
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))).context("a raw socket")?;
    let to = SocketAddr::from((address::GATEWAY, 0)).into();
    let mut chance = fastrand::Rng::with_seed(1);
    let (start, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        while sent < start.elapsed().as_millis() as u64 * rate / 1_000 {
            let from = addresses[sent as usize % addresses.len()];
            // a full queue loses some, which does no harm
            let _ = socket.send_to(&syn(from, &mut chance)?, &to);
            sent += 1;
        }
        sleep(Duration::from_millis(2));
    }
    Ok(sent)
}

fn syn(from: Ipv4Addr, chance: &mut fastrand::Rng) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ipv4(from.octets(), address::GATEWAY.octets(), 64)
        .tcp(chance.u16(PORTS), 8443, chance.u32(..), 64_240)
        .syn()
        .options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1_460)])?;
    let mut packet = Vec::with_capacity(64);
    builder.write(&mut packet, &[])?;
    Ok(packet)
}
