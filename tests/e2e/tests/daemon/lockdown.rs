//! `lockdown`: blocked always, and only `lockdown off` ends that.

use anyhow::Result;
use e2e::HostState;

use super::{PATIENCE, Scene};

#[test]
fn nothing_but_the_tunnel_and_nothing_but_off_ends_it() -> Result<()> {
    let mut scene = Scene::new()?;
    let before = HostState::of(&scene.client.node)?;
    let said = scene.client.run(&["lockdown", "on"])?.ok()?;
    assert!(said.contains("lockdown off"), "{said}");
    assert_eq!(scene.client.status()?.state, "blocked");
    scene.expect_blocked("in lockdown")?;
    assert_eq!(scene.client.run(&["lockdown", "status"])?.ok()?.trim(), "lockdown is on");

    scene.client.connect_by_daemon(&[])?;
    scene.expect_way(true, "connected in lockdown")?;
    let said = scene.client.run(&["disconnect"])?.ok()?;
    assert!(said.contains("lockdown is on and stays on"), "{said}");
    assert_eq!(scene.client.status()?.state, "blocked");
    scene.expect_blocked("after disconnect in lockdown")?;

    let repaired = scene.client.run(&["repair"])?;
    assert!(repaired.stderr.contains("cipherwall lockdown off"), "{repaired:?}");
    scene.expect_blocked("after repair in lockdown")?;
    scene.client.kill9()?;
    scene.expect_blocked("after kill -9 in lockdown")?;
    let repaired = scene.client.run(&["repair"])?;
    assert!(repaired.stderr.contains("cipherwall lockdown off"), "{repaired:?}");
    scene.expect_blocked("after repair without a daemon")?;
    scene.client.start_daemon()?;
    assert_eq!(scene.client.status()?.state, "blocked");

    scene.client.run(&["lockdown", "off"])?.ok()?;
    assert_eq!(scene.client.status()?.state, "disconnected");
    before.expect_unchanged(&scene.client.node, "after lockdown off")?;
    scene.expect_way(false, "after lockdown off")
}

#[test]
fn it_can_be_switched_while_connected_without_breaking_anything() -> Result<()> {
    let scene = Scene::new()?;
    let before = HostState::of(&scene.client.node)?;
    scene.client.connect_by_daemon(&[])?;
    for command in ["on", "off"] {
        scene.client.run(&["lockdown", command])?.ok()?;
        assert_eq!(scene.client.status()?.state, "connected");
        scene.expect_way(true, "lockdown was switched")?;
    }
    scene.client.run(&["disconnect"])?.ok()?;
    before.expect_unchanged(&scene.client.node, "after disconnect")
}

#[test]
fn without_a_daemon_it_is_switched_and_enforced_as_well() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.client.process()?.terminate(PATIENCE)?;
    let before = HostState::of(&scene.client.node)?;
    scene.client.run(&["lockdown", "enforce"])?.ok()?;
    before.expect_unchanged(&scene.client.node, "off, so there is nothing to enforce")?;
    scene.client.run(&["lockdown", "on"])?.ok()?;
    scene.expect_blocked("switched on without a daemon")?;
    // what a restart of the computer leaves: the file, but not the kernel's rules
    scene.client.node.ok(&["nft", "flush", "ruleset"])?;
    scene.expect_way(false, "the test's own restart of the computer")?;
    scene.client.run(&["lockdown", "enforce"])?.ok()?;
    scene.expect_blocked("enforced")?;
    scene.client.run(&["lockdown", "off"])?.ok()?;
    before.expect_unchanged(&scene.client.node, "after lockdown off")
}
