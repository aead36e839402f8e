//! What may go outside although everything else may not, because the user wants it.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{HostState, Node, Page, Process, address};

use super::Scene;

#[test]
fn a_captive_portal_is_reached_while_the_user_allows_it() -> Result<()> {
    let scene = Scene::new()?;
    let client = &scene.client;
    let useless = client.run(&["portal"])?;
    assert!(useless.stderr.contains("nothing is blocked"), "{useless:?}");
    client.run(&["lockdown", "on"])?.ok()?;
    scene.expect_blocked("before the portal")?;

    let said = client.run(&["portal"])?.ok()?;
    assert!(said.contains("5 minutes"), "{said}");
    Page::open(&client.node, "http://www.lab.test/")?;
    let ping = client.node.run(&["ping", "-c", "1", "-W", "1", &address::WEB.to_string()])?;
    assert_ne!(ping.code(), 0, "only names and web pages");
    let status = client.run(&["status"])?.ok()?;
    assert!(status.contains("names and web pages for another"), "{status}");
    client.run(&["portal", "--close"])?.ok()?;
    scene.expect_blocked("after the portal")?;

    client.run(&["portal"])?.ok()?;
    client.connect_by_daemon(&[])?;
    scene.expect_way(true, "connected")?;
    let status = client.run(&["status"])?.ok()?;
    assert!(!status.contains("web pages"), "the tunnel is up, so it is closed: {status}");
    let useless = client.run(&["portal"])?;
    assert!(useless.stderr.contains("connected"), "{useless:?}");
    Ok(())
}

#[test]
fn a_portal_works_while_reconnecting_and_the_tunnel_comes_back_by_itself() -> Result<()> {
    let mut scene = Scene::connected()?;
    scene.gateway.kill9()?;
    scene.client.wait_for_state("reconnecting", Duration::from_secs(35))?;
    scene.expect_blocked("reconnecting")?;
    scene.client.run(&["portal"])?.ok()?;
    Page::open(&scene.client.node, "http://www.lab.test/")?;
    scene.client.run(&["portal", "--close"])?.ok()?;
    scene.expect_blocked("after the portal")?;
    scene.client.run(&["portal"])?.ok()?;
    scene.gateway.start()?;
    scene.client.wait_for_state("connected", Duration::from_secs(25))?;
    scene.expect_way(true, "connected again")
}

const RECEIVER: &str = "
import socket
listener = socket.create_server(('0.0.0.0', 2222))
connection, _ = listener.accept()
while data := connection.recv(100): print(data.decode(), end='', flush=True)
";

const SENDER: &str = "
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 2222), source_address=('', int(sys.argv[2])))
while True: connection.sendall(b'line\\n'); time.sleep(0.2)
";

/// A connection from the client's router by which lines come in, five a second.
fn session(scene: &Scene, port: u16) -> Result<(Process, Process)> {
    let server = scene.client.node.spawn("ssh-server", &["python3", "-c", RECEIVER])?;
    std::thread::sleep(Duration::from_millis(500));
    let words = ["python3", "-c", SENDER, &address::client(0).to_string(), &port.to_string()];
    let sender = scene.lab.routers[0].spawn("ssh-client", &words)?;
    std::thread::sleep(Duration::from_millis(500));
    Ok((server, sender))
}

fn lines(server: &Process) -> usize {
    server.stdout().lines().count()
}

#[test]
fn an_ssh_session_is_kept_if_the_user_wants_it_and_else_warned_of() -> Result<()> {
    let scene = Scene::new()?;
    let before = HostState::of(&scene.client.node)?;
    let variable =
        |port| format!("SSH_CONNECTION={} {port} {} 2222", address::router(0), address::client(0));
    for (port, keep) in [(50_022_u16, true), (50_023, false)] {
        let (server, _sender) = session(&scene, port)?;
        ensure!(lines(&server) > 0, "the session does not work without a tunnel");
        let option: &[&str] = if keep { &["--keep-ssh"] } else { &[] };
        let variable = variable(port);
        let words = scene.client.words(&["connect", "--no-lan"]);
        let words = [&["env", &variable], words.as_slice(), option].concat();
        let ran = scene.client.node.run(&words)?;
        assert_eq!(ran.code(), 0, "{ran:?}");
        assert_eq!(ran.stderr.contains("warning: this command runs in an ssh session"), !keep);
        std::thread::sleep(Duration::from_millis(500));
        let counted = lines(&server);
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(lines(&server) > counted, keep, "port {port}");
        scene.expect_way(true, "everything else")?;
        scene.client.run(&["disconnect"])?.ok()?;
    }
    before.expect_unchanged(&scene.client.node, "after disconnect")?;
    let useless = scene.client.run(&["connect", "--keep-ssh"])?;
    assert_eq!(useless.code(), 2, "{useless:?}");
    Ok(())
}

/// Whether this node's packets to the web host's networks go through the tunnel.
fn seen(scene: &Scene, node: &Node, server: std::net::IpAddr) -> Result<String> {
    scene.lab.visitor_address(node, server)
}

#[test]
fn networks_go_directly_or_only_they_through_the_tunnel_as_the_settings_say() -> Result<()> {
    let scene = Scene::new()?;
    let client = &scene.client;
    let before = HostState::of(&client.node)?;
    let (web, direct) = (address::WEB, format!("{}/32", address::WEB));
    client.run(&["settings", "set", &format!("direct={web}")])?.ok()?;
    client.connect_by_daemon(&[])?;
    assert_eq!(seen(&scene, &client.node, web.into())?, address::CARRIER.to_string());
    assert_ne!(seen(&scene, &client.node, address::WEB_V6.into())?, "", "through the tunnel");
    let status = client.run(&["status"])?.ok()?;
    assert!(status.contains(&direct), "{status}");
    let wrong = client.run(&["settings", "set", &format!("only={web}")])?;
    assert!(wrong.stderr.contains("only: cannot be used together"), "{wrong:?}");
    client.run(&["disconnect"])?.ok()?;

    client.run(&["settings", "set", "direct=", &format!("only={web}")])?.ok()?;
    client.connect_by_daemon(&[])?;
    assert_eq!(seen(&scene, &client.node, web.into())?, address::GATEWAY.to_string());
    let ping = client.node.run(&["ping", "-c", "1", "-W", "2", &address::CARRIER.to_string()])?;
    assert_eq!(ping.code(), 0, "everything else goes directly: {ping:?}");
    Page::open(&client.node, "http://www.lab.test/")?;
    let status = client.run(&["status"])?.ok()?;
    assert!(status.contains(&format!("everything except {direct}")), "{status}");
    client.run(&["disconnect"])?.ok()?;
    client.run(&["settings", "set", "only="])?.ok()?;
    before.expect_unchanged(&client.node, "after disconnect")
}
