//! OpenVPN with two throw-away certificates that know each other's fingerprints.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use e2e::{Lab, Node, Process, address};

use crate::bench::path::{Vpn, mtu};
use crate::bench::pki;

/// How packets are carried.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// `tcp` or `udp`
    protocol: &'static str,
    cipher: &'static str,
    /// The HMAC, of a cipher that has none of its own.
    auth: Option<&'static str>,
}

pub(super) const UDP: Manner = Manner { protocol: "udp", cipher: "AES-256-GCM", auth: None };
pub(super) const TCP: Manner = Manner { protocol: "tcp", ..UDP };
pub(super) const UDP_CFB: Manner = Manner { cipher: "AES-256-CFB", auth: Some("SHA256"), ..UDP };

const PATIENCE: Duration = Duration::from_secs(20);
const READY: &str = "Initialization Sequence Completed";

/// Both ends.
pub(super) struct OpenVpn {
    manner: Manner,
    version: String,
    node: Node,
    options: Vec<String>,
    client: Option<Process>,
    gateway: Process,
    gateway_node: Node,
    gateway_words: Vec<String>,
}

impl OpenVpn {
    pub(super) fn start(
        lab: &Lab,
        target: Ipv4Addr,
        manner: Manner,
        version: String,
    ) -> Result<OpenVpn> {
        let dir = lab.gateway.dir();
        let server = pki::make(&lab.gateway, dir, "server")?;
        let client = pki::make(&lab.gateway, dir, "client")?;
        // the kernel module, where there is one, is another program
        let cipher = manner.cipher;
        let auth = manner.auth.map_or(String::new(), |auth| format!(" --auth {auth}"));
        let common =
            format!("openvpn --dev tun --data-ciphers {cipher}{auth} --verb 3 --disable-dco");
        let (server_protocol, client_protocol) = match manner.protocol {
            "tcp" => ("tcp4-server", "tcp4-client"),
            _ => ("udp4", "udp4"),
        };
        let gateway_words = format!(
            "{common} --proto {server_protocol} --local {} --port 1194 --topology subnet \
             --server 10.66.0.0 255.255.255.0 --dh none --keepalive 10 60 \
             --cert {} --key {} --peer-fingerprint {} --push",
            address::GATEWAY,
            server.certificate,
            server.key,
            client.fingerprint,
        );
        let client_words = format!(
            "{common} --client --proto {client_protocol} --remote {} 1194 --nobind \
             --cert {} --key {} --peer-fingerprint {}",
            address::GATEWAY,
            client.certificate,
            client.key,
            server.fingerprint,
        );
        let route = format!("route {target} 255.255.255.255");
        let mut words: Vec<&str> = gateway_words.split_whitespace().collect();
        words.push(&route);
        let gateway = start_gateway(&lab.gateway, &words)?;
        let gateway_words = words.into_iter().map(str::to_owned).collect();
        let gateway_node = lab.gateway.clone();
        let options = client_words.split_whitespace().map(str::to_owned).collect();
        let node = lab.clients[0].clone();
        Ok(OpenVpn {
            manner,
            version,
            node,
            options,
            client: None,
            gateway,
            gateway_node,
            gateway_words,
        })
    }
}

fn start_gateway(node: &Node, words: &[&str]) -> Result<Process> {
    let mut gateway = node.spawn("openvpn", words)?;
    gateway.wait_for_line(READY, PATIENCE)?;
    Ok(gateway)
}

impl Vpn for OpenVpn {
    fn connect(&mut self) -> Result<()> {
        let words: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.client = Some(self.node.spawn("openvpn", &words)?);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        let Some(client) = &mut self.client else { return Ok(()) };
        client.wait_for_line(READY, PATIENCE).map(drop)
    }

    fn disconnect(&mut self) -> Result<()> {
        self.client.take().map_or(Ok(()), |mut client| client.terminate(PATIENCE).map(drop))
    }

    fn restart_gateway(&mut self) -> Result<bool> {
        self.gateway.terminate(PATIENCE)?;
        let words: Vec<&str> = self.gateway_words.iter().map(String::as_str).collect();
        self.gateway = start_gateway(&self.gateway_node, &words)?;
        Ok(true)
    }

    fn client_pids(&self) -> Vec<u32> {
        self.client.iter().map(Process::pid).collect()
    }

    fn gateway_pids(&self) -> Vec<u32> {
        vec![self.gateway.pid()]
    }

    fn describe(&self) -> Result<(String, String)> {
        let mtu = mtu(&self.node, "tun0")?;
        let Manner { protocol, cipher, auth } = self.manner;
        let auth = auth.map_or(String::new(), |auth| format!(" + HMAC-{auth}"));
        let settings = format!("defaults, {protocol}, {cipher}{auth}, MTU {mtu}, without DCO");
        Ok((self.version.clone(), settings))
    }
}
