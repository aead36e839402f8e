//! `docs/benchmarks.md`, from a report. What is written by hand at its end stays.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::bars::{Bar, Limit};
use super::report::{Described, Figures, Report, Section, Spread};
use super::{Column, Kind, SectionName, Table, charts};

const FILE_NAME: &str = "benchmarks.md";
const CHARTS_DIR: &str = "benchmarks";
/// What is below is kept.
const BY_HAND: &str = "<!-- below: by hand, kept by cargo xtask bench -->";

const INTRODUCTION: &str = "\
# Benchmarks

Down to the notes at the end, written by `cargo xtask bench` ([how](../CONTRIBUTING.md#testing));
every round is in [benchmarks.json](benchmarks.json), and `cargo xtask bench --compare OLD.json`
compares two of these. Client, home router, carrier's NAT, internet, gateway and web host are
network namespaces on one machine and share its processors, so compare the ratios, not the rates.
Each path is measured in a new laboratory, in every round once, in turns. Programs are release
builds with default settings, peers as their makers or Debian ship them.

In the tables: smallest / **median** / largest of the rounds. Charts show the medians, and whether a
bar is reached, the median decides.
";

/// Writes the document, its charts and the JSON to `dir`.
pub(crate) fn write(report: &Report, dir: &Path) -> Result<()> {
    let charts_dir = dir.join(CHARTS_DIR);
    fs::create_dir_all(&charts_dir).with_context(|| charts_dir.display().to_string())?;
    let mut text = INTRODUCTION.to_owned();
    for name in SectionName::value_variants() {
        let Some(section) = report.sections.get(name.name()) else { continue };
        let kind = name.kind();
        for chart in kind.charts {
            charts::draw(chart, section, &charts_dir.join(format!("{}.svg", chart.file)))?;
        }
        add_section(&mut text, *name, kind, section);
    }
    let path = dir.join(FILE_NAME);
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, with_notes(text, &before)).context(FILE_NAME)?;
    report.write(dir)
}

/// The most telling figures, for the terminal.
pub(crate) fn in_short(figures: &Figures) -> String {
    let shown = |(figure, title, divisor): (&str, &str, f64)| {
        Some(format!("{title} {:.2}", figures.get(figure)? / divisor))
    };
    let known = [
        ("up_bps", "Mbit/s up", 1e6),
        ("down_bps", "down", 1e6),
        ("idle_ms", "round trip ms idle", 1.0),
        ("up_loaded_ms", "under upload", 1.0),
        ("connect_ms", "connect ms", 1.0),
        ("up_jain", "Jain's index up", 1.0),
    ];
    known.into_iter().filter_map(shown).collect::<Vec<_>>().join(", ")
}

/// The notes of the document before, behind the new text.
fn with_notes(mut text: String, before: &str) -> String {
    let notes = before.split_once(BY_HAND).map_or("\n", |(_, notes)| notes);
    text += "\n";
    text += BY_HAND;
    text += notes;
    text
}

fn add_section(text: &mut String, name: SectionName, kind: &Kind, section: &Section) {
    let _ = writeln!(text, "\n## {}\n\n{}\n", kind.title, kind.introduction);
    let _ = writeln!(text, "{}\n", circumstances(name, section));
    for chart in kind.charts {
        let _ = writeln!(text, "![{}]({CHARTS_DIR}/{}.svg)\n", chart.title, chart.file);
    }
    for (name, error) in &section.failed {
        let _ = writeln!(text, "{name} failed in {error}\n");
    }
    for table in kind.tables {
        add_table(text, table, section);
    }
    let bars = (kind.bars)(section);
    if !bars.is_empty() {
        add_bars(text, &bars);
    }
    add_paths(text, &section.paths);
}

fn circumstances(name: SectionName, section: &Section) -> String {
    let Section { origin, seconds, rounds, .. } = section;
    let noise = Spread::of(section.noise.clone());
    let noise = noise.map_or(String::new(), |noise| {
        format!(
            "\n- Processors busy with something else before a measurement: median {:.2}, at most {:.2}",
            noise.median, noise.largest,
        )
    });
    format!(
        "- `cargo xtask bench {} --rounds {} --seconds {seconds}`, {}, commit {}\n- {}, {}{noise}",
        name.name(),
        rounds.len(),
        origin.date,
        origin.commit,
        origin.machine,
        origin.kernel,
    )
}

fn add_table(text: &mut String, table: &Table, section: &Section) {
    let titles: Vec<&str> = table.columns.iter().map(|column| column.title).collect();
    let _ = writeln!(text, "### {}\n\n| | {} |", table.title, titles.join(" | "));
    let _ = writeln!(text, "| --- |{}", " ---: |".repeat(titles.len()));
    for Described { name, .. } in &section.paths {
        let cells: Vec<String> =
            table.columns.iter().map(|column| cell(section, name, column)).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    for (name, reason) in &section.missing {
        let _ = writeln!(text, "| {name} | {reason} |{}", " |".repeat(titles.len() - 1));
    }
    text.push('\n');
}

fn cell(section: &Section, path: &str, column: &Column) -> String {
    let spread = section.spread(path, column.figure);
    spread.map_or("-".to_owned(), |spread| {
        format!("{:.*}", column.decimals, spread.divided_by(column.divisor))
    })
}

fn add_bars(text: &mut String, bars: &[Bar]) {
    *text += "### Bars\n\n| what | measured | must | goal |\n| --- | ---: | --- | --- |\n";
    for bar in bars {
        let measured = bar.measured.map_or("not measured".to_owned(), |measured| {
            format!("{:.*} {}", decimals(measured), measured, bar.unit)
        });
        let (must, goal) = (verdict(bar, bar.must), verdict(bar, bar.goal));
        let _ = writeln!(text, "| {} | {measured} | {must} | {goal} |", bar.what);
    }
    text.push('\n');
}

/// Three digits or so.
fn decimals(measured: Spread) -> usize {
    match measured.largest.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    }
}

fn verdict(bar: &Bar, limit: Option<Limit>) -> String {
    let Some(limit) = limit else { return "-".to_owned() };
    let (word, value) = match limit {
        Limit::AtLeast(value) => ("at least", value),
        Limit::AtMost(value) => ("at most", value),
    };
    let value = format!("{value:.2}");
    let value = value.trim_end_matches('0').trim_end_matches('.');
    match bar.measured.map(|measured| limit.is_reached(measured)) {
        Some(true) => format!("{word} {value}: reached"),
        Some(false) => format!("{word} {value}: **missed**"),
        None => format!("{word} {value}"),
    }
}

fn add_paths(text: &mut String, paths: &[Described]) {
    *text += "### Versions and settings\n\n| | version | settings |\n| --- | --- | --- |\n";
    for Described { name, version, settings, .. } in paths {
        let _ = writeln!(text, "| {name} | {version} | {settings} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_by_hand_survive() {
        let first = with_notes("figures\n".to_owned(), "");
        let edited = format!("{first}\n## Notes\n\nWhat limits it.\n");
        let second = with_notes("new figures\n".to_owned(), &edited);
        assert!(second.starts_with("new figures\n"));
        assert!(second.ends_with("\n## Notes\n\nWhat limits it.\n"));
        assert_eq!(second.matches(BY_HAND).count(), 1);
    }

    #[test]
    fn a_bar_says_what_was_asked_and_whether_it_is_reached() {
        let measured = Spread::of(vec![3.6]);
        let bar = Bar::new(String::new(), "times", measured, None, None);
        assert_eq!(verdict(&bar, Some(Limit::AtLeast(3.5))), "at least 3.5: reached");
        assert_eq!(verdict(&bar, Some(Limit::AtMost(3.0))), "at most 3: **missed**");
        let bar = Bar::new(String::new(), "times", None, None, None);
        assert_eq!(verdict(&bar, Some(Limit::AtMost(20.0))), "at most 20");
    }
}
