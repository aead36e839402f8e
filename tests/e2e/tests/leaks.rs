//! What a bystander on the client's link sees. Every capture first has to see a probe.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use e2e::{
    Capture, ClientNode, Flow, GatewayNode, Lab, Node, Options, Page, Programs, Transport, address,
};

/// The tunnel's own connection and datagrams, and what any idle host sends on its link.
fn is_expected(flow: &Flow) -> bool {
    let gateway = address::GATEWAY.into();
    flow.is_with("tcp", gateway, 8443)
        || flow.is_with("udp", gateway, 1194)
        || flow.is_with("udp", gateway, 443)
        || is_unreachable(flow)
        || flow.is_link_housekeeping()
}

/// The gateway's machine has nobody for KCP while the gateway is away.
fn is_unreachable(flow: &Flow) -> bool {
    const UNREACHABLE: u16 = 3;
    let from_gateway = flow.source == Some(address::GATEWAY.into());
    flow.protocol == "icmp" && from_gateway && flow.port == UNREACHABLE
}

fn assert_nothing_else(flows: &BTreeMap<Flow, usize>, when: &str) {
    let leaks: Vec<String> = flows
        .iter()
        .filter(|(flow, _)| !is_expected(flow))
        .map(|(flow, count)| format!("{count} x {flow}"))
        .collect();
    assert!(leaks.is_empty(), "leaked past the tunnel {when}:\n{}", leaks.join("\n"));
}

/// All kinds of traffic that a host sends. Whether answers come is not asked here.
fn send_everything(node: &Node) -> Result<()> {
    let web = address::WEB.to_string();
    let web_v6 = address::WEB_V6.to_string();
    let page_v6 = format!("http://[{web_v6}]/");
    let udp = format!("echo leak > /dev/udp/{web}/9; echo leak > /dev/udp/{web_v6}/9");
    let server = format!("@{}", address::DNS);
    for words in [
        &["curl", "-s", "-m", "2", "http://www.lab.test/"][..],
        &["curl", "-s", "-m", "2", &page_v6],
        &["getent", "ahosts", "new.lab.test"],
        &["dig", "+time=1", "+tries=1", &server, "www.lab.test"],
        &["ping", "-c", "2", "-i", "0.1", "-W", "1", &web],
        &["ping", "-c", "2", "-i", "0.1", "-W", "1", &web_v6],
        &["bash", "-c", &udp],
    ] {
        node.run_with(words, "", Duration::from_secs(6))?;
    }
    Ok(())
}

/// Connects, sends everything and looks at the link, with and without IPv6 at the gateway.
fn look_while_connected(programs: &Programs, gateway_ipv6: bool) -> Result<()> {
    let lab = Lab::with(Options { gateway_ipv6, ..Options::default() })?;
    let gateway = GatewayNode::start_new(&lab, programs)?;
    let control = Capture::start(&lab.routers[0], "lan0")?;
    send_everything(&lab.clients[0])?;
    control.expect_probe(&lab.clients[0])?;
    let open = control.finish()?;
    for protocol in ["tcp", "udp", "icmp", "icmpv6"] {
        let seen = open.keys().any(|flow| flow.protocol == protocol && !is_expected(flow));
        assert!(seen, "the control sees no {protocol} without a tunnel, so it proves nothing");
    }

    let capture = Capture::start(&lab.routers[0], "lan0")?;
    let client = ClientNode::connect_new(&lab, 0, programs, &gateway, "alice")?;
    send_everything(&client.node)?;
    let page = Page::open(&client.node, "http://www.lab.test/")?;
    assert!(page.body.contains("laboratory"), "the tunnel itself does not work: {page:?}");
    let protocol = match programs.transport() {
        Transport::Tls => "tcp",
        Transport::Udp | Transport::Kcp => "udp",
    };
    capture.wait_for("the tunnel", |flow| flow.protocol == protocol && is_expected(flow))?;
    assert_nothing_else(&capture.finish()?, "while connected");
    Ok(())
}

e2e::over_each_transport! {
    nothing_but_the_tunnel_is_seen_while_connected,
    ipv6_does_not_leak_where_the_gateway_has_none,
    nothing_leaks_while_the_gateway_is_away,
}

fn nothing_but_the_tunnel_is_seen_while_connected(programs: &Programs) -> Result<()> {
    look_while_connected(programs, true)
}

fn ipv6_does_not_leak_where_the_gateway_has_none(programs: &Programs) -> Result<()> {
    look_while_connected(programs, false)
}

fn nothing_leaks_while_the_gateway_is_away(programs: &Programs) -> Result<()> {
    let lab = Lab::new()?;
    let mut gateway = GatewayNode::start_new(&lab, programs)?;
    let client = ClientNode::connect_new(&lab, 0, programs, &gateway, "alice")?;
    let capture = Capture::start(&lab.routers[0], "lan0")?;
    gateway.kill9()?;
    client.wait_for_state("reconnecting", Duration::from_secs(35))?;
    send_everything(&client.node)?;
    let is_attempt = |flow: &Flow| flow.protocol != "icmp" && !flow.is_link_housekeeping();
    capture.wait_for("an attempt", |flow| is_attempt(flow) && is_expected(flow))?;
    assert_nothing_else(&capture.finish()?, "while reconnecting");
    Ok(())
}

#[test]
fn after_disconnecting_the_link_is_used_directly_again() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    client.disconnect()?;
    let capture = Capture::start(&lab.routers[0], "lan0")?;
    capture.expect_probe(&client.node)?;
    let seen = lab.visitor_address(&client.node, address::WEB.into())?;
    assert_eq!(seen, address::CARRIER.to_string());
    Ok(())
}
