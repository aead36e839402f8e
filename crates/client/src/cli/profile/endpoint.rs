//! `cipherwall profile endpoint`: the rungs of a profile's ladder.

use anyhow::Context;
use cipherwall_cli::Failure;
use cipherwall_ipc::daemon::{AddEndpoints, Endpoint, ProfileChange};
use cipherwall_proto::invitation::Invitation;

use crate::profile;

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Add another way to a gateway of this profile
    ///
    /// It is tried after those that there are; `profile set --prefer` puts it first. An invitation
    /// of the same user, from this gateway or one that shares its users, adds all of its endpoints,
    /// and stays unused.
    Add {
        /// The profile
        profile: String,

        /// An address or name and a port, or an invitation, `cipherwall://...`
        #[arg(value_name = "HOST:PORT|LINK")]
        endpoint: String,

        /// What is spoken there
        #[arg(long, value_name = "TRANSPORT", value_parser = ["tls", "kcp"], default_value = "tls")]
        transport: String,

        /// It leads to the gateway that is reached at this endpoint [default: the first one]
        #[arg(long, value_name = "[TRANSPORT:]HOST:PORT")]
        like: Option<String>,
    },
    /// Forget a way to a gateway
    Remove {
        /// The profile
        profile: String,

        /// The endpoint, as `profile show` has it
        #[arg(value_name = "[TRANSPORT:]HOST:PORT")]
        endpoint: String,
    },
}

impl TryFrom<Command> for ProfileChange {
    type Error = anyhow::Error;

    fn try_from(command: Command) -> anyhow::Result<Self> {
        match command {
            Command::Add { profile, endpoint, transport, like } => {
                let add = Some(Box::new(added(&endpoint, transport, like)?));
                Ok(Self { profile, add, ..Self::default() })
            }
            Command::Remove { profile, endpoint } => {
                Ok(Self { profile, remove: Some(endpoint), ..Self::default() })
            }
        }
    }
}

fn added(text: &str, transport: String, like: Option<String>) -> anyhow::Result<AddEndpoints> {
    if text.contains("://") {
        let invitation = Invitation::from_link(text)
            .map_err(|error| Failure::usage(error.to_string()))
            .context("adding the endpoints of an invitation")?;
        return Ok(profile::of_invitation(&invitation));
    }
    let (host, port) = host_port(text).ok_or_else(|| {
        Failure::usage(format!("{text:?}: write HOST:PORT, for example gateway.example:443"))
    })?;
    let endpoint = Endpoint { host, port, transport, pins: Vec::new() };
    Ok(AddEndpoints { endpoints: vec![endpoint], like, from: None })
}

/// A name, an address, or an IPv6 address in brackets, and a port.
fn host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => host,
    };
    let is_one = !host.is_empty() && !text.contains(char::is_whitespace);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (is_one && (text.starts_with('[') || !host.contains(':'))).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        let read = |text| host_port(text).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(read("gw.example:443").as_deref(), Some("gw.example 443"));
        assert_eq!(read("[2001:db8::1]:443").as_deref(), Some("2001:db8::1 443"));
        for bad in ["gw.example", "2001:db8::1:443", "gw.example:0", ":443", "[gw]:1", "a b:1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
