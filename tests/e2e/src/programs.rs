//! `cipherwall-server` and `cipherwall` in the laboratory, used as a person or a script would.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::lab::{Lab, address};
use crate::node::{Node, Ran};
use crate::process::Process;
use crate::tools::until;

/// How long programs may take to become ready, to connect and to stop.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where the programs under test are.
#[derive(Clone, Debug)]
pub struct Programs {
    server_path: String,
    client_path: String,
}

impl Programs {
    /// Those in `CIPHERWALL_BIN_DIR`, or else beside this test program in `target`.
    pub fn find() -> Result<Programs> {
        if let Some(bin_dir) = std::env::var_os("CIPHERWALL_BIN_DIR") {
            return Programs::in_dir(PathBuf::from(bin_dir));
        }
        let here = std::env::current_exe()?;
        let dir = here.parent().context("no folder")?;
        let dir = if dir.ends_with("deps") { dir.parent().context("no folder")? } else { dir };
        Programs::in_dir(dir.to_owned())
    }

    /// Those in `bin_dir`.
    pub fn in_dir(bin_dir: PathBuf) -> Result<Programs> {
        let find = |name: &str| {
            let path = bin_dir.join(name);
            ensure!(path.is_file(), "{} is missing: run `cargo build` first", path.display());
            Ok(path.display().to_string())
        };
        Ok(Programs { server_path: find("cipherwall-server")?, client_path: find("cipherwall")? })
    }
}

/// The gateway of a laboratory.
#[derive(Debug)]
pub struct GatewayNode {
    /// The machine it runs on.
    pub node: Node,
    program: String,
    state_dir: PathBuf,
    process: Option<Process>,
}

impl GatewayNode {
    /// Nothing is started yet.
    pub fn new(lab: &Lab, programs: &Programs) -> GatewayNode {
        let node = lab.gateway.clone();
        let state_dir = node.dir().join("state");
        GatewayNode { node, program: programs.server_path.clone(), state_dir, process: None }
    }

    /// `init` for the gateway's public IPv4 address, then `run`.
    pub fn start_new(lab: &Lab, programs: &Programs) -> Result<GatewayNode> {
        let mut gateway = GatewayNode::new(lab, programs);
        gateway.init(&address::GATEWAY.to_string())?;
        gateway.start()?;
        Ok(gateway)
    }

    /// Its state directory, where `server.yaml` is as well.
    pub fn state_dir(&self) -> &PathBuf {
        &self.state_dir
    }

    /// The words of a command line of `cipherwall-server` with this state directory.
    pub fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let state_dir = self.state_dir.to_str().unwrap_or_default();
        [&[self.program.as_str(), "--state-dir", state_dir], words].concat()
    }

    /// Runs `cipherwall-server ...` to its end.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        self.node.run(&self.words(words))
    }

    /// `init --endpoint ENDPOINT`.
    pub fn init(&self, endpoint: &str) -> Result<()> {
        self.run(&["init", "--endpoint", endpoint])?.ok().map(drop)
    }

    /// `run`, in the background, until it says `ready`.
    pub fn start(&mut self) -> Result<()> {
        self.start_without_waiting()?.wait_for_line("ready", PATIENCE).map(drop)
    }

    /// `run`, in the background.
    pub fn start_without_waiting(&mut self) -> Result<&mut Process> {
        self.process = None;
        let process = self.node.spawn("gateway", &self.words(&["run"]))?;
        Ok(self.process.insert(process))
    }

    /// The running gateway.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the gateway was not started")
    }

    /// SIGTERM; it has to end by itself, with code 0.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process()?.terminate(PATIENCE)?;
        ensure!(status.success(), "gateway: {status}{}", self.process()?.logs());
        Ok(())
    }

    /// A crash.
    pub fn kill9(&mut self) -> Result<()> {
        self.process()?.kill9();
        Ok(())
    }

    /// Lets the gateway run on, in a laboratory that is kept.
    pub fn leave_running(mut self) {
        self.process.take().into_iter().for_each(Process::detach);
    }

    /// `user add NAME`, with a password where there is one.
    pub fn user_add(&self, name: &str, password: Option<&str>) -> Result<()> {
        let Some(password) = password else {
            return self.run(&["user", "add", name])?.ok().map(drop);
        };
        let words = self.words(&["user", "add", name, "--password-stdin"]);
        self.node.run_with(&words, &format!("{password}\n"), PATIENCE)?.ok().map(drop)
    }

    /// `invite create NAME --json`.
    pub fn invite(&self, name: &str) -> Result<Invitation> {
        let text = self.run(&["invite", "create", name, "--json"])?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("invite create printed {text:?}"))
    }

    /// `status --json`, as it is.
    pub fn status(&self) -> Result<serde_json::Value> {
        let text = self.run(&["status", "--json"])?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("status printed {text:?}"))
    }
}

/// What `invite create --json` prints.
#[derive(Clone, Debug, Deserialize)]
pub struct Invitation {
    /// `cipherwall://...`
    pub link: String,
}

/// A client of a laboratory.
#[derive(Debug)]
pub struct ClientNode {
    /// The machine it runs on.
    pub node: Node,
    program: String,
    state_dir: PathBuf,
    process: Option<Process>,
    /// The words of a command, like `env`, that `connect` is started by.
    starter: Vec<String>,
}

/// What `status --json` prints, as far as tests look at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// `connected`, ...
    pub state: String,
    /// `tls`
    pub transport: Option<String>,
    /// The tunnel's cipher.
    pub cipher: Option<String>,
    /// Address inside the tunnel.
    pub inner_address: Option<Ipv4Addr>,
    /// IPv6 address inside the tunnel.
    pub inner_address_v6: Option<Ipv6Addr>,
    /// Where the gateway is.
    pub gateway: Option<SocketAddr>,
    /// The TUN device.
    pub interface: Option<String>,
    /// Received bytes.
    pub rx_bytes: u64,
    /// Sent bytes.
    pub tx_bytes: u64,
    /// Round trip to the gateway.
    pub rtt_ms: Option<f64>,
}

impl ClientNode {
    /// The client on machine `index` (from 0); nothing is started yet.
    pub fn new(lab: &Lab, index: usize, programs: &Programs) -> Result<ClientNode> {
        let node = lab.clients.get(index).context("no such client")?.clone();
        let state_dir = node.dir().join("state");
        let program = programs.client_path.clone();
        Ok(ClientNode { node, program, state_dir, process: None, starter: Vec::new() })
    }

    /// Invited as `user`, imported and connected.
    pub fn connect_new(
        lab: &Lab,
        index: usize,
        programs: &Programs,
        gateway: &GatewayNode,
        user: &str,
    ) -> Result<ClientNode> {
        let mut client = ClientNode::new(lab, index, programs)?;
        client.import(&gateway.invite(user)?.link)?;
        client.connect(&[])?;
        Ok(client)
    }

    /// The words of a command line of `cipherwall` with this state directory.
    pub fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let state_dir = self.state_dir.to_str().unwrap_or_default();
        [&[self.program.as_str(), "--state-dir", state_dir], words].concat()
    }

    /// Runs `cipherwall ...` to its end.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        self.node.run(&self.words(words))
    }

    /// `import LINK`, which enrols at the gateway.
    pub fn import(&self, link: &str) -> Result<()> {
        self.run(&["import", link])?.ok().map(drop)
    }

    /// `connect --foreground` with more options, in the background, until it says `connected`;
    /// returns that line.
    pub fn connect(&mut self, options: &[&str]) -> Result<String> {
        self.start_connecting(options)?.wait_for_line("connected", PATIENCE)
    }

    /// From now on `connect` is started by this command, such as `env NAME=VALUE`.
    pub fn start_by(&mut self, words: &[&str]) {
        self.starter = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// `connect --foreground`, in the background.
    pub fn start_connecting(&mut self, options: &[&str]) -> Result<&mut Process> {
        self.process = None;
        let words = [&["connect", "--foreground"], options].concat();
        let starter: Vec<&str> = self.starter.iter().map(String::as_str).collect();
        let process = self.node.spawn("client", &[starter, self.words(&words)].concat())?;
        Ok(self.process.insert(process))
    }

    /// The running client.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the client was not started")
    }

    /// `status --json`.
    pub fn status(&self) -> Result<Status> {
        let text = self.run(&["status", "--json"])?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("status printed {text:?}"))
    }

    /// The name of the TUN device.
    pub fn interface(&self) -> Result<String> {
        self.status()?.interface.context("status names no interface: is it connected?")
    }

    /// The address inside the tunnel.
    pub fn inner_address(&self) -> Result<Ipv4Addr> {
        self.status()?.inner_address.context("status names no address: is it connected?")
    }

    /// The IPv6 address inside the tunnel.
    pub fn inner_address_v6(&self) -> Result<Ipv6Addr> {
        self.status()?.inner_address_v6.context("status names no IPv6 address: is it connected?")
    }

    /// Waits for a state, as `connected`; returns that status.
    pub fn wait_for_state(&self, state: &str, patience: Duration) -> Result<Status> {
        until(&format!("the client to be {state}"), patience, || {
            Ok(Some(self.status()?).filter(|status| status.state == state))
        })
    }

    /// `disconnect`, after which the foreground process has to end with code 0.
    pub fn disconnect(&mut self) -> Result<()> {
        self.run(&["disconnect"])?.ok()?;
        let status = self.process()?.wait(PATIENCE)?;
        ensure!(status.success(), "client: {status}{}", self.process()?.logs());
        Ok(())
    }

    /// Lets the client run on, in a laboratory that is kept.
    pub fn leave_running(mut self) {
        self.process.take().into_iter().for_each(Process::detach);
    }

    /// A crash.
    pub fn kill9(&mut self) -> Result<()> {
        self.process()?.kill9();
        Ok(())
    }
}
