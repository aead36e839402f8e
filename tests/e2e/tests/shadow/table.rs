//! The table of connections itself.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use e2e::{Capture, Ping, address, figure, full_or_short};
use socket2::{Domain, Protocol, Socket, Type};

use super::{LONG_ENOUGH, Scene, inside};

/// What the gateway allows each client, unless it is told otherwise.
const LIMIT: u32 = 4_096;

/// Entries in the gateway's table.
fn entries(scene: &Scene) -> Result<u32> {
    let text = scene.gateway.node.read_file("/proc/sys/net/netfilter/nf_conntrack_count")?;
    text.trim().parse().context("nf_conntrack_count")
}

/// As many new connections as this, each of one datagram to a port of its own; returns how many more
/// entries the gateway has then.
fn open_connections(scene: &Scene, count: u32) -> Result<u32> {
    let before = entries(scene)?;
    let from = scene.attacker.inner_address()?;
    inside(&scene.attacker.node, || {
        let sockets = (0..count.div_ceil(5_000)).map(|_| UdpSocket::bind((from, 0)));
        for (socket, first) in sockets.zip((0..count).step_by(5_000)) {
            let socket = socket?;
            for number in first..count.min(first + 5_000) {
                let port = 20_000 + u16::try_from(number - first)?;
                socket.send_to(b"x", (address::WEB, port))?;
                // no faster than the tunnel takes them
                if number % 64 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        }
        Ok(())
    })?;
    std::thread::sleep(LONG_ENOUGH);
    Ok(entries(scene)?.saturating_sub(before))
}

#[test]
fn no_client_fills_the_table_of_connections() -> Result<()> {
    let scene = Scene::new()?;
    // nobody answers, so that each is an entry for half a minute
    scene.lab.web.nft(
        "table inet mute {\n chain c {\n type filter hook input priority 0;\n \
         udp dport 20000-29999 drop\n }\n }\n",
    )?;
    let count = full_or_short(100_000, 8_000);
    let limited = open_connections(&scene, count)?;
    figure("entries of one client, limited", limited.into(), "entries");
    assert!((LIMIT / 2..=LIMIT + 100).contains(&limited), "{limited} entries by {count} datagrams");
    // names and the gateway count apart
    let answers = Ping::send(&scene.attacker.node, address::INNER_GATEWAY.into(), 3)?.received;
    assert_eq!(answers, 3, "echoes of the gateway at the limit");

    scene.without("connections_through", &[])?;
    let unlimited = open_connections(&scene, count)?;
    figure("entries of one client, not limited", unlimited.into(), "entries");
    assert!(unlimited > LIMIT + 1_000, "control: {unlimited} entries without the rule");
    Ok(())
}

/// A TCP reset to the web host out of nowhere; the connection table knows no connection of it.
fn send_reset(scene: &Scene) -> Result<()> {
    inside(&scene.attacker.node, || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
        let to: SocketAddr = (address::WEB, 0).into();
        let reset = b"\x20\x00\x00\x50\0\0\0\x01\0\0\0\x01\x50\x04\0\0\0\0\0\0";
        socket.send_to(reset, &to.into())?;
        Ok(())
    })
}

/// Whether an inside address is seen outside.
fn is_seen(scene: &Scene) -> Result<bool> {
    let outside = Capture::start(&scene.lab.internet, "to-gateway")?;
    send_reset(scene)?;
    std::thread::sleep(LONG_ENOUGH);
    assert_eq!(Ping::send(&scene.attacker.node, address::WEB.into(), 1)?.received, 1, "control");
    outside.wait_for("the control's echo", |flow| flow.protocol == "icmp")?;
    let inner = scene.attacker.inner_address()?.into();
    Ok(outside.finish()?.keys().any(|flow| flow.source == Some(inner)))
}

#[test]
fn nothing_leaves_with_an_inside_address() -> Result<()> {
    let scene = Scene::new()?;
    assert!(!is_seen(&scene)?, "10.8.0.x outside");
    scene.without("through_gateway", &[])?;
    assert!(is_seen(&scene)?, "control: it is seen without the rule");
    Ok(())
}
