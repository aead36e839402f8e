//! WireGuard in user space, whichever program it is.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use e2e::{Lab, Node, Process, address};

use crate::bench::path::Vpn;

const PORT: u16 = 51820;
const MTU: &str = "1420";
const PATIENCE: Duration = Duration::from_secs(5);
/// Waits for the program's socket `$1`, then does what `wg-quick` would.
const SETUP: &str = r#"
set -e
until [ -S "/run/wireguard/$1.sock" ]; do sleep 0.002; done
interface=$1 address=$2 mtu=$3
shift 3
wg set "$interface" "$@"
ip address add "$address" dev "$interface"
ip link set "$interface" mtu "$mtu" up
"#;

/// Both ends.
pub(super) struct WireGuard {
    program: Vec<String>,
    version: String,
    node: Node,
    target: Ipv4Addr,
    /// Private key of the client, as a file; public key of the gateway.
    keys: (String, String),
    client: Option<Process>,
    gateway: Process,
}

impl WireGuard {
    /// `program` is started with the name of an interface behind these words.
    pub(super) fn start(
        lab: &Lab,
        target: Ipv4Addr,
        program: &[&str],
        version: String,
    ) -> Result<WireGuard> {
        let (client_key, client_public) = make_key(&lab.clients[0])?;
        let (gateway_key, gateway_public) = make_key(&lab.gateway)?;
        let gateway = lab.gateway.spawn("wireguard", &[program, &["wgs"]].concat())?;
        let port = PORT.to_string();
        let mut words = vec!["sh", "-c", SETUP, "sh", "wgs", "10.66.0.1/24", MTU];
        words.extend(["private-key", &gateway_key, "listen-port", &port]);
        words.extend(["peer", &client_public, "allowed-ips", "10.66.0.2/32"]);
        lab.gateway.ok(&words)?;
        Ok(WireGuard {
            program: program.iter().map(|&word| word.to_owned()).collect(),
            version,
            node: lab.clients[0].clone(),
            target,
            keys: (client_key, gateway_public),
            client: None,
            gateway,
        })
    }
}

impl Vpn for WireGuard {
    fn connect(&mut self) -> Result<()> {
        let mut words: Vec<&str> = self.program.iter().map(String::as_str).collect();
        words.push("wgc");
        // one that was ended leaves its socket behind
        self.node.ok(&["rm", "-f", "/run/wireguard/wgc.sock"])?;
        self.client = Some(self.node.spawn("wireguard", &words)?);
        let script = format!("{SETUP}ip route add {} dev wgc\n", self.target);
        let endpoint = format!("{}:{PORT}", address::GATEWAY);
        let mut words = vec!["sh", "-c", &script, "sh", "wgc", "10.66.0.2/24", MTU];
        words.extend(["private-key", &self.keys.0, "peer", &self.keys.1]);
        words.extend(["allowed-ips", "0.0.0.0/0", "endpoint", &endpoint]);
        self.node.ok(&words).map(drop)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn disconnect(&mut self) -> Result<()> {
        self.client.take().map_or(Ok(()), |mut client| client.terminate(PATIENCE).map(drop))
    }

    fn client_pids(&self) -> Vec<u32> {
        self.client.iter().map(Process::pid).collect()
    }

    fn gateway_pids(&self) -> Vec<u32> {
        vec![self.gateway.pid()]
    }

    fn describe(&self) -> Result<(String, String)> {
        let settings = format!("defaults, UDP, chacha20-poly1305, MTU {MTU}");
        Ok((self.version.clone(), settings))
    }
}

/// A file with a new private key, and the public key.
fn make_key(node: &Node) -> Result<(String, String)> {
    let path = node.dir().join("wireguard.key").display().to_string();
    let script = r#"umask 077; wg genkey > "$1"; wg pubkey < "$1""#;
    let public = node.ok(&["sh", "-c", script, "sh", &path])?;
    Ok((path, public.trim().to_owned()))
}
