//! `cargo xtask bench`: CipherWall beside the direct path and other VPNs, in the same laboratory, in
//! turns. Writes `docs/benchmarks.md` with its charts, and `docs/benchmarks.json`.
//!
//! A run has sections. A new one is a file with a [`Kind`] and a line in [`SectionName`]; its
//! `measure` fills in rounds of figures, everything else (tables, bars, charts, JSON, comparison)
//! follows from what `Kind` says about those figures.

mod bad_link;
mod bars;
mod charts;
mod compare;
mod datagrams;
mod document;
mod interrupt;
mod kcp;
mod ours;
mod path;
mod peers;
mod pki;
mod probe;
mod recovery;
mod report;
mod sessions;
mod throughput;
mod usage;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use e2e::Programs;

use crate::packages::{self, Needs};
use crate::shell;
use bars::Bar;
use ours::Ours;
use path::{Path, Site};
use peers::Peer;
use report::{Figures, Origin, Report, Section};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these sections; the others keep the figures that they have
    #[arg(value_enum)]
    sections: Vec<SectionName>,
    /// Rounds; in each, every path is measured once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds for each throughput measurement; three times as many on bad links
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Only these peers, separated by commas; `none` for CipherWall and the direct path alone
    #[arg(long, value_name = "LIST", value_parser = peers::parse_list)]
    peers: Option<peers::List>,
    /// Only build and fetch the peers, into target/bench-peers and as Debian packages
    #[arg(long)]
    install_peers: bool,
    /// Only compare the report that is there with another one, by its medians
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Where the report is written to [default: docs]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Refuse to install Debian packages; say which are missing
    #[arg(long)]
    no_install: bool,
}

/// The sections there are, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SectionName {
    /// Throughput, processor time, round trips, time to connect and memory on a fast path
    Throughput,
    /// The same on links with delay and loss
    BadLink,
    /// KCP, on a fast path and on one that loses more
    Kcp,
    /// A thousand sessions on one gateway
    Sessions,
    /// How soon traffic flows again after an outage; takes ten rounds
    Recovery,
}

impl SectionName {
    /// As it is called on the command line and in the report.
    fn name(self) -> &'static str {
        match self {
            SectionName::Throughput => "throughput",
            SectionName::BadLink => "bad-link",
            SectionName::Kcp => "kcp",
            SectionName::Sessions => "sessions",
            SectionName::Recovery => "recovery",
        }
    }

    fn kind(self) -> &'static Kind {
        match self {
            SectionName::Throughput => &throughput::KIND,
            SectionName::BadLink => &bad_link::KIND,
            SectionName::Kcp => &kcp::KIND,
            SectionName::Sessions => &sessions::KIND,
            SectionName::Recovery => &recovery::KIND,
        }
    }
}

/// What a section is.
pub(crate) struct Kind {
    /// Its heading.
    pub(crate) title: &'static str,
    /// What is done in it, for the reader; Markdown.
    pub(crate) introduction: &'static str,
    /// Fills in the rounds.
    pub(crate) measure: fn(&Bench, &mut Section) -> Result<()>,
    /// How its figures are shown.
    pub(crate) tables: &'static [Table],
    /// What they have to be.
    pub(crate) bars: fn(&Section) -> Vec<Bar>,
    /// Which of them are drawn.
    pub(crate) charts: &'static [Chart],
}

/// Figures of all paths: a row for each path.
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) columns: &'static [Column],
}

/// A figure in a table.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    /// Its key in [`Figures`].
    pub(crate) figure: &'static str,
    /// Its heading, with the unit.
    pub(crate) title: &'static str,
    /// What a figure is divided by to be shown.
    pub(crate) divisor: f64,
    /// Decimals that are shown.
    pub(crate) decimals: usize,
}

/// A bar chart: for each path as many bars as there are figures.
pub(crate) struct Chart {
    /// The name of its file, without `.svg`.
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    /// The figures, by the names in the legend.
    pub(crate) columns: &'static [Column],
}

/// What all sections of a run have in common.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    /// Where these are.
    bin_dir: PathBuf,
    /// How many rounds.
    rounds: usize,
    /// How long a throughput measurement takes.
    pub(crate) seconds: u32,
    /// The peers that are installed, and wanted.
    pub(crate) peers: Vec<Peer>,
    /// Peers that are wanted but not installed, with the reason.
    missing: Vec<(Peer, String)>,
}

impl Bench {
    /// The paths through CipherWall that its programs know; the others are named in the report.
    pub(crate) fn ours(&self, section: &mut Section, wanted: &[Ours]) -> Result<Vec<Path>> {
        let mut paths = Vec::new();
        for ours in wanted {
            match ours.missing_in(&self.bin_dir)? {
                None => paths.push(Path::ours(*ours)),
                Some(reason) => drop(section.missing.insert(ours.name(), reason)),
            }
        }
        Ok(paths)
    }

    /// Measures every path once in every round, each at a [`Site`] of its own. At its end `measure`
    /// leaves the client connected.
    pub(crate) fn rounds_at_sites(
        &self,
        section: &mut Section,
        paths: &[Path],
        measure: impl Fn(&Path, &mut Site) -> Result<Figures>,
    ) {
        for (peer, reason) in &self.missing {
            section.missing.insert(peer.title().to_owned(), reason.clone());
        }
        self.rounds(section, paths, |path, section| {
            let mut site = Site::new(self, path)?;
            let figures = measure(path, &mut site)?;
            section.describe(site.describe(path)?);
            section.noise.append(&mut site.noise);
            Ok(figures)
        });
    }

    /// Measures every path once in every round, in the opposite order in every second one. A path
    /// that fails is named in the report, and does not keep the others from being measured.
    pub(crate) fn rounds(
        &self,
        section: &mut Section,
        paths: &[Path],
        measure: impl Fn(&Path, &mut Section) -> Result<Figures>,
    ) {
        for path in paths {
            section.describe(path.described());
        }
        for number in 1..=self.rounds {
            section.rounds.push(report::Round::new());
            let mut paths: Vec<&Path> = paths.iter().collect();
            if number % 2 == 0 {
                paths.reverse();
            }
            for path in paths {
                println!("round {number} of {}: {}", self.rounds, path.name);
                match measure(path, section) {
                    Ok(figures) => {
                        println!("  {}", document::in_short(&figures));
                        section.add(&path.name, figures);
                    }
                    Err(error) => {
                        println!("  failed: {error:#}");
                        let reason = format!("round {number}: {}", error.root_cause());
                        section.failed.insert(path.name.clone(), report::one_line(&reason));
                    }
                }
            }
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let output_dir = match &options.output {
        Some(dir) => dir.clone(),
        None => shell::workspace_dir()?.join("docs"),
    };
    if let Some(old) = &options.compare {
        print!("{}", compare::table(&Report::read(old)?, &Report::in_dir(&output_dir)?));
        return Ok(());
    }
    shell::require_root("bench")?;
    if options.install_peers {
        return peers::install(!options.no_install);
    }
    packages::install(Needs::Laboratory, !options.no_install)?;
    interrupt::watch()?;
    let bench = prepare(options)?;
    let mut report = Report::in_dir(&output_dir).unwrap_or_else(|error| {
        println!("a new report: {error:#}");
        Report::default()
    });
    let mut failed = Vec::new();
    for name in SectionName::value_variants() {
        if options.sections.is_empty() || options.sections.contains(name) {
            println!("\n=== {}", name.name());
            let mut section = Section::new(Origin::of_this_run()?, bench.seconds);
            (name.kind().measure)(&bench, &mut section).context(name.name())?;
            failed.extend(section.failed.keys().cloned());
            report.sections.insert(name.name().to_owned(), section);
            // after each: the next one may take an hour
            document::write(&report, &output_dir)?;
        }
    }
    println!("\nwritten to {}", output_dir.display());
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn prepare(options: &Options) -> Result<Bench> {
    let wanted = options.peers.clone().unwrap_or_default();
    let mut peers = Vec::new();
    let mut missing = Vec::new();
    for peer in wanted.0 {
        match peer.version() {
            Ok(_) => peers.push(peer),
            Err(error) => missing.push((peer, format!("{error:#}"))),
        }
    }
    let bin_dir = shell::release_dir()?;
    let programs = Programs::in_dir(bin_dir.clone())?;
    Ok(Bench {
        programs,
        bin_dir,
        rounds: options.rounds,
        seconds: options.seconds,
        peers,
        missing,
    })
}
