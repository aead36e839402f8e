//! `cargo xtask soak fuzz`: each fuzz target for half an hour of processor time, and what its corpus
//! covers of the code that it is for (docs/fuzzing.md).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Outcome, Run};
use crate::shell::{self, run};

/// What `soak` calls all targets; each alone is `fuzz-NAME`.
const ALL: &str = "fuzz";
/// The environment variable that says how many seconds of processor time each target gets.
const SECONDS: &str = "CIPHERWALL_FUZZ_SECONDS";
const SECONDS_DEFAULT: u64 = 30 * 60;
/// An input that takes longer is a finding.
const INPUT_SECONDS_MAX: &str = "-timeout=10";
const MEMORY_MIB_MAX: &str = "-rss_limit_mb=1024";

/// The targets, and the code that each is for, below `crates/`.
const TARGETS: [(&str, &[&str]); 18] = [
    ("config", &["server/src/config"]),
    ("datagram", &["proto/src/datagram"]),
    ("dns_answer", &["transport/src/resolver/ask.rs", "transport/src/resolver/hosts.rs"]),
    ("dns_message", &["server/src/dns/message.rs", "server/src/dns/resolv_conf.rs"]),
    ("frame", &["proto/src/frame.rs"]),
    (
        "host_text",
        &["netcfg/src/linux/nft/foreign.rs", "netcfg/src/linux/dns", "netcfg/src/journal.rs"],
    ),
    ("http1", &["server/src/site/http1", "server/src/site/request.rs", "server/src/site/uri.rs"]),
    (
        "http2",
        &[
            "server/src/site/http2/frames.rs",
            "server/src/site/http2/head.rs",
            "server/src/site/http2/hpack",
        ],
    ),
    ("invitation", &["proto/src/invitation.rs"]),
    ("ip_packet", &["packet/src"]),
    ("ipc", &["ipc/src/frame.rs"]),
    ("message", &["proto/src/message", "proto/src/client.rs", "proto/src/gateway.rs"]),
    ("opener", &["proto/src/knock.rs", "proto/src/hint.rs"]),
    ("record", &["proto/src/record"]),
    ("rekey", &["proto/src/rekey"]),
    (
        "session",
        &[
            "proto/src/tunnel.rs",
            "proto/src/liveness.rs",
            "proto/src/rekey",
            "proto/src/record",
            "proto/src/datagram",
        ],
    ),
    ("static_datagram", &["proto/src/datagram/static_mode"]),
    ("kcp", &["proto/src/kcp"]),
];

/// What became of one target.
struct Fuzzed {
    cpu: Duration,
    executions: u64,
    /// Lines covered, of how many; none if that cannot be measured here.
    lines: Option<(u64, u64)>,
    /// The last words of the target, if it has found something.
    finding: Option<String>,
}

/// What `soak` calls all of them, and each.
pub(super) fn names() -> impl Iterator<Item = String> {
    let each = TARGETS.iter().map(|(name, _)| format!("{ALL}-{name}"));
    std::iter::once(ALL.to_owned()).chain(each)
}

/// Runs these of [`names`], as many at a time as there are processors, and calls `record` when a
/// target is through. The names of those that have found something.
pub(super) fn run_all(
    names: &[&str],
    record: impl Fn(&Run) -> Result<()> + Sync,
) -> Result<Vec<String>> {
    let fuzz_dir = shell::workspace_dir()?.join("fuzz");
    let listed = listed(&fuzz_dir)?;
    ensure!(
        listed.len() == TARGETS.len()
            && TARGETS.iter().all(|(name, _)| listed.iter().any(|it| it == name)),
        "fuzz/Cargo.toml and the list in crates/xtask/src/soak/fuzz.rs differ"
    );
    run(cargo_fuzz(&fuzz_dir, &["build", "-O"]).stdout(Stdio::null()))?;
    let targets: Vec<&str> = if names.contains(&ALL) {
        TARGETS.iter().map(|(name, _)| *name).collect()
    } else {
        names.iter().filter_map(|name| name.strip_prefix(ALL)?.strip_prefix('-')).collect()
    };
    fuzz_side_by_side(&fuzz_dir, &targets, record)
}

/// The names of the targets in `fuzz/Cargo.toml`.
fn listed(fuzz_dir: &Path) -> Result<Vec<String>> {
    let words = cargo_fuzz(fuzz_dir, &["list"]).output().context("cannot run cargo fuzz")?;
    ensure!(words.status.success(), "missing: run `cargo install --locked cargo-fuzz`");
    Ok(String::from_utf8_lossy(&words.stdout).lines().map(str::to_owned).collect())
}

/// The ordinary compiler, told that it may use sanitizers. Its checks are those of the profile in
/// `fuzz/Cargo.toml`, with `-O`.
fn cargo_fuzz(fuzz_dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.arg("fuzz").args(words).current_dir(fuzz_dir).env("RUSTC_BOOTSTRAP", "1");
    command
}

fn fuzz_side_by_side(
    fuzz_dir: &Path,
    targets: &[&str],
    record: impl Fn(&Run) -> Result<()> + Sync,
) -> Result<Vec<String>> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || -> Result<()> {
        while let Some(name) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let start = Instant::now();
            let mut fuzzed = fuzz(fuzz_dir, name).with_context(|| format!("fuzz target {name}"))?;
            // one after the other: they build in one folder and write one file
            let mut failed = failed.lock().map_err(|_| anyhow!("a worker has failed"))?;
            match coverage(fuzz_dir, name) {
                Ok(lines) => fuzzed.lines = Some(lines),
                Err(error) => println!("notice: no coverage of {name}: {error:#}"),
            }
            let run = Run {
                name: format!("{ALL}-{name}"),
                date: shell::printed("date", &["-u", "+%Y-%m-%d"])?,
                commit: shell::commit()?,
                duration: start.elapsed(),
                outcome: outcome(name, &fuzzed),
            };
            println!("{}: {}", run.name, run.outcome.result);
            record(&run)?;
            if fuzzed.finding.is_some() {
                failed.push(run.name);
            }
        }
        Ok(())
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| -> Result<()> {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        running.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(failed.into_inner().unwrap_or_default())
}

/// Runs one target until it has had its processor time, or has found something.
fn fuzz(fuzz_dir: &Path, name: &str) -> Result<Fuzzed> {
    let wanted = std::env::var(SECONDS).ok().map_or(Ok(SECONDS_DEFAULT), |text| text.parse());
    let wanted = Duration::from_secs(wanted.context(SECONDS)?);
    let finds_dir = finds_dir(name)?;
    let program = fuzz_dir.join("target").join(host()?).join("release").join(name);
    let mut fuzzed = Fuzzed { cpu: Duration::ZERO, executions: 0, lines: None, finding: None };
    while fuzzed.finding.is_none() && fuzzed.cpu + Duration::from_secs(1) < wanted {
        // the processor may be shared: as much time again as is missing
        let seconds = (wanted - fuzzed.cpu).as_secs().max(1);
        let output = Command::new("bash")
            .args(["-c", "TIMEFORMAT='cpu %U %S'; time \"$@\"", "bash"])
            .arg(&program)
            .arg(&finds_dir)
            .arg(fuzz_dir.join("corpus").join(name))
            .args([&format!("-max_total_time={seconds}"), INPUT_SECONDS_MAX, MEMORY_MIB_MAX])
            .arg("-print_final_stats=1")
            .arg(format!("-artifact_prefix={}/", fuzz_dir.join("artifacts").join(name).display()))
            .current_dir(fuzz_dir)
            .output()
            .context("cannot run it")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        fuzzed.executions += number_behind(&said, "stat::number_of_executed_units:");
        fuzzed.cpu += cpu(&said).context("bash did not say how long it took")?;
        if !output.status.success() {
            let tail: Vec<&str> = said.lines().rev().take(40).collect();
            fuzzed.finding = Some(tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
    if let Some(finding) = &fuzzed.finding {
        println!("\n{name} has found something:\n{finding}\n");
    }
    Ok(fuzzed)
}

/// Where finds are kept from run to run.
fn finds_dir(name: &str) -> Result<PathBuf> {
    let dir = shell::target_dir()?.join("fuzz").join(name);
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    fs::create_dir_all(shell::workspace_dir()?.join("fuzz/artifacts").join(name))?;
    Ok(dir)
}

/// Lines of the target's code that its corpus and its finds reach, and all of them.
fn coverage(fuzz_dir: &Path, name: &str) -> Result<(u64, u64)> {
    let finds_dir = finds_dir(name)?;
    let finds = finds_dir.to_str().context("a path that is not UTF-8")?;
    let corpus = format!("corpus/{name}");
    let merged = cargo_fuzz(fuzz_dir, &["coverage", "-O", name, finds, &corpus]).output()?;
    let said = String::from_utf8_lossy(&merged.stderr);
    ensure!(merged.status.success(), "run `rustup component add llvm-tools`?\n{said}");
    let host = host()?;
    let sysroot = shell::printed("rustc", &["--print", "sysroot"])?;
    let llvm_cov = Path::new(&sysroot).join("lib/rustlib").join(&host).join("bin/llvm-cov");
    let program = fuzz_dir.join("target").join(&host).join("coverage").join(&host);
    let report = Command::new(llvm_cov)
        .args(["export", "-format=text", "-summary-only", "-instr-profile"])
        .arg(fuzz_dir.join("coverage").join(name).join("coverage.profdata"))
        .arg(program.join("release").join(name))
        .output()
        .context("cannot run llvm-cov (rustup component add llvm-tools)")?;
    ensure!(report.status.success(), "llvm-cov: {}", String::from_utf8_lossy(&report.stderr));
    lines(&serde_json::from_slice(&report.stdout)?, name).context("llvm-cov said something else")
}

/// Sums up the lines of a target's files in what llvm-cov says of all.
fn lines(report: &serde_json::Value, name: &str) -> Option<(u64, u64)> {
    let (_, code) = TARGETS.iter().find(|(target, _)| *target == name)?;
    let mut sum = (0, 0);
    for file in report["data"][0]["files"].as_array()? {
        let path = file["filename"].as_str()?;
        let (_, path) = path.split_once("crates/").unwrap_or_default();
        if code.iter().any(|place| path.starts_with(place)) && !path.contains("/tests") {
            let lines = &file["summary"]["lines"];
            sum.0 += lines["covered"].as_u64()?;
            sum.1 += lines["count"].as_u64()?;
        }
    }
    Some(sum)
}

fn host() -> Result<String> {
    let said = shell::printed("rustc", &["-vV"])?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say its host")
}

fn number_behind(text: &str, words: &str) -> u64 {
    let number = text.split(words).nth(1).and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The line that bash's `time` has printed: seconds of the user and of the system.
fn cpu(text: &str) -> Option<Duration> {
    let line = text.lines().rev().find_map(|line| line.strip_prefix("cpu "))?;
    let seconds: Option<f64> = line.split(' ').map(|number| number.parse::<f64>().ok()).sum();
    Some(Duration::from_secs_f64(seconds?))
}

fn outcome(name: &str, fuzzed: &Fuzzed) -> Outcome {
    let result = if fuzzed.finding.is_none() { "ok. No finding" } else { "FAILED. A finding" };
    let lines = fuzzed.lines.map_or("not measured".to_owned(), |(covered, all)| {
        format!("{covered} of {all} ({:.0}%)", 100.0 * covered as f64 / all.max(1) as f64)
    });
    let figures = [
        ("processor time", format!("{:.1} min", fuzzed.cpu.as_secs_f64() / 60.0)),
        ("inputs", fuzzed.executions.to_string()),
        ("lines covered", lines),
    ];
    let figures = figures.map(|(figure, value)| (name.to_owned(), figure.to_owned(), value));
    Outcome { result: result.to_owned(), figures: figures.into(), ..Outcome::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_says_is_read() {
        let said =
            "stat::number_of_executed_units: 1234\nstat::peak_rss_mb: 50\n\ncpu 59.500 1.250\n";
        assert_eq!(number_behind(said, "stat::number_of_executed_units:"), 1234);
        assert_eq!(cpu(said), Some(Duration::from_millis(60_750)));
        assert_eq!(cpu("nothing"), None);
    }

    #[test]
    fn lines_are_counted_in_the_target_s_own_code() {
        let file = |name: &str, covered: u64| serde_json::json!({"filename": name, "summary": {"lines": {"count": 10, "covered": covered}}});
        let files = [
            file("/x/crates/proto/src/frame.rs", 7),
            file("/x/crates/proto/src/knock.rs", 9),
            file("/registry/frame.rs", 1),
        ];
        let report = serde_json::json!({"data": [{"files": files}]});
        assert_eq!(lines(&report, "frame"), Some((7, 10)));
    }

    #[test]
    fn every_target_has_code_a_corpus_and_a_place_in_the_documentation() {
        let root = shell::workspace_dir().unwrap();
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        let page = fs::read_to_string(root.join("docs/fuzzing.md")).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
        assert_eq!(names().count(), TARGETS.len() + 1);
        for (name, code) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml: {name}");
            assert!(page.contains(&format!("| `{name}` |")), "docs/fuzzing.md: {name}");
            assert!(root.join("fuzz/corpus").join(name).is_dir(), "corpus of {name}");
            for place in code {
                assert!(root.join("crates").join(place).exists(), "{name}: crates/{place}");
            }
        }
    }
}
