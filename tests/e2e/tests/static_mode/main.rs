//! Static mode: a key file at both ends, and nothing else.

mod errors;
mod hostile;
mod independent;
mod lifecycle;
mod paths;
#[path = "../datagrams/relay.rs"]
mod relay;
mod replay;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    ClientNode, GatewayNode, HostState, Lab, Page, Ping, Process, Programs, Ran, address,
    soak_bytes, until,
};

/// How long programs may take to start and to stop.
const PATIENCE: Duration = Duration::from_secs(15);
const SERVER: &str = "203.0.113.2:1194";
const CLIENT: &str = "10.8.0.2";

/// Both ends, with the same key.
struct Pair {
    gateway: GatewayNode,
    client: ClientNode,
    key_path: PathBuf,
    gateway_process: Option<Process>,
    client_process: Option<Process>,
}

impl Pair {
    /// Nothing is started yet.
    fn new(lab: &Lab) -> Result<Pair> {
        let programs = Programs::find()?;
        let gateway = GatewayNode::new(lab, &programs);
        let client = ClientNode::new(lab, 0, &programs)?;
        let key_path = client.node.dir().join("static.key");
        gateway.run(&["keygen", path(&key_path)])?.ok()?;
        Ok(Pair { gateway, client, key_path, gateway_process: None, client_process: None })
    }

    /// Both are started, and packets flow.
    fn start(lab: &Lab) -> Result<Pair> {
        let mut pair = Pair::new(lab)?;
        pair.start_gateway(&[])?;
        pair.start_client(&[])?;
        Ok(pair)
    }

    /// `cipherwall-server static`, until it says `ready`.
    fn start_gateway(&mut self, options: &[&str]) -> Result<()> {
        self.gateway_process = None;
        let words = [&["static", "--key", path(&self.key_path)], options].concat();
        let process = self.gateway.node.spawn("gateway", &self.gateway.words(&words))?;
        self.gateway_process.insert(process).wait_for_line("ready", PATIENCE).map(drop)
    }

    /// `cipherwall static`, until it says `connected`; returns that line.
    fn start_client(&mut self, options: &[&str]) -> Result<String> {
        self.start_client_without_waiting(options)?.wait_for_line("connected", PATIENCE)
    }

    /// `cipherwall static`.
    fn start_client_without_waiting(&mut self, options: &[&str]) -> Result<&mut Process> {
        self.client_process = None;
        let server: &[&str] =
            if options.contains(&"--server") { &[] } else { &["--server", SERVER] };
        let words = [&["static", "--key", path(&self.key_path)], server, options].concat();
        let process = self.client.node.spawn("client", &self.client.words(&words))?;
        Ok(self.client_process.insert(process))
    }

    /// The running gateway.
    fn gateway(&mut self) -> Result<&mut Process> {
        self.gateway_process.as_mut().context("the gateway was not started")
    }

    /// The running client.
    fn client(&mut self) -> Result<&mut Process> {
        self.client_process.as_mut().context("the client was not started")
    }

    /// SIGTERM; both have to end by themselves with code 0.
    fn stop(&mut self) -> Result<()> {
        end(self.client()?)?;
        end(self.gateway()?)
    }
}

fn end(process: &mut Process) -> Result<()> {
    let status = process.terminate(PATIENCE)?;
    ensure!(status.success(), "{status}{}", process.logs());
    Ok(())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Each echo request is answered, and no answer comes twice.
fn assert_flows(client: &ClientNode) -> Result<()> {
    let web = address::WEB.to_string();
    let pinged = client.node.run(&["ping", "-n", "-i", "0.02", "-c", "25", "-W", "5", &web])?;
    ensure!(pinged.stdout.contains("25 received"), "{pinged}");
    ensure!(!pinged.stdout.to_lowercase().contains("dup"), "{pinged}");
    Ok(())
}

/// The exit code, and words of the message in any case of letters.
fn assert_says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code(), code, "exit code of {ran}");
    let message = ran.stderr.to_lowercase();
    for word in words {
        assert!(message.contains(&word.to_lowercase()), "no {word:?} in the message of {ran}");
    }
    assert!(!message.contains("panicked"), "{ran}");
}

#[test]
fn everything_flows_and_both_hosts_are_left_as_they_were() -> Result<()> {
    let lab = Lab::new()?;
    let mut pair = Pair::new(&lab)?;
    let before = [HostState::of(&lab.gateway)?, HostState::of(&lab.clients[0])?];
    pair.start_gateway(&[])?;
    let line = pair.start_client(&[])?;
    assert_eq!(
        line,
        format!("connected: {CLIENT} through {SERVER} (udp, aes-256-cfb-hmac-sha256)")
    );
    let client = &pair.client;
    for target in [address::INNER_GATEWAY, address::WEB] {
        assert_eq!(Ping::send(&client.node, target.into(), 20)?.received, 20, "{target}");
    }
    let seen = lab.visitor_address(&client.node, address::WEB.into())?;
    assert_eq!(seen, address::GATEWAY.to_string(), "the gateway translates addresses");
    let page = Page::open(&client.node, "http://www.lab.test/")?;
    assert!(page.body.contains("laboratory"), "by a name that the gateway looks up");
    assert!(page.first_byte < Duration::from_secs(2), "{:?}", page.first_byte);
    let resolver = client.node.read_file("/etc/resolv.conf")?;
    assert!(resolver.contains(&address::INNER_GATEWAY.to_string()), "{resolver}");
    for (size, options) in [("1392", ["-M", "do"]), ("4000", ["-M", "dont"])] {
        let options = [&options[..], &["-s", size]].concat();
        let pinged = Ping::send_with(&client.node, address::WEB.into(), 5, &options)?;
        assert_eq!(pinged.received, 5, "echoes of {size} bytes");
    }
    lab.transfer(&client.node, soak_bytes()?)?;

    let status = until("the bytes of both transfers", Duration::from_secs(5), || {
        let status = client.status()?;
        Ok((status.rx_bytes > 1 << 20 && status.tx_bytes > 1 << 20).then_some(status))
    })?;
    assert_eq!(status.state, "connected");
    assert_eq!(status.transport.as_deref(), Some("udp"));
    assert_eq!(status.cipher.as_deref(), Some("aes-256-cfb-hmac-sha256"));
    assert_eq!(status.inner_address.map(|address| address.to_string()).as_deref(), Some(CLIENT));
    assert_eq!(status.gateway.map(|gateway| gateway.to_string()).as_deref(), Some(SERVER));

    pair.stop()?;
    for (before, node) in before.iter().zip([&lab.gateway, &lab.clients[0]]) {
        before.expect_unchanged(node, "after static mode")?;
    }
    Ok(())
}
