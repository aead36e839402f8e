//! `cargo xtask bench`: CipherWall against the direct path, in the same laboratory, in turns.

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{ClientNode, GatewayNode, Lab, Page, Ping, Process, Stream, address};
use serde::Serialize;

use crate::packages::{self, Needs};
use crate::shell;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; in each the direct path and CipherWall are measured one after the other
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds for each throughput measurement
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Refuse to install Debian packages; say which are missing
    #[arg(long)]
    no_install: bool,
}

/// One path in one round. Rates in bits per second, times in milliseconds.
#[derive(Clone, Copy, Serialize)]
struct Path {
    up: f64,
    down: f64,
    round_trip_ms: f64,
}

/// What is measured of CipherWall alone. Memory in bytes: the highest resident size.
#[derive(Clone, Copy, Serialize)]
struct Tunnel {
    connect_to_first_byte_ms: f64,
    client_memory: u64,
    gateway_memory: u64,
}

#[derive(Serialize)]
struct Round {
    direct: Path,
    cipherwall: Path,
    tunnel: Tunnel,
}

#[derive(Serialize)]
struct Report {
    machine: String,
    cipher: String,
    seconds: u32,
    rounds: Vec<Round>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    shell::require_root("bench")?;
    packages::install(Needs::Laboratory, !options.no_install)?;
    let programs = shell::release_programs()?;
    let lab = Lab::new()?;
    let _iperf3 = lab.start_iperf3()?;
    let mut gateway = GatewayNode::start_new(&lab, &programs)?;
    gateway.user_add("bench", None)?;
    let mut client = ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("bench")?.link)?;

    let mut report = Report {
        machine: machine()?,
        cipher: String::new(),
        seconds: options.seconds,
        rounds: Vec::new(),
    };
    for number in 1..=options.rounds {
        println!("round {number} of {}", options.rounds);
        let direct = measure_path(&lab, options.seconds)?;
        let connect_to_first_byte_ms = connect(&mut client)?;
        let cipherwall = measure_path(&lab, options.seconds)?;
        report.cipher = client.status()?.cipher.unwrap_or_default();
        let tunnel = Tunnel {
            connect_to_first_byte_ms,
            client_memory: highest_memory(client.process()?)?,
            gateway_memory: highest_memory(gateway.process()?)?,
        };
        client.disconnect()?;
        report.rounds.push(Round { direct, cipherwall, tunnel });
    }
    gateway.stop()?;
    write(&report)
}

/// From the start of `connect` to the first byte of a page.
fn connect(client: &mut ClientNode) -> Result<f64> {
    let start = Instant::now();
    client.connect(&[])?;
    let connected = start.elapsed();
    let page = Page::open(&client.node, &format!("http://{}/", address::WEB))?;
    Ok(milliseconds(connected + page.first_byte))
}

fn measure_path(lab: &Lab, seconds: u32) -> Result<Path> {
    let client = &lab.clients[0];
    let web = address::WEB.into();
    let round_trip_ms = milliseconds(Ping::send(client, web, 100)?.median);
    let (up, _) = Stream::Up.run(client, web, seconds)?;
    let (down, _) = Stream::Down.run(client, web, seconds)?;
    Ok(Path { up, down, round_trip_ms })
}

fn highest_memory(process: &Process) -> Result<u64> {
    process.memory("VmHWM")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn machine() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned();
    let count = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{count} x {model}, Linux {}", kernel.trim()))
}

fn write(report: &Report) -> Result<()> {
    let docs_dir = shell::workspace_dir()?.join("docs");
    fs::create_dir_all(&docs_dir)?;
    let text = as_markdown(report);
    println!("\n{text}");
    fs::write(docs_dir.join("benchmarks.md"), text).context("docs/benchmarks.md")?;
    let json = serde_json::to_string_pretty(report)? + "\n";
    fs::write(docs_dir.join("benchmarks.json"), json).context("docs/benchmarks.json")
}

fn as_markdown(report: &Report) -> String {
    let rounds = &report.rounds;
    let of = |figure: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(figure).collect());
    let mut text = String::from("# Benchmarks\n\n");
    let _ = writeln!(
        text,
        "Written by `cargo xtask bench`; every round is in `benchmarks.json`. Client, routers, gateway\n\
         and web host are network namespaces on one machine and share its processors, so compare the\n\
         ratios, not the rates. One TCP stream by iperf3, {} s each; {} rounds, in each the direct path\n\
         first and CipherWall behind it. Smallest / **median** / largest.\n\n\
         - Machine: {}\n- Cipher: {}\n",
        report.seconds,
        rounds.len(),
        report.machine,
        report.cipher,
    );
    text += "| | direct | CipherWall | CipherWall / direct |\n| --- | --- | --- | --- |\n";
    let mut row = |what: &str, direct: Spread, cipherwall: Spread, ratio: Spread| {
        let _ = writeln!(text, "| {what} | {direct} | {cipherwall} | {ratio} |");
    };
    row(
        "up, Gbit/s",
        of(&|round| round.direct.up / 1e9),
        of(&|round| round.cipherwall.up / 1e9),
        of(&|round| round.cipherwall.up / round.direct.up),
    );
    row(
        "down, Gbit/s",
        of(&|round| round.direct.down / 1e9),
        of(&|round| round.cipherwall.down / 1e9),
        of(&|round| round.cipherwall.down / round.direct.down),
    );
    row(
        "round trip, ms",
        of(&|round| round.direct.round_trip_ms),
        of(&|round| round.cipherwall.round_trip_ms),
        of(&|round| round.cipherwall.round_trip_ms / round.direct.round_trip_ms),
    );
    let added = of(&|round| round.cipherwall.round_trip_ms - round.direct.round_trip_ms);
    let first = of(&|round| round.tunnel.connect_to_first_byte_ms);
    let client = of(&|round| round.tunnel.client_memory as f64 / 1_048_576.0);
    let gateway = of(&|round| round.tunnel.gateway_memory as f64 / 1_048_576.0);
    let _ = write!(
        text,
        "\n- Round trip added: {added} ms\n- `connect` to the first byte of a page: {first} ms\n\
         - Highest resident memory: client {client} MiB, gateway {gateway} MiB\n"
    );
    text
}

/// Smallest, median and largest of the rounds.
struct Spread {
    smallest: f64,
    median: f64,
    largest: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Spread { smallest: at(0), median: at(values.len() / 2), largest: at(last) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} / **{:.2}** / {:.2}", self.smallest, self.median, self.largest)
    }
}
