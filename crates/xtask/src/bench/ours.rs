//! CipherWall, in its ways to carry packets.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{ClientNode, GatewayNode, Lab, Process, Programs, address, until};

use super::path::{Vpn, mtu};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a session may take to carry its packets in datagrams.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(5);

/// How CipherWall carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ours {
    /// In a session, as the programs choose.
    Default,
    /// In a session over TLS, with this cipher.
    Tls(&'static str),
    /// In datagrams of a session, with this cipher.
    Udp(&'static str),
    /// In a session over KCP, with this cipher.
    Kcp(&'static str),
    /// Without a session.
    Static,
}

impl Ours {
    /// As the tables call it.
    pub(crate) fn name(self) -> String {
        match self {
            Ours::Default => "CipherWall".to_owned(),
            Ours::Tls(cipher) => format!("CipherWall tls {cipher}"),
            Ours::Udp(cipher) => format!("CipherWall udp {cipher}"),
            Ours::Kcp(cipher) => format!("CipherWall kcp {cipher}"),
            Ours::Static => "CipherWall static".to_owned(),
        }
    }

    /// Why the programs in this folder cannot do it, if they cannot: older ones are measured, too.
    pub(crate) fn missing_in(self, bin_dir: &Path) -> Result<Option<String>> {
        let Some(command) = self.command() else { return Ok(None) };
        let output = Command::new(bin_dir.join("cipherwall")).args([command, "--help"]).output()?;
        // one that is not known prints its help elsewhere
        let help = String::from_utf8_lossy(&output.stdout);
        Ok(self.missing_in_help(command, &help))
    }

    fn missing_in_help(self, command: &str, help: &str) -> Option<String> {
        let wanted = match self {
            Ours::Default => vec![],
            Ours::Tls(cipher) => vec!["tls", cipher],
            Ours::Udp(cipher) => vec!["udp", cipher],
            Ours::Kcp(cipher) => vec!["kcp", cipher],
            Ours::Static => vec!["--key"],
        };
        let unknown = wanted.into_iter().find(|word| !help.contains(word));
        unknown.map(|word| format!("`cipherwall {command}` does not know {word}"))
    }

    /// The client's command whose options tell, if it needs any.
    fn command(self) -> Option<&'static str> {
        match self {
            Ours::Default => None,
            Ours::Tls(_) | Ours::Udp(_) | Ours::Kcp(_) => Some("connect"),
            Ours::Static => Some("static"),
        }
    }

    /// Starts the gateway's end.
    pub(crate) fn start(self, lab: &Lab, programs: &Programs) -> Result<Box<dyn Vpn>> {
        Ok(match self {
            Ours::Default => Box::new(Session::start(lab, programs, None, None)?),
            Ours::Tls(cipher) => {
                Box::new(Session::start(lab, programs, Some("tls"), Some(cipher))?)
            }
            Ours::Udp(cipher) => {
                Box::new(Session::start(lab, programs, Some("udp"), Some(cipher))?)
            }
            Ours::Kcp(cipher) => {
                Box::new(Session::start(lab, programs, Some("kcp"), Some(cipher))?)
            }
            Ours::Static => Box::new(Static::start(lab, programs)?),
        })
    }
}

/// A client with a session, and its gateway.
struct Session {
    client: ClientNode,
    gateway: GatewayNode,
    gateway_pid: u32,
    client_pid: Option<u32>,
    transport: Option<&'static str>,
    cipher: Option<&'static str>,
}

impl Session {
    /// A new gateway, and a client that was invited and has never connected.
    fn start(
        lab: &Lab,
        programs: &Programs,
        transport: Option<&'static str>,
        cipher: Option<&'static str>,
    ) -> Result<Session> {
        let mut gateway = GatewayNode::start_new(lab, programs)?;
        gateway.user_add("bench", None)?;
        let client = ClientNode::new(lab, 0, programs)?;
        client.import(&gateway.invite("bench")?.link)?;
        let gateway_pid = gateway.process()?.pid();
        Ok(Session { client, gateway, gateway_pid, client_pid: None, transport, cipher })
    }
}

impl Vpn for Session {
    fn connect(&mut self) -> Result<()> {
        let mut options = Vec::new();
        options.extend(self.transport.into_iter().flat_map(|name| ["--transport", name]));
        options.extend(self.cipher.into_iter().flat_map(|name| ["--cipher", name]));
        self.client_pid = Some(self.client.start_connecting(&options)?.pid());
        Ok(())
    }

    /// Datagrams carry packets only after the first of them has been answered.
    fn settle(&mut self) -> Result<()> {
        self.client.process()?.wait_for_line("connected", PATIENCE)?;
        let wanted = (self.transport, self.cipher);
        let name = format!("packets to be carried by {wanted:?}");
        until(&name, DATAGRAM_PATIENCE, || {
            let status = self.client.status()?;
            let carries = |wanted: Option<&str>, used: Option<String>| {
                wanted.is_none() || used.as_deref() == wanted
            };
            let settled = carries(wanted.0, status.transport) && carries(wanted.1, status.cipher);
            Ok(settled.then_some(()))
        })
    }

    fn disconnect(&mut self) -> Result<()> {
        self.client_pid = None;
        self.client.disconnect()
    }

    fn restart_gateway(&mut self) -> Result<bool> {
        self.gateway.reload()?;
        Ok(true)
    }

    fn client_pids(&self) -> Vec<u32> {
        self.client_pid.into_iter().collect()
    }

    fn gateway_pids(&self) -> Vec<u32> {
        vec![self.gateway_pid]
    }

    fn describe(&self) -> Result<(String, String)> {
        let status = self.client.status()?;
        let mtu = mtu(&self.client.node, &self.client.interface()?)?;
        let transport = status.transport.unwrap_or_default();
        let cipher = status.cipher.unwrap_or_default();
        Ok((
            version(&self.gateway)?,
            format!("defaults, {transport}, {cipher}, MTU {mtu}, invited device"),
        ))
    }
}

/// Both ends of static mode.
struct Static {
    client: ClientNode,
    client_process: Option<Process>,
    gateway: GatewayNode,
    gateway_process: Process,
    key_path: String,
}

impl Static {
    fn start(lab: &Lab, programs: &Programs) -> Result<Static> {
        let gateway = GatewayNode::new(lab, programs);
        let key_path = gateway.node.dir().join("static.key").display().to_string();
        gateway.run(&["keygen", &key_path])?.ok()?;
        let gateway_process = start_static_gateway(&gateway, &key_path)?;
        let client = ClientNode::new(lab, 0, programs)?;
        Ok(Static { client, client_process: None, gateway, gateway_process, key_path })
    }
}

fn start_static_gateway(gateway: &GatewayNode, key_path: &str) -> Result<Process> {
    let listen = format!("{}:1194", address::GATEWAY);
    let words = gateway.words(&["static", "--key", key_path, "--listen", &listen]);
    let mut process = gateway.node.spawn("static-gateway", &words)?;
    process.wait_for_line("ready", PATIENCE)?;
    Ok(process)
}

impl Vpn for Static {
    fn connect(&mut self) -> Result<()> {
        let server = format!("{}:1194", address::GATEWAY);
        let words = self.client.words(&["static", "--key", &self.key_path, "--server", &server]);
        self.client_process = Some(self.client.node.spawn("static-client", &words)?);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        let Some(client) = &mut self.client_process else { return Ok(()) };
        client.wait_for_line("connected", PATIENCE).map(drop)
    }

    fn disconnect(&mut self) -> Result<()> {
        let Some(mut client) = self.client_process.take() else { return Ok(()) };
        let status = client.terminate(PATIENCE)?;
        ensure!(status.success(), "client: {status}{}", client.logs());
        Ok(())
    }

    fn restart_gateway(&mut self) -> Result<bool> {
        self.gateway_process.terminate(PATIENCE)?;
        self.gateway_process = start_static_gateway(&self.gateway, &self.key_path)?;
        Ok(true)
    }

    fn client_pids(&self) -> Vec<u32> {
        self.client_process.iter().map(Process::pid).collect()
    }

    fn gateway_pids(&self) -> Vec<u32> {
        vec![self.gateway_process.pid()]
    }

    fn describe(&self) -> Result<(String, String)> {
        let mtu = mtu(&self.client.node, &self.client.interface()?)?;
        let settings = format!("defaults, static mode, aes-256-cfb, hmac-sha256, MTU {mtu}");
        Ok((version(&self.gateway)?, settings))
    }
}

fn version(gateway: &GatewayNode) -> Result<String> {
    let version = gateway.run(&["--version"])?.ok()?;
    Ok(format!("CipherWall {}", version.split_whitespace().last().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::Ours;

    #[test]
    fn programs_that_do_not_know_a_transport_are_named() {
        let help = "- tls: one connection\n- aes-256-gcm: the fastest";
        let missing = |ours: Ours| ours.missing_in_help(ours.command().unwrap(), help);
        assert_eq!(missing(Ours::Tls("aes-256-gcm")), None);
        let unknown = missing(Ours::Udp("aes-256-gcm")).unwrap();
        assert_eq!(unknown, "`cipherwall connect` does not know udp");
        let unknown = missing(Ours::Static).unwrap();
        assert_eq!(unknown, "`cipherwall static` does not know --key");
    }
}
