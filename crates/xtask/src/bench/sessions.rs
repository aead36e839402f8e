//! A thousand sessions on one gateway: whether the busy ones get the same, and what the others cost.

use std::time::Duration;

use anyhow::Result;
use e2e::{Bulk, Lab, Load, many_sessions};

use super::bars::{Bar, Limit, at_most, percent};
use super::ours::Ours;
use super::path::Path;
use super::report::{Figures, Section, value};
use super::{Bench, Column, Kind, Table, interrupt};

const OURS: &str = "CipherWall";
const SESSIONS: usize = 1_000;
const ACTIVE: usize = 50;
/// Memory is shown and judged in kB, 10^3 bytes.
const KILO: f64 = 1e3;
const MEGA: f64 = 1e6;

pub(crate) const KIND: Kind = Kind {
    title: "Many sessions",
    introduction: "\
A load generator in the client's network speaks the real protocol for 1,000 devices, without TUN
devices. First one session moves bulk data over one TCP connection in each direction while all
others are idle, then 50 at once. Jain's index is 1 if all 50 get the same, and 0.02 if one gets
everything. Memory is the gateway's, while all sessions are idle.",
    measure,
    tables: &[
        Table {
            title: "50 of 1,000 sessions active",
            columns: &[
                Column {
                    figure: "up_one_bps",
                    title: "one, up, Mbit/s",
                    divisor: MEGA,
                    decimals: 0,
                },
                Column { figure: "up_bps", title: "50, up, Mbit/s", divisor: MEGA, decimals: 0 },
                Column { figure: "up_jain", title: "Jain's index", divisor: 1.0, decimals: 3 },
                Column { figure: "down_one_bps", title: "one, down", divisor: MEGA, decimals: 0 },
                Column { figure: "down_bps", title: "50, down", divisor: MEGA, decimals: 0 },
                Column { figure: "down_jain", title: "Jain's index", divisor: 1.0, decimals: 3 },
            ],
        },
        Table {
            title: "1,000 idle sessions",
            columns: &[
                Column {
                    figure: "log_ins_per_s",
                    title: "log-ins a second",
                    divisor: 1.0,
                    decimals: 0,
                },
                Column { figure: "gateway_rss", title: "gateway, MB", divisor: MEGA, decimals: 1 },
                Column {
                    figure: "session_bytes",
                    title: "each session, kB",
                    divisor: KILO,
                    decimals: 1,
                },
            ],
        },
    ],
    bars,
    charts: &[],
};

fn measure(bench: &Bench, section: &mut Section) -> Result<()> {
    let time = Duration::from_secs(bench.seconds.into());
    bench.rounds(section, &[Path::ours(Ours::Default)], |_, _| {
        let lab = Lab::new()?;
        interrupt::remove_later(&lab);
        let load = Load { sessions: SESSIONS, active: ACTIVE, time };
        let measured = many_sessions(&lab, &bench.programs, load)?;
        let mut figures = Figures::from([
            ("log_ins_per_s".to_owned(), measured.log_in_rate),
            ("gateway_rss".to_owned(), measured.memory as f64),
            ("session_bytes".to_owned(), measured.memory_each),
        ]);
        figures.extend(bulk("up", &measured.up));
        figures.extend(bulk("down", &measured.down));
        Ok(figures)
    });
    Ok(())
}

fn bulk(way: &str, bulk: &Bulk) -> [(String, f64); 3] {
    [
        (format!("{way}_one_bps"), bulk.alone),
        (format!("{way}_bps"), bulk.total()),
        (format!("{way}_jain"), bulk.fairness()),
    ]
}

fn bars(section: &Section) -> Vec<Bar> {
    let mut all = Vec::new();
    for way in ["up", "down"] {
        let (one, many) = (format!("{way}_one_bps"), format!("{way}_bps"));
        let share = section
            .spread_by_round(|round| Some(value(round, OURS, &many)? / value(round, OURS, &one)?));
        let what = format!("50 active sessions together, {way}, of one alone");
        all.push(Bar::new(what, "%", percent(share), Some(Limit::AtLeast(80.0)), None));
        let jain = section.spread(OURS, &format!("{way}_jain"));
        let what = format!("Jain's index, {way}");
        all.push(Bar::new(what, "", jain, Some(Limit::AtLeast(0.9)), None));
    }
    let each = section.spread(OURS, "session_bytes").map(|spread| spread.divided_by(KILO));
    all.push(at_most("memory of an idle session".to_owned(), "kB", each, (64.0, 32.0)));
    all
}
