//! `cargo xtask test`: every check there is. `.ci/run` calls it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::packages::{self, Needs};
use crate::shell::{self, cargo, run, succeeds};

/// How many end-to-end tests run side by side; each has a laboratory of its own.
const E2E_THREADS: &str = "--test-threads=2";

/// A test program that hangs is ended after 15 minutes; the others then still run.
const NO_HANGING: [&str; 2] = [
    "--config",
    "target.'cfg(unix)'.runner = ['timeout', '--foreground', '--kill-after=10', '900']",
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this (then only `unit` and `e2e` run)
    filter: Option<String>,
    /// Only these steps (may be given several times)
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
    /// Refuse to install Debian packages, Rust components and cargo-deny; say what is missing
    #[arg(long)]
    no_install: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// cargo fmt --check
    Fmt,
    /// clippy on everything, warnings are errors
    Clippy,
    /// cargo check on the fuzz targets, which take sources of the programs in
    Fuzz,
    /// rustdoc, warnings are errors
    Docs,
    /// cargo-deny: bans, licenses, sources; advisories where their data base can be had
    Deny,
    /// Unit and property tests
    Unit,
    /// The real programs in network namespaces
    E2e,
}

/// How many checks a step made; a step without tests is one.
struct Count {
    passed: usize,
    failed: usize,
}

/// A finished step.
struct Done {
    step: Step,
    count: Count,
    duration: Duration,
}

pub(crate) fn run_command(options: &Options) -> Result<()> {
    let steps = chosen_steps(options);
    if steps.contains(&Step::E2e) {
        shell::require_root("test")?;
    }
    packages::install(needs(&steps), !options.no_install)?;
    let done: Vec<Done> = steps.into_iter().map(|step| run_step(step, options)).collect();
    report(&done)
}

fn chosen_steps(options: &Options) -> Vec<Step> {
    if !options.only.is_empty() {
        return options.only.clone();
    }
    if options.filter.is_some() {
        return vec![Step::Unit, Step::E2e];
    }
    Step::value_variants().to_vec()
}

fn needs(steps: &[Step]) -> Needs {
    if steps.contains(&Step::E2e) { Needs::Tests } else { Needs::Build }
}

fn run_step(step: Step, options: &Options) -> Done {
    println!("\n=== {step:?}");
    let start = Instant::now();
    let count = match step {
        Step::Fmt => one_check(format(options)),
        Step::Clippy => one_check(clippy(options)),
        Step::Fuzz => one_check(fuzz_targets()),
        Step::Docs => one_check(docs()),
        Step::Deny => one_check(deny(options)),
        Step::Unit => tests(unit_command(options)),
        Step::E2e => build_programs().and_then(|()| tests(e2e_command(options))),
    };
    let count = count.unwrap_or_else(|error| {
        println!("error: {error:#}");
        Count { passed: 0, failed: 1 }
    });
    Done { step, count, duration: start.elapsed() }
}

fn one_check(outcome: Result<()>) -> Result<Count> {
    outcome.map(|()| Count { passed: 1, failed: 0 })
}

fn format(options: &Options) -> Result<()> {
    component("fmt", "rustfmt", options)?;
    run(&mut cargo(&["fmt", "--all", "--check"])?)
}

fn clippy(options: &Options) -> Result<()> {
    component("clippy", "clippy", options)?;
    let words = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    run(&mut cargo(&words)?)
}

fn fuzz_targets() -> Result<()> {
    let manifest = ["--manifest-path", "fuzz/Cargo.toml"];
    let mut command = cargo(&["check", "--bins", "--locked", "--quiet"])?;
    // what both have in common is there already
    run(command.args(manifest).arg("--target-dir").arg(shell::target_dir()?))
}

fn docs() -> Result<()> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--locked"])?;
    run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny(options: &Options) -> Result<()> {
    if !succeeds(&mut cargo(&["deny", "--version"])?) {
        ensure!(!options.no_install, "missing: run `cargo install --locked cargo-deny`");
        println!("installing cargo-deny (takes some minutes, once)");
        run(&mut cargo(&["install", "--locked", "cargo-deny"])?)?;
    }
    run(&mut cargo(&["deny", "--locked", "check", "bans", "licenses", "sources"])?)?;
    if !succeeds(&mut cargo(&["deny", "--locked", "fetch", "db"])?) {
        println!("notice: the advisory data base cannot be had here, advisories are not checked");
        return Ok(());
    }
    run(&mut cargo(&["deny", "--locked", "check", "advisories"])?)
}

/// A component of the Rust toolchain, which minimal installations lack.
fn component(subcommand: &str, name: &str, options: &Options) -> Result<()> {
    if succeeds(&mut cargo(&[subcommand, "--version"])?) {
        return Ok(());
    }
    ensure!(!options.no_install, "missing: run `rustup component add {name}`");
    run(Command::new("rustup").args(["component", "add", name]))
}

fn unit_command(options: &Options) -> Result<Command> {
    let mut command = cargo(&["test", "--workspace", "--exclude", "e2e", "--locked"])?;
    command.args(NO_HANGING).args(["--no-fail-fast", "--"]).args(&options.filter);
    Ok(command)
}

/// The end-to-end tests start the programs from the target folder: they have to be there, and new.
fn build_programs() -> Result<()> {
    // the same packages and targets as for the unit tests: then nothing is built a second time
    run(&mut cargo(&["build", "--workspace", "--exclude", "e2e", "--all-targets", "--locked"])?)
}

fn e2e_command(options: &Options) -> Result<Command> {
    let mut command = cargo(&["test", "-p", "e2e", "--locked"])?;
    command.args(NO_HANGING).args(["--no-fail-fast", "--", E2E_THREADS]);
    command.args(&options.filter).env("RUST_BACKTRACE", "0");
    Ok(command)
}

/// Runs `cargo test`, shows its output, and adds up the results of all its test programs.
fn tests(command: Result<Command>) -> Result<Count> {
    let mut command = command?;
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let output = child.stdout.take().context("no output")?;
    let mut count = Count { passed: 0, failed: 0 };
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = line.strip_prefix("test result: ") {
            count.passed += number_before(result, "passed");
            count.failed += number_before(result, "failed");
        }
    }
    // a test program that does not compile or dies has no result line
    if !child.wait()?.success() && count.failed == 0 {
        count.failed = 1;
    }
    Ok(count)
}

/// The number in front of `word` in `ok. 3 passed; 0 failed; ...`.
fn number_before(result: &str, word: &str) -> usize {
    let before = result.split(word).next().unwrap_or_default();
    before.split_whitespace().last().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn report(done: &[Done]) -> Result<()> {
    println!("\n{:<8} {:>7} {:>7} {:>9}", "step", "passed", "failed", "seconds");
    for Done { step, count, duration } in done {
        let (name, seconds) = (format!("{step:?}"), duration.as_secs_f64());
        println!("{name:<8} {:>7} {:>7} {seconds:>9.1}", count.passed, count.failed);
    }
    let passed: usize = done.iter().map(|done| done.count.passed).sum();
    let failed: usize = done.iter().map(|done| done.count.failed).sum();
    println!("\n{passed} passed, {failed} failed");
    // whoever reads only the last line has to see the counts: no further message
    if failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::number_before;

    #[test]
    fn counts_are_read_from_the_result_line() {
        let line = "FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 7 filtered out; in 1.00s";
        assert_eq!(number_before(line, "passed"), 12);
        assert_eq!(number_before(line, "failed"), 3);
    }
}
