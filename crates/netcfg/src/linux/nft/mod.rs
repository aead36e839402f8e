//! Packet filter and NAT, by the `nft` program.

pub(super) mod client;
pub(super) mod foreign;
pub(super) mod gateway;
pub(super) mod policy;
pub(super) mod table;

use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::command;
use crate::Error;

/// The tables that a client has.
pub(super) const OURS: [&str; 2] = [client::NAME, policy::NAME];

/// Whether `nft` is installed.
pub(super) fn installed() -> bool {
    command::find("nft").is_some()
}

/// Found out beforehand where nothing may be left half done.
pub(super) fn require(why: &str) -> Result<(), Error> {
    program(why).map(drop)
}

fn program(why: &str) -> Result<PathBuf, Error> {
    command::find("nft").ok_or_else(|| Error::ProgramMissing {
        program: "nft",
        package: "nftables",
        why: why.to_owned(),
    })
}

/// Gives `nft` a text of commands, which it carries out as one transaction.
async fn transaction(what: &str, text: &str) -> Result<(), Error> {
    command::run(what, &program(what)?, &["-f", "-"], text).await.map(drop)
}

async fn list(what: &str, args: &[&str]) -> Result<String, Error> {
    command::run(what, &program(what)?, args, "").await
}

/// The networks of each address family as nft sets, without overlaps; families without networks
/// are left out. The first half is the word for the family in a rule (`ip`, `ip6`).
fn sets(networks: &[IpNet]) -> Vec<(&'static str, String)> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for network in networks {
        match network {
            IpNet::V4(network) => v4.push(*network),
            IpNet::V6(network) => v6.push(*network),
        }
    }
    let v4: Vec<String> = Ipv4Net::aggregate(&v4).iter().map(ToString::to_string).collect();
    let v6: Vec<String> = Ipv6Net::aggregate(&v6).iter().map(ToString::to_string).collect();
    [("ip", v4), ("ip6", v6)]
        .into_iter()
        .filter(|(_, networks)| !networks.is_empty())
        .map(|(family, networks)| (family, format!("{{ {} }}", networks.join(", "))))
        .collect()
}

/// The single addresses of interface addresses.
fn hosts(addresses: &[IpNet]) -> Vec<IpNet> {
    addresses.iter().map(|address| IpNet::from(address.addr())).collect()
}

/// A base chain as text.
fn chain(name: &str, hook: &str, rules: impl IntoIterator<Item = String>) -> String {
    let rules: String = rules.into_iter().map(|rule| format!("\t\t{rule}\n")).collect();
    format!("\tchain {name} {{\n\t\ttype {hook}; policy accept;\n{rules}\t}}\n")
}
