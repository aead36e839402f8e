//! `cargo xtask demo`: the product at work, in two minutes, on one machine.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{ClientNode, GatewayNode, Lab, Page, Ping, Programs, address};

use crate::packages::{self, Needs};
use crate::shell;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Refuse to install Debian packages; say which are missing
    #[arg(long)]
    no_install: bool,
    /// Leave everything running at the end, and say how to enter and how to remove it
    #[arg(long)]
    keep: bool,
    /// Only remove what `--keep` left
    #[arg(long)]
    remove: bool,
    /// Size of the file to download
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    size: u64,
}

/// What is measured without and with the tunnel.
struct View {
    visitor_v4: String,
    visitor_v6: String,
    round_trip: Duration,
    rate: f64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    shell::require_root("demo")?;
    if options.remove {
        println!("removed: {}", e2e::remove_kept()?.join(" "));
        return Ok(());
    }
    step("Debian packages");
    packages::install(Needs::Laboratory, !options.no_install)?;
    step("building cipherwall and cipherwall-server (release)");
    let programs = shell::release_programs()?;

    step("making the laboratory: client - home router - carrier's NAT - internet - gateway, web");
    let lab = Lab::new()?;
    remove_on_interrupt(&lab)?;
    let hash = lab.make_download("file", options.size * 1024 * 1024)?;
    show(lab, options, &programs, &hash)
}

fn remove_on_interrupt(lab: &Lab) -> Result<()> {
    let mut remove = Some(lab.remover());
    ctrlc::set_handler(move || {
        if let Some(remove) = remove.take() {
            remove();
        }
        std::process::exit(130);
    })
    .context("cannot watch for Ctrl-C")
}

fn show(lab: Lab, options: &Options, programs: &Programs, hash: &str) -> Result<()> {
    step("looking at the web host without the tunnel");
    let without = look(&lab, hash)?;

    let endpoint = address::GATEWAY.to_string();
    let mut gateway = GatewayNode::new(&lab, programs);
    step("gateway: set up and start");
    command("gateway", &gateway.words(&["init", "--endpoint", &endpoint]));
    gateway.init(&endpoint)?;
    command("gateway", &gateway.words(&["run"]));
    gateway.start()?;
    step("gateway: a user and an invitation");
    command("gateway", &gateway.words(&["user", "add", "alice"]));
    gateway.user_add("alice", None)?;
    command("gateway", &gateway.words(&["invite", "create", "alice", "--json"]));
    let link = gateway.invite("alice")?.link;
    println!("  {link:.72}...");

    step("client: import the invitation and connect");
    let mut client = ClientNode::new(&lab, 0, programs)?;
    command("client", &client.words(&["import", "LINK"]));
    client.import(&link)?;
    command("client", &client.words(&["connect", "--foreground"]));
    println!("  {}", client.connect(&[])?);

    step("looking at the web host through the tunnel; live counters");
    let with = std::thread::scope(|scope| -> Result<View> {
        let looking = scope.spawn(|| look(&lab, hash));
        while !looking.is_finished() {
            counters(&client)?;
            std::thread::sleep(Duration::from_millis(400));
        }
        looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    counters(&client)?;
    compare(&without, &with, options.size);

    if options.keep {
        return keep(lab, gateway, client);
    }
    step("disconnecting, stopping and removing everything");
    client.disconnect()?;
    gateway.stop()
}

/// Opens a page, asks who the web server thinks we are, pings, downloads and checks a file.
fn look(lab: &Lab, hash: &str) -> Result<View> {
    let client = &lab.clients[0];
    let page = Page::open(client, "http://www.lab.test/")?;
    println!("  http://www.lab.test/ says: {}", page.body.trim());
    let (file, received) = Page::download(client, "http://www.lab.test/file")?;
    ensure!(received == hash, "the downloaded file differs from the one on the web host");
    Ok(View {
        visitor_v4: lab.visitor_address(client, address::WEB.into())?,
        visitor_v6: lab.visitor_address(client, address::WEB_V6.into())?,
        round_trip: Ping::send(client, address::WEB.into(), 50)?.median,
        rate: file.rate * 8.0,
    })
}

fn counters(client: &ClientNode) -> Result<()> {
    let status = client.status()?;
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let address = status.inner_address.map(|address| address.to_string()).unwrap_or_default();
    let cipher = status.cipher.unwrap_or_default();
    println!(
        "  {} {address} {cipher}: received {:8.1} MiB, sent {:6.1} MiB",
        status.state,
        mib(status.rx_bytes),
        mib(status.tx_bytes),
    );
    Ok(())
}

fn compare(without: &View, with: &View, size: u64) {
    let milliseconds = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1000.0);
    let gigabits = |rate: f64| format!("{:.2} Gbit/s", rate / 1e9);
    let row = |what: &str, a: &str, b: &str| println!("  {what:<28} {a:<22} {b}");
    println!();
    row("", "without the tunnel", "with the tunnel");
    row("the web server saw (IPv4)", &without.visitor_v4, &with.visitor_v4);
    row("the web server saw (IPv6)", &without.visitor_v6, &with.visitor_v6);
    row("round trip", &milliseconds(without.round_trip), &milliseconds(with.round_trip));
    let download = format!("throughput, {size} MiB");
    row(&download, &gigabits(without.rate), &gigabits(with.rate));
    row("what arrived", "SHA-256 as sent", "SHA-256 as sent");
}

fn keep(lab: Lab, gateway: GatewayNode, client: ClientNode) -> Result<()> {
    step("everything is left running");
    for (name, node) in [("client", &client.node), ("gateway", &gateway.node), ("web", &lab.web)] {
        println!("  shell on the {name:<10} {}", node.enter_command());
    }
    println!("  on the client, try      {}", client.words(&["status"]).join(" "));
    println!("  to remove it all        cargo xtask demo --remove");
    gateway.leave_running();
    client.leave_running();
    lab.keep()
}

fn step(what: &str) {
    println!("\n==> {what}");
}

/// A command line as a person would type it: without the folders of the laboratory.
fn command(place: &str, words: &[&str]) {
    let (program, words) = words.split_first().unwrap_or((&"", &[]));
    let program = program.rsplit('/').next().unwrap_or_default();
    let words = words.strip_prefix(&["--state-dir"]).map_or(words, |words| &words[1..]);
    println!("  {place}# {program} {}", words.join(" "));
}
