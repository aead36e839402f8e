//! Clients over KCP: what is seen of them, what their path does to them, and what strangers get.
//!
//! Everything that is tested over each transport is tested over KCP as well: traffic, leaks,
//! reconnecting, resuming, isolation.

mod rates;
mod strangers;

use std::{thread::sleep, time::Duration};

use anyhow::{Context, Result};
use e2e::{
    Capture, ClientNode, Direction, Download, GatewayNode, Lab, Link, Ping, Programs, Transport,
    address, figure, full_or_short, until,
};

const SOON: Duration = Duration::from_secs(10);

/// A gateway with these changes of its `server.yaml`, and a client over KCP.
fn connected(lab: &Lab, edits: &[(&str, &str)]) -> Result<(GatewayNode, ClientNode)> {
    let programs = Programs::find()?.over(Transport::Kcp);
    let gateway = GatewayNode::start_edited(lab, &programs, edits)?;
    let client = ClientNode::connect_new(lab, 0, &programs, &gateway, "alice")?;
    Ok((gateway, client))
}

#[test]
fn nothing_but_datagrams_of_port_443_is_seen() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?.over(Transport::Kcp);
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    let capture = Capture::start(&lab.internet, "to-gateway")?;
    client.connect(&[])?;
    let size = full_or_short(256, 24) << 20;
    lab.transfer(&client.node, size)?;
    let status = client.status()?;
    assert_eq!(status.transport.as_deref(), Some("kcp"));
    assert_eq!(status.gateway.map(|gateway| gateway.port()), Some(443));
    assert!(status.rx_bytes > size && status.tx_bytes > size, "counters: {status:?}");
    assert_eq!(gateway.session()?["transport"], "kcp");
    let live = gateway.status()?;
    assert_eq!((&live["kcp_port"], &live["kcp_sessions"]), (&443.into(), &1.into()), "{live}");
    client.disconnect()?;
    let gateway_address = address::GATEWAY.into();
    let mut datagrams = 0;
    for (flow, count) in capture.finish()? {
        let outside = [flow.source, flow.destination].contains(&Some(gateway_address));
        let of_client = flow.is_with("udp", gateway_address, 443);
        datagrams += if of_client { count } else { 0 };
        assert!(
            !outside || of_client || flow.is_link_housekeeping() || {
                // the gateway's own, for the client
                flow.destination == Some(address::WEB.into())
                    || flow.source == Some(address::WEB.into())
            },
            "{count} packets of {flow}"
        );
    }
    assert!(datagrams > 500, "{datagrams} datagrams");
    Ok(())
}

#[test]
fn ipv6_outside_with_the_least_room_there_may_be() -> Result<()> {
    let lab = Lab::new()?;
    lab.set_path_mtu(1_280)?;
    let programs = Programs::find()?.over(Transport::Kcp);
    let mut gateway = GatewayNode::new(&lab, &programs);
    gateway.init(&format!("[{}]", address::GATEWAY_V6))?;
    gateway.start()?;
    let client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let peer = client.status()?.gateway.context("status names no gateway")?;
    assert_eq!(peer.ip(), address::GATEWAY_V6);
    lab.transfer(&client.node, 8 << 20)?;
    assert_eq!(gateway.session()?["transport"], "kcp");
    Ok(())
}

#[test]
fn keys_change_under_load_and_nothing_is_lost() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[("interval: 4h", "interval: 200ms")])?;
    let before = gateway.session()?;
    lab.transfer(&client.node, full_or_short(512, 48) << 20)?;
    let count = u16::try_from(full_or_short(2_000, 200))?;
    let pinged = Ping::send(&client.node, address::WEB.into(), count)?;
    assert_eq!(pinged.received, usize::from(count), "pings while keys change every 200 ms");
    let after = gateway.session()?;
    let rekeys = after["rekeys"].as_u64().context("rekeys")?;
    figure("rekeys", rekeys as f64, "times");
    assert!(rekeys >= 10, "{rekeys} rekeys");
    assert_eq!(before["since"], after["since"], "one connection carried everything");
    Ok(())
}

#[test]
fn a_client_whose_datagrams_come_from_elsewhere_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[])?;
    let before = gateway.session()?;
    let slow =
        Link { delay: Duration::from_millis(10), rate: Some(100_000_000), ..Link::default() };
    let _slow = lab.emulate(slow, slow)?;
    let sent = lab.make_download("file", 60 << 20)?;
    let download = Download::start(&client.node, address::WEB, "file")?;
    for _ in 0..3 {
        sleep(Duration::from_secs(1));
        let moved = lab.rebind_datagrams()?;
        let took = until("the download to go on", SOON, || Ok(download.flow_after(moved)))?;
        figure("the download went on after", took.as_secs_f64() * 1e3, "ms");
    }
    assert_eq!(download.finish(Duration::from_secs(60))?, sent, "SHA-256 of the download");
    let after = gateway.session()?;
    assert_eq!(before["since"], after["since"], "one connection all the time");
    assert_ne!(before["peer"], after["peer"], "the address was another one");
    Ok(())
}

#[test]
fn the_client_changes_its_link_and_the_connection_stays() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[])?;
    let slow =
        Link { delay: Duration::from_millis(10), rate: Some(100_000_000), ..Link::default() };
    let _slow = lab.emulate(slow, slow)?;
    let sent = lab.make_download("file", 40 << 20)?;
    let download = Download::start(&client.node, address::WEB, "file")?;
    for _ in 0..2 {
        sleep(Duration::from_secs(1));
        let moved = lab.change_link()?;
        let took = until("the download to go on", SOON, || Ok(download.flow_after(moved)))?;
        figure("the download went on after", took.as_secs_f64() * 1e3, "ms");
    }
    assert_eq!(download.finish(Duration::from_secs(60))?, sent, "SHA-256 of the download");
    assert_eq!(gateway.session()?["transport"], "kcp");
    Ok(())
}

#[test]
fn losses_and_another_order_cost_no_session_and_no_byte() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[])?;
    let before = gateway.session()?;
    let fast = Link { delay: Duration::from_millis(20), rate: Some(50_000_000), ..Link::default() };
    let reorder = Some(e2e::Reorder { share: 0.05, delay: Duration::from_millis(24) });
    let emulator = lab.emulate(Link { reorder, ..fast }, Link { reorder, ..fast })?;
    lab.transfer(&client.node, 4 << 20).context("in another order")?;
    for direction in [Direction::Up, Direction::Down] {
        emulator.set(direction, Link { loss: 0.1, ..fast });
    }
    lab.transfer(&client.node, 2 << 20).context("with losses")?;
    assert_eq!(before["since"], gateway.session()?["since"], "one connection all the time");
    Ok(())
}

#[test]
fn it_can_be_off_and_the_invitation_says_so() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway =
        GatewayNode::start_edited(&lab, &programs, &[("kcp:\n  port: 443", "kcp:\n  port: off")])?;
    assert_eq!(gateway.status()?["kcp_port"], serde_json::Value::Null);
    let client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    let refused = client.run(&["connect", "--foreground", "--transport", "kcp"])?;
    assert_ne!(refused.code(), 0, "{refused}");
    assert!(refused.stderr.contains("kcp"), "{refused}");
    Ok(())
}
