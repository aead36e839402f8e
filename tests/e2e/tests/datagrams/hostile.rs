//! Datagrams that nobody should have sent: dropped in silence, and no session is worse off.

use std::net::UdpSocket;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    Capture, ClientNode, GatewayNode, Lab, Node, Ping, Programs, Transport, address,
    download_in_a_flood,
};

use crate::relay::{PORT, Relay, Way};

/// A gateway with these changes, and a client whose datagrams pass a relay.
fn relayed(lab: &Lab, edits: &[(&str, &str)]) -> Result<(GatewayNode, ClientNode, Relay)> {
    let relay = Relay::start(&lab.routers[0])?;
    let programs = Programs::find()?.over(Transport::Udp);
    let gateway = GatewayNode::start_edited(lab, &programs, edits)?;
    let client = ClientNode::connect_new(lab, 0, &programs, &gateway, "alice")?;
    Ok((gateway, client, relay))
}

/// Sends from `node`, which has no business here, and fails if anything is answered.
fn send_as_stranger<'a>(
    node: &Node,
    datagrams: impl IntoIterator<Item = &'a [u8]> + Send,
) -> Result<()> {
    let send = || -> Result<()> {
        node.enter_network()?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        for datagram in datagrams {
            socket.send_to(datagram, (address::GATEWAY, PORT))?;
        }
        let mut answer = [0; 64];
        if let Ok((size, from)) = socket.recv_from(&mut answer) {
            anyhow::bail!("{from} answered {size} bytes");
        }
        Ok(())
    };
    std::thread::scope(|scope| scope.spawn(send).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Pings go there and back once each, in datagrams and on the connection that was there `before`.
fn assert_unharmed(
    gateway: &GatewayNode,
    client: &ClientNode,
    before: &serde_json::Value,
) -> Result<()> {
    let after = gateway.session()?;
    assert_eq!(after["since"], before["since"], "one connection all the time");
    assert_eq!(after["transport"], "udp");
    assert_eq!(client.status()?.transport.as_deref(), Some("udp"));
    let web = address::WEB.to_string();
    let pinged = client.node.run(&["ping", "-n", "-i", "0.02", "-c", "50", "-W", "1", &web])?;
    ensure!(pinged.stdout.contains("50 received") && !pinged.stdout.contains("dup"), "{pinged}");
    Ok(())
}

/// Pings for a while; every request and every answer arrives once.
fn ping_for(node: &Node, seconds: u32) -> Result<()> {
    let (web, count) = (address::WEB.to_string(), (seconds * 50).to_string());
    let words = ["ping", "-n", "-i", "0.02", "-c", &count, "-W", "1", &web];
    let pinged = node.run_with(&words, "", Duration::from_secs(60))?;
    let whole = format!("{count} received");
    ensure!(pinged.stdout.contains(&whole) && !pinged.stdout.contains("dup"), "{pinged}");
    Ok(())
}

#[test]
fn repeated_datagrams_arrive_once() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client, relay) = relayed(&lab, &[("interval: 4h", "interval: 4s")])?;
    let before = gateway.session()?;
    let capture = Capture::start(&lab.web, "eth0")?;
    std::thread::scope(|scope| -> Result<()> {
        let pings = scope.spawn(|| ping_for(&client.node, 8));
        let end = Instant::now() + Duration::from_secs(8);
        sleep(Duration::from_millis(500));
        let early = [Way::Up, Way::Down].map(|way| (way, relay.remembered(way)));
        while Instant::now() < end {
            // those of a moment ago, and those of the beginning: one second and then a rekey later
            for way in [Way::Up, Way::Down] {
                let newest = relay.remembered(way);
                newest.iter().rev().take(20).for_each(|datagram| relay.inject(way, datagram));
            }
            for (way, datagrams) in &early {
                datagrams.iter().for_each(|datagram| relay.inject(*way, datagram));
            }
            let newest = relay.remembered(Way::Up);
            send_as_stranger(&lab.web, newest.iter().rev().take(20).map(Vec::as_slice))?;
            send_as_stranger(&lab.internet, early[0].1.iter().map(Vec::as_slice))?;
        }
        pings.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    assert_unharmed(&gateway, &client, &before)?;
    let rekeys = gateway.session()?["rekeys"].as_u64();
    assert!(rekeys >= Some(1), "no rekey in between: {rekeys:?}");
    let flows = capture.finish()?;
    let echoes = flows.iter().find_map(|(flow, count)| {
        (flow.protocol == "icmp" && flow.destination == Some(address::WEB.into())).then_some(*count)
    });
    assert_eq!(echoes, Some(450), "echo requests that the web host was sent");
    Ok(())
}

/// A datagram with each of some bits flipped, and cut at some places.
fn spoilt(datagram: &[u8]) -> Vec<Vec<u8>> {
    let flipped = (0..datagram.len() * 8).step_by(7).map(|bit| {
        let mut copy = datagram.to_vec();
        copy[bit / 8] ^= 1 << (bit % 8);
        copy
    });
    let cut = (0..datagram.len()).map(|len| datagram[..len].to_vec());
    let longer = (1..20).map(|more| [datagram, &vec![0; more]].concat());
    flipped.chain(cut).chain(longer).collect()
}

/// Noise of every order of length, from nothing to what UDP can carry.
fn noise() -> Vec<Vec<u8>> {
    let mut chance = fastrand::Rng::with_seed(0x6e_015e);
    let lengths = (0..200).chain((200..65_507).step_by(1_021)).chain([65_507]);
    lengths
        .map(|len| {
            let mut datagram = vec![0; len];
            chance.fill(&mut datagram);
            datagram
        })
        .collect()
}

#[test]
fn spoilt_and_cut_datagrams_and_noise_are_dropped_in_silence() -> Result<()> {
    for cipher in ["aes-256-gcm", "aes-256-cfb-hmac-sha256"] {
        let lab = Lab::new()?;
        let (gateway, mut client, relay) = relayed(&lab, &[])?;
        client.disconnect()?;
        client.connect(&["--cipher", cipher])?;
        let before = gateway.session()?;
        assert_eq!(before["cipher"], cipher);
        Ping::send(&client.node, address::WEB.into(), 20)?;
        let capture = Capture::start(&lab.internet, "to-gateway")?;
        for way in [Way::Up, Way::Down] {
            let log = relay.remembered(way);
            let datagram = log.last().context("nothing has passed")?;
            for bad in spoilt(datagram).into_iter().chain(noise()) {
                relay.inject(way, &bad);
                if way == Way::Up {
                    send_without_waiting(&lab.web, &bad)?;
                }
            }
            send_as_stranger(&lab.web, noise().iter().map(Vec::as_slice))?;
        }
        assert_unharmed(&gateway, &client, &before).context(cipher)?;
        capture.wait_for("the client's datagrams", |flow| {
            flow.is_with("udp", address::CARRIER.into(), PORT) || flow.port == PORT
        })?;
        let answers: Vec<String> = capture
            .flows()?
            .keys()
            .filter(|flow| flow.source == Some(address::GATEWAY.into()))
            .filter(|flow| flow.destination == Some(address::WEB.into()))
            // 3: unreachable; the client's own pings go that way, too
            .filter(|flow| flow.protocol == "udp" || flow.protocol == "icmp" && flow.port == 3)
            .map(ToString::to_string)
            .collect();
        assert!(answers.is_empty(), "a stranger was answered: {answers:#?}");
    }
    Ok(())
}

/// Sends one datagram from `node`.
fn send_without_waiting(node: &Node, datagram: &[u8]) -> Result<()> {
    let send = || -> Result<()> {
        node.enter_network()?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(datagram, (address::GATEWAY, PORT))?;
        Ok(())
    };
    std::thread::scope(|scope| scope.spawn(send).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn a_flood_of_forged_datagrams_leaves_a_session_working() -> Result<()> {
    let lab = Lab::new()?;
    let (mut gateway, client, relay) = relayed(&lab, &[])?;
    let before = gateway.session()?;
    let real = || relay.remembered(Way::Up).pop();
    download_in_a_flood(&lab, &client.node, (address::GATEWAY, PORT).into(), real)?;
    assert_unharmed(&gateway, &client, &before)?;
    let memory = gateway.process()?.memory("VmHWM")?;
    assert!(memory < 64_000_000, "the gateway took {memory} bytes of memory");
    Ok(())
}
