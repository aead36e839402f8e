//! The configuration file as `init` writes it, and the small edits that a later `init` makes.

use std::path::Path;

use ipnet::Ipv6Net;

use super::{Config, ConfigError, HostPort};

/// A new file: every key with its default and what it is for.
pub fn new_file(endpoint: &HostPort, uplink: Option<&str>, v6: Ipv6Net) -> String {
    let port = endpoint.port;
    let uplink =
        uplink.map_or_else(|| "# uplink: eth0".to_owned(), |name| format!("uplink: {name}"));
    format!(
        r#"# The CipherWall gateway. `cipherwall-server init --endpoint HOST:PORT` may be run again; it keeps
# your changes. After editing, restart the gateway.

# Where clients find this gateway. It goes into every invitation.
endpoint: "{endpoint}"

# Where it listens. [::] takes IPv4 as well.
listen: ["[::]:{port}"]

# The interface to the internet. Without this line: whichever has the default route.
{uplink}

# The name of the tunnel interface.
interface: cw0

# The networks inside the tunnel. The gateway has the first address, each device keeps the one it
# got. An IPv6 address mirrors the host part of the IPv4 one.
networks:
  v4: 10.8.0.0/24
  v6: {v6}

# The largest packet inside the tunnel, in bytes.
mtu: 1420

# Resolvers that clients' questions are forwarded to. Empty: those of this host. For example:
#   upstreams: [10.202.10.202, 10.202.10.102]
dns:
  upstreams: []

# The port on which clients measure the tunnel's speed (`cipherwall speedtest`). Reachable from
# inside only. Or: off
speedtest: 8474

# UDP ports, on the addresses above, for clients that want their packets in datagrams (`connect
# --transport udp`): faster than one TCP connection, where the network lets them through. port: one for
# all clients, or off. ports: instead, one of these for each, as 9000-9099, or off. Open them in the
# firewall in front of this machine.
datagrams:
  port: 1194
  ports: off

# A UDP port, on the addresses above, for clients whose TCP connections do not get through. A client
# takes this way by itself. Or: off. Open it in the firewall in front of this machine.
kcp:
  port: 443

# Private networks behind this gateway that clients may reach. Everything private is closed to them
# otherwise. For example: [192.168.1.0/24]
allow_private: []

# Connections that each client may have at a time, so that none fills the table of connections that
# all share (net.netfilter.nf_conntrack_max). Or: off
connections_each: 4096

# Names that clients give in the TLS hello in place of the endpoint's host. They rotate. Choose
# names that lead to this machine.
sni: []

# TLS early data: a client that comes back may say beforehand which session it has. It saves the
# gateway a look into its database, but no round trip, and shows in the TLS hello of clients that use
# it. off or on
tls:
  early_data: off

# What everybody sees who is no client: `welcome`, the page of a web server that was just installed; a
# folder of yours, such as /var/www/html; or another site, such as https://www.example.net, which the
# gateway fetches. Whichever you choose, it looks as if nginx served it.
site: welcome

# A certificate from files, in place of the gateway's own. It is read again when it changes. Without
# `key` it has to be for the gateway's own key (`cipherwall-server cert request`), which is what clients
# know the gateway by. For example:
#   certificate:
#     file: /etc/letsencrypt/live/www.example.net/fullchain.pem

# A ping after interval_s without sending; timeout_s of silence end a connection.
keepalive:
  interval_s: 15
  timeout_s: 30

# New keys for a connection after this time (within 10%), or after this much traffic in either
# direction: in MiB on the wire, and in records of up to 16 KiB. Traffic goes on meanwhile.
rekey:
  interval: 4h
  volume_mib: 65536
  records: 16777216

# Bounds on connections that have not logged in. IPv6 addresses count by /64. Whoever comes when there
# are as many takes the place of an older one.
limits:
  handshake_s: 60
  connections: 4096
  connections_per_address: 256

# level: off, error, warn, info, debug or trace; format: text or json. Without a file: standard
# error. A file is rotated daily, and a week is kept.
log:
  level: info
  format: text
  # file: /var/log/cipherwall/server.log
"#
    )
}

/// The file with another endpoint, and another uplink if one is given. All else stays as it is.
///
/// # Errors
/// The file has errors, or its layout is such that the lines are not found.
pub fn updated(
    config_path: &Path,
    text: &str,
    endpoint: &HostPort,
    uplink: Option<&str>,
) -> Result<String, ConfigError> {
    let old = Config::parse(config_path, text)?;
    let mut text = text.to_owned();
    if old.endpoint != *endpoint {
        text = with_line(&text, "endpoint", &format!("\"{endpoint}\""));
    }
    if uplink.is_some() && old.uplink.as_deref() != uplink {
        text = with_line(&text, "uplink", uplink.unwrap_or_default());
    }
    Config::parse(config_path, &text)?;
    Ok(text)
}

/// Replaces the line of a key of the first level, else its commented example, else adds one.
fn with_line(text: &str, key: &str, value: &str) -> String {
    let line = format!("{key}: {value}");
    let starts = [format!("{key}:"), format!("# {key}:"), format!("#{key}:")];
    let position =
        starts.iter().find_map(|start| text.lines().position(|line| line.starts_with(start)));
    let mut lines: Vec<_> = text.lines().collect();
    match position {
        Some(position) => lines[position] = &line,
        None => lines.push(&line),
    }
    lines.join("\n") + "\n"
}
