//! A path without delay and loss, as fast as the machine can: what a VPN costs.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use e2e::Stream;

use super::bars::{self, Bar, Limit, at_least, at_most, percent};
use super::ours::Ours;
use super::path::{Path, Site, Via};
use super::probe::Load;
use super::report::{Figures, Section, Spread, value};
use super::{Bench, Chart, Column, Kind, Table, datagrams};

pub(crate) const DIRECT: &str = "direct";
/// The ciphers of sessions over TLS.
const CIPHERS: [&str; 2] = ["aes-256-gcm", "chacha20-poly1305"];
/// When pings under load begin.
const SETTLED: Duration = Duration::from_millis(500);
const GIGA: f64 = 1e9;
/// Memory is shown and judged in MB, 10^6 bytes.
const MEGA: f64 = 1e6;

const THROUGHPUT: [Column; 4] = [
    Column { figure: "up_bps", title: "up", divisor: GIGA, decimals: 2 },
    Column { figure: "down_bps", title: "down", divisor: GIGA, decimals: 2 },
    Column { figure: "up_4_bps", title: "up, 4 streams", divisor: GIGA, decimals: 2 },
    Column { figure: "down_4_bps", title: "down, 4 streams", divisor: GIGA, decimals: 2 },
];
const PROCESSOR: [Column; 4] = [
    Column { figure: "up_vpn_s_per_gb", title: "VPN, up", divisor: 1.0, decimals: 2 },
    Column { figure: "down_vpn_s_per_gb", title: "VPN, down", divisor: 1.0, decimals: 2 },
    Column { figure: "up_machine_s_per_gb", title: "machine, up", divisor: 1.0, decimals: 2 },
    Column { figure: "down_machine_s_per_gb", title: "machine, down", divisor: 1.0, decimals: 2 },
];
const DELAY: [Column; 5] = [
    Column { figure: "idle_ms", title: "idle", divisor: 1.0, decimals: 2 },
    Column { figure: "up_loaded_ms", title: "under upload", divisor: 1.0, decimals: 2 },
    Column { figure: "down_loaded_ms", title: "under download", divisor: 1.0, decimals: 2 },
    Column { figure: "connect_ms", title: "connect to first ping", divisor: 1.0, decimals: 0 },
    Column { figure: "connect_again_ms", title: "the second time", divisor: 1.0, decimals: 0 },
];
const MEMORY: [Column; 4] = [
    Column { figure: "client_rss", title: "client", divisor: MEGA, decimals: 1 },
    Column { figure: "gateway_rss", title: "gateway", divisor: MEGA, decimals: 1 },
    Column { figure: "client_hwm", title: "client, at most", divisor: MEGA, decimals: 1 },
    Column { figure: "gateway_hwm", title: "gateway, at most", divisor: MEGA, decimals: 1 },
];

pub(crate) const KIND: Kind = Kind {
    title: "Throughput and its price",
    introduction: "\
No delay and no loss but those of the machine, and the congestion control that it has by default, but
for CipherWall's own connections, which choose. One TCP stream of iperf3 in each direction, with 50
pings a second beside it, then four streams. Processor time is that of both VPN programs together,
and that of the whole machine (iperf3, NAT and the network included). *Connect* is from the start of
the client's program to the first ping answered through the tunnel, one ping every 2 ms; the second
time is after a disconnect. Memory is resident after the transfers, client and gateway with all their
processes.",
    measure,
    tables: &[
        Table { title: "Throughput, Gbit/s", columns: &THROUGHPUT },
        Table { title: "Processor seconds per GB (10^9 bytes)", columns: &PROCESSOR },
        Table { title: "Round trips and time to connect, ms", columns: &DELAY },
        Table { title: "Resident memory, MB (10^6 bytes)", columns: &MEMORY },
    ],
    bars,
    charts: &[
        Chart {
            file: "throughput",
            title: "Throughput of one TCP stream, Gbit/s",
            columns: &[THROUGHPUT[0], THROUGHPUT[1]],
        },
        Chart {
            file: "processor",
            title: "Processor seconds per GB",
            columns: &[
                Column { title: "both VPN programs, up", ..PROCESSOR[0] },
                Column { title: "whole machine, up", ..PROCESSOR[2] },
            ],
        },
        Chart {
            file: "round-trip",
            title: "Round trip, ms",
            columns: &[DELAY[0], DELAY[1], DELAY[2]],
        },
    ],
};

fn measure(bench: &Bench, section: &mut Section) -> Result<()> {
    let mut paths = vec![Path::new(DIRECT, Via::Direct)];
    paths.extend(bench.ours(section, &CIPHERS.map(Ours::Tls))?);
    paths.extend(bench.ours(section, &datagrams::OURS)?);
    paths.extend(bench.ours(section, &[Ours::Kcp("aes-256-gcm")])?);
    paths.extend(bench.peers.iter().map(|peer| Path::new(peer.title(), Via::Peer(*peer))));
    let default = congestion_control()?;
    paths.iter_mut().for_each(|path| (path.inside, path.outside) = (default, default));
    bench.rounds_at_sites(section, &paths, |path, site| measure_path(bench, path, site));
    Ok(())
}

/// The congestion control that this machine's programs get if they do not choose.
fn congestion_control() -> Result<&'static str> {
    let name = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?;
    Ok(name.trim().to_owned().leak())
}

fn measure_path(bench: &Bench, path: &Path, site: &mut Site) -> Result<Figures> {
    let mut figures = Figures::new();
    if let Some(time) = site.connect()? {
        figures.insert("connect_ms".to_owned(), time);
        site.disconnect()?;
    }
    if let Some(time) = site.connect()? {
        figures.insert("connect_again_ms".to_owned(), time);
    }
    figures.insert("idle_ms".to_owned(), site.idle_round_trip()?);
    for (name, stream) in [("up", Stream::Up), ("down", Stream::Down)] {
        figures.extend(site.load(name, Load::one(stream), bench.seconds, SETTLED)?);
    }
    match path.via {
        Via::Direct | Via::Ours(_) => {
            let four = |stream| Load { streams: 4, ..Load::one(stream) };
            let up = site.stream(four(Stream::Up), bench.seconds)?;
            let down = site.stream(four(Stream::Down), bench.seconds)?;
            figures.extend([("up_4_bps".to_owned(), up), ("down_4_bps".to_owned(), down)]);
        }
        Via::Peer(_) => {}
    }
    figures.extend(site.memory()?);
    Ok(figures)
}

fn bars(section: &Section) -> Vec<Bar> {
    let mut all = Vec::new();
    // in % of direct and times the best peer: must and goal
    for (cipher, direct, peer) in
        [(CIPHERS[0], (60.0, 75.0), (3.5, 4.0)), (CIPHERS[1], (45.0, 50.0), (2.5, 3.0))]
    {
        let ours = Ours::Tls(cipher).name();
        for way in ["up", "down"] {
            let figure = format!("{way}_bps");
            let share = bars::ratio(section, &ours, DIRECT, &figure);
            all.push(at_least(format!("{cipher}, {way}, of direct"), "%", percent(share), direct));
            let best = bars::peers_by(section, &figure).pop();
            let times = best.and_then(|(best, _)| bars::ratio(section, &ours, best, &figure));
            let name = best.map_or("best peer", |(best, _)| best);
            all.push(at_least(format!("{cipher}, {way}, of {name}"), "times", times, peer));
        }
        all.extend(["up", "down"].map(|way| four_streams(section, &ours, cipher, way)));
    }
    for cipher in CIPHERS {
        all.extend(["up", "down"].map(|way| processor_time(section, cipher, way)));
    }
    all.extend(delays_and_memory(section, &Ours::Tls(CIPHERS[0]).name()));
    all.extend(datagrams::bars(section));
    all
}

fn four_streams(section: &Section, ours: &str, cipher: &str, way: &str) -> Bar {
    let (four, one) = (format!("{way}_4_bps"), format!("{way}_bps"));
    let ratio = section
        .spread_by_round(|round| Some(value(round, ours, &four)? / value(round, ours, &one)?));
    let what = format!("{cipher}, {way}, four streams of one");
    Bar::new(what, "%", percent(ratio), Some(Limit::AtLeast(100.0)), None)
}

fn processor_time(section: &Section, cipher: &'static str, way: &str) -> Bar {
    let (ours, figure) = (Ours::Tls(cipher).name(), format!("{way}_vpn_s_per_gb"));
    let best = bars::peers_by(section, &figure).first().copied();
    let share = best.and_then(|(best, _)| bars::ratio(section, &ours, best, &figure));
    let name = best.map_or("best peer", |(best, _)| best);
    let what = format!("{cipher}, {way}, processor time of the VPN programs, of {name}'s");
    at_most(what, "%", percent(share), (100.0 / 3.0, 25.0))
}

/// Round trips, time to connect and memory.
fn delays_and_memory(section: &Section, ours: &str) -> Vec<Bar> {
    let mut all = Vec::new();
    let added = section.spread_by_round(|round| {
        Some(value(round, ours, "idle_ms")? - value(round, DIRECT, "idle_ms")?)
    });
    let direct = section.spread(DIRECT, "idle_ms").map_or(0.0, |spread| spread.median);
    let peers: Vec<f64> =
        bars::peers_by(section, "idle_ms").iter().map(|(_, median)| median - direct).collect();
    let must = Spread::of(peers.clone()).map(|spread| Limit::AtMost(spread.median));
    let goal = Spread::of(peers).map(|spread| Limit::AtMost(spread.smallest));
    all.push(Bar::new("round trip added, idle".to_owned(), "ms", added, must, goal));
    for way in ["up", "down"] {
        let rise = bars::rise(section, ours, &format!("{way}_loaded_ms"), "idle_ms");
        let what = format!("round trip under load above idle, {way}");
        all.push(at_most(what, "ms", rise, (5.0, 2.0)));
    }
    for (name, figure) in [("the first time", "connect_ms"), ("again", "connect_again_ms")] {
        let what = format!("connect to first ping, {name}");
        all.push(at_most(what, "ms", section.spread(ours, figure), (100.0, 60.0)));
    }
    for end in ["client", "gateway"] {
        let memory = section.spread(ours, &format!("{end}_hwm"));
        let what = format!("memory of the {end}, at most");
        all.push(at_most(what, "MB", memory.map(|spread| spread.divided_by(MEGA)), (20.0, 12.0)));
    }
    all
}
