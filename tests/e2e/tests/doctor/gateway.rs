//! Faults of the gateway, and of the way to it.

use std::{fs, time::Duration};

use anyhow::Result;
use e2e::{GatewayNode, address};

use crate::scene::{NAME, Scene, fault, heal};

#[test]
fn gateway_unreachable() -> Result<()> {
    let mut scene = Scene::new()?;
    let machine = scene.gateway.node.clone();
    fault(&machine, &[("input", "iifname eth0 drop")])?;
    let gateway = address::GATEWAY.to_string();
    scene.expect("gateway-unreachable", &["nothing answers at"], &["owner", "runs"])?;
    heal(&machine)?;
    scene.expect_healthy("with a gateway again")?;

    scene.gateway.stop()?;
    scene.expect("gateway-unreachable", &["refuses", "8443"], &["start it"])?;
    scene.gateway.start()?;
    scene.expect_healthy(&format!("with a program at {gateway} again"))
}

#[test]
fn port_blocked() -> Result<()> {
    let scene = Scene::new()?;
    let internet = &scene.lab.internet;
    fault(internet, &[("forward", "tcp dport 8443 drop")])?;
    scene.expect("port-blocked", &["answers, but", "8443"], &["443", "firewall"])?;
    heal(internet)?;
    scene.expect_healthy("with an open port")
}

#[test]
fn udp_blocked() -> Result<()> {
    let scene = Scene::new()?;
    scene.lab.block_datagrams()?;
    scene.expect("udp-blocked", &["1194"], &["nothing needs to be done", "datagrams.port"])?;
    scene.lab.let_datagrams_pass()?;
    scene.expect_healthy("with datagrams again")
}

#[test]
fn tls_altered() -> Result<()> {
    let scene = Scene::new()?;
    let internet = &scene.lab.internet;
    // whatever begins as a TLS handshake does is cut, as filters do it
    fault(internet, &[("forward", "tcp dport 8443 @ih,0,8 0x16 reject with tcp reset")])?;
    scene.expect("tls-altered", &["accepts connections, but then"], &["another network"])?;
    heal(internet)?;
    scene.expect_healthy("without a filter")
}

#[test]
fn wrong_pin() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.gateway.stop()?;
    let own_dir = scene.gateway.state_dir().clone();
    let kept_dir = own_dir.with_extension("kept");
    fs::rename(&own_dir, &kept_dir)?;
    let mut other = GatewayNode::start_on(&scene.lab.gateway, NAME, &scene.programs)?;
    scene.expect("wrong-pin", &["another key"], &["another network", "invitation"])?;
    other.stop()?;
    fs::remove_dir_all(&own_dir)?;
    fs::rename(&kept_dir, &own_dir)?;
    scene.gateway.start()?;
    scene.expect_healthy("with the right gateway again")
}

#[test]
fn mtu_hole() -> Result<()> {
    let scene = Scene::new()?;
    let internet = &scene.lab.internet;
    let silent = "icmp type destination-unreachable drop
 icmpv6 type packet-too-big drop";
    fault(internet, &[("output", silent)])?;
    internet.ip(&["link", "set", "to-gateway", "mtu", "1300"])?;
    scene.expect("mtu-hole", &["short packets"], &["MTU", "1280"])?;
    internet.ip(&["link", "set", "to-gateway", "mtu", "1500"])?;
    heal(internet)?;
    scene.expect_healthy("with a way for long packets")
}

#[test]
fn account_trouble() -> Result<()> {
    let scene = Scene::new()?;
    scene.gateway.run(&["user", "disable", "alice"])?.ok()?;
    scene.expect("account", &["rejected", "disabled"], &["owner", "user show"])?;
    scene.gateway.run(&["user", "enable", "alice"])?.ok()?;
    scene.expect_healthy("with an account again")
}

#[test]
fn while_reconnecting_the_gateway_is_looked_at() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.client.connect(&[])?;
    scene.gateway.kill9()?;
    scene.client.wait_for_state("reconnecting", Duration::from_secs(10))?;
    scene.expect("gateway-unreachable", &["refuses", "disconnect"], &["start it"])?;
    scene.gateway.start()?;
    scene.client.wait_for_state("connected", Duration::from_secs(30))?;
    scene.expect_connected()
}
