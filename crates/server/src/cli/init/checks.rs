//! What this machine lacks for a gateway, with the remedy. Nothing here keeps `init` from its work:
//! `run` fails by itself where it must.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::config::Config;

/// Where administrators' programs are; not in everybody's PATH.
const PROGRAM_DIRS: [&str; 6] =
    ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"];

/// One sentence for each thing that is missing or in the way.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if !Path::new("/dev/net/tun").exists() {
        warnings.push(
            "/dev/net/tun is missing: run `modprobe tun`; in a container, pass the device to it \
             (--device /dev/net/tun --cap-add NET_ADMIN)"
                .to_owned(),
        );
    }
    match PROGRAM_DIRS.iter().map(|dir| Path::new(dir).join("nft")).find(|path| path.exists()) {
        Some(nft) => warnings.extend(firewalls(&nft, config)),
        None => warnings.push("nft is missing: run `apt install nftables`".to_owned()),
    }
    warnings.extend(config.uplink.as_deref().and_then(missing_uplink));
    warnings
}

fn missing_uplink(uplink: &str) -> Option<String> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name != "lo").collect();
    names.sort();
    let missing = !names.iter().any(|name| name == uplink);
    missing.then(|| {
        let there = names.join(", ");
        format!("there is no interface {uplink} (--uplink) on this machine now; there are: {there}")
    })
}

fn firewalls(nft: &Path, config: &Config) -> Option<String> {
    let output = Command::new(nft).args(["-j", "list", "chains"]).output().ok()?;
    let listing: Value = serde_json::from_slice(&output.stdout).ok()?;
    let chains = dropping_chains(&listing);
    if chains.is_empty() {
        return None;
    }
    let ports: Vec<_> = config.listen.iter().map(|address| address.port().to_string()).collect();
    Some(format!(
        "another firewall drops what it does not know (nft chains {}): `run` adds its own rules \
         there and removes them when it ends, or prints what to allow where it cannot: TCP port {} \
         and what comes from or goes to interface {}",
        chains.join(", "),
        ports.join(", "),
        config.interface,
    ))
}

/// Base chains on the way of clients' traffic that drop by default, ours aside.
fn dropping_chains(listing: &Value) -> Vec<String> {
    let items = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let chains = items.iter().filter_map(|item| item.get("chain"));
    let text = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    chains
        .filter(|chain| chain["policy"] == "drop")
        .filter(|chain| chain["hook"] == "forward" || chain["hook"] == "input")
        .filter(|chain| !text(chain, "table").starts_with("cipherwall"))
        .map(|chain| {
            format!("{} {} {}", text(chain, "family"), text(chain, "table"), text(chain, "name"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_foreign_chains_that_drop_by_default_count() {
        let listing: Value = serde_json::from_str(
            r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
                {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1,
                           "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
                {"chain": {"family": "ip", "table": "filter", "name": "OUTPUT", "handle": 2,
                           "type": "filter", "hook": "output", "prio": 0, "policy": "drop"}},
                {"chain": {"family": "ip", "table": "filter", "name": "DOCKER", "handle": 3}},
                {"chain": {"family": "inet", "table": "other", "name": "input", "handle": 4,
                           "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
                {"chain": {"family": "inet", "table": "cipherwall_gateway", "name": "forward",
                           "handle": 5, "type": "filter", "hook": "forward", "prio": 0,
                           "policy": "drop"}}]}"#,
        )
        .unwrap();
        assert_eq!(dropping_chains(&listing), ["ip filter FORWARD"]);
        assert!(dropping_chains(&Value::Null).is_empty());
    }
}
