//! The servers of the laboratory: nginx, dnsmasq, iperf3 and sshd, each with a configuration of a
//! few lines, never touching the host's own services.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::address;
use crate::node::Node;
use crate::process::Process;
use crate::tools::until;

const PATIENCE: Duration = Duration::from_secs(10);
/// A name whose address a test chooses, and changes.
pub(crate) const MOVING_NAME: &str = "home.lab.test";
/// As clients have it.
const PROBE_NAME: &str = "connectivitycheck.gstatic.com";

/// nginx: a page, the visitor's address at `/visitor`, downloads, uploads by PUT to `/upload/`.
pub(crate) fn start_nginx(node: &Node, root_dir: &Path) -> Result<Process> {
    let temporary_dir = node.dir().join("nginx");
    fs::create_dir_all(&temporary_dir)?;
    fs::create_dir_all(root_dir.join("upload"))?;
    fs::write(root_dir.join("index.html"), INDEX)?;
    let (root, temporary) = (root_dir.display(), temporary_dir.display());
    let config = format!(
        "user root; worker_processes 1; daemon off; pid {temporary}/pid; error_log stderr;
         events {{ worker_connections 512; }}
         http {{
           access_log off; sendfile on; tcp_nopush on; client_max_body_size 0;
           send_timeout 10m; client_body_timeout 10m;
           client_body_temp_path {temporary}/body; proxy_temp_path {temporary}/proxy;
           fastcgi_temp_path {temporary}/fastcgi; uwsgi_temp_path {temporary}/uwsgi;
           scgi_temp_path {temporary}/scgi;
           server {{
             listen 80; listen [::]:80; root {root};
             location = /visitor {{ return 200 \"$remote_addr\\n\"; }}
             location = /generate_204 {{ return 204; }}
             location /upload/ {{ dav_methods PUT; }}
           }}
         }}\n"
    );
    let config_path = temporary_dir.join("nginx.conf");
    fs::write(&config_path, config)?;
    let prefix = temporary_dir.to_str().context("path is not UTF-8")?;
    let config = config_path.to_str().context("path is not UTF-8")?;
    node.spawn("nginx", &["nginx", "-p", prefix, "-c", config, "-e", "stderr"])
}

const INDEX: &str = "<!doctype html><title>lab</title><h1>It is the laboratory's web host</h1>\n";

/// The DNS of this internet: `www.lab.test`, `gateway.lab.test`, the name by which clients find out
/// whether there is an internet, and `long.lab.test`, whose TXT records only fit into an answer over
/// TCP. Logs who asked for what.
pub(crate) fn start_dns_server(node: &Node) -> Result<Process> {
    let text = "x".repeat(250);
    let names_dir = names_dir(node);
    fs::create_dir_all(&names_dir)?;
    let mut config = format!(
        "no-resolv\nno-hosts\nlog-queries\nlocal=/test/\ninterface=eth0\nbind-interfaces\n\
         host-record=www.lab.test,{web},{web_v6}\nhost-record={PROBE_NAME},{web},{web_v6}\n\
         host-record=gateway.lab.test,{},{}\nhostsdir={}\n",
        address::GATEWAY,
        address::GATEWAY_V6,
        names_dir.display(),
        web = address::WEB,
        web_v6 = address::WEB_V6,
    );
    for index in 0..8 {
        config += &format!("txt-record=long.lab.test,{index}{text}\n");
    }
    let dns = start_dnsmasq(node, &config)?;
    wait_for_dns(node, address::DNS)?;
    Ok(dns)
}

/// Files in the manner of `/etc/hosts` that the DNS of this internet reads again as they change.
pub(crate) fn names_dir(web: &Node) -> PathBuf {
    web.dir().join("names")
}

/// The resolver in a home router, which clients are told to use.
pub(crate) fn start_dns_forwarder(node: &Node) -> Result<Process> {
    start_dnsmasq(node, &format!("no-resolv\nno-hosts\nserver={}\n", address::DNS))
}

fn start_dnsmasq(node: &Node, config: &str) -> Result<Process> {
    let config_path = node.dir().join("dnsmasq.conf");
    fs::write(&config_path, config)?;
    let option = format!("--conf-file={}", config_path.display());
    let fixed = ["--user=root", "--pid-file=", "--log-facility=-"];
    let words = ["dnsmasq", "--keep-in-foreground", &option, fixed[0], fixed[1], fixed[2]];
    node.spawn("dnsmasq", &words)
}

/// Waits until `server` answers questions from `node`.
pub(crate) fn wait_for_dns(node: &Node, server: Ipv4Addr) -> Result<()> {
    let server = format!("@{server}");
    let words = ["dig", "+short", "+time=1", "+tries=1", &server, "www.lab.test"];
    until("DNS to answer", PATIENCE, || {
        let answer = node.run(&words)?;
        Ok(answer.stdout.contains(&address::WEB.to_string()).then_some(()))
    })
}

/// iperf3 in server mode on all addresses of the node.
pub(crate) fn start_iperf3(node: &Node) -> Result<Process> {
    let mut iperf3 = node.spawn("iperf3", &["iperf3", "--server", "--forceflush"])?;
    iperf3.wait_for_line("Server listening", PATIENCE)?;
    Ok(iperf3)
}

/// An OpenSSH server with a throw-away host key and one authorised user key.
#[derive(Debug)]
pub struct Sshd {
    process: Process,
    /// The path of the user's key.
    key: String,
}

impl Sshd {
    /// Starts it on port 22 of all addresses of `node`.
    pub fn start(node: &Node) -> Result<Sshd> {
        let dir = node.dir().join("ssh");
        fs::create_dir_all(&dir)?;
        let path = |name: &str| format!("{}/{name}", dir.display());
        for key in ["host_key", "user_key"] {
            node.ok(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &path(key)])?;
        }
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin prohibit-password\n",
            path("host_key"),
            path("user_key.pub"),
        );
        fs::write(path("config"), config)?;
        let mut process =
            node.spawn("sshd", &["/usr/sbin/sshd", "-D", "-e", "-f", &path("config")])?;
        process.wait_for_error_line("listening on 0.0.0.0", PATIENCE)?;
        Ok(Sshd { process, key: path("user_key") })
    }

    /// Logs in from `client` at `server` and runs `echo`; an error if that does not work.
    pub fn log_in(&self, client: &Node, server: Ipv4Addr) -> Result<()> {
        let answer = client.run(&self.words(&format!("root@{server}"), "echo logged-in"))?;
        anyhow::ensure!(answer.stdout.contains("logged-in"), "{answer}{}", self.process.logs());
        Ok(())
    }

    /// Logs in from `client` at `server` and runs a command of the shell, in the background, with
    /// logs of this name.
    pub fn session(
        &self,
        name: &str,
        client: &Node,
        server: IpAddr,
        command: &str,
    ) -> Result<Process> {
        client.spawn(name, &self.words(&format!("root@{server}"), command))
    }

    fn words<'a>(&'a self, target: &'a str, command: &'a str) -> Vec<&'a str> {
        let mut words = vec!["ssh", "-F", "none", "-i", &self.key, "-o", "BatchMode=yes"];
        words.extend(["-o", "ConnectTimeout=10", "-o", "StrictHostKeyChecking=no"]);
        words.extend(["-o", "UserKnownHostsFile=/dev/null", target, command]);
        words
    }
}
