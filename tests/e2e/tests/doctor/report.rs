//! What somebody who helps gets to see.

use std::fs;

use anyhow::{Context, Result};
use e2e::address;
use serde_json::Value;

use crate::scene::{NAME, Scene};

/// All texts of a JSON value.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::Object(all) => all.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

#[test]
fn the_report_says_what_is_wrong_but_not_who_and_where() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.client.connect(&[])?;
    let path = scene.client.node.dir().join("report.txt");
    let path = path.to_str().context("path is not UTF-8")?;
    scene.doctor(&["--report", path])?.ok()?;
    let report = fs::read_to_string(path)?;
    for wanted in
        ["== examination", "\"connected\"", "== ip address", "eth0", "== ip rule", "== log"]
    {
        assert!(report.contains(wanted), "{wanted} is not in it:\n{report}");
    }
    assert!(report.contains("<gateway-1>") && report.contains("<address-1>"), "{report}");

    let mut private = vec![NAME.to_owned(), "alice".to_owned()];
    private.extend([address::GATEWAY.to_string(), address::GATEWAY_V6.to_string()]);
    private.push(address::client_v6(0).to_string());
    private.push(fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned());
    let link = scene.client.node.ip(&["-json", "link", "show", "eth0"])?;
    let link: Value = serde_json::from_str(&link)?;
    private.push(link[0]["address"].as_str().context("no hardware address")?.to_owned());
    let profiles_dir = scene.client.node.dir().join("state/profiles");
    for file in fs::read_dir(profiles_dir)? {
        let profile: Value = serde_json::from_slice(&fs::read(file?.path())?)?;
        private.extend(texts(&profile).into_iter().filter(|text| text.len() > 16));
    }
    assert!(private.len() > 10, "{private:?}");
    for private in private {
        assert!(!report.contains(&private), "{private} is in it:\n{report}");
    }
    let again = scene.doctor(&["--report", path])?;
    assert!(again.stderr.contains("report.txt"), "a file is never replaced: {again}");
    Ok(())
}
