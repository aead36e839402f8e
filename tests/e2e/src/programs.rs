//! `cipherwall-server` and `cipherwall` in the laboratory, used as a person or a script would.

mod daemon;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::address;
use crate::lab::Lab;
use crate::node::{Node, Ran};
use crate::process::Process;
use crate::tools::until;

/// How long programs may take to become ready, to connect and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What carries the packets of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// TLS over TCP.
    #[default]
    Tls,
    /// Datagrams, with TLS over TCP beside them.
    Udp,
    /// TLS over KCP.
    Kcp,
}

impl Transport {
    /// As options and `status` call it.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tls => "tls",
            Transport::Udp => "udp",
            Transport::Kcp => "kcp",
        }
    }
}

/// Makes three tests of each body, a function of [`Programs`]: `NAME::tls`, `NAME::udp`, whose
/// clients have datagrams, and `NAME::kcp`, whose clients have no TCP connection at all.
#[macro_export]
macro_rules! over_each_transport {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[test]
            fn tls() -> anyhow::Result<()> {
                super::$name(&$crate::Programs::find()?)
            }

            #[test]
            fn udp() -> anyhow::Result<()> {
                super::$name(&$crate::Programs::find()?.over($crate::Transport::Udp))
            }

            #[test]
            fn kcp() -> anyhow::Result<()> {
                super::$name(&$crate::Programs::find()?.over($crate::Transport::Kcp))
            }
        }
    )*};
}

/// Where the programs under test are, and how clients connect.
#[derive(Clone, Debug)]
pub struct Programs {
    server_path: String,
    client_path: String,
    transport: Transport,
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
        Ok(Programs {
            server_path: find("cipherwall-server")?,
            client_path: find("cipherwall")?,
            transport: Transport::default(),
        })
    }

    /// Clients connect over this transport, and are not connected before it carries their packets.
    #[must_use]
    pub fn over(self, transport: Transport) -> Programs {
        Programs { transport, ..self }
    }

    /// What clients connect over.
    pub fn transport(&self) -> Transport {
        self.transport
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

    /// As [`GatewayNode::start_new`], on another machine, which is reached at this address.
    pub fn start_on(node: &Node, endpoint: &str, programs: &Programs) -> Result<GatewayNode> {
        let (node, program) = (node.clone(), programs.server_path.clone());
        let state_dir = node.dir().join("state");
        let mut gateway = GatewayNode { node, program, state_dir, process: None };
        gateway.init(endpoint)?;
        gateway.start()?;
        Ok(gateway)
    }

    /// As [`GatewayNode::start_new`], with parts of `server.yaml` replaced before it starts.
    pub fn start_edited(
        lab: &Lab,
        programs: &Programs,
        edits: &[(&str, &str)],
    ) -> Result<GatewayNode> {
        let mut gateway = GatewayNode::new(lab, programs);
        gateway.init(&address::GATEWAY.to_string())?;
        gateway.edit(edits)?;
        gateway.start()?;
        Ok(gateway)
    }

    /// Replaces parts of `server.yaml`.
    pub fn edit(&self, edits: &[(&str, &str)]) -> Result<()> {
        let config_path = self.state_dir.join("server.yaml");
        let mut config = std::fs::read_to_string(&config_path)?;
        for (old, new) in edits {
            ensure!(config.contains(old), "no {old:?} in server.yaml");
            config = config.replacen(old, new, 1);
        }
        Ok(std::fs::write(&config_path, config)?)
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

    /// SIGHUP; it has to be ready again.
    pub fn reload(&mut self) -> Result<()> {
        let process = self.process()?;
        let times_ready =
            |process: &Process| process.stdout().lines().filter(|line| *line == "ready").count();
        let before = times_ready(process);
        process.hang_up();
        until("the gateway to be ready again", PATIENCE, || {
            Ok((times_ready(process) > before || !process.is_running()).then_some(()))
        })?;
        ensure!(process.is_running(), "the gateway ended{}", process.logs());
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

    /// `session list --json`, as it is.
    pub fn sessions(&self) -> Result<serde_json::Value> {
        let text = self.run(&["session", "list", "--json"])?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("session list printed {text:?}"))
    }

    /// The first of [`GatewayNode::sessions`], where there is one only.
    pub fn session(&self) -> Result<serde_json::Value> {
        Ok(self.sessions()?[0].take())
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
    transport: Transport,
    /// The words of a command, like `env`, that `connect` is started by.
    starter: Vec<String>,
}

/// What `status --json` prints, as far as tests look at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// `connected`, ...
    pub state: String,
    /// `tls` or `udp`
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
    /// What the user should know.
    #[serde(default)]
    pub notice: Option<String>,
}

impl ClientNode {
    /// The client on machine `index` (from 0); nothing is started yet.
    pub fn new(lab: &Lab, index: usize, programs: &Programs) -> Result<ClientNode> {
        let node = lab.clients.get(index).context("no such client")?.clone();
        let state_dir = node.dir().join("state");
        let program = programs.client_path.clone();
        let (transport, starter) = (programs.transport, Vec::new());
        Ok(ClientNode { node, program, state_dir, process: None, transport, starter })
    }

    /// Invited as `user`, imported and connected.
    pub fn connect_new(
        lab: &Lab,
        index: usize,
        programs: &Programs,
        gateway: &GatewayNode,
        user: &str,
    ) -> Result<ClientNode> {
        Self::connect_new_with(lab, index, programs, gateway, user, &[])
    }

    /// As [`ClientNode::connect_new`], with options of `connect`.
    pub fn connect_new_with(
        lab: &Lab,
        index: usize,
        programs: &Programs,
        gateway: &GatewayNode,
        user: &str,
        options: &[&str],
    ) -> Result<ClientNode> {
        let mut client = ClientNode::new(lab, index, programs)?;
        client.import(&gateway.invite(user)?.link)?;
        client.connect(options)?;
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

    /// `connect --foreground` with more options, in the background, until it says `connected` and
    /// the transport carries packets; returns that line.
    pub fn connect(&mut self, options: &[&str]) -> Result<String> {
        let line = self.start_connecting(options)?.wait_for_line("connected", PATIENCE)?;
        if !options.contains(&"--transport") {
            self.wait_for_transport(self.transport, PATIENCE)?;
        }
        Ok(line)
    }

    /// Waits until packets are carried by this transport; returns that status.
    pub fn wait_for_transport(&self, transport: Transport, patience: Duration) -> Result<Status> {
        let name = transport.name();
        until(&format!("packets to go over {name}"), patience, || {
            Ok(Some(self.status()?).filter(|status| status.transport.as_deref() == Some(name)))
        })
    }

    /// From now on `connect` is started by this command, such as `env NAME=VALUE`.
    pub fn start_by(&mut self, words: &[&str]) {
        self.starter = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// `connect --foreground`, in the background.
    pub fn start_connecting(&mut self, options: &[&str]) -> Result<&mut Process> {
        self.process = None;
        let transport = match self.transport {
            Transport::Udp if !options.contains(&"--transport") => &["--transport", "udp"][..],
            Transport::Kcp if !options.contains(&"--transport") => &["--transport", "kcp"],
            Transport::Udp | Transport::Kcp | Transport::Tls => &[],
        };
        let words = [&["connect", "--foreground"], transport, options].concat();
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
