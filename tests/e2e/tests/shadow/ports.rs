//! Ports of translated connections.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use e2e::{Node, address};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Scene, inside, received, udp};

/// Translation as it is without further words: a client's port is kept where it is free.
const PLAIN: &[&str] = &["ip saddr 10.8.0.0/24 oifname \"eth0\" masquerade"];
/// Where the victim's packets come from. With ports from 32768 up, Linux itself stands against this
/// attack since version 5.17; a carrier's NAT gives all kinds of ports.
const VICTIM: u16 = 20_000;
/// The gateway's port for datagrams.
const DATAGRAMS: u16 = 1194;
/// The gateway's port for streams.
const STREAMS: u16 = 8443;

/// The gateway's kernel forgets the attacker's connections: it would translate the same port as before,
/// under other rules too.
fn forget(scene: &Scene) -> Result<()> {
    let inner = scene.attacker.inner_address()?.to_string();
    // fails if there are none
    scene.gateway.node.run(&["conntrack", "-D", "-s", &inner]).map(drop)
}

/// The attacker talks to somebody who is about to log in, with the gateway's own port as his: if the
/// port is kept, the connection table takes what comes for the gateway for an answer to him. Whether
/// he gets it.
fn takes_datagrams(scene: &Scene, port: u16) -> Result<bool> {
    forget(scene)?;
    let mallory = udp(&scene.attacker.node, scene.attacker.inner_address()?, DATAGRAMS)?;
    let victim = udp(&scene.lab.web, address::WEB, port)?;
    mallory.send_to(b"I am the gateway", (address::WEB, port))?;
    let (_, seen) = received(&victim).expect("control: the attacker's datagram arrives");
    assert_eq!(seen.ip(), address::GATEWAY, "it is translated");
    victim.send_to(b"my log-in", (address::GATEWAY, DATAGRAMS))?;
    Ok(received(&mallory).is_some_and(|(bytes, _)| bytes == b"my log-in"))
}

#[test]
fn no_client_gets_the_datagrams_of_others() -> Result<()> {
    let scene = Scene::new()?;
    assert!(!takes_datagrams(&scene, VICTIM)?, "the attack works");
    scene.without("translate", PLAIN)?;
    assert!(takes_datagrams(&scene, VICTIM + 1)?, "control: it works without the rule");
    Ok(())
}

/// The same with TCP, where both begin: the attacker first. Whether he is connected to the victim.
fn takes_a_connection(scene: &Scene, port: u16) -> Result<bool> {
    forget(scene)?;
    // the victim's router would not let him in either
    scene.lab.web.nft(&format!(
        "table inet shy{port} {{\n chain c {{\n type filter hook input priority 0;\n \
         tcp dport {port} tcp flags & (syn | ack) == syn drop\n }}\n }}\n"
    ))?;
    let (attacker, inner) = (scene.attacker.node.clone(), scene.attacker.inner_address()?);
    let attack = thread::spawn(move || {
        connect(&attacker, (inner, STREAMS).into(), (address::WEB, port).into())
    });
    thread::sleep(Duration::from_millis(300));
    let _victim =
        connect(&scene.lab.web, (address::WEB, port).into(), (address::GATEWAY, STREAMS).into())?;
    Ok(attack.join().expect("no panic")?.is_some())
}

/// A connection between exactly these; none if there is none within two seconds.
fn connect(node: &Node, from: SocketAddr, to: SocketAddr) -> Result<Option<TcpStream>> {
    inside(node, || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        let connected = socket.connect_timeout(&to.into(), Duration::from_secs(2));
        Ok(connected.ok().map(|()| socket.into()))
    })
}

#[test]
fn no_client_gets_the_connections_of_others() -> Result<()> {
    let scene = Scene::new()?;
    assert!(!takes_a_connection(&scene, VICTIM)?, "the attack works");
    scene.without("translate", PLAIN)?;
    assert!(takes_a_connection(&scene, VICTIM + 1)?, "control: it works without the rule");
    Ok(())
}

/// The ports that a web host sees of a client's datagrams, which come from these ports.
fn seen_ports(scene: &Scene, from: std::ops::Range<u16>) -> Result<Vec<u16>> {
    let web = udp(&scene.lab.web, Ipv4Addr::UNSPECIFIED, 7_000)?;
    let client = &scene.attacker;
    from.map(|port| {
        let socket = udp(&client.node, client.inner_address()?, port)?;
        socket.send_to(b"x", (address::WEB, 7_000))?;
        Ok(received(&web).expect("the datagram arrives").1.port())
    })
    .collect()
}

#[test]
fn nobody_outside_can_tell_the_ports_of_a_client() -> Result<()> {
    let scene = Scene::new()?;
    let ports = seen_ports(&scene, 40_000..40_020)?;
    assert!(ports.iter().all(|port| *port >= 32_768), "below the range: {ports:?}");
    let kept = (40_000..40_020).filter(|port| ports.contains(port)).count();
    let steps = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 16).count();
    assert!(kept <= 2 && steps <= 3, "not random: {ports:?}");

    scene.without("translate", PLAIN)?;
    let kept: Vec<u16> = (41_000..41_020).collect();
    assert_eq!(seen_ports(&scene, 41_000..41_020)?, kept, "control: kept without the rule");
    Ok(())
}
