//! The gateway's configuration file (A25): its keys, their defaults and what is wrong with it, by
//! file, line and key. [`template`] writes it.

mod error;
pub mod template;
mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use crate::pool::PoolConfig;

pub use error::ConfigError;
pub use values::{HostPort, is_interface_name};

/// The port of endpoint and listener where none is given (A1).
pub const DEFAULT_PORT: u16 = 8443;
/// Where clients look for the speed test if they are not told otherwise.
const DEFAULT_SPEEDTEST_PORT: u16 = 8474;
/// The UDP port of datagrams where none is given (B1).
const DEFAULT_DATAGRAM_PORT: u16 = 1194;
/// The UDP port of KCP where none is given (A20).
const DEFAULT_KCP_PORT: u16 = 443;
/// How many connections a client may have at a time by default.
const DEFAULT_CONNECTIONS_EACH: u32 = 4_096;
/// Largest packet inside the tunnel by default (A11), bytes.
const DEFAULT_MTU: u16 = 1420;

/// `server.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients find the gateway; in every invitation.
    #[serde(deserialize_with = "values::endpoint")]
    pub endpoint: HostPort,
    /// Where it listens. `[::]` takes IPv4 as well.
    #[serde(default = "default_listen", deserialize_with = "values::listen")]
    pub listen: Vec<SocketAddr>,
    /// Interface to the internet; none: whatever has the default route.
    #[serde(default, deserialize_with = "values::uplink")]
    pub uplink: Option<String>,
    /// Name of the TUN interface.
    #[serde(default = "default_interface", deserialize_with = "values::interface")]
    pub interface: String,
    /// Inside networks.
    pub networks: Networks,
    /// Largest packet inside the tunnel, bytes.
    #[serde(default = "default_mtu", deserialize_with = "values::mtu")]
    pub mtu: u16,
    /// Name resolution for clients.
    #[serde(default)]
    pub dns: Dns,
    /// Port of the speed test on the inside addresses (A28); none: it is off.
    #[serde(default = "default_speedtest", deserialize_with = "values::port_or_off")]
    pub speedtest: Option<u16>,
    /// Whether and where sessions may have datagrams as well (A22).
    #[serde(default)]
    pub datagrams: Datagrams,
    /// Whether and where clients may come over KCP (A20).
    #[serde(default)]
    pub kcp: Kcp,
    /// Private networks that clients may reach through the gateway.
    #[serde(default)]
    pub allow_private: Vec<IpNet>,
    /// Connections that each client may have at a time; none: any number.
    #[serde(default = "default_connections_each", deserialize_with = "values::connections_each")]
    pub connections_each: Option<u32>,
    /// Names that clients give in the TLS hello in place of the endpoint's host (A16).
    #[serde(default, deserialize_with = "values::host_names")]
    pub sni: Vec<String>,
    /// The shortened handshakes of clients that come back.
    #[serde(default)]
    pub tls: Tls,
    /// What everybody sees who is no client (A19).
    #[serde(default, deserialize_with = "values::site")]
    pub site: Site,
    /// A certificate from files, in place of the gateway's own.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// Signs of life.
    #[serde(default)]
    pub keepalive: Keepalive,
    /// When connections get new keys.
    #[serde(default)]
    pub rekey: Rekey,
    /// Bounds on connections.
    #[serde(default)]
    pub limits: Limits,
    /// What is logged, and where to.
    #[serde(default)]
    pub log: Log,
}

/// Inside networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "values::RawNetworks")]
pub struct Networks(pub PoolConfig);

/// Name resolution for clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Resolvers to forward to; empty: those of the gateway's own host.
    #[serde(deserialize_with = "values::upstreams")]
    pub upstreams: Vec<SocketAddr>,
}

/// The UDP ports of datagrams, on all addresses of `listen`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Datagrams {
    /// One for all sessions; none: off, unless there are `ports`.
    #[serde(deserialize_with = "values::port_or_off")]
    pub port: Option<u16>,
    /// Instead, one of these for each session (A22).
    #[serde(deserialize_with = "values::ports_or_off")]
    pub ports: Option<RangeInclusive<u16>>,
}

impl Default for Datagrams {
    fn default() -> Datagrams {
        Datagrams { port: Some(DEFAULT_DATAGRAM_PORT), ports: None }
    }
}

impl Datagrams {
    /// The ports that sessions are given; none: there are no datagrams.
    pub fn offered(&self) -> Option<RangeInclusive<u16>> {
        self.ports.clone().or_else(|| self.port.map(|port| port..=port))
    }
}

/// The UDP port of KCP, on all addresses of `listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kcp {
    /// None: it is off.
    #[serde(deserialize_with = "values::port_or_off")]
    pub port: Option<u16>,
}

impl Default for Kcp {
    fn default() -> Kcp {
        Kcp { port: Some(DEFAULT_KCP_PORT) }
    }
}

/// The shortened handshakes of clients that come back (A9).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Whether early data is taken, and tickets say so.
    #[serde(deserialize_with = "values::on_or_off")]
    pub early_data: bool,
}

/// The web site of a gateway (A19).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Site {
    /// The page of a web server that was just installed.
    #[default]
    Welcome,
    /// The files of this folder.
    Folder(PathBuf),
    /// Another site, which the gateway fetches.
    Proxy(Upstream),
}

/// Another site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Whether it is asked by `https`.
    pub tls: bool,
    /// Where it is.
    pub at: HostPort,
}

impl Upstream {
    /// Its name as a browser writes it, without the usual port.
    pub fn authority(&self) -> String {
        let usual = if self.tls { 443 } else { 80 };
        let text = self.at.to_string();
        match self.at.port == usual {
            true => text.trim_end_matches(&format!(":{usual}")).to_owned(),
            false => text,
        }
    }
}

/// A certificate that somebody else renews.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate and those that lead to its root, PEM.
    #[serde(deserialize_with = "values::absolute_path")]
    pub file: PathBuf,
    /// Its private key, PEM; none: the gateway's own.
    #[serde(default, deserialize_with = "values::absolute_path_or_none")]
    pub key: Option<PathBuf>,
}

/// Signs of life (A8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keepalive {
    /// A ping after so many seconds without sending, ±20%.
    #[serde(deserialize_with = "values::interval_s")]
    pub interval_s: u16,
    /// Silence of so many seconds is the end of a connection.
    #[serde(deserialize_with = "values::timeout_s")]
    pub timeout_s: u16,
}

impl Default for Keepalive {
    fn default() -> Keepalive {
        Keepalive { interval_s: 15, timeout_s: 30 }
    }
}

/// When connections get new keys (A7): after this time or this much traffic in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rekey {
    /// Time, ±10%.
    #[serde(deserialize_with = "values::rekey_interval")]
    pub interval: Duration,
    /// Bytes on the wire, MiB.
    #[serde(deserialize_with = "values::rekey_volume_mib")]
    pub volume_mib: u32,
    /// Records.
    #[serde(deserialize_with = "values::rekey_records")]
    pub records: u32,
}

impl Default for Rekey {
    fn default() -> Rekey {
        Rekey { interval: Duration::from_secs(4 * 3600), volume_mib: 64 << 10, records: 1 << 24 }
    }
}

/// Bounds on connections that have not logged in (design 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Seconds for a TLS handshake.
    #[serde(deserialize_with = "values::handshake_s")]
    pub handshake_s: u16,
    /// Open connections in all.
    #[serde(deserialize_with = "values::connections")]
    pub connections: u32,
    /// Open connections from one address; for IPv6 from one /64.
    #[serde(deserialize_with = "values::connections_per_address")]
    pub connections_per_address: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { handshake_s: 60, connections: 4096, connections_per_address: 256 }
    }
}

/// What is logged, and where to. The command line's options come first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// From this level on.
    pub level: LogLevel,
    /// Text, or JSON lines.
    pub format: LogFormat,
    /// Rotated daily; none: standard error.
    pub file: Option<PathBuf>,
}

/// The usual levels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the usual names")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Config {
    /// The UDP port of KCP; none: it is off, or datagrams have the port.
    pub fn kcp_port(&self) -> Option<u16> {
        let datagrams = self.datagrams.offered();
        self.kcp.port.filter(|port| !datagrams.is_some_and(|ports| ports.contains(port)))
    }

    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn load(config_path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(config_path)
            .map_err(|source| ConfigError::from_io(config_path, source))?;
        Config::parse(config_path, &text)
    }

    /// Checks the text of a file that is or will be at `config_path`.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn parse(config_path: &Path, text: &str) -> Result<Config, ConfigError> {
        serde_saphyr::from_str(text)
            .map_err(|error| ConfigError::from_yaml(config_path, text, &error))
    }
}

fn default_listen() -> Vec<SocketAddr> {
    vec![SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, DEFAULT_PORT))]
}

fn default_interface() -> String {
    "cw0".to_owned()
}

fn default_mtu() -> u16 {
    DEFAULT_MTU
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
fn default_speedtest() -> Option<u16> {
    Some(DEFAULT_SPEEDTEST_PORT)
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
fn default_connections_each() -> Option<u32> {
    Some(DEFAULT_CONNECTIONS_EACH)
}

fn default_v4() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 8, 0, 0), 24)
}

#[cfg(test)]
mod tests;
