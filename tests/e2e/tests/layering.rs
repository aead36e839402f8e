//! The arrows between the crates point downwards only, and the pure crates stay pure.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What both programs may use.
const PROGRAM: [&str; 9] =
    ["cli", "ipc", "netcfg", "packet", "proto", "speedtest", "static-mode", "transport", "tun"];

/// Who may use which crates of ours directly (design: layout). Crates for development may use all.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("cipherwall-packet", &[]),
    ("cipherwall-netcfg", &[]),
    ("cipherwall-ipc", &[]),
    ("cipherwall-cli", &["ipc"]),
    ("cipherwall-speedtest", &[]),
    ("cipherwall-proto", &["packet"]),
    ("cipherwall-tun", &["packet"]),
    ("cipherwall-transport", &["packet", "proto"]),
    ("cipherwall-static-mode", &["packet", "proto", "transport", "tun"]),
    ("cipherwall-server", &PROGRAM),
    ("cipherwall", &PROGRAM),
];

/// Not in the tree of a pure crate: runtimes, sockets, TLS, data bases.
const IMPURE: [&str; 13] = [
    "async-std",
    "diesel",
    "hyper",
    "libsqlite3-sys",
    "mio",
    "nix",
    "rusqlite",
    "rustls",
    "sea-orm",
    "socket2",
    "sqlx",
    "sqlx-core",
    "tokio",
];

const PURE: [&str; 2] = ["cipherwall-packet", "cipherwall-proto"];

#[test]
fn crates_only_use_what_lies_below_them() -> Result<()> {
    let graph = Graph::read()?;
    for name in graph.ours() {
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(candidate, _)| *candidate == name)
            .with_context(|| format!("{name} is new: give it a row in this test"))?;
        let used: BTreeSet<&str> = graph
            .normal(name)
            .iter()
            .filter_map(|dependency| dependency.strip_prefix("cipherwall-"))
            .filter(|dependency| !allowed.contains(dependency))
            .collect();
        assert!(used.is_empty(), "{name} must not depend on {used:?}: the arrows point downwards");
    }
    Ok(())
}

#[test]
fn the_pure_crates_know_no_runtime_socket_tls_or_data_base() -> Result<()> {
    let graph = Graph::read()?;
    for name in PURE {
        let tree = graph.tree(name);
        let impure: Vec<_> =
            IMPURE.iter().filter(|crate_name| tree.contains(**crate_name)).collect();
        assert!(
            impure.is_empty(),
            "{name} depends on {impure:?} (see `cargo tree -p {name} -e normal`)"
        );
    }
    // the check itself: what is impure has to be found where it is used
    assert!(graph.tree("cipherwall-server").contains("tokio"), "this test does not see the tree");
    Ok(())
}

/// Normal (not build, not development) dependencies by crate name.
struct Graph {
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Result<Graph> {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "cargo metadata: {error}");
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let packages = metadata["packages"].as_array().context("no packages")?;
        let names: BTreeMap<&str, &str> = packages
            .iter()
            .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
            .collect();
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array().context("no dependency graph")? {
            let name = names[node["id"].as_str().context("node without id")?];
            let targets = edges.entry(name.to_owned()).or_default();
            for dependency in node["deps"].as_array().context("node without dependencies")? {
                let mut kinds = dependency["dep_kinds"].as_array().context("no kinds")?.iter();
                if kinds.any(|kind| kind["kind"].is_null()) {
                    let target = dependency["pkg"].as_str().context("dependency without id")?;
                    targets.insert(names[target].to_owned());
                }
            }
        }
        Ok(Graph { edges })
    }

    /// The product's own crates; the laboratory and `xtask` are tools.
    fn ours(&self) -> impl Iterator<Item = &str> {
        let names = self.edges.keys().map(String::as_str);
        names.filter(|name| *name == "cipherwall" || name.starts_with("cipherwall-"))
    }

    fn normal(&self, name: &str) -> &BTreeSet<String> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        self.edges.get(name).unwrap_or(&NONE)
    }

    fn tree(&self, name: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open = vec![name];
        while let Some(next) = open.pop() {
            for dependency in self.normal(next) {
                if found.insert(dependency.as_str()) {
                    open.push(dependency);
                }
            }
        }
        found
    }
}
