//! Everything that a VPN may change on a host, as text, to compare before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Result, bail};

use crate::node::Node;

/// Settings under `/proc/sys/net` that change by themselves, or with the host's kernel modules.
const VOLATILE: [&str; 4] =
    ["stable_secret", "tcp_fastopen_key", "tcp_available_congestion_control", "/flush:"];

/// Commands whose output has to be byte-equal.
const READINGS: [(&str, &str); 8] = [
    ("ip -4 rule", "ip -4 rule"),
    ("ip -6 rule", "ip -6 rule"),
    ("ip -4 route", "ip -4 route show table all"),
    ("ip -6 route", "ip -6 route show table all"),
    ("ip link and address", "ip -br link; ip -br address"),
    ("nft list ruleset", "nft -s list ruleset"),
    ("resolver", "stat -c '%F %a %u %g %N' /etc/resolv.conf; cat /etc/resolv.conf"),
    ("sysctl", "grep -rs . /proc/sys/net/ipv4 /proc/sys/net/ipv6 | sort"),
];

/// A picture of a node's network settings and of the names of all files below `/etc` that the
/// laboratory or a program has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostState {
    readings: BTreeMap<&'static str, String>,
}

impl HostState {
    /// Reads it all from `node`.
    pub fn of(node: &Node) -> Result<HostState> {
        let mut readings = BTreeMap::new();
        for (name, command) in READINGS {
            let text = node.run(&["sh", "-c", command])?.stdout;
            let kept = text.lines().filter(|line| !VOLATILE.iter().any(|word| line.contains(word)));
            readings.insert(name, kept.map(|line| format!("{line}\n")).collect());
        }
        let upper = node.dir().join("etc").display().to_string();
        let written = node.ok(&["find", &upper, "-mindepth", "1", "-printf", "%y %P\n"])?;
        let mut written: Vec<&str> = written.lines().collect();
        written.sort_unstable();
        readings.insert("files in /etc", written.join("\n"));
        Ok(HostState { readings })
    }

    /// The lines that are in one of them only: `-` was there before, `+` came.
    pub fn difference(&self, after: &HostState) -> String {
        let mut text = String::new();
        for (name, before) in &self.readings {
            let now = after.readings.get(name).map_or("", String::as_str);
            if before == now {
                continue;
            }
            let _ = writeln!(text, "{name}:");
            let old: BTreeSet<&str> = before.lines().collect();
            let new: BTreeSet<&str> = now.lines().collect();
            old.difference(&new).for_each(|line| _ = writeln!(text, "  - {line}"));
            new.difference(&old).for_each(|line| _ = writeln!(text, "  + {line}"));
            if old == new {
                let _ = writeln!(text, "  (the same lines in another order or number)");
            }
        }
        text
    }

    /// An error that shows the difference, unless `node` looks now as it did here.
    pub fn expect_unchanged(&self, node: &Node, when: &str) -> Result<()> {
        let difference = self.difference(&HostState::of(node)?);
        if difference.is_empty() {
            return Ok(());
        }
        bail!("{} is not as before {when}:\n{difference}", node.namespace())
    }
}
