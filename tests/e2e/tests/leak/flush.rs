//! Somebody removes what is ours while it is in use.

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use e2e::{Node, Packet, Programs, Source, until};

use crate::scene::{Mode, Scene, in_each_mode};

/// How soon the policy should be back, and the lenience of tests.
const BAR: Duration = Duration::from_millis(500);
const LENIENCE: u32 = 5;

in_each_mode! {
    flushed_by_another_firewall: foreground Foreground, daemon Daemon, lockdown Lockdown;
    rules_and_routes_removed: foreground Foreground, daemon Daemon;
    flushed_while_nothing_is_connected: lockdown Lockdown;
}

fn policy(node: &Node) -> Result<String> {
    node.ok(&["sh", "-c", "nft -s list table inet cipherwall-policy 2>/dev/null || true"])
}

/// Removes what is ours, waits until the policy is back, and returns the time from then on.
fn flush(scene: &Scene) -> Result<SystemTime> {
    let node = &scene.client.node;
    let before = policy(node)?;
    ensure!(!before.is_empty(), "there is no policy to flush");
    node.ok(&["nft", "flush", "ruleset"])?;
    until("the policy to be back", BAR * LENIENCE, || Ok((policy(node)? == before).then_some(())))?;
    Ok(SystemTime::now())
}

fn flushed_by_another_firewall(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    for _ in 0..3 {
        // until it is back routes and rules hold what they can
        scene.expect_closed("before the flush")?;
        let since = SystemTime::now();
        let back = flush(&scene)?;
        sleep(Duration::from_secs(1));
        let kinds = Source::client(&scene.lab, 0).kinds();
        let is_excused = |packet: &Packet| {
            packet.time < back
                && kinds.iter().any(|kind| kind.only_a_filter_holds() && kind.is(&packet.flow))
        };
        scene.watch.expect_closed_but(since, "in and after a flush", is_excused)?;
        scene.closed_from(back);
    }
    scene.expect_tunnel()?;
    scene.end("after flushes")
}

fn flushed_while_nothing_is_connected(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    sleep(Duration::from_secs(1));
    scene.expect_closed("in lockdown")?;
    let back = flush(&scene)?;
    scene.closed_from(back);
    sleep(Duration::from_secs(1));
    scene.connect()?;
    scene.end("after a flush in lockdown")
}

fn rules_and_routes_removed(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    let node = scene.client.node.clone();
    for remove in [
        "ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default",
        "ip -6 rule flush; ip -6 rule add pref 32766 lookup main",
        "ip route flush table 25463",
    ] {
        node.ok(&["sh", "-c", remove])?;
        sleep(Duration::from_secs(1));
        scene.expect_closed(remove)?;
        scene.expect_tunnel()?;
    }
    scene.end("after rules and routes were removed")
}
