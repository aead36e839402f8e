//! ocserv with openconnect: the protocol of AnyConnect.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Lab, Node, Process, address, until};

use crate::bench::path::{Vpn, mtu};
use crate::bench::pki;

const PASSWORD: &str = "laboratory";
const PATIENCE: Duration = Duration::from_secs(20);
const INTERFACE: &str = "oc0";

/// Both ends.
pub(super) struct Ocserv {
    dtls: bool,
    version: String,
    node: Node,
    /// The client's command line, for a shell.
    line: String,
    client: Option<Process>,
    gateway: Process,
    gateway_node: Node,
    config_path: String,
}

impl Ocserv {
    /// With data in DTLS, or with all in TLS.
    pub(super) fn start(
        lab: &Lab,
        target: Ipv4Addr,
        dtls: bool,
        version: String,
    ) -> Result<Ocserv> {
        let (gateway, node) = (&lab.gateway, lab.clients[0].clone());
        let dir = gateway.dir().display().to_string();
        let certificate = pki::make(gateway, gateway.dir(), "server")?;
        let users = format!("{dir}/users");
        let passwords = format!("{PASSWORD}\n{PASSWORD}\n");
        gateway.run_with(&["ocpasswd", "-c", &users, "bench"], &passwords, PATIENCE)?.ok()?;
        let config = configuration(&dir, target, dtls, &certificate);
        let config_path = format!("{dir}/ocserv.conf");
        gateway.write_file(&config_path, &config)?;
        let process = start_gateway(gateway, &config_path)?;

        let password_path = node.dir().join("password").display().to_string();
        node.write_file(&password_path, PASSWORD)?;
        let script_path = node.dir().join("openconnect-script").display().to_string();
        node.write_file(&script_path, &script(target))?;
        node.ok(&["chmod", "755", &script_path])?;
        let line = format!(
            "exec openconnect --protocol=anyconnect {} -v --non-inter -u bench \
             --passwd-on-stdin --servercert pin-sha256:{} -i {INTERFACE} --script {script_path} \
             https://{} < {password_path}",
            if dtls { "" } else { "--no-dtls" },
            certificate.pin,
            address::GATEWAY,
        );
        let (client, gateway, gateway_node) = (None, process, gateway.clone());
        Ok(Ocserv { dtls, version, node, line, client, gateway, gateway_node, config_path })
    }

    /// What openconnect has said so far.
    fn said(&self) -> String {
        self.client.as_ref().map_or(String::new(), |client| client.stdout() + &client.stderr())
    }
}

impl Vpn for Ocserv {
    fn connect(&mut self) -> Result<()> {
        self.client = Some(self.node.spawn("openconnect", &["sh", "-c", &self.line])?);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        if !self.dtls {
            return Ok(());
        }
        until("DTLS", PATIENCE, || {
            Ok(self.said().contains("Established DTLS connection").then_some(()))
        })
        .with_context(|| self.client.as_ref().map_or(String::new(), Process::logs))
    }

    fn disconnect(&mut self) -> Result<()> {
        self.client.take().map_or(Ok(()), |mut client| client.terminate(PATIENCE).map(drop))
    }

    fn restart_gateway(&mut self) -> Result<bool> {
        self.gateway.terminate(PATIENCE)?;
        self.gateway = start_gateway(&self.gateway_node, &self.config_path)?;
        Ok(true)
    }

    fn client_pids(&self) -> Vec<u32> {
        self.client.iter().map(Process::pid).collect()
    }

    fn gateway_pids(&self) -> Vec<u32> {
        vec![self.gateway.pid()]
    }

    fn describe(&self) -> Result<(String, String)> {
        let said = self.said();
        let wanted = if self.dtls { "Established DTLS connection" } else { "Connected to HTTPS" };
        let line = said.lines().find(|line| line.contains(wanted)).unwrap_or_default();
        let (_, suite) = line.split_once("iphersuite").unwrap_or_default();
        let channel = if self.dtls { "DTLS" } else { "TLS only" };
        let mtu = mtu(&self.node, INTERFACE)?;
        let settings = format!("defaults, {channel}, {}, MTU {mtu}", suite.trim());
        Ok((self.version.clone(), settings))
    }
}

fn start_gateway(node: &Node, config_path: &str) -> Result<Process> {
    let process = node.spawn("ocserv", &["ocserv", "-f", "-d", "1", "-c", config_path])?;
    let connect = format!("exec 3<>/dev/tcp/{}/443", address::GATEWAY);
    until("ocserv to listen", PATIENCE, || {
        Ok(node.run(&["bash", "-c", &connect])?.status.success().then_some(()))
    })?;
    Ok(process)
}

fn configuration(dir: &str, target: Ipv4Addr, dtls: bool, server: &pki::Certificate) -> String {
    format!(
        "auth = \"plain[passwd={dir}/users]\"\ntcp-port = 443\n{}run-as-user = root\n\
         run-as-group = root\nsocket-file = {dir}/ocserv.socket\nserver-cert = {}\n\
         server-key = {}\nisolate-workers = false\nmax-clients = 4\nmax-same-clients = 2\n\
         keepalive = 300\ndpd = 90\ntry-mtu-discovery = true\n\
         tls-priorities = \"NORMAL:%SERVER_PRECEDENCE\"\ncompression = false\n\
         auth-timeout = 40\ncookie-timeout = 300\nrekey-time = 172800\nuse-utmp = false\n\
         use-occtl = false\npid-file = {dir}/ocserv.pid\ndevice = vpns\npredictable-ips = true\n\
         ipv4-network = 10.66.0.0\nipv4-netmask = 255.255.255.0\nping-leases = false\n\
         route = {target}/255.255.255.255\ncisco-client-compat = true\ndtls-legacy = true\n\
         cert-user-oid = 0.9.2342.19200300.100.1.1\n",
        if dtls { "udp-port = 443\n" } else { "" },
        server.certificate,
        server.key,
    )
}

/// In place of vpnc-script, which would also change the resolver.
fn script(target: Ipv4Addr) -> String {
    format!(
        "#!/bin/sh\n[ \"$reason\" = connect ] || exit 0\n\
         ip address add \"$INTERNAL_IP4_ADDRESS/32\" dev \"$TUNDEV\"\n\
         ip link set \"$TUNDEV\" mtu \"$INTERNAL_IP4_MTU\" up\n\
         ip route add {target} dev \"$TUNDEV\"\n"
    )
}
