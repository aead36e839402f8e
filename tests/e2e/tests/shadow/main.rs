//! What a client may try against others by way of the gateway's connection table and its place in
//! other networks (CVE-2021-3773 and its like). Each attack is made twice: on the gateway as it is,
//! and, as a control, without the rule that stands against it.

mod closed;
mod ports;
mod table;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{ClientNode, GatewayNode, Lab, Node, Programs};

/// How long something is waited for that should not come.
const LONG_ENOUGH: Duration = Duration::from_millis(700);

/// A gateway, and an attacker who is connected to it.
struct Scene {
    lab: Lab,
    gateway: GatewayNode,
    attacker: ClientNode,
}

impl Scene {
    fn new() -> Result<Scene> {
        let (lab, programs) = (Lab::new()?, Programs::find()?);
        let gateway = GatewayNode::start_new(&lab, &programs)?;
        let attacker = ClientNode::connect_new(&lab, 0, &programs, &gateway, "mallory")?;
        Ok(Scene { lab, gateway, attacker })
    }

    /// Takes all rules out of a chain of the gateway's table, and puts these in their place.
    fn without(&self, chain: &str, instead: &[&str]) -> Result<()> {
        let chain = format!("chain inet cipherwall-gw {chain}");
        let rules: String =
            instead.iter().map(|rule| format!("add rule {} {rule}\n", &chain[6..])).collect();
        self.gateway.node.nft(&format!("flush {chain}\n{rules}"))
    }
}

/// Does something in a node's network.
fn inside<T: Send>(node: &Node, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let there = || {
        node.enter_network()?;
        action()
    };
    // a thread of its own: it stays where it went
    thread::scope(|scope| scope.spawn(there).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A UDP socket in a node's network, which waits for datagrams no longer than is useful here.
fn udp(node: &Node, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    inside(node, || {
        let socket = UdpSocket::bind((address, port))?;
        socket.set_read_timeout(Some(LONG_ENOUGH))?;
        Ok(socket)
    })
    .with_context(|| format!("UDP port {port} of {}", node.namespace()))
}

/// What comes next, and from whom; nothing if nothing comes in time.
fn received(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut bytes = [0; 100];
    let (length, from) = socket.recv_from(&mut bytes).ok()?;
    Some((bytes[..length].to_vec(), from))
}
