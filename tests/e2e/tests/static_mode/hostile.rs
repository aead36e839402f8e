//! Datagrams that nobody should have sent: dropped in silence, delivered nowhere, remembered by
//! nobody.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{HostState, Lab, Node, address, download_in_a_flood};

use crate::relay::{PORT, Relay, Way};
use crate::{Pair, assert_flows, path};

/// How long an answer, or what it would do, may take.
const SOON: Duration = Duration::from_millis(500);
/// How soon the state is stored.
const STORED: Duration = Duration::from_millis(2_500);

/// What a datagram that is taken would change.
#[derive(Debug, PartialEq)]
struct Traces {
    /// Packets that each program has given its kernel.
    delivered: [u64; 2],
    /// What each has stored.
    stored: [String; 2],
    /// How many datagrams the relay has seen, each way.
    sent: [usize; 2],
}

impl Traces {
    fn of(pair: &Pair, relay: &Relay) -> Result<Traces> {
        let nodes = [&pair.gateway.node, &pair.client.node];
        let [gateway, client] =
            nodes.map(|node| delivered(node).and_then(|d| Ok((d, stored(node)?))));
        let (gateway, client) = (gateway?, client?);
        Ok(Traces {
            delivered: [gateway.0, client.0],
            stored: [gateway.1, client.1],
            sent: [Way::Up, Way::Down].map(|way| relay.remembered(way).len()),
        })
    }
}

pub(crate) fn delivered(node: &Node) -> Result<u64> {
    let text = node.ip(&["-s", "-j", "link", "show", "dev", "cw0"])?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    links[0]["stats64"]["rx"]["packets"].as_u64().with_context(|| format!("no counter in {text}"))
}

fn stored(node: &Node) -> Result<String> {
    let state_dir = node.dir().join("state");
    let mut text = String::new();
    for file in fs::read_dir(&state_dir).with_context(|| path(&state_dir).to_owned())? {
        let file_path = file?.path();
        if path(&file_path).contains("static-") {
            text += &fs::read_to_string(file_path)?;
        }
    }
    Ok(text)
}

/// A pair whose datagrams pass a relay, at rest.
fn relayed(lab: &Lab) -> Result<(Pair, Relay)> {
    let relay = Relay::start(&lab.routers[0])?;
    let pair = Pair::start(lab)?;
    assert_flows(&pair.client)?;
    sleep(STORED);
    Ok((pair, relay))
}

/// Sends from `node`, which has no business here, and fails if anything is answered.
fn send_as_stranger<'a>(
    node: &Node,
    datagrams: impl IntoIterator<Item = &'a [u8]> + Send,
) -> Result<()> {
    let send = || -> Result<()> {
        node.enter_network()?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(SOON))?;
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

/// Every bit flipped, cut everywhere, and longer.
fn spoilt(datagram: &[u8]) -> Vec<Vec<u8>> {
    let flipped = (0..datagram.len() * 8).map(|bit| {
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

/// Carries out an attack and expects that there is no trace of it.
fn assert_no_trace(
    pair: &Pair,
    relay: &Relay,
    attack: &str,
    run: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = Traces::of(pair, relay)?;
    run().with_context(|| attack.to_owned())?;
    sleep(SOON);
    let after = Traces::of(pair, relay)?;
    ensure!(before == after, "{attack} left traces:\n{before:?}\n{after:?}");
    Ok(())
}

#[test]
fn spoilt_datagrams_and_noise_are_dropped_in_silence() -> Result<()> {
    let lab = Lab::new()?;
    let (mut pair, relay) = relayed(&lab)?;
    let hosts = [HostState::of(&lab.gateway)?, HostState::of(&lab.clients[0])?];
    for way in [Way::Up, Way::Down] {
        let datagram = relay.remembered(way).pop().context("nothing has passed")?;
        let bad: Vec<Vec<u8>> = spoilt(&datagram).into_iter().chain(noise()).collect();
        let attack = format!("spoilt datagrams and noise, {way:?}");
        assert_no_trace(&pair, &relay, &attack, || {
            for datagram in &bad {
                relay.inject(way, datagram);
            }
            send_as_stranger(&lab.web, bad.iter().map(Vec::as_slice))
        })?;
    }
    for (host, node) in hosts.iter().zip([&lab.gateway, &lab.clients[0]]) {
        host.expect_unchanged(node, "after noise")?;
    }
    assert!(pair.gateway()?.is_running() && pair.client()?.is_running());
    assert_flows(&pair.client)
}

#[test]
fn what_came_once_does_not_come_again_from_anywhere() -> Result<()> {
    let lab = Lab::new()?;
    let (pair, relay) = relayed(&lab)?;
    let [up, down] = [Way::Up, Way::Down].map(|way| relay.remembered(way));
    assert!(up.len() > 20 && down.len() > 20, "control: {} and {} datagrams", up.len(), down.len());
    let again = |what: &str| {
        assert_no_trace(&pair, &relay, what, || {
            up.iter().for_each(|datagram| relay.inject(Way::Up, datagram));
            down.iter().for_each(|datagram| relay.inject(Way::Down, datagram));
            send_as_stranger(&lab.web, up.iter().map(Vec::as_slice))?;
            send_as_stranger(&lab.internet, up.iter().map(Vec::as_slice))
        })
    };
    again("repetitions")?;
    sleep(Duration::from_secs(1));
    again("repetitions after a second")?;
    assert_no_trace(&pair, &relay, "reflections", || {
        down.iter().for_each(|datagram| relay.inject(Way::Up, datagram));
        up.iter().for_each(|datagram| relay.inject(Way::Down, datagram));
        send_as_stranger(&lab.web, down.iter().map(Vec::as_slice))
    })?;
    assert_flows(&pair.client)?;
    // the repetitions from elsewhere did not move the client
    let peer = pair.client.status()?.gateway.context("status names no gateway")?;
    assert_eq!(peer, SocketAddr::from((address::GATEWAY, PORT)));
    Ok(())
}

/// Repeated at once, in the middle of traffic: no echo is answered twice.
#[test]
fn repetitions_in_the_middle_of_traffic_arrive_once() -> Result<()> {
    let lab = Lab::new()?;
    let (pair, relay) = relayed(&lab)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let repeating = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for way in [Way::Up, Way::Down] {
                    let newest = relay.remembered(way);
                    newest.iter().rev().take(20).for_each(|datagram| relay.inject(way, datagram));
                }
                sleep(Duration::from_millis(5));
            }
        });
        let flows = (0..4).try_for_each(|_| assert_flows(&pair.client));
        stop.store(true, Ordering::Relaxed);
        repeating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        flows
    })
}

#[test]
fn a_flood_of_forged_datagrams_leaves_a_download_alone() -> Result<()> {
    let lab = Lab::new()?;
    let (mut pair, relay) = relayed(&lab)?;
    let real = || relay.remembered(Way::Up).pop();
    download_in_a_flood(&lab, &pair.client.node, (address::GATEWAY, PORT).into(), real)?;
    let memory = pair.gateway()?.memory("VmHWM")?;
    assert!(memory < 64_000_000, "the gateway took {memory} bytes of memory");
    assert_flows(&pair.client)
}
