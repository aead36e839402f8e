//! New keys while traffic flows (A7): nothing is lost, nothing waits, and a connection that is cut
//! in the midst of it does no harm.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    ClientNode, GatewayNode, Lab, Node, Page, Programs, address, figure, full_or_short, until,
};

/// Where the streams of these tests meet, on the web host.
const PORT: u16 = 7070;
/// The bar (issue 5), and what a busy machine is given.
const GAP_MAX: Duration = Duration::from_millis(100);
const LENIENCE: u32 = 5;
/// Streams in each direction.
const STREAMS: usize = 2;

/// A gateway with these lines as its `rekey` settings, and one connected client.
fn connected(lab: &Lab, programs: &Programs, rekey: &str) -> Result<(GatewayNode, ClientNode)> {
    connected_with(lab, programs, rekey, &[])
}

fn connected_with(
    lab: &Lab,
    programs: &Programs,
    rekey: &str,
    options: &[&str],
) -> Result<(GatewayNode, ClientNode)> {
    let mut gateway = GatewayNode::new(lab, programs);
    gateway.init(&address::GATEWAY.to_string())?;
    let config_path = gateway.state_dir().join("server.yaml");
    let config = std::fs::read_to_string(&config_path)?;
    let (before, rest) = config.split_once("rekey:\n").context("no rekey in server.yaml")?;
    let (_, behind) = rest.split_once("\n\n").context("nothing behind rekey")?;
    std::fs::write(&config_path, format!("{before}rekey:\n{rekey}\n\n{behind}"))?;
    gateway.start()?;
    let client = ClientNode::connect_new_with(lab, 0, programs, &gateway, "alice", options)?;
    Ok((gateway, client))
}

/// The client's only connection, as the gateway sees it.
struct Connection {
    rekeys: u64,
    port: u16,
}

fn connection(gateway: &GatewayNode) -> Result<Connection> {
    let text = gateway.run(&["session", "list", "--json"])?.ok()?;
    let sessions: serde_json::Value = serde_json::from_str(&text)?;
    let peer = sessions[0]["peer"].as_str().with_context(|| format!("no client: {text}"))?;
    let rekeys = sessions[0]["rekeys"].as_u64().with_context(|| format!("no rekeys: {text}"))?;
    Ok(Connection { rekeys, port: peer.parse::<SocketAddr>()?.port() })
}

#[test]
fn nothing_is_lost_and_nothing_waits_under_full_load_both_ways() -> Result<()> {
    let time = Duration::from_secs(full_or_short(300, 16));
    // what the same load does to the same machine while the keys stay
    let (control, _) = loaded("  interval: 4h", full_or_short(time / 5, time / 2))?;
    let (ways, rekeys) = loaded("  interval: 2s", time)?;
    figure("rekeys", rekeys as f64, "times");
    assert!(rekeys >= time.as_secs() / 2 * 8 / 10, "{rekeys} rekeys in {time:?}");
    for (Way { name, bytes, longest_gap, .. }, control) in ways.iter().zip(control) {
        let rate = *bytes as f64 * 8.0 / 1e6 / time.as_secs_f64();
        figure(&format!("{name}, rate"), rate, "Mbit/s");
        figure(&format!("{name}, longest time without bytes"), ms(*longest_gap), "ms");
        let control = control.longest_gap;
        figure(&format!("{name}, the same without rekeys"), ms(control), "ms");
        let bar = (GAP_MAX * LENIENCE).max(2 * control);
        assert!(*longest_gap < bar, "{name}: {longest_gap:?} without bytes, not {bar:?}");
    }
    Ok(())
}

/// Full load for that long with these `rekey` settings: what arrived, and how many rekeys there
/// were.
fn loaded(rekey: &str, time: Duration) -> Result<([Way; 2], u64)> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &Programs::find()?, rekey)?;
    let port = connection(&gateway)?.port;
    let ways = full_load(&lab, &client.node, time)?;
    let after = connection(&gateway)?;
    assert_eq!(after.port, port, "one connection carried everything");
    Ok((ways, after.rekeys))
}

e2e::over_each_transport! {
    a_steady_stream_loses_no_packet_while_keys_change_every_200_ms,
}

fn a_steady_stream_loses_no_packet_while_keys_change_every_200_ms(
    programs: &Programs,
) -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, programs, "  interval: 200ms")?;
    let port = connection(&gateway)?.port;
    let time = Duration::from_secs(full_or_short(60, 6));
    let echoes = steady_stream(&lab, &client.node, time)?;
    let after = connection(&gateway)?;
    figure("packets", echoes.sent as f64, "");
    figure("longest time without a packet", ms(echoes.longest_gap), "ms");
    figure("rekeys", after.rekeys as f64, "times");
    assert_eq!(after.port, port, "one connection carried everything");
    assert!(after.rekeys >= time.as_secs() * 4, "{} rekeys in {time:?}", after.rekeys);
    assert_eq!(echoes.came_back, echoes.sent, "packets there and back");
    assert_eq!(echoes.out_of_order, 0);
    assert!(echoes.longest_gap < GAP_MAX * LENIENCE, "{:?}", echoes.longest_gap);
    Ok(())
}

#[test]
fn keys_change_by_volume() -> Result<()> {
    let lab = Lab::new()?;
    let (gateway, client) = connected(&lab, &Programs::find()?, "  volume_mib: 1")?;
    let port = connection(&gateway)?.port;
    let sent = lab.make_download("file", 32 << 20)?;
    let (_, received) = Page::download(&client.node, "http://www.lab.test/file")?;
    assert_eq!(received, sent, "SHA-256 of a download");
    let (_, sent) = Page::upload(&client.node, "http://www.lab.test/upload/file", 32 << 20)?;
    let stored = lab.web_root_dir().join("upload/file").display().to_string();
    assert!(lab.web.ok(&["sha256sum", &stored])?.starts_with(&sent), "SHA-256 of an upload");
    let after = connection(&gateway)?;
    figure("rekeys", after.rekeys as f64, "times");
    assert_eq!(after.port, port, "one connection carried everything");
    // a step needs a round trip, in which more than a MiB may pass
    assert!(after.rekeys >= 8, "{} rekeys in 64 MiB", after.rekeys);
    Ok(())
}

/// With a rekey every 200 ms, one is in flight whenever one direction of a connection is cut for
/// longer: in one direction the client's reply is lost, in the other one the gateway's steps are.
#[test]
fn a_download_goes_on_after_the_connection_was_cut_during_a_rekey() -> Result<()> {
    let lab = Lab::new()?;
    // without KCP, which would lead around what is cut
    let only_tls = &["--transport", "tls"];
    let (gateway, mut client) =
        connected_with(&lab, &Programs::find()?, "  interval: 200ms", only_tls)?;
    let inner = client.inner_address()?;
    let (rounds, pause) = (full_or_short(20, 2), Duration::from_millis(1_500));
    let time = (pause + Duration::from_secs(5)) * 2 * rounds;
    thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(|| full_load(&lab, &client.node, time));
        thread::sleep(pause);
        let mut longest = Duration::ZERO;
        for round in 0..rounds {
            for way in ["sport", "dport"] {
                let what = || format!("round {round}, tcp {way}");
                let took = cut_connection(&lab, &gateway, &client, way).with_context(what)?;
                longest = longest.max(took);
                let fresh = connection(&gateway)?.rekeys;
                until("new keys on the new connection", Duration::from_secs(10), || {
                    Ok((connection(&gateway)?.rekeys > fresh).then_some(()))
                })
                .with_context(what)?;
            }
        }
        figure("traffic flowed again after at most", ms(longest), "ms");
        // it has checked every byte
        join(load).map(drop)
    })?;
    assert_eq!(client.inner_address()?, inner);
    assert!(client.process()?.is_running(), "the client was not restarted");
    Ok(())
}

/// Drops one direction of the client's present connection for good: everything with its port as
/// `tcp sport` (from the client) or `tcp dport` (to it). Returns the time until traffic flows again.
fn cut_connection(
    lab: &Lab,
    gateway: &GatewayNode,
    client: &ClientNode,
    way: &str,
) -> Result<Duration> {
    let port = connection(gateway)?.port;
    let rule = format!("ip saddr {0} tcp {way} {port} drop", address::CARRIER);
    let rule = if way == "dport" { rule.replace("saddr", "daddr") } else { rule };
    lab.internet.nft(&format!(
        "table inet cut {{\n chain forward {{\n type filter hook forward priority 0;\n {rule}\n }}\n}}\n"
    ))?;
    let start = Instant::now();
    until("the client to come back", Duration::from_secs(40), || {
        Ok(connection(gateway).is_ok_and(|new| new.port != port).then_some(()))
    })?;
    let before = client.status()?.rx_bytes;
    until("traffic to flow again", Duration::from_secs(20), || {
        Ok((client.status()?.rx_bytes > before + (1 << 20)).then_some(()))
    })?;
    let took = start.elapsed();
    lab.internet.nft("delete table inet cut\n")?;
    Ok(took)
}

/// What the receivers of a direction saw, all together: a single stream may starve beside others.
#[derive(Default)]
struct Way {
    name: &'static str,
    bytes: u64,
    last: Option<Instant>,
    longest_gap: Duration,
}

impl Way {
    fn note(&mut self, count: usize) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest_gap = self.longest_gap.max(now - last);
        }
        self.bytes += count as u64;
    }
}

/// Some TCP connections in each direction between the client and the web host, as fast as they can
/// be, for that long. Every byte is checked where it arrives, and that none is missing.
fn full_load(lab: &Lab, client: &Node, time: Duration) -> Result<[Way; 2]> {
    let ways = ["download", "upload"].map(|name| Mutex::new(Way { name, ..Way::default() }));
    let listener = in_network(&lab.web, || Ok(TcpListener::bind(("0.0.0.0", PORT))?))?;
    let mut streams = Vec::new();
    for n in 0..2 * STREAMS {
        let (ours, theirs) = in_network(client, || {
            let ours = TcpStream::connect((address::WEB, PORT))?;
            Ok((ours, listener.accept()?.0))
        })?;
        let (from, to) = if n % 2 == 0 { (theirs, ours) } else { (ours, theirs) };
        streams.push((n as u64, from, to, &ways[n % 2]));
    }
    let end = Instant::now() + time;
    thread::scope(|scope| -> Result<()> {
        let mut running = Vec::new();
        for (seed, from, to, way) in streams {
            let sent = scope.spawn(move || send(from, seed, end));
            let received = scope.spawn(move || receive(to, seed, way));
            running.push((sent, received));
        }
        for (sent, received) in running {
            let (sent, received) = (join(sent)?, join(received)?);
            ensure!(sent == received, "{received} of {sent} bytes arrived");
        }
        Ok(())
    })?;
    Ok(ways.map(|way| way.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

fn send(mut to: TcpStream, seed: u64, end: Instant) -> Result<u64> {
    let mut sent = 0;
    let mut bytes = vec![0; 64 << 10];
    while Instant::now() < end {
        fill(&mut bytes, seed, sent);
        to.write_all(&bytes).context("sending")?;
        sent += bytes.len() as u64;
    }
    Ok(sent)
}

fn receive(mut from: TcpStream, seed: u64, way: &Mutex<Way>) -> Result<u64> {
    from.set_read_timeout(Some(Duration::from_secs(60)))?;
    let (mut got, mut expected) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut received = 0;
    loop {
        let count = from.read(&mut got).context("receiving")?;
        if count == 0 {
            return Ok(received);
        }
        way.lock().unwrap_or_else(PoisonError::into_inner).note(count);
        // blocks of eight bytes: the read may begin within one
        let skip = (received % 8) as usize;
        expected.resize(skip + count, 0);
        fill(&mut expected, seed, received - skip as u64);
        ensure!(expected[skip..] == got[..count], "other bytes than were sent");
        received += count as u64;
    }
}

/// The bytes of a stream from a position on, which is a multiple of 8.
fn fill(bytes: &mut [u8], seed: u64, position: u64) {
    for (n, block) in (position / 8..).zip(bytes.chunks_mut(8)) {
        // SplitMix64: any byte left out, repeated or moved is noticed
        let mut z = (n ^ seed << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        block.copy_from_slice(&(z ^ (z >> 27)).to_be_bytes()[..block.len()]);
    }
}

/// What came back of a steady stream.
#[derive(Default)]
struct Echoes {
    sent: u64,
    came_back: u64,
    out_of_order: u64,
    longest_gap: Duration,
}

/// 500 numbered datagrams a second to the web host and back.
fn steady_stream(lab: &Lab, client: &Node, time: Duration) -> Result<Echoes> {
    let patience = Some(Duration::from_secs(2));
    let bind = || -> Result<UdpSocket> {
        let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
        socket.set_read_timeout(patience)?;
        Ok(socket)
    };
    let (ours, theirs) = (in_network(client, bind)?, in_network(&lab.web, bind)?);
    ours.connect((address::WEB, PORT))?;
    thread::scope(|scope| {
        let echoing = scope.spawn(move || {
            let mut bytes = [0; 1_500];
            while let Some((count, from)) = next_datagram(&theirs, &mut bytes)? {
                theirs.send_to(&bytes[..count], from)?;
            }
            Ok(())
        });
        let sending = scope.spawn(|| -> Result<u64> {
            let start = Instant::now();
            let mut number = 0u64;
            while start.elapsed() < time {
                ours.send(&[number.to_be_bytes(); 100].concat())?;
                number += 1;
                let next = start + Duration::from_millis(2) * u32::try_from(number)?;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(number)
        });
        let mut echoes = count_echoes(&ours)?;
        echoes.sent = join(sending)?;
        join(echoing)?;
        Ok(echoes)
    })
}

/// The next datagram's length and source; none if nothing comes for as long as the socket waits.
fn next_datagram(socket: &UdpSocket, bytes: &mut [u8]) -> Result<Option<(usize, SocketAddr)>> {
    loop {
        match socket.recv_from(bytes) {
            Ok(datagram) => return Ok(Some(datagram)),
            // a host that was paused
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Until nothing has come for two seconds.
fn count_echoes(socket: &UdpSocket) -> Result<Echoes> {
    let mut echoes = Echoes::default();
    let mut last = None;
    let mut bytes = [0; 1_500];
    while next_datagram(socket, &mut bytes)?.is_some() {
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            echoes.longest_gap = echoes.longest_gap.max(now - last);
        }
        let [number, ..] = bytes.as_chunks::<8>().0 else { continue };
        echoes.out_of_order += u64::from(u64::from_be_bytes(*number) < echoes.came_back);
        echoes.came_back += 1;
    }
    Ok(echoes)
}

/// What `make` makes in a node's network, in a thread of its own.
fn in_network<T: Send>(node: &Node, make: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            node.enter_network()?;
            make()
        });
        join(made)
    })
}

fn join<T>(running: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
