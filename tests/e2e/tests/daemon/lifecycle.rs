//! Connecting and disconnecting by the daemon, and what becomes of it.

use anyhow::{Context, Result};
use e2e::{HostState, Page, Ping, address, until};

use super::{NOT_REACHABLE, PATIENCE, REJECTED, Scene};

#[test]
fn commands_go_through_it_and_after_disconnect_the_host_is_as_before() -> Result<()> {
    let scene = Scene::new()?;
    let client = &scene.client;
    let before = HostState::of(&client.node)?;
    assert_eq!(client.status()?.state, "disconnected");
    client.run(&["disconnect"])?.ok().context("nothing to disconnect is no error")?;
    for _ in 0..2 {
        let line = client.run(&["connect"])?.ok()?;
        assert!(line.starts_with("connected: 10.8.0."), "{line}");
        scene.expect_way(true, "connected")?;
        let again = client.run(&["connect"])?;
        assert_eq!(again.code(), super::FAILED);
        assert!(again.stderr.contains("already connected"), "{again:?}");
        assert_eq!(client.run(&["disconnect"])?.ok()?.trim(), "disconnected");
        assert_eq!(client.status()?.state, "disconnected");
        before.expect_unchanged(&client.node, "after disconnect")?;
        scene.expect_way(false, "disconnected")?;
    }
    Ok(())
}

#[test]
fn a_first_connection_that_fails_is_told_and_opens_again() -> Result<()> {
    let mut scene = Scene::new()?;
    let before = HostState::of(&scene.client.node)?;
    scene.gateway.stop()?;
    let failed = scene.client.run(&["connect"])?;
    assert_eq!(failed.code(), NOT_REACHABLE, "{failed:?}");
    assert!(failed.stderr.contains("cannot reach the gateway"), "{failed:?}");
    assert_eq!(scene.client.status()?.state, "disconnected");
    let status = scene.client.run(&["status"])?.ok()?;
    assert!(status.contains("Reason:"), "{status}");
    before.expect_unchanged(&scene.client.node, "after a failure to connect")?;
    scene.expect_way(false, "after a failure to connect")
}

#[test]
fn a_killed_or_stopped_daemon_leaves_traffic_blocked_and_the_next_one_connects_again() -> Result<()>
{
    let mut scene = Scene::new()?;
    let before = HostState::of(&scene.client.node)?;
    scene.client.connect_by_daemon(&[])?;
    let address = scene.client.inner_address()?;
    for kill in [true, false] {
        if kill {
            scene.client.kill9()?;
        } else {
            let ended = scene.client.process()?.terminate(PATIENCE)?;
            assert!(ended.success(), "{ended}");
        }
        scene.expect_blocked("without a daemon")?;
        let status = scene.client.run(&["status"])?;
        assert_eq!(status.code(), NOT_REACHABLE);
        assert!(status.stderr.contains("cipherwall repair"), "{status:?}");
        scene.client.start_daemon()?;
        scene.client.wait_for_state("connected", PATIENCE)?;
        scene.expect_way(true, "after the daemon has come back")?;
        assert_eq!(scene.client.inner_address()?, address, "the session goes on");
    }
    scene.client.run(&["disconnect"])?.ok()?;
    before.expect_unchanged(&scene.client.node, "after disconnect")
}

#[test]
fn repair_opens_with_a_daemon_and_without_one() -> Result<()> {
    let mut scene = Scene::new()?;
    let before = HostState::of(&scene.client.node)?;
    scene.client.connect_by_daemon(&[])?;
    scene.client.run(&["repair"])?.ok()?;
    assert_eq!(scene.client.status()?.state, "disconnected");
    before.expect_unchanged(&scene.client.node, "after repair by the daemon")?;

    scene.client.connect_by_daemon(&[])?;
    scene.client.kill9()?;
    scene.expect_blocked("after kill -9")?;
    let said = scene.client.run(&["repair"])?.ok()?;
    assert!(said.contains("undone:"), "{said}");
    before.expect_unchanged(&scene.client.node, "after kill -9 and repair")?;
    scene.client.start_daemon()?;
    assert_eq!(scene.client.status()?.state, "disconnected", "it does not connect again");
    scene.expect_way(false, "after repair")
}

#[test]
fn a_session_that_the_gateway_ends_leaves_traffic_blocked_until_the_user_disconnects() -> Result<()>
{
    let scene = Scene::new()?;
    let direct = format!("direct={}", address::WEB);
    scene.client.run(&["settings", "set", &direct])?.ok()?;
    let before = HostState::of(&scene.client.node)?;
    let neighbour = || Ping::send(&scene.client.node, address::router(0).into(), 2);
    until("the local network without a tunnel", PATIENCE, || {
        Ok((neighbour()?.received == 2).then_some(()))
    })?;
    scene.client.connect_by_daemon(&["--no-lan"])?;
    scene.expect_way(false, "to a network that is reached directly")?;
    scene.gateway.run(&["user", "disable", "alice"])?.ok()?;
    scene.client.wait_for_state("blocked", PATIENCE)?;
    scene.expect_blocked("after the gateway has shut the user out")?;
    assert_eq!(neighbour()?.received, 0, "the session did without the local network");
    let status = scene.client.run(&["status"])?.ok()?;
    assert!(status.contains("Reason:") && status.contains("Outside:    blocked"), "{status}");
    assert_eq!(scene.client.run(&["connect"])?.code(), REJECTED);
    assert_eq!(scene.client.status()?.state, "blocked", "it is still wanted");
    scene.client.run(&["disconnect"])?.ok()?;
    before.expect_unchanged(&scene.client.node, "after disconnect")?;
    scene.expect_way(false, "after disconnect")
}

#[test]
fn another_profile_takes_over_without_an_opening_in_between() -> Result<()> {
    let scene = Scene::new()?;
    let link = scene.gateway.invite("bob")?.link;
    scene.client.run(&["import", &link, "--name", "second"])?.ok()?;
    let watch = e2e::LeakWatch::start(&scene.lab)?;
    watch.expect_open("before connecting")?;
    scene.client.connect_by_daemon(&[])?;
    let since = std::time::SystemTime::now();
    scene.client.run(&["connect", "second"])?.ok()?;
    let status = scene.client.run(&["status"])?.ok()?;
    assert!(status.contains("Profile:    second"), "{status}");
    scene.expect_way(true, "with the second profile")?;
    watch.expect_closed(since, "while changing over")?;
    watch.finish()
}

#[test]
fn a_gateway_with_a_name_is_found_although_everything_else_is_blocked() -> Result<()> {
    let lab = e2e::Lab::new()?;
    let programs = e2e::Programs::find()?;
    let mut gateway = e2e::GatewayNode::new(&lab, &programs);
    gateway.init("gateway.lab.test")?;
    gateway.start()?;
    let mut client = e2e::ClientNode::new(&lab, 0, &programs)?;
    client.import(&gateway.invite("alice")?.link)?;
    client.start_daemon()?;
    client.run(&["lockdown", "on"])?.ok()?;
    super::expect_blocked(&client.node, "in lockdown")?;
    client.connect_by_daemon(&[])?;
    // and again without the address that has worked
    client.run(&["disconnect"])?.ok()?;
    until("a page through the tunnel", PATIENCE, || {
        client.run(&["connect"])?.ok()?;
        Page::open(&client.node, "http://www.lab.test/").map(Some)
    })
    .map(drop)
}

#[test]
fn a_gateway_that_has_moved_to_another_address_is_found_by_its_name() -> Result<()> {
    let lab = e2e::Lab::new()?;
    let programs = e2e::Programs::find()?;
    let mut gateway = e2e::GatewayNode::new(&lab, &programs);
    gateway.init("moving.lab.test")?;
    gateway.start()?;
    let mut client = e2e::ClientNode::new(&lab, 0, &programs)?;
    let hosts_path = "/etc/hosts";
    let here = format!("{} moving.lab.test\n", address::GATEWAY);
    client.node.write_file(hosts_path, &here)?;
    client.import(&gateway.invite("alice")?.link)?;
    client.start_daemon()?;
    client.connect_by_daemon(&[])?;
    // the gateway has two addresses for a moment, then only the other one
    gateway.node.ip(&["address", "add", "203.0.113.3/24", "dev", "eth0"])?;
    lab.internet.nft(
        "table inet moved {\n chain everything {\n type filter hook forward priority -10;\n \
         ip saddr 192.0.2.2 ip daddr 203.0.113.2 drop\n }\n }\n",
    )?;
    let minute = std::time::Duration::from_secs(60);
    until("the client to be reconnecting", minute, || {
        // traffic that goes unanswered is what gets the loss noticed
        client.node.run(&["curl", "--silent", "--max-time", "1", "http://www.lab.test/"])?;
        Ok((client.status()?.state == "reconnecting").then_some(()))
    })?;
    client.node.write_file(hosts_path, "203.0.113.3 moving.lab.test\n")?;
    let status = client.wait_for_state("connected", minute)?;
    assert_eq!(status.gateway.map(|it| it.ip().to_string()).as_deref(), Some("203.0.113.3"));
    Page::open(&client.node, "http://www.lab.test/").map(drop)
}
