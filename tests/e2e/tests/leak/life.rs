//! What happens to the client's own program and its connection.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{GatewayNode, Programs, Transport, address, full_or_short};

use crate::scene::{Mode, Scene, in_each_mode, over_datagrams};

/// How long a host without a client is looked at.
const A_WHILE: Duration = Duration::from_secs(3);

in_each_mode! {
    connecting_and_disconnecting: foreground Foreground, daemon Daemon, lockdown Lockdown;
    by_datagrams: foreground Foreground, daemon Daemon;
    while_keys_change: daemon Daemon, lockdown Lockdown;
    another_transport: daemon Daemon, lockdown Lockdown;
    another_gateway: daemon Daemon, lockdown Lockdown;
    while_the_gateway_cannot_be_reached: foreground Foreground, daemon Daemon, lockdown Lockdown;
    while_the_gateway_is_restarted: daemon Daemon;
    killed: foreground Foreground, daemon Daemon, lockdown Lockdown;
    killed_and_repaired: foreground Foreground, daemon Daemon;
    stopped_by_systemd: daemon Daemon, lockdown Lockdown;
    replaced_and_restarted: daemon Daemon, lockdown Lockdown;
    after_a_refusal_for_good: daemon Daemon, lockdown Lockdown;
}

fn connecting_and_disconnecting(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    for _ in 0..full_or_short(10, 3) {
        scene.connect()?;
        sleep(Duration::from_secs(1));
        scene.disconnect("while connected")?;
    }
    scene.connect()?;
    scene.end("after disconnecting")
}

fn by_datagrams(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(&over_datagrams(programs), mode)?;
    scene.connect()?;
    scene.lab.block_datagrams()?;
    sleep(full_or_short(A_WHILE * 4, A_WHILE));
    scene.lab.let_datagrams_pass()?;
    scene.client.wait_for_transport(Transport::Udp, Duration::from_secs(30))?;
    scene.end("with datagrams, blocked for a while")
}

fn while_keys_change(programs: &Programs, mode: Mode) -> Result<()> {
    let often = [("interval: 4h", "interval: 200ms")];
    let mut scene = Scene::prepared(programs, mode, &often)?;
    scene.start()?;
    scene.connect()?;
    sleep(Duration::from_secs(full_or_short(60, 6)));
    let rekeys = scene.gateway.session()?["rekeys"].as_u64().context("rekeys")?;
    assert!(rekeys >= 10, "only {rekeys} rekeys");
    scene.end("while keys change every 200 ms")
}

fn another_transport(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    for transport in [Transport::Udp, Transport::Tls, Transport::Udp] {
        scene.connect_with(&["--transport", transport.name()])?;
        scene.client.wait_for_transport(transport, Duration::from_secs(15))?;
    }
    scene.end("while the transport is changed")
}

fn another_gateway(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::prepared(programs, mode, &[])?;
    let second = GatewayNode::start_on(&scene.lab.web, &address::WEB.to_string(), programs)?;
    scene.client.run(&["import", &second.invite("alice")?.link, "--name", "second"])?.ok()?;
    scene.watch.add_gateway(address::WEB.into());
    scene.start()?;
    let first = address::GATEWAY.to_string();
    scene.connect_with(&[&first])?;
    for _ in 0..2 {
        scene.client.connect_by_daemon(&["second"])?;
        let gateway = scene.client.status()?.gateway.context("status names no gateway")?;
        assert_eq!(gateway.ip(), address::WEB, "the second gateway");
        sleep(Duration::from_secs(1));
        scene.connect_with(&[&first])?;
    }
    scene.end("while the gateway is changed")
}

fn while_the_gateway_cannot_be_reached(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    scene.lab.cut_path(Duration::from_secs(30))?;
    scene.client.wait_for_state("connected", Duration::from_secs(30))?;
    scene.expect_tunnel()?;
    scene.end("while it reconnects for 30 s")
}

fn while_the_gateway_is_restarted(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    for crash in [true, false] {
        if crash {
            scene.gateway.kill9()?;
        } else {
            scene.gateway.stop()?;
        }
        scene.client.wait_for_state("reconnecting", Duration::from_secs(35))?;
        scene.gateway.start()?;
        scene.client.wait_for_state("connected", Duration::from_secs(30))?;
    }
    scene.expect_tunnel()?;
    scene.end("while the gateway is restarted")
}

fn killed(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    for _ in 0..2 {
        scene.crash()?;
        sleep(A_WHILE);
        scene.expect_closed("after kill -9")?;
        scene.start_again()?;
    }
    scene.end("after kill -9 and another start")
}

fn killed_and_repaired(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    scene.crash()?;
    sleep(A_WHILE);
    scene.expect_closed("after kill -9")?;
    let said = scene.client.run(&["repair"])?.ok()?;
    assert!(said.contains("undone"), "repair said: {said}");
    scene.expect_former_host("after kill -9 and repair")?;
    let again = scene.client.run(&["repair"])?.ok()?;
    assert!(again.contains("nothing to undo"), "repair said: {again}");
    Ok(())
}

#[test]
fn repair_does_not_open_a_lockdown_and_says_what_does() -> Result<()> {
    let mut scene = Scene::new(&Programs::find()?, Mode::Lockdown)?;
    scene.connect()?;
    scene.crash()?;
    let repaired = scene.client.run(&["repair"])?;
    let said = format!("{}{}", repaired.stdout, repaired.stderr);
    assert!(said.contains("cipherwall lockdown off"), "repair said: {said}");
    sleep(A_WHILE);
    scene.expect_closed("in lockdown, after kill -9 and repair")?;
    // without a daemon
    scene.client.run(&["lockdown", "off"])?.ok()?;
    scene.expect_former_host("after lockdown off")
}

fn stopped_by_systemd(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    let status = scene.client.process()?.terminate(Duration::from_secs(15))?;
    assert!(status.success(), "daemon: {status}{}", scene.logs());
    sleep(A_WHILE);
    scene.expect_closed("after systemctl stop")?;
    scene.start_again()?;
    scene.end("after systemctl stop and start")
}

fn replaced_and_restarted(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::prepared(programs, mode, &[])?;
    scene.client.use_copy()?;
    scene.start()?;
    scene.connect()?;
    scene.client.replace_program()?;
    sleep(Duration::from_secs(1));
    scene.client.process()?.terminate(Duration::from_secs(15))?;
    scene.start_again()?;
    scene.end("after an update of the program")
}

fn after_a_refusal_for_good(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    scene.gateway.run(&["user", "disable", "alice"])?.ok()?;
    scene.client.wait_for_state("blocked", Duration::from_secs(40))?;
    sleep(A_WHILE);
    scene.end("after the gateway let it in no more")
}
