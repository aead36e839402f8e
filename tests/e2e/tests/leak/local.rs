//! The local network: a printer in it, and what it may not do.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Capture, Node, Ping, Process, Programs, address, until};

use crate::scene::{Mode, Scene, in_each_mode};

/// In the client's network.
const PRINTER: &str = "192.168.1.9";
const PRINTER_V6: &str = "fd00:1::9";

in_each_mode! {
    a_printer_is_reached_and_reaches_the_client: foreground Foreground, daemon Daemon, lockdown Lockdown;
    without_the_local_network_a_printer_is_out_of_reach: foreground Foreground, daemon Daemon, lockdown Lockdown;
}

/// A printer on the router's port, and a client that it can send scans to.
struct Printer {
    _services: [Process; 2],
}

const ECHO: &str = r#"
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"hello\n")
    connection.close()
"#;

impl Printer {
    fn plug_in(scene: &Scene) -> Result<Printer> {
        let router = &scene.lab.routers[0];
        router.ip(&["address", "add", &format!("{PRINTER}/24"), "dev", "lan0"])?;
        router.ip(&["address", "add", &format!("{PRINTER_V6}/64"), "dev", "lan0", "nodad"])?;
        let client = &scene.client.node;
        client.ip(&["address", "add", "fd00:1::2/64", "dev", "eth0", "nodad"])?;
        let serve = |node: &Node, name: &str, port: &str| -> Result<Process> {
            let mut service = node.spawn(name, &["python3", "-c", ECHO, port])?;
            service.wait_for_line("listening", Duration::from_secs(10))?;
            Ok(service)
        };
        let services = [serve(router, "printer", "9100")?, serve(client, "scans", "9200")?];
        Ok(Printer { _services: services })
    }
}

/// Whether a connection comes about.
fn reaches(node: &Node, host: &str, port: u16) -> Result<bool> {
    let url = format!(
        "telnet://{}:{port}",
        if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
    );
    let ran = node.run(&["curl", "--silent", "--noproxy", "*", "--max-time", "2", &url])?;
    Ok(ran.stdout.contains("hello"))
}

fn prepared(programs: &Programs, mode: Mode) -> Result<(Scene, Printer)> {
    let mut scene = Scene::prepared(programs, mode, &[])?;
    let printer = Printer::plug_in(&scene)?;
    scene.host_before()?;
    expect(&scene, true, "before connecting")?;
    scene.start()?;
    Ok((scene, printer))
}

/// Print, scan, and the router's own page.
fn expect(scene: &Scene, reachable: bool, when: &str) -> Result<()> {
    let (client, router) = (&scene.client.node, &scene.lab.routers[0]);
    for (what, node, host, port) in [
        ("the printer", client, PRINTER, 9_100),
        ("the printer over IPv6", client, PRINTER_V6, 9_100),
        ("the client, from the printer,", router, "192.168.1.2", 9_200),
        ("the client, from the printer over IPv6,", router, "fd00:1::2", 9_200),
    ] {
        let outcome = until(what, Duration::from_secs(5), || {
            Ok((reaches(node, host, port)? == reachable).then_some(()))
        });
        assert!(outcome.is_ok(), "{when} {what} should be reachable: {reachable}");
    }
    Ok(())
}

fn a_printer_is_reached_and_reaches_the_client(programs: &Programs, mode: Mode) -> Result<()> {
    let (mut scene, _printer) = prepared(programs, mode)?;
    expect(&scene, true, "with the local network allowed, before connecting,")?;
    scene.connect()?;
    expect(&scene, true, "while connected")?;
    scene.end("with a printer")
}

fn without_the_local_network_a_printer_is_out_of_reach(
    programs: &Programs,
    mode: Mode,
) -> Result<()> {
    let (mut scene, _printer) = prepared(programs, mode)?;
    scene.watch.allow_lan(false);
    scene.connect_with(&["--no-lan"])?;
    expect(&scene, false, "with --no-lan")?;
    scene.expect_closed("with --no-lan")?;
    // that was for this session only
    scene.watch.allow_lan(true);
    scene.end("with --no-lan")
}

/// CVE-2019-14899: who can send to the client's link may not find out by its answers which address it
/// has in the tunnel, and which connections there.
#[test]
fn neighbours_get_no_answer_from_the_inner_address() -> Result<()> {
    let (mut scene, _printer) = prepared(&Programs::find()?, Mode::Daemon)?;
    scene.connect()?;
    let router = scene.lab.routers[0].clone();
    let status = scene.client.status()?;
    let inner = status.inner_address.context("no inner address")?.to_string();
    let inner_v6 = status.inner_address_v6.context("no inner IPv6 address")?.to_string();
    let outer_v6 = address::client_v6(0).to_string();
    router.ip(&["route", "add", &inner, "via", &address::client(0).to_string()])?;
    router.ip(&["route", "add", &inner_v6, "via", &outer_v6])?;
    assert!(reaches(&router, "192.168.1.2", 9_200)?, "the attacker reaches the client");
    let heard = Capture::start(&router, "lan0")?;
    for address in [&inner, &inner_v6] {
        let pinged = Ping::send(&router, address.parse()?, 5)?;
        assert_eq!(pinged.received, 0, "echoes of {address}");
        assert!(!reaches(&router, address, 9_200)?, "a connection to {address}");
    }
    // whose address is it? Nobody's
    router.ip(&["route", "replace", &inner, "dev", "lan0"])?;
    Ping::send(&router, inner.parse()?, 2)?;
    let neighbours = router.ip(&["neighbour", "show", &inner])?;
    assert!(!neighbours.contains("lladdr"), "the client answers for {inner}: {neighbours}");
    for flow in heard.finish()?.keys() {
        let source = flow.source.map(|source| source.to_string());
        assert!(source != Some(inner.clone()) && source != Some(inner_v6.clone()), "{flow}");
    }
    scene.end("with an attacker in the local network")
}
