//! Strangers at the gateway's port, and somebody in the middle of a client's own connection: the
//! client goes on, and the gateway stays small.

mod anybody;
mod guesses;
mod relay;
mod strangers;
mod syns;
mod wear;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{
    ClientNode, GatewayNode, Lab, Options, Page, Ping, Programs, address, figure, full_or_short,
    until,
};
use relay::{Fault, Relay, Way};
use strangers::Numbers;

/// What the gateway may never exceed, in bytes of resident memory.
const MEMORY_MAX: u64 = 64_000_000;

/// By address: a name could not be looked up while the tunnel is broken again and again.
const FILE: &str = "http://198.51.100.80/file";
fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The gateway's memory never was larger than it may be.
fn assert_small(gateway: &mut GatewayNode) -> Result<()> {
    let highest = gateway.process()?.memory("VmHWM")?;
    figure("gateway's highest resident memory", highest as f64 / 1e6, "MB");
    assert!(highest < MEMORY_MAX, "the gateway took {highest} bytes of memory");
    Ok(())
}

/// Downloads the file some times, nothing else being done; returns the median rate in Mbit/s.
fn median_rate(client: &ClientNode, sent: &str) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..5 {
        let (page, received) = Page::download(&client.node, FILE)?;
        assert_eq!(received, sent, "SHA-256 of a download");
        rates.push(page.rate * 8.0 / 1e6);
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}

/// Pings a host behind the gateway 100 times a second; returns how many answers are missing.
fn ping_every_10_ms(client: &ClientNode, time: Duration) -> Result<usize> {
    let count = u16::try_from(time.as_millis() / 10)?;
    let pinged = Ping::send_with(&client.node, address::WEB.into(), count, &["-i", "0.01"])?;
    figure("pings sent", count.into(), "");
    figure("round trip, median", pinged.median.as_secs_f64() * 1e3, "ms");
    Ok(usize::from(count) - pinged.received)
}

#[test]
fn strangers_of_all_kinds_cost_a_client_no_ping() -> Result<()> {
    let lab = Lab::with(Options { clients: 2, ..Options::default() })?;
    let programs = Programs::find()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let sent = lab.make_download("file", full_or_short(256, 32) << 20)?;
    let before = median_rate(&client, &sent)?;

    let stay = Duration::from_secs(full_or_short(60, 15));
    let numbers = Numbers {
        silent: full_or_short(10_000, 2_000),
        silent_visitors: full_or_short(4_000, 600),
    };
    let start = Instant::now();
    let end = start + stay;
    let (deeds, lost) = std::thread::scope(|scope| {
        let pinged = scope.spawn(|| ping_every_10_ms(&client, stay));
        let downloaded = scope.spawn(|| -> Result<()> {
            while Instant::now() < end {
                let (_, received) = Page::download(&client.node, FILE)?;
                assert_eq!(received, sent, "SHA-256 of a download among strangers");
            }
            Ok(())
        });
        let deeds = scope.spawn(|| strangers::come(&lab, numbers, end));
        std::thread::sleep(stay / 2);
        let newcomer = ClientNode::new(&lab, 1, &programs)?;
        let link = gateway.invite("bob")?.link;
        let start = Instant::now();
        until("a new client to be let in", Duration::from_secs(10), || {
            newcomer.import(&link).map(Some)
        })?;
        figure("a new client was let in after", start.elapsed().as_secs_f64() * 1e3, "ms");
        join(downloaded)?;
        Ok::<_, anyhow::Error>((join(deeds)?, join(pinged)?))
    })?;
    for deeds in &deeds {
        figure(&format!("{}, done", deeds.name), deeds.done as f64, "times");
        figure(&format!("{}, cut short", deeds.name), deeds.cut_short as f64, "times");
        assert!(deeds.done > 0, "{}: nothing came to pass", deeds.name);
    }
    assert_small(&mut gateway)?;
    assert_eq!(lost, 0, "pings lost among strangers");

    std::thread::sleep(Duration::from_secs(full_or_short(30, 1)));
    let after = median_rate(&client, &sent)?;
    figure("download before the strangers", before, "Mbit/s");
    figure("download after the strangers", after, "Mbit/s");
    figure("download after / before", after / before * 100.0, "%");
    assert_eq!(gateway.status()?["sessions"], 1);
    Ok(())
}

#[test]
fn a_spoilt_connection_is_replaced_and_the_download_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let relay = Relay::start(&lab.routers[0])?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    // past KCP, which would lead around the relay
    client.connect(&["--transport", "tls"])?;
    let inner = client.inner_address()?;
    let sent = lab.make_download("file", 64 << 20)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let downloaded = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                let (_, received) = Page::download(&client.node, FILE)?;
                assert_eq!(received, sent, "SHA-256 of a download over a spoilt connection");
            }
            Ok(())
        });
        let spoilt = spoil_all(&relay, &client);
        is_over.store(true, Ordering::Relaxed);
        join(downloaded).and(spoilt)
    })?;
    assert_eq!(client.inner_address()?, inner);
    assert!(client.process()?.is_running(), "the client was not restarted");
    assert_small(&mut gateway)
}

/// Every fault in both directions, some times.
fn spoil_all(relay: &Relay, client: &ClientNode) -> Result<()> {
    for fault in [Fault::FlippedBit, Fault::Repeated, Fault::Truncated] {
        for way in [Way::Down, Way::Up] {
            let name = format!("{fault:?} {way:?}");
            let (mut longest, mut longest_stall) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..full_or_short(10, 2) {
                let took = spoil(relay, client, way, fault).with_context(|| name.clone())?;
                longest = longest.max(took);
                // else the next fault hits the download's first attempt to go on, for ever
                let stalled = goes_on(client).with_context(|| name.clone())?;
                longest_stall = longest_stall.max(stalled);
            }
            figure(&format!("{name}, back after at most"), longest.as_secs_f64() * 1e3, "ms");
            let stalled = longest_stall.as_secs_f64() * 1e3;
            figure(&format!("{name}, download goes on after at most"), stalled, "ms");
        }
    }
    Ok(())
}

/// Spoils a record of the connection; returns how long it took from then until an answer came through the
/// next one.
fn spoil(relay: &Relay, client: &ClientNode, way: Way, fault: Fault) -> Result<Duration> {
    let patience = Duration::from_secs(10);
    let connections = relay.connections();
    relay.spoil(way, fault);
    until("a record to pass", patience, || Ok(relay.has_spoilt().then_some(())))?;
    let start = Instant::now();
    until(
        "another connection",
        patience,
        || Ok((relay.connections() > connections).then_some(())),
    )?;
    client.wait_for_state("connected", patience)?;
    let hasty = ["-W", "0.05"];
    until("an answer through the tunnel", patience, || {
        let pinged = Ping::send_with(&client.node, address::WEB.into(), 1, &hasty)?;
        Ok((pinged.received == 1).then_some(()))
    })?;
    Ok(start.elapsed())
}

/// Waits until the download has moved on by a MiB; returns how long that took.
fn goes_on(client: &ClientNode) -> Result<Duration> {
    let start = Instant::now();
    let before = client.status()?.rx_bytes;
    until("the download to go on", Duration::from_secs(20), || {
        Ok((client.status()?.rx_bytes > before + (1 << 20)).then(|| start.elapsed()))
    })
}

#[test]
fn a_replayed_connection_does_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let programs = Programs::find()?;
    let relay = Relay::start(&lab.routers[0])?;
    let gateway = GatewayNode::start_new(&lab, &programs)?;
    let client = ClientNode::connect_new(&lab, 0, &programs, &gateway, "alice")?;
    let ping = |count| Ping::send(&client.node, address::WEB.into(), count);
    ping(5)?;
    let (recorded, connections) = (relay.opening(), relay.connections());
    assert!(recorded.len() > 2_000, "handshake, log-in and pings: {} bytes", recorded.len());
    let pinged = std::thread::scope(|scope| {
        let pinged = scope.spawn(|| ping(100));
        for length in [recorded.len(), recorded.len() / 2] {
            let answer = strangers::replay(&lab, &recorded[..length])?;
            // the gateway's part of a handshake that is another one: no Welcome, no tunnel
            assert!(answer.len() < 3_000, "{} bytes in answer to a replay", answer.len());
        }
        join(pinged)
    })?;
    assert_eq!(pinged.received, 100, "pings while the connection is replayed");
    assert_eq!(relay.connections(), connections, "the client did not have to come again");
    assert_eq!(gateway.status()?["sessions"], 1);
    Ok(())
}
