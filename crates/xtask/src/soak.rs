//! `cargo xtask soak`: the end-to-end tests with release programs, at full sizes and durations.
//! Results go to `docs/soak.md`.

mod fuzz;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{FIGURE, SOAK};

use crate::packages::{self, Needs};
use crate::shell::{self, cargo};

const INTRODUCTION: &str = "\
# Soak

Written by `cargo xtask soak`: the end-to-end tests of `tests/e2e/tests`, with release programs, at
full sizes and durations, one test at a time. Each section is the last run of its test program.
Client, routers, gateway, web host and attackers are network namespaces on one machine and share
its processors.
";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this test program, a file or folder of tests/e2e/tests (`traffic`, `hostile`, ...), or
    /// `fuzz`, all fuzz targets, or `fuzz-TARGET`, one; may be given several times
    name: Vec<String>,
    /// Refuse to install Debian packages; say which are missing
    #[arg(long)]
    no_install: bool,
}

/// One run of a test program.
struct Run {
    name: String,
    date: String,
    commit: String,
    duration: Duration,
    outcome: Outcome,
}

/// What a test program printed, as far as it matters here.
#[derive(Default)]
struct Outcome {
    /// `ok. 3 passed; 0 failed; ...`
    result: String,
    /// Test, figure, value with unit; in the order in which they were printed.
    figures: Vec<(String, String, String)>,
    /// The test whose output is being read.
    test: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    shell::require_root("soak")?;
    let programs = test_programs(&shell::workspace_dir()?.join("tests/e2e/tests"))?;
    let known: Vec<String> = programs.into_iter().chain(fuzz::names()).collect();
    for name in &options.name {
        ensure!(known.contains(name), "there is no test program {name}: try {}", known.join(", "));
    }
    packages::install(Needs::Tests, !options.no_install)?;
    let wanted = if options.name.is_empty() { &known } else { &options.name };
    let (targets, programs): (Vec<&str>, Vec<&str>) =
        wanted.iter().map(String::as_str).partition(|name| fuzz::names().any(|it| it == *name));
    let mut failed = run_programs(&programs)?;
    if !targets.is_empty() {
        failed.extend(fuzz::run_all(&targets, record)?);
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    println!("\ndocs/soak.md is up to date");
    Ok(())
}

/// Runs these test programs; the names of those that failed.
fn run_programs(names: &[&str]) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    let mut bin_dir = None;
    for name in names {
        println!("\n=== {name}");
        let bin_dir = match &bin_dir {
            Some(bin_dir) => bin_dir,
            None => bin_dir.insert(shell::release_dir()?),
        };
        let run = run_one(name, bin_dir)?;
        // after each: the next one may take hours
        record(&run)?;
        if !run.outcome.result.starts_with("ok") {
            failed.push(run.name);
        }
    }
    Ok(failed)
}

/// The files and folders of `tests_dir`, in order.
fn test_programs(tests_dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(tests_dir).with_context(|| tests_dir.display().to_string())?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn run_one(name: &str, bin_dir: &Path) -> Result<Run> {
    let words = ["test", "-p", "e2e", "--locked", "--test", name, "--"];
    let mut command = cargo(&words)?;
    command
        .args(["--test-threads=1", "--show-output"])
        .env("CIPHERWALL_BIN_DIR", bin_dir)
        .env("RUST_BACKTRACE", "0")
        .env(SOAK, "1");
    let start = Instant::now();
    let outcome = outcome_of(command)?;
    let duration = start.elapsed();
    Ok(Run {
        name: name.to_owned(),
        date: shell::printed("date", &["-u", "+%Y-%m-%d"])?,
        commit: shell::commit()?,
        duration,
        outcome,
    })
}

fn outcome_of(mut command: Command) -> Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let output = child.stdout.take().context("no output")?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        outcome.read(&line);
    }
    child.wait()?;
    if outcome.result.is_empty() {
        bail!("{} gave no result", shell::line(&command));
    }
    Ok(outcome)
}

impl Outcome {
    /// One line of the output of `cargo test -- --show-output`.
    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.result = result.to_owned();
        } else if let Some(test) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.test = test.to_owned();
        } else if let Some((name, value)) =
            line.strip_prefix(FIGURE).and_then(|figure| figure.split_once(" = "))
        {
            self.figures.push((self.test.clone(), name.to_owned(), value.trim().to_owned()));
        }
    }
}

/// Puts the run in place of the last one of its name.
fn record(run: &Run) -> Result<()> {
    let path = shell::workspace_dir()?.join("docs/soak.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, with_section(&before, &run.name, &as_section(run))).context("docs/soak.md")
}

fn with_section(document: &str, name: &str, section: &str) -> String {
    let mut sections: BTreeMap<&str, &str> =
        document.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    sections.insert(name, section);
    let mut text = INTRODUCTION.to_owned();
    for (name, section) in sections {
        let _ = write!(text, "\n## {name}\n{}\n", section.trim_end());
    }
    text
}

fn as_section(run: &Run) -> String {
    let Run { date, commit, duration, outcome, .. } = run;
    let result = outcome.result.split("; 0 ignored").next().unwrap_or_default();
    let mut text =
        String::from("\n| date | commit | duration | result |\n| --- | --- | --- | --- |\n");
    let _ = writeln!(text, "| {date} | {commit} | {} s | {result} |", duration.as_secs());
    if !outcome.figures.is_empty() {
        text += "\n| test | figure | value |\n| --- | --- | --- |\n";
    }
    for (test, name, value) in &outcome.figures {
        let _ = writeln!(text, "| {test} | {name} | {value} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_belong_to_the_test_that_printed_them() {
        let mut outcome = Outcome::default();
        for line in [
            "test one ... ok",
            "successes:",
            "---- one stdout ----",
            "figure: rate, down = 12.5 Mbit/s",
            "something else",
            "---- two stdout ----",
            "figure: lost = 0.0 ",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured",
        ] {
            outcome.read(line);
        }
        let figures: Vec<_> =
            outcome.figures.iter().map(|(t, n, v)| (t.as_str(), n.as_str(), v.as_str())).collect();
        assert_eq!(figures, [("one", "rate, down", "12.5 Mbit/s"), ("two", "lost", "0.0")]);
        assert!(outcome.result.starts_with("ok. 2 passed"));
    }

    #[test]
    fn a_section_replaces_the_one_of_its_name_and_no_other() {
        let one = with_section("", "traffic", "\nold\n");
        let two = with_section(&one, "hostile", "\nhostile's\n");
        let three = with_section(&two, "traffic", "\nnew\n");
        let expected = format!("{INTRODUCTION}\n## hostile\n\nhostile's\n\n## traffic\n\nnew\n");
        assert_eq!(three, expected);
    }
}
