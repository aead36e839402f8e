//! Values that serde alone would take too readily, each with the remedy in its error.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

use super::{
    DEFAULT_PORT, IpAddr, Ipv4Net, Ipv6Net, Networks, PoolConfig, Site, Upstream, default_v4,
};

/// Each is a socket.
const DATAGRAM_PORTS_MAX: usize = 1_000;

/// A host name or address with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// DNS name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    /// `HOST[:PORT]`, with an IPv6 address in brackets if a port follows.
    fn from_str(text: &str) -> Result<HostPort, String> {
        let remedy = "write HOST:PORT, for example vpn.example.net:8443 or [2001:db8::1]:8443";
        let wrong = |what: &str| Err(format!("{text:?} {what}; {remedy}"));
        let (host, port) = match text.rsplit_once(':') {
            _ if text.parse::<Ipv6Addr>().is_ok() || text.ends_with(']') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let port = match port.map(str::parse) {
            None => DEFAULT_PORT,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return wrong("has no port between 1 and 65535 behind the last colon"),
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        if bracketed.is_some() && host.parse::<Ipv6Addr>().is_err() {
            return wrong("has no IPv6 address between its brackets");
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            if address.is_unspecified() {
                return wrong("is no address that a client could connect to");
            }
        } else if !is_host_name(host) {
            return wrong("is no host name or address");
        }
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<Ipv6Addr>() {
            Ok(address) => write!(f, "[{address}]:{}", self.port),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `networks` before it is checked as a pair.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNetworks {
    #[serde(default = "default_v4", deserialize_with = "network_v4")]
    v4: Ipv4Net,
    #[serde(deserialize_with = "network_v6")]
    v6: Ipv6Net,
}

impl TryFrom<RawNetworks> for Networks {
    type Error = crate::pool::PoolError;

    fn try_from(raw: RawNetworks) -> Result<Networks, crate::pool::PoolError> {
        PoolConfig::new(raw.v4, raw.v6).map(Networks)
    }
}

/// Whether this can be the name of a network interface.
pub fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%\"\\".contains(&byte))
}

pub(super) fn endpoint<'de, D: Deserializer<'de>>(d: D) -> Result<HostPort, D::Error> {
    String::deserialize(d)?.parse().map_err(D::Error::custom)
}

pub(super) fn listen<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<SocketAddr>, D::Error> {
    let listen = parsed_list(d, |text| {
        text.parse().map_err(|_| {
            format!("{text:?} is no address with a port; write for example \"[::]:8443\"")
        })
    })?;
    if listen.is_empty() {
        return Err(D::Error::custom("no address to listen on; write for example [\"[::]:8443\"]"));
    }
    Ok(listen)
}

pub(super) fn upstreams<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<SocketAddr>, D::Error> {
    parsed_list(d, |text| {
        let with_port = text.parse::<SocketAddr>();
        let without = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        with_port.or_else(|_| without()).map_err(|_| {
            format!("{text:?} is no resolver's address; write for example 10.202.10.202")
        })
    })
}

pub(super) fn host_names<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    parsed_list(d, |text| match is_host_name(&text) {
        true => Ok(text),
        false => Err(format!("{text:?} is no host name; write for example www.example.net")),
    })
}

pub(super) fn uplink<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(d)? {
        Some(name) => checked_interface(name).map(Some),
        None => Ok(None),
    }
}

pub(super) fn interface<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    checked_interface(String::deserialize(d)?)
}

pub(super) fn on_or_off<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    match String::deserialize(d)?.as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(D::Error::custom(format!("{other:?} is neither on nor off"))),
    }
}

pub(super) fn site<'de, D: Deserializer<'de>>(d: D) -> Result<Site, D::Error> {
    let text = String::deserialize(d)?;
    let wrong = |what: &str| {
        D::Error::custom(format!(
            "{text:?} {what}; write welcome, a folder such as /var/www/html, or a site such as \
             https://www.example.net"
        ))
    };
    if text == "welcome" {
        return Ok(Site::Welcome);
    }
    if text.starts_with('/') {
        return Ok(Site::Folder(text.into()));
    }
    let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(wrong("is no site")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return Err(wrong("has more than a host and a port"));
    }
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let with_port = match has_port {
        true => rest.to_owned(),
        false => format!("{rest}:{}", if tls { 443 } else { 80 }),
    };
    let at = with_port.parse().map_err(|error: String| wrong(&format!("is no site ({error})")))?;
    Ok(Site::Proxy(Upstream { tls, at }))
}

pub(super) fn absolute_path<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(d)?;
    if path.is_absolute() {
        return Ok(path);
    }
    let path = path.display();
    Err(D::Error::custom(format!("{path} is no absolute path; write for example /etc/ssl/{path}")))
}

pub(super) fn absolute_path_or_none<'de, D>(d: D) -> Result<Option<PathBuf>, D::Error>
where
    D: Deserializer<'de>,
{
    absolute_path(d).map(Some)
}

pub(super) fn mtu<'de, D: Deserializer<'de>>(d: D) -> Result<u16, D::Error> {
    // IPv6 asks for 1280 (RFC 8200, section 5).
    in_range(d, 1280..=65_000, "bytes")
}

pub(super) fn interval_s<'de, D: Deserializer<'de>>(d: D) -> Result<u16, D::Error> {
    in_range(d, 1..=300, "seconds")
}

pub(super) fn timeout_s<'de, D: Deserializer<'de>>(d: D) -> Result<u16, D::Error> {
    in_range(d, 2..=900, "seconds")
}

/// `None`: `off`.
pub(super) fn port_or_off<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u16>, D::Error> {
    let text = String::deserialize(d)?;
    if text == "off" {
        return Ok(None);
    }
    text.parse().ok().filter(|port| *port > 0).map(Some).ok_or_else(|| {
        D::Error::custom(format!("{text:?} is no port from 1 to 65535; write a port, or off"))
    })
}

/// `None`: `off`.
pub(super) fn ports_or_off<'de, D>(d: D) -> Result<Option<RangeInclusive<u16>>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(d)?;
    if text == "off" {
        return Ok(None);
    }
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = text.split_once('-').and_then(|(low, high)| Some(port(low)?..=port(high)?));
    range.filter(|range| (1..=DATAGRAM_PORTS_MAX).contains(&range.len())).map(Some).ok_or_else(
        || {
            D::Error::custom(format!(
                "{text:?} is no range of 1 to {DATAGRAM_PORTS_MAX} ports; write for example \
             9000-9099, or off"
            ))
        },
    )
}

/// `None`: `off`.
pub(super) fn connections_each<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    let range = 64..=1_000_000;
    let text = String::deserialize(d)?;
    if text == "off" {
        return Ok(None);
    }
    text.parse().ok().filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        D::Error::custom(format!(
            "{text:?} is no number from {low} to {high}; write for example 4096, or off"
        ))
    })
}

pub(super) fn rekey_interval<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    let range = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
    humantime::parse_duration(&text).ok().filter(|interval| range.contains(interval)).ok_or_else(
        || D::Error::custom(format!("{text:?} is no time from 100ms to 24h; write for example 4h")),
    )
}

pub(super) fn rekey_volume_mib<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    in_range(d, 1..=64 << 10, "MiB")
}

pub(super) fn rekey_records<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    in_range(d, 1_000..=1 << 24, "records")
}

pub(super) fn handshake_s<'de, D: Deserializer<'de>>(d: D) -> Result<u16, D::Error> {
    in_range(d, 1..=60, "seconds")
}

pub(super) fn connections<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    in_range(d, 16..=1_000_000, "connections")
}

pub(super) fn connections_per_address<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    in_range(d, 1..=1_000_000, "connections")
}

fn network_v4<'de, D: Deserializer<'de>>(d: D) -> Result<Ipv4Net, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!("{text:?} is no IPv4 network; write for example 10.8.0.0/24"))
    })
}

fn network_v6<'de, D: Deserializer<'de>>(d: D) -> Result<Ipv6Net, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!("{text:?} is no IPv6 network; write for example fd00:1:2:3::/64"))
    })
}

fn checked_interface<E: Error>(name: String) -> Result<String, E> {
    // The kernel numbers a `%d` itself.
    let without_number = name.replacen("%d", "0", 1);
    match is_interface_name(&without_number) {
        true => Ok(name),
        false => Err(E::custom(format!(
            "{name:?} is no interface name; write up to 15 letters and digits, for example cw0"
        ))),
    }
}

fn in_range<'de, D, T>(d: D, range: RangeInclusive<T>, unit: &str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64> + PartialOrd + fmt::Display,
{
    let number = i64::deserialize(d)?;
    T::try_from(number).ok().filter(|value| range.contains(value)).ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        D::Error::custom(format!("{number} is out of range; write {low} to {high} {unit}"))
    })
}

fn parsed_list<'de, D, T>(
    d: D,
    parse: impl Fn(String) -> Result<T, String>,
) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
{
    let texts = Vec::<String>::deserialize(d)?;
    texts.into_iter().map(|text| parse(text).map_err(D::Error::custom)).collect()
}

/// RFC 1123, section 2.1.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let all_numeric_end =
        name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label) && !all_numeric_end
}
