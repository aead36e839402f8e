//! Links with delay and loss: what a VPN makes of a bad connection.

use std::time::Duration;

use anyhow::Result;
use e2e::{Link, Stream};

use super::bars::{self, Bar, Limit, at_most, percent};
use super::ours::Ours;
use super::path::{Path, Site, Via};
use super::probe::Load;
use super::report::{Figures, Section, Spread, value};
use super::{Bench, Chart, Column, Kind, Table};

const DIRECT_BBR: &str = "direct, BBR";
const DIRECT_CUBIC: &str = "direct, CUBIC";
const OURS: &str = "CipherWall";
/// When pings under load begin: a queue takes its time to fill.
const SETTLED: Duration = Duration::from_secs(2);
/// So many times longer than on a fast path, on the bad link and on the other one.
const LONGER: (u32, u32) = (3, 2);
const MEGA: f64 = 1e6;

/// The other link: 20 Mbit/s and 40 ms without loss, where all delay is the sender's own.
const PLAIN: Link = Link { delay: Duration::from_millis(20), loss: 0.0, ..Link::BAD };

const RATES: [Column; 2] = [
    Column { figure: "up_bps", title: "up", divisor: MEGA, decimals: 1 },
    Column { figure: "down_bps", title: "down", divisor: MEGA, decimals: 1 },
];
const DELAYS: [Column; 5] = [
    Column { figure: "idle_ms", title: "idle", divisor: 1.0, decimals: 0 },
    Column { figure: "up_loaded_ms", title: "under upload", divisor: 1.0, decimals: 0 },
    Column { figure: "up_loaded_p95_ms", title: "95th percentile", divisor: 1.0, decimals: 0 },
    Column { figure: "down_loaded_ms", title: "under download", divisor: 1.0, decimals: 0 },
    Column { figure: "down_loaded_p95_ms", title: "95th percentile", divisor: 1.0, decimals: 0 },
];
const CONNECT: [Column; 2] = [
    Column { figure: "connect_ms", title: "first", divisor: 1.0, decimals: 0 },
    Column { figure: "connect_again_ms", title: "again", divisor: 1.0, decimals: 0 },
];
const PLAIN_LINK: [Column; 7] = [
    Column { figure: "plain_up_bps", title: "up, Mbit/s", divisor: MEGA, decimals: 1 },
    Column { figure: "plain_down_bps", title: "down, Mbit/s", divisor: MEGA, decimals: 1 },
    Column { figure: "plain_idle_ms", title: "idle, ms", divisor: 1.0, decimals: 0 },
    Column { figure: "plain_up_loaded_ms", title: "under upload, ms", divisor: 1.0, decimals: 0 },
    Column {
        figure: "plain_up_loaded_p95_ms",
        title: "95th percentile, ms",
        divisor: 1.0,
        decimals: 0,
    },
    Column {
        figure: "plain_down_loaded_ms",
        title: "under download, ms",
        divisor: 1.0,
        decimals: 0,
    },
    Column {
        figure: "plain_down_loaded_p95_ms",
        title: "95th percentile, ms",
        divisor: 1.0,
        decimals: 0,
    },
];

pub(crate) const KIND: Kind = Kind {
    title: "Bad links",
    introduction: "\
The bad link: 20 Mbit/s, a round trip of 200 ms, 1% loss each way, a queue of 200 ms; emulated
between the carrier and everything else. One TCP stream of iperf3 in each direction with CUBIC,
Linux's default, through the tunnel; what carries the tunnel is each program's own choice, where it
makes one, and CUBIC where it does not. Programs over TCP that make none are measured once more with
BBR there, which an administrator can set. Pings under load begin 2 s after the transfer. The other
link has 20 Mbit/s, 40 ms, no loss, and the same queue of 200 ms.",
    measure,
    tables: &[
        Table { title: "Throughput on the bad link, Mbit/s", columns: &RATES },
        Table { title: "Round trips on the bad link, ms", columns: &DELAYS },
        Table { title: "Connect to first ping on the bad link, ms", columns: &CONNECT },
        Table { title: "The link of 20 Mbit/s and 40 ms without loss", columns: &PLAIN_LINK },
    ],
    bars,
    charts: &[
        Chart {
            file: "bad-link-throughput",
            title: "Throughput at 20 Mbit/s, 200 ms, 1% loss, Mbit/s",
            columns: &RATES,
        },
        Chart {
            file: "plain-link-round-trip",
            title: "Round trip at 20 Mbit/s, 40 ms, ms",
            columns: &[
                Column { title: "idle", ..PLAIN_LINK[2] },
                Column { title: "under upload", ..PLAIN_LINK[3] },
                Column { title: "under download", ..PLAIN_LINK[5] },
            ],
        },
    ],
};

fn measure(bench: &Bench, section: &mut Section) -> Result<()> {
    let mut paths = vec![
        Path { inside: "bbr", ..Path::new(DIRECT_BBR, Via::Direct) },
        Path::new(DIRECT_CUBIC, Via::Direct),
        Path::ours(Ours::Default),
    ];
    paths.extend(bench.ours(section, &[Ours::Udp("aes-256-gcm"), Ours::Kcp("aes-256-gcm")])?);
    for peer in &bench.peers {
        paths.push(Path::new(peer.title(), Via::Peer(*peer)));
        if peer.is_over_tcp() {
            let name = format!("{}, BBR outside", peer.title());
            paths.push(Path { outside: "bbr", ..Path::new(&name, Via::Peer(*peer)) });
        }
    }
    bench.rounds_at_sites(section, &paths, |_, site| measure_path(bench.seconds, site));
    Ok(())
}

fn measure_path(seconds: u32, site: &mut Site) -> Result<Figures> {
    let mut figures = Figures::new();
    let bad = site.lab.emulate(Link::BAD, Link::BAD)?;
    if let Some(time) = site.connect()? {
        figures.insert("connect_ms".to_owned(), time);
        site.disconnect()?;
    }
    if let Some(time) = site.connect()? {
        figures.insert("connect_again_ms".to_owned(), time);
    }
    figures.insert("idle_ms".to_owned(), site.idle_round_trip()?);
    for (name, stream) in [("up", Stream::Up), ("down", Stream::Down)] {
        figures.extend(site.load(name, Load::one(stream), seconds * LONGER.0, SETTLED)?);
    }
    site.disconnect()?;
    drop(bad);

    let _plain = site.lab.emulate(PLAIN, PLAIN)?;
    site.connect()?;
    figures.insert("plain_idle_ms".to_owned(), site.idle_round_trip()?);
    for (name, stream) in [("plain_up", Stream::Up), ("plain_down", Stream::Down)] {
        figures.extend(site.load(name, Load::one(stream), seconds * LONGER.1, SETTLED)?);
    }
    Ok(figures)
}

fn bars(section: &Section) -> Vec<Bar> {
    let mut all = Vec::new();
    for way in ["up", "down"] {
        let figure = format!("{way}_bps");
        let share = percent(bars::ratio(section, OURS, DIRECT_BBR, &figure));
        let what = format!("bad link, {way}, of direct BBR");
        all.push(bars::at_least(what, "%", share, (80.0, 90.0)));
        let best = bars::peers_by(section, &figure).pop();
        let times = best.and_then(|(best, _)| bars::ratio(section, OURS, best, &figure));
        let name = best.map_or("best peer", |(best, _)| best);
        let what = format!("bad link, {way}, of {name}");
        all.push(bars::at_least(what, "times", times, (1.0, 1.8)));
        let rise = bars::rise(section, OURS, &format!("{way}_loaded_ms"), "idle_ms");
        let what = format!("bad link, round trip under load above idle, {way}");
        all.push(Bar::new(what, "ms", rise, None, Some(Limit::AtMost(60.0))));
    }
    for way in ["up", "down"] {
        let figure = format!("plain_{way}_loaded_ms");
        let rise = bars::rise(section, OURS, &figure, "plain_idle_ms");
        let what = format!("40 ms link, round trip under load above idle, {way}");
        all.push(at_most(what, "ms", rise, (60.0, 30.0)));
    }
    for (name, figure, must) in
        [("the first time", "connect_ms", 5.0), ("again", "connect_again_ms", 4.0)]
    {
        let what = format!("bad link, connect to first ping, {name}");
        let must = Some(Limit::AtMost(must));
        all.push(Bar::new(what, "round trips", round_trips(section, figure), must, None));
    }
    all
}

/// A time in round trips of the direct path.
fn round_trips(section: &Section, figure: &str) -> Option<Spread> {
    section.spread_by_round(|round| {
        Some(value(round, OURS, figure)? / value(round, DIRECT_CUBIC, "idle_ms")?)
    })
}
