//! What the ladder does not do: send anything while all is well, and try what is known not to work.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use e2e::{Capture, Flow, address};

use crate::scene::{BAR, BEST, Fault, KCP, Scene};

/// Longer than until the first climb.
const IDLE: Duration = Duration::from_secs(36);

#[test]
fn an_idle_tunnel_on_the_best_rung_has_nothing_but_its_pings() -> Result<()> {
    let mut scene = Scene::connected()?;
    sleep(Duration::from_secs(2));
    let capture = Capture::start(&scene.lab.routers[0], "lan0")?;
    sleep(IDLE);
    let flows = capture.flows()?;
    let is_tunnel = |flow: &Flow| flow.is_with("tcp", address::GATEWAY.into(), 8443);
    let other: Vec<_> = flows.keys().filter(|it| !it.is_link_housekeeping()).collect();
    let other: Vec<_> = other.into_iter().filter(|flow| !is_tunnel(flow)).collect();
    assert!(other.is_empty(), "{other:?}");
    let packets: usize = flows.iter().filter(|(flow, _)| is_tunnel(flow)).map(|it| it.1).sum();
    // a ping, a pong and what TCP says to that, every 12 to 18 s at both ends
    assert!((2..=40).contains(&packets), "{packets}: {flows:?}");
    // and it would have been seen
    scene.suffer(Fault::Tcp)?;
    scene.wait_for(KCP, BAR)?;
    let is_kcp = |flow: &Flow| flow.is_with("udp", address::GATEWAY.into(), 443);
    assert!(capture.flows()?.keys().any(is_kcp));
    Ok(())
}

#[test]
fn what_worked_on_this_network_is_tried_first_the_next_time() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.suffer(Fault::Tcp)?;
    scene.client.connect(&["--transport", "auto"])?;
    assert_eq!(scene.rung()?, KCP, "{}", scene.logs());
    scene.client.disconnect()?;

    let capture = Capture::start(&scene.lab.routers[0], "lan0")?;
    scene.client.connect(&["--transport", "auto"])?;
    assert_eq!(scene.rung()?, KCP, "{}", scene.logs());
    // the kernel may still answer the last connection, by ICMP
    let is_first = |packet: &e2e::Packet| {
        packet.flow.destination == Some(address::GATEWAY.into()) && packet.flow.protocol != "icmp"
    };
    let packets = capture.packets_since(std::time::UNIX_EPOCH)?;
    let first = packets.into_iter().find(is_first).map(|it| (it.flow.protocol, it.flow.port));
    assert_eq!(first, Some(("udp".to_owned(), 443)));
    scene.client.disconnect()?;

    // and what the user wants comes before all that
    scene.recover()?;
    let line = scene.client.connect(&["--transport", "tls"])?;
    assert!(line.contains("(tls, "), "{line}");
    assert_eq!(scene.rung()?, BEST);
    assert!(scene.ladder()?.iter().all(|rung| rung["transport"] == "tls"));
    scene.client.disconnect()?;
    let line = scene.client.connect(&["--transport", "kcp"])?;
    assert!(line.contains("(kcp, "), "{line}");
    scene.wait_for(KCP, BAR)
}
