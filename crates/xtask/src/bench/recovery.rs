//! Outages: how soon traffic flows again once the path is back.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::{Beat, Download};

use super::bars::{self, Bar};
use super::ours::Ours;
use super::path::{Path, Site, Via};
use super::report::{Figures, Section, Spread};
use super::{Bench, Chart, Column, Kind, Table};

const OURS: &str = "CipherWall";
/// Who is not back by then is started anew, as users would do; the time counts as this long.
const LIMIT: Duration = Duration::from_secs(90);
/// After it is back, and before the next outage.
const CALM: Duration = Duration::from_secs(4);
/// What the web host sends, so that a download is under way in every outage.
const RATE: &str = "16mbit";
const FILE_BYTES: u64 = 256_000_000;

/// What happens to the path.
#[derive(Clone, Copy)]
enum Outage {
    Cut(u64),
    LinkDown(u64),
    Reset,
    Silent,
    OtherLink,
    Restart,
}

const OUTAGES: [(&str, Outage); 8] = [
    ("cut_1", Outage::Cut(1)),
    ("cut_5", Outage::Cut(5)),
    ("cut_20", Outage::Cut(20)),
    ("link_down", Outage::LinkDown(5)),
    ("reset", Outage::Reset),
    ("silent", Outage::Silent),
    ("other_link", Outage::OtherLink),
    ("restart", Outage::Restart),
];

const fn column(figure: &'static str, title: &'static str) -> Column {
    Column { figure, title, divisor: 1_000.0, decimals: 2 }
}

const DATAGRAMS: [Column; 8] = [
    column("cut_1_ms", "cut, 1 s"),
    column("cut_5_ms", "cut, 5 s"),
    column("cut_20_ms", "cut, 20 s"),
    column("link_down_ms", "own link down, 5 s"),
    column("reset_ms", "new port, old one reset"),
    column("silent_ms", "new port in silence"),
    column("other_link_ms", "another link"),
    column("restart_ms", "gateway restarted"),
];
const DOWNLOADS: [Column; 8] = [
    column("cut_1_download_ms", "cut, 1 s"),
    column("cut_5_download_ms", "cut, 5 s"),
    column("cut_20_download_ms", "cut, 20 s"),
    column("link_down_download_ms", "own link down, 5 s"),
    column("reset_download_ms", "new port, old one reset"),
    column("silent_download_ms", "new port in silence"),
    column("other_link_download_ms", "another link"),
    column("restart_download_ms", "gateway restarted"),
];

pub(crate) const KIND: Kind = Kind {
    title: "Outages",
    introduction: "\
The path is broken while datagrams are echoed through the tunnel every 20 ms and a download is under
way; measured is the time from when the path works again, or another one does, to when traffic flows
without a pause. Zero: there was no pause of 0.2 s. *Cut*: the carrier drops everything in silence.
*New port*: the carrier's NAT gives the flow another one, and packets to the old one are answered
with a reset, or dropped in silence. *Another link*: the default route, and the client's address,
change. *Gateway restarted*: from when it is ready; CipherWall's by `systemctl reload`. Who is not
back after 90 s is started anew and counts as 90 s.",
    measure,
    tables: &[
        Table { title: "Datagrams flow again after, s", columns: &DATAGRAMS },
        Table { title: "A download goes on after, s", columns: &DOWNLOADS },
    ],
    bars,
    charts: &[Chart {
        file: "recovery",
        title: "Traffic flows again after, s",
        columns: &[DATAGRAMS[1], DATAGRAMS[4], DATAGRAMS[5], DATAGRAMS[6]],
    }],
};

fn measure(bench: &Bench, section: &mut Section) -> Result<()> {
    let mut paths = vec![Path::ours(Ours::Default)];
    for peer in &bench.peers {
        paths.push(Path::new(peer.title(), Via::Peer(*peer)));
    }
    bench.rounds_at_sites(section, &paths, |_, site| measure_path(site));
    Ok(())
}

fn measure_path(site: &mut Site) -> Result<Figures> {
    let slow = ["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", RATE];
    site.lab.web.ok(&[&slow[..], &["burst", "64kb", "latency", "50ms"]].concat())?;
    site.lab.make_download("steady", FILE_BYTES)?;
    site.lab.randomise_nat()?;
    site.connect()?;
    let mut figures = Figures::new();
    for (name, outage) in OUTAGES {
        if let Some((datagrams, download)) = outlive(site, outage).context(name)? {
            figures.insert(format!("{name}_ms"), milliseconds(datagrams));
            figures.insert(format!("{name}_download_ms"), milliseconds(download));
        }
    }
    Ok(figures)
}

/// How long after the outage datagrams flow, and a download; `None` if this one cannot be had.
fn outlive(site: &mut Site, outage: Outage) -> Result<Option<(Duration, Duration)>> {
    let IpAddr::V4(target) = site.target else { bail!("no IPv4 target") };
    let beat = match Beat::start(site.client(), &site.lab.web, target) {
        Ok(beat) => beat,
        // it came back from the last outage, but not for good
        Err(_) => {
            site.disconnect()?;
            site.connect()?;
            Beat::start(site.client(), &site.lab.web, target)?
        }
    };
    let download = Download::start(site.client(), target, "steady")?;
    sleep(CALM / 4);
    let lab = &site.lab;
    let back = match outage {
        Outage::Cut(seconds) => lab.cut_path(Duration::from_secs(seconds))?,
        Outage::LinkDown(seconds) => lab.drop_link(Duration::from_secs(seconds))?,
        Outage::Reset => lab.rebind_nat()?,
        Outage::Silent => lab.swallow_flows()?,
        Outage::OtherLink => lab.change_link()?,
        Outage::Restart => {
            let Some(vpn) = &mut site.vpn else { return Ok(None) };
            if !vpn.restart_gateway()? {
                return Ok(None);
            }
            Instant::now()
        }
    };
    let flows = |after: &dyn Fn(Instant) -> Option<Duration>| {
        while after(back).is_none() && back.elapsed() < LIMIT {
            sleep(CALM / 100);
        }
        sleep(CALM.saturating_sub(back.elapsed()));
        after(back).map_or(LIMIT, |time| time.min(LIMIT))
    };
    let datagrams = flows(&|back| beat.flow_after(back));
    let bytes = flows(&|back| download.flow_after(back));
    if datagrams == LIMIT {
        site.disconnect()?;
        site.connect()?;
    }
    Ok(Some((datagrams, bytes)))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn bars(section: &Section) -> Vec<Bar> {
    let mut all = Vec::new();
    for column in DATAGRAMS {
        let spread = section.spread(OURS, column.figure);
        let what = format!("traffic flows after: {}", column.title);
        all.push(bars::at_most(what, "ms", spread, (1_000.0, 600.0)));
        // of ten rounds, the 95th percentile is the slowest
        let slowest = spread.and_then(|spread| Spread::of(vec![spread.largest]));
        let what = format!("the slowest of all rounds: {}", column.title);
        all.push(bars::at_most(what, "ms", slowest, (2_000.0, 1_000.0)));
    }
    all
}
