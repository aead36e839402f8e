//! What the path does to datagrams: other addresses, less room, losses, another order.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{
    ClientNode, Download, GatewayNode, Lab, Link, Ping, Programs, Reorder, Stream, Transport,
    address, figure, until,
};

use crate::blocked::limit_rate;
use crate::{Outside, SOON, connected};

#[test]
fn a_client_whose_datagrams_come_from_elsewhere_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[])?;
    let before = gateway.session()?;
    let sent = lab.make_download("file", 160 << 20)?;
    limit_rate(&lab, "100mbit")?;
    let download = Download::start(&client.node, address::WEB, "file")?;
    for _ in 0..3 {
        sleep(Duration::from_secs(1));
        let moved = lab.rebind_datagrams()?;
        sleep(Duration::from_millis(500));
        // a client that happens to have nothing to send is found by the stream
        let took = until("the download to go on", SOON, || Ok(download.flow_after(moved)))?;
        figure("the download went on after", took.as_secs_f64() * 1e3, "ms");
    }
    assert_eq!(download.finish(Duration::from_secs(60))?, sent, "SHA-256 of the download");
    until("datagrams to be used", SOON, || {
        Ok((gateway.session()?["transport"] == "udp").then_some(()))
    })?;
    assert_eq!(before["since"], gateway.session()?["since"], "one connection all the time");
    Ok(())
}

#[test]
fn the_client_changes_its_link() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[])?;
    let sent = lab.make_download("file", 96 << 20)?;
    limit_rate(&lab, "100mbit")?;
    let download = Download::start(&client.node, address::WEB, "file")?;
    for _ in 0..2 {
        sleep(Duration::from_millis(1_500));
        lab.change_link()?;
        sleep(Duration::from_secs(1));
        client.wait_for_transport(Transport::Udp, SOON)?;
    }
    assert_eq!(download.finish(Duration::from_secs(60))?, sent, "SHA-256 of the download");
    assert_eq!(gateway.session()?["transport"], "udp");
    Ok(())
}

/// Everything that people do, through whatever size the path has.
fn everything_flows(lab: &Lab, client: &ClientNode) -> Result<()> {
    lab.transfer(&client.node, 8 << 20)?;
    for size in ["56", "1200", "1300", "1392"] {
        let options = ["-M", "do", "-s", size];
        let pinged = Ping::send_with(&client.node, address::WEB.into(), 5, &options)?;
        // a datagram may be lost; one that does not fit is lost five times
        assert!(pinged.received >= 4, "echoes of {size} bytes: {pinged:?}");
    }
    let _iperf3 = lab.start_iperf3()?;
    for stream in [Stream::UdpUp(5_000_000), Stream::UdpDown(5_000_000)] {
        let (rate, lost) = stream.run(&client.node, address::WEB.into(), 1)?;
        assert!(rate > 3e6 && lost < 0.05, "{stream:?}: {rate} bit/s, {lost} lost");
    }
    Ok(())
}

#[test]
fn a_path_with_less_room_carries_everything_in_datagrams() -> Result<()> {
    let lab = Lab::new()?;
    lab.set_path_mtu(1_300)?;
    let (gateway, client) = connected(&lab, &[])?;
    let outside = Outside::count(&lab)?;
    everything_flows(&lab, &client)?;
    assert_eq!(gateway.session()?["transport"], "udp");
    let (tcp, udp) = (outside.bytes("tcp")?, outside.bytes("udp")?);
    assert!(udp > 4 * tcp, "files went in datagrams: {udp} bytes by UDP, {tcp} by TCP");
    Ok(())
}

#[test]
fn a_path_that_gets_less_room_carries_everything_on() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[])?;
    // time to learn what fits
    lab.transfer(&client.node, 16 << 20)?;
    sleep(Duration::from_secs(2));
    let sent = lab.make_download("file", 64 << 20)?;
    limit_rate(&lab, "100mbit")?;
    let download = Download::start(&client.node, address::WEB, "file")?;
    sleep(Duration::from_secs(1));
    lab.set_path_mtu(1_300)?;
    assert_eq!(download.finish(Duration::from_secs(60))?, sent, "SHA-256 of the download");
    client.wait_for_transport(Transport::Udp, Duration::from_secs(20))?;
    everything_flows(&lab, &client)?;
    let outside = Outside::count(&lab)?;
    lab.transfer(&client.node, 8 << 20)?;
    let (tcp, udp) = (outside.bytes("tcp")?, outside.bytes("udp")?);
    assert!(udp > 4 * tcp, "files go in datagrams again: {udp} bytes by UDP, {tcp} by TCP");
    assert_eq!(gateway.session()?["transport"], "udp");
    Ok(())
}

#[test]
fn ipv6_outside_with_the_least_room_there_may_be() -> Result<()> {
    let lab = Lab::new()?;
    lab.set_path_mtu(1_280)?;
    let programs = Programs::find()?.over(Transport::Udp);
    let mut gateway = GatewayNode::new(&lab, &programs);
    gateway.init(&format!("[{}]", address::GATEWAY_V6))?;
    gateway.start()?;
    let client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let peer = client.status()?.gateway.context("status names no gateway")?;
    assert_eq!(peer.ip(), address::GATEWAY_V6);
    everything_flows(&lab, &client)?;
    assert_eq!(gateway.session()?["transport"], "udp");
    Ok(())
}

#[test]
fn losses_and_another_order_cost_no_session() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &[])?;
    let before = gateway.session()?;
    let fast = Link { delay: Duration::from_millis(20), rate: Some(50_000_000), ..Link::default() };
    // 100 full packets take 24 ms
    let reorder = Some(Reorder { share: 0.05, delay: Duration::from_millis(24) });
    let emulator = lab.emulate(Link { reorder, ..fast }, Link { reorder, ..fast })?;
    lab.transfer(&client.node, 4 << 20).context("in another order")?;
    for direction in [e2e::Direction::Up, e2e::Direction::Down] {
        emulator.set(direction, Link { loss: 0.05, ..fast });
    }
    lab.transfer(&client.node, 2 << 20).context("with losses")?;
    let pinged = Ping::send(&client.node, address::WEB.into(), 200)?;
    assert!(pinged.received > 160, "{} of 200 echoes", pinged.received);
    let after = gateway.session()?;
    assert_eq!(before["since"], after["since"], "one connection all the time");
    assert_eq!(client.status()?.transport.as_deref(), Some("udp"));
    Ok(())
}
