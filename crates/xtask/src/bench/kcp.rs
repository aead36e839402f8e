//! KCP: what it makes of a fast path, at which price, and of one that loses much.

use std::time::Duration;

use anyhow::Result;
use e2e::{Link, Stream};

use super::bars::{Bar, Limit};
use super::ours::Ours;
use super::path::{Path, Site, Via};
use super::probe::Load;
use super::report::{Figures, Section};
use super::{Bench, Chart, Column, Kind, Table};

const DIRECT: &str = "direct, BBR";
const KCP: Ours = Ours::Kcp("aes-256-gcm");
const SETTLED: Duration = Duration::from_secs(2);
/// So many times longer than on a fast path.
const LONGER: u32 = 4;
/// As a browser has open.
const STREAMS: u32 = 8;
/// Seconds in which their windows grow.
const GROWING: u32 = 10;
const MEGA: f64 = 1e6;

/// 20 Mbit/s and 200 ms, as the bad link, with 3% loss each way.
const LOSSY: Link = Link { loss: 0.03, ..Link::BAD };

const LOSSY_LINK: [Column; 6] = [
    Column { figure: "lossy_up_bps", title: "up, Mbit/s", divisor: MEGA, decimals: 1 },
    Column { figure: "lossy_down_bps", title: "down, Mbit/s", divisor: MEGA, decimals: 1 },
    Column { figure: "lossy_up_8_bps", title: "8 streams up, Mbit/s", divisor: MEGA, decimals: 1 },
    Column {
        figure: "lossy_down_8_bps",
        title: "8 streams down, Mbit/s",
        divisor: MEGA,
        decimals: 1,
    },
    Column { figure: "lossy_up_8_vpn_s_per_gb", title: "s per GB, up", divisor: 1.0, decimals: 2 },
    Column {
        figure: "lossy_down_8_vpn_s_per_gb",
        title: "s per GB, down",
        divisor: 1.0,
        decimals: 2,
    },
];
const FAST_PATH: [Column; 4] = [
    Column { figure: "up_bps", title: "up, Mbit/s", divisor: MEGA, decimals: 0 },
    Column { figure: "down_bps", title: "down, Mbit/s", divisor: MEGA, decimals: 0 },
    Column { figure: "up_vpn_s_per_gb", title: "s per GB, up", divisor: 1.0, decimals: 2 },
    Column { figure: "down_vpn_s_per_gb", title: "s per GB, down", divisor: 1.0, decimals: 2 },
];

pub(crate) const KIND: Kind = Kind {
    title: "KCP",
    introduction: "\
The way for networks that let no TCP through. A fast path without delay and loss, and one of 20 Mbit/s,
200 ms and 3% loss each way; iperf3 in each direction, as above. What is lost comes a round trip
later, in order: to the one stream inside that is a path twice as long, and its window takes tens of
seconds to grow to that. What the path carries, eight streams show, measured from their eleventh second
on. Processor seconds per GB are those of both VPN programs together.",
    measure,
    tables: &[
        Table { title: "20 Mbit/s, 200 ms, 3% loss each way", columns: &LOSSY_LINK },
        Table { title: "A fast path", columns: &FAST_PATH },
    ],
    bars,
    charts: &[Chart {
        file: "kcp-lossy-link",
        title: "Eight streams at 20 Mbit/s, 200 ms, 3% loss, Mbit/s",
        columns: &[
            Column { title: "up", ..LOSSY_LINK[2] },
            Column { title: "down", ..LOSSY_LINK[3] },
        ],
    }],
};

fn measure(bench: &Bench, section: &mut Section) -> Result<()> {
    let mut paths =
        vec![Path { inside: "bbr", ..Path::new(DIRECT, Via::Direct) }, Path::ours(Ours::Default)];
    paths.extend(bench.ours(section, &[KCP])?);
    bench.rounds_at_sites(section, &paths, |_, site| measure_path(bench.seconds, site));
    Ok(())
}

fn measure_path(seconds: u32, site: &mut Site) -> Result<Figures> {
    let mut figures = Figures::new();
    site.connect()?;
    figures.insert("idle_ms".to_owned(), site.idle_round_trip()?);
    for (name, stream) in [("up", Stream::Up), ("down", Stream::Down)] {
        figures.extend(site.load(name, Load::one(stream), seconds, SETTLED)?);
    }
    site.disconnect()?;
    let _lossy = site.lab.emulate(LOSSY, LOSSY)?;
    site.connect()?;
    let several = |stream| Load { stream, streams: STREAMS, omit: GROWING };
    for (name, load) in [
        ("lossy_up", Load::one(Stream::Up)),
        ("lossy_down", Load::one(Stream::Down)),
        ("lossy_up_8", several(Stream::Up)),
        ("lossy_down_8", several(Stream::Down)),
    ] {
        figures.extend(site.load(name, load, seconds * LONGER, SETTLED)?);
    }
    Ok(figures)
}

fn bars(section: &Section) -> Vec<Bar> {
    let ours = KCP.name();
    let bar = |what: String, figure: &str, (must, goal): (f64, f64)| {
        let measured = section.spread(&ours, figure).map(|spread| spread.divided_by(MEGA));
        let (must, goal) = (Limit::AtLeast(must), Limit::AtLeast(goal));
        Bar::new(what, "Mbit/s", measured, Some(must), Some(goal))
    };
    let ways = ["up", "down"];
    let lossy = ways.map(|way| {
        // 70% and 80% of the line
        bar(format!("KCP, 3% lost, 8 streams {way}"), &format!("lossy_{way}_8_bps"), (14.0, 16.0))
    });
    let fast = ways
        .map(|way| bar(format!("KCP, fast path, {way}"), &format!("{way}_bps"), (100.0, 300.0)));
    lossy.into_iter().chain(fast).collect()
}
