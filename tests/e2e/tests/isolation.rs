//! Clients are kept apart, and away from the networks behind the gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{
    Capture, ClientNode, GatewayNode, HostState, Lab, Options, Page, Ping, Programs, address,
};

fn three_clients(lab: &Lab, programs: &Programs) -> Result<(GatewayNode, Vec<ClientNode>)> {
    let gateway = GatewayNode::start_new(lab, programs)?;
    let clients = (0..3)
        .map(|index| {
            let user = format!("user{index}");
            ClientNode::connect_new(lab, index, programs, &gateway, &user)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((gateway, clients))
}

/// A counter of `status --json`, below `drops`.
fn drops(gateway: &GatewayNode, reason: &str) -> Result<u64> {
    let status = gateway.status()?;
    status["drops"][reason].as_u64().with_context(|| format!("no drops.{reason} in {status}"))
}

/// Tries to reach `target` in every way, without expecting an answer.
fn knock_at(client: &ClientNode, target: IpAddr) -> Result<()> {
    let (host, url) = match target {
        IpAddr::V4(v4) => (v4.to_string(), format!("http://{v4}/")),
        IpAddr::V6(v6) => (v6.to_string(), format!("http://[{v6}]/")),
    };
    let udp = format!("echo x > /dev/udp/{host}/9");
    client.node.run(&["bash", "-c", &udp])?;
    client.node.run(&["curl", "-s", "-m", "0.5", &url])?;
    client.node.run(&["ping", "-c", "1", "-W", "0.5", &host])?;
    Ok(())
}

/// IPv6 link-local: unicast and multicast, out of the TUN device.
fn knock_at_the_link(client: &ClientNode) -> Result<()> {
    let interface = client.interface()?;
    for target in ["ff02::1", "fe80::1", "fe80::2"] {
        let target = format!("{target}%{interface}");
        client.node.run(&["ping", "-6", "-c", "1", "-W", "0.3", &target])?;
    }
    client.node.run(&["ping", "-b", "-c", "1", "-W", "0.3", "-I", &interface, "224.0.0.1"])?;
    client.node.run(&["ping", "-b", "-c", "1", "-W", "0.3", "10.8.0.255"])?;
    Ok(())
}

/// From now on the client's packets leave with somebody else's address.
fn pretend_to_be(client: &ClientNode, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    let interface = client.interface()?;
    let chain = |family: &str, address: String| {
        format!(
            "table {family} pretend {{\n chain out {{\n type nat hook postrouting priority 90;\n \
             oifname \"{interface}\" snat to {address}\n }}\n }}\n"
        )
    };
    client.node.nft(&(chain("ip", v4.to_string()) + &chain("ip6", v6.to_string())))
}

/// Captures on a client's TUN device, and has to see an echo of the gateway.
fn watch(client: &ClientNode) -> Result<Capture> {
    let capture = Capture::start(&client.node, &client.interface()?)?;
    let gateway = address::INNER_GATEWAY.into();
    assert_eq!(Ping::send(&client.node, gateway, 1)?.received, 1, "control: echo of the gateway");
    capture.wait_for("the echo reply", |flow| {
        flow.protocol == "icmp" && flow.port == 0 && flow.source == Some(gateway)
    })?;
    Ok(capture)
}

/// An error for every flow that came out of the tunnel from anybody but the gateway.
fn assert_only_the_gateway(capture: Capture, client: &ClientNode) -> Result<()> {
    let own = client.node.ip(&["-br", "address", "show", "dev", &client.interface()?])?;
    let [a, b, c, d, ..] = client.inner_address_v6()?.segments();
    let gateway = [address::INNER_GATEWAY.into(), Ipv6Addr::new(a, b, c, d, 0, 0, 0, 1).into()];
    let own: Vec<IpAddr> = own
        .split_whitespace()
        .filter_map(|word| word.split('/').next()?.parse().ok())
        .chain(gateway)
        .collect();
    let flows = capture.finish()?;
    let foreign: Vec<String> = flows
        .keys()
        .filter(|flow| flow.source.is_none_or(|source| !own.contains(&source)))
        .map(ToString::to_string)
        .collect();
    assert!(foreign.is_empty(), "{} got {foreign:#?}", client.node.namespace());
    Ok(())
}

e2e::over_each_transport! {
    no_client_reaches_another,
    no_client_can_use_anothers_address,
}

fn no_client_reaches_another(programs: &Programs) -> Result<()> {
    let lab = Lab::with(Options { clients: 3, ..Options::default() })?;
    let (gateway, clients) = three_clients(&lab, programs)?;
    let captures = clients.iter().map(watch).collect::<Result<Vec<_>>>()?;
    let before = drops(&gateway, "client_to_client")?;
    for (index, client) in clients.iter().enumerate() {
        for (_, other) in clients.iter().enumerate().filter(|(other, _)| *other != index) {
            knock_at(client, other.inner_address()?.into())?;
            knock_at(client, other.inner_address_v6()?.into())?;
        }
        knock_at_the_link(client)?;
    }
    for (capture, client) in captures.into_iter().zip(&clients) {
        assert_only_the_gateway(capture, client)?;
    }
    let dropped = drops(&gateway, "client_to_client")? - before;
    assert!(dropped >= 36, "3 packets to 2 others over 2 families by 3 clients: {dropped} counted");
    Ok(())
}

fn no_client_can_use_anothers_address(programs: &Programs) -> Result<()> {
    let lab = Lab::with(Options { clients: 3, ..Options::default() })?;
    let (gateway, clients) = three_clients(&lab, programs)?;
    let victim = &clients[1];
    pretend_to_be(&clients[0], victim.inner_address()?, victim.inner_address_v6()?)?;
    let before = drops(&gateway, "spoofed_source")?;
    let on_uplink = Capture::start(&lab.internet, "to-gateway")?;
    assert_eq!(Ping::send(&victim.node, address::WEB.into(), 1)?.received, 1, "control");
    on_uplink.wait_for("the control's echo", |flow| {
        flow.protocol == "icmp" && flow.destination == Some(address::WEB.into())
    })?;
    let on_victim = watch(victim)?;
    let on_third = watch(&clients[2])?;

    for target in [IpAddr::from(address::GATEWAY), address::WEB_V6.into()] {
        knock_at(&clients[0], target)?;
    }
    knock_at(&clients[0], clients[2].inner_address()?.into())?;
    knock_at(&clients[0], address::INNER_GATEWAY.into())?;
    assert_only_the_gateway(on_victim, victim)?;
    assert_only_the_gateway(on_third, &clients[2])?;
    let passed = on_uplink.finish()?;
    let web_v6 = IpAddr::from(address::WEB_V6);
    let passed: Vec<_> = passed.keys().filter(|flow| flow.destination == Some(web_v6)).collect();
    assert!(passed.is_empty(), "forged packets left the gateway: {passed:?}");
    let dropped = drops(&gateway, "spoofed_source")? - before;
    assert!(dropped >= 12, "4 targets, 3 packets each: only {dropped} counted");
    Ok(())
}

#[test]
fn private_networks_and_metadata_stay_closed_unless_allowed() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let private = [IpAddr::from(address::PRIVATE), address::METADATA.into()];
    for target in private {
        assert_eq!(Ping::send(&lab.gateway, target, 1)?.received, 1, "control: from the gateway");
        assert_eq!(Ping::send(&client.node, target, 2)?.received, 0, "{target} has to be closed");
    }
    // the gateway's own address in that network is private as well
    assert_eq!(Ping::send(&client.node, Ipv4Addr::new(10, 77, 0, 1).into(), 2)?.received, 0);

    client.disconnect()?;
    gateway.stop()?;
    let config_path = gateway.state_dir().join("server.yaml");
    let config = std::fs::read_to_string(&config_path)?;
    let open = config.replace("allow_private: []", "allow_private: [10.77.0.0/24]");
    assert_ne!(open, config, "server.yaml has no line allow_private: []");
    std::fs::write(&config_path, open)?;
    gateway.start()?;
    client.connect(&[])?;
    assert_eq!(Ping::send(&client.node, address::PRIVATE.into(), 2)?.received, 2, "allowed now");
    assert_eq!(Ping::send(&client.node, address::METADATA.into(), 2)?.received, 0, "still closed");
    Ok(())
}

#[test]
fn nobody_outside_reaches_a_client_through_the_gateway() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let capture = watch(&client)?;
    lab.internet.ip(&["route", "add", "10.8.0.0/24", "via", &address::GATEWAY.to_string()])?;
    let inner = client.inner_address()?.into();
    assert_eq!(Ping::send(&lab.internet, inner, 2)?.received, 0, "a neighbour reaches a client");
    assert_only_the_gateway(capture, &client)
}

#[test]
fn two_devices_of_a_user_have_two_addresses_and_keep_them() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut first = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let second = ClientNode::connect_new(&lab, 1, &programs, &gateway, "alice")?;
    let (first_address, second_address) = (first.inner_address()?, second.inner_address()?);
    assert_ne!(first_address, second_address, "two devices of one user");
    for client in [&first, &second] {
        Page::open(&client.node, "http://www.lab.test/")?;
    }
    first.disconnect()?;
    first.connect(&[])?;
    assert_eq!(first.inner_address()?, first_address, "the same device again");

    // a crash leaves the old session open at the gateway: the device replaces it by itself
    first.kill9()?;
    first.connect(&[])?;
    assert_eq!(first.inner_address()?, first_address, "after a crash");
    Page::open(&second.node, "http://www.lab.test/").context("the other device is not affected")?;
    Ok(())
}

#[test]
fn the_gateway_leaves_no_trace_of_its_clients_when_stopped() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let before = HostState::of(&lab.gateway)?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    Page::open(&client.node, "http://www.lab.test/")?;
    gateway.stop()?;
    before.expect_unchanged(&lab.gateway, "after the gateway was stopped")?;
    let gone = Duration::from_secs(10);
    client.wait_for_state("reconnecting", gone).context("the client has to notice").map(drop)
}
