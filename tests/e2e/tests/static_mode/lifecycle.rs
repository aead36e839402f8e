//! Restarts and crashes of either side, and clients that move.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{HostState, Lab, Ping, address, until};

use crate::{PATIENCE, Pair, assert_flows, end};

/// How long it may take after a restart or a move: the client's echo after 25 s idle is the last
/// thing that brings it back; traffic does it at once.
const BACK: Duration = Duration::from_secs(5);

fn wait_for_flow(pair: &Pair) -> Result<()> {
    until("an echo through the tunnel", BACK, || {
        let pinged = Ping::send(&pair.client.node, address::WEB.into(), 1)?;
        Ok((pinged.received == 1).then_some(()))
    })?;
    assert_flows(&pair.client)
}

#[test]
fn either_side_can_be_restarted_or_crash_and_the_other_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let before = [HostState::of(&lab.gateway)?, HostState::of(&lab.clients[0])?];
    let mut pair = Pair::start(&lab)?;
    assert_flows(&pair.client)?;
    for crash in [false, true] {
        if crash {
            pair.gateway()?.kill9()
        } else {
            end(pair.gateway()?)?
        }
        pair.start_gateway(&[])?;
        wait_for_flow(&pair).with_context(|| format!("after the gateway's end, crash: {crash}"))?;
        if crash {
            pair.client()?.kill9()
        } else {
            end(pair.client()?)?
        }
        pair.start_client(&[])?;
        wait_for_flow(&pair).with_context(|| format!("after the client's end, crash: {crash}"))?;
    }
    lab.transfer(&pair.client.node, 4 << 20)?;

    pair.client()?.kill9();
    pair.gateway()?.kill9();
    let repaired = pair.client.run(&["repair"])?.ok()?;
    assert!(repaired.contains("undone"), "{repaired}");
    let repaired = pair.gateway.run(&["repair"])?.ok()?;
    assert!(repaired.contains("undone"), "{repaired}");
    for (before, node) in before.iter().zip([&lab.gateway, &lab.clients[0]]) {
        before.expect_unchanged(node, "after a crash and `repair`")?;
    }
    assert!(pair.client.run(&["repair"])?.ok()?.contains("nothing to undo"));
    Ok(())
}

#[test]
fn disconnect_ends_it_and_gives_the_host_back() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    pair.start_gateway(&["--tun", "inside"])?;
    let before = HostState::of(&lab.clients[0])?;
    pair.start_client(&["--tun", "tunnel%d", "--no-lan"])?;
    assert_eq!(pair.client.interface()?, "tunnel0");
    lab.gateway.ip(&["link", "show", "inside"])?;
    // the router is in the local network
    let pinged = Ping::send(&pair.client.node, address::router(0).into(), 2)?;
    assert_eq!(pinged.received, 0, "the local network is not allowed");
    pair.client.run(&["disconnect"])?.ok()?;
    let ended = pair.client()?.wait(PATIENCE)?;
    assert!(ended.success(), "{ended}");
    before.expect_unchanged(&lab.clients[0], "after disconnect")?;

    pair.start_client(&[])?;
    let pinged = Ping::send(&pair.client.node, address::router(0).into(), 2)?;
    assert_eq!(pinged.received, 2, "the local network is allowed");
    Ok(())
}

#[test]
fn the_client_moves_to_another_network_and_behind_another_port() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::start(&lab)?;
    assert_flows(&pair.client)?;
    lab.rebind_datagrams()?;
    wait_for_flow(&pair).context("another port of the NAT")?;
    pair.gateway()?.wait_for_error_line("moved", PATIENCE)?;
    for way in ["there", "back"] {
        lab.change_link()?;
        wait_for_flow(&pair).with_context(|| format!("another link: {way}"))?;
    }
    lab.transfer(&pair.client.node, 2 << 20)
}

/// Nothing of what is sent before the gateway is there is lost for good.
#[test]
fn the_client_may_be_started_first() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    pair.start_client_without_waiting(&[])?.wait_for_error_line("connecting", PATIENCE)?;
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(pair.client.status()?.state, "connecting");
    pair.start_gateway(&[])?;
    pair.client()?.wait_for_line("connected", BACK)?;
    assert_flows(&pair.client)
}

#[test]
fn without_ipv6_inside_it_is_refused_at_once_and_does_not_go_around() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    pair.start_gateway(&[])?;
    let client = &lab.clients[0];
    let seen = Ping::send(client, address::WEB_V6.into(), 2)?;
    assert_eq!(seen.received, 2, "control: this client has IPv6");
    pair.start_client(&[])?;
    let capture = e2e::Capture::start(client, "eth0")?;
    let start = std::time::Instant::now();
    let url = format!("http://[{}]/", address::WEB_V6);
    let ran = client.run(&["curl", "-sS", "-m", "10", &url])?;
    assert!(!ran.status.success(), "{ran}");
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}: {ran}", start.elapsed());
    let page = e2e::Page::open(client, "http://www.lab.test/")?;
    assert!(page.first_byte < Duration::from_secs(2), "by IPv4: {:?}", page.first_byte);
    let around: Vec<_> = capture
        .finish()?
        .into_keys()
        .filter(|flow| flow.is_with("tcp", address::WEB_V6.into(), 80))
        .collect();
    assert!(around.is_empty(), "{around:?}");
    Ok(())
}
