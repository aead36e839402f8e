//! What a run leaves: every figure of every round, as `docs/benchmarks.json` holds it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::shell;

const FILE_NAME: &str = "benchmarks.json";

/// What was measured of one path in one round: bits per second, milliseconds, seconds per gigabyte
/// (10^9 bytes), bytes, as the name of the figure says.
pub(crate) type Figures = BTreeMap<String, f64>;
/// One round: the figures of each path.
pub(crate) type Round = BTreeMap<String, Figures>;

/// The sections that were measured, by name, each by the last run that had it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) sections: BTreeMap<String, Section>,
}

/// Where figures come from.
#[derive(Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: String,
    pub(crate) kernel: String,
}

/// A section with all its rounds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) origin: Origin,
    /// Seconds for each throughput measurement.
    pub(crate) seconds: u32,
    /// The paths in the order of the tables: version and settings, by the path's name.
    pub(crate) paths: Vec<Described>,
    /// Peers that are not installed, with the reason.
    pub(crate) missing: BTreeMap<String, String>,
    /// Paths that could not be measured in some round, with the error.
    pub(crate) failed: BTreeMap<String, String>,
    /// Busy processors before each measurement, which were busy with something else.
    pub(crate) noise: Vec<f64>,
    pub(crate) rounds: Vec<Round>,
}

/// A path with what was used for it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Described {
    pub(crate) name: String,
    /// Whether it is another VPN.
    pub(crate) is_peer: bool,
    pub(crate) version: String,
    pub(crate) settings: String,
}

impl Report {
    /// The one in `dir`.
    pub(crate) fn in_dir(dir: &Path) -> Result<Report> {
        Report::read(&dir.join(FILE_NAME))
    }

    pub(crate) fn read(path: &Path) -> Result<Report> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{shown} is no report of this version of cargo xtask bench"))
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(dir.join(FILE_NAME), text).context(FILE_NAME)
    }
}

impl Origin {
    pub(crate) fn of_this_run() -> Result<Origin> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.unwrap_or_default().trim_start_matches([' ', '\t', ':']);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(Origin {
            date: shell::printed("date", &["-u", "+%Y-%m-%d"])?,
            commit: shell::commit()?,
            machine: format!("{} x {model}", std::thread::available_parallelism()?),
            kernel: format!("Linux {}", kernel.trim()),
        })
    }
}

impl Section {
    pub(crate) fn new(origin: Origin, seconds: u32) -> Section {
        Section {
            origin,
            seconds,
            paths: Vec::new(),
            missing: BTreeMap::new(),
            failed: BTreeMap::new(),
            noise: Vec::new(),
            rounds: Vec::new(),
        }
    }

    /// The figures of a path in the present round.
    pub(crate) fn add(&mut self, path: &str, figures: Figures) {
        if let Some(round) = self.rounds.last_mut() {
            round.insert(path.to_owned(), figures);
        }
    }

    /// What a path is made of, in place of what was known before.
    pub(crate) fn describe(&mut self, described: Described) {
        match self.paths.iter_mut().find(|known| known.name == described.name) {
            Some(known) => *known = described,
            None => self.paths.push(described),
        }
    }

    /// A figure of a path over all rounds.
    pub(crate) fn spread(&self, path: &str, figure: &str) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| value(round, path, figure)).collect())
    }

    /// What `of` gives for each round in which it gives something.
    pub(crate) fn spread_by_round(&self, of: impl Fn(&Round) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(of).collect())
    }
}

/// A figure of one round.
pub(crate) fn value(round: &Round, path: &str, figure: &str) -> Option<f64> {
    round.get(path)?.get(figure).copied()
}

/// Smallest, median and largest of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) smallest: f64,
    pub(crate) median: f64,
    pub(crate) largest: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (smallest, largest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let below =
            if values.len().is_multiple_of(2) { values[middle - 1] } else { values[middle] };
        Some(Spread { smallest, median: (below + values[middle]) / 2.0, largest })
    }

    pub(crate) fn divided_by(self, divisor: f64) -> Spread {
        Spread {
            smallest: self.smallest / divisor,
            median: self.median / divisor,
            largest: self.largest / divisor,
        }
    }
}

impl fmt::Display for Spread {
    /// `1.2 / **1.3** / 1.4`, with the precision that is asked for; once, if all are the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        let [smallest, median, largest] =
            [self.smallest, self.median, self.largest].map(|value| format!("{value:.decimals$}"));
        if smallest == largest {
            return write!(f, "**{median}**");
        }
        write!(f, "{smallest} / **{median}** / {largest}")
    }
}

/// An error as it fits into a table.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words.join(" ").replace('|', "/").chars().take(160).collect();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { smallest: 1.0, median: 2.5, largest: 4.0 });
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn a_spread_of_equal_values_is_shown_once() {
        let spread = Spread::of(vec![1.04, 1.01]).unwrap();
        assert_eq!(format!("{spread:.1}"), "**1.0**");
        assert_eq!(format!("{spread:.2}"), "1.01 / **1.02** / 1.04");
    }
}
