//! What the user, or the client itself, lets outside on purpose: exactly that and nothing else.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use e2e::{ClientNode, Packet, Ping, Programs, Sshd, address, until};

use crate::scene::{Mode, Scene, in_each_mode};

/// The router in the middle of the internet.
const DIRECT: &str = "192.0.2.1";

in_each_mode! {
    the_gateway_is_found_by_its_name: foreground Foreground, daemon Daemon, lockdown Lockdown;
    an_ssh_session_goes_on_if_it_is_to: daemon Daemon;
    a_network_goes_outside_directly: daemon Daemon, lockdown Lockdown;
    only_one_network_goes_through_the_tunnel: daemon Daemon;
}

/// The name is asked for outside, by the client alone, and no other name is.
fn the_gateway_is_found_by_its_name(programs: &Programs, mode: Mode) -> Result<()> {
    let by_name = [("endpoint: \"203.0.113.2", "endpoint: \"gateway.lab.test")];
    let mut scene = Scene::prepared(programs, mode, &by_name)?;
    scene.watch.allow_question("gateway.lab.test");
    scene.start()?;
    scene.connect()?;
    let begin = SystemTime::now();
    scene.lab.cut_path(Duration::from_secs(12))?;
    scene.client.wait_for_state("connected", Duration::from_secs(30))?;
    scene.expect_tunnel()?;
    scene.watch.first_own_packet(begin)?;
    scene.end("with a gateway that has a name")
}

/// The command is typed in an ssh session that comes over the internet.
fn an_ssh_session_goes_on_if_it_is_to(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    let sshd = Sshd::start(&scene.client.node)?;
    let typed = |scene: &Scene, options: &str| {
        let connect = scene.client.words(&["connect"]).join(" ");
        let command = format!(
            "{connect} {options}; seq 1000 | while read i; do echo tick $i; sleep 0.1; done"
        );
        sshd.session("ssh", &scene.lab.web, address::client_v6(0).into(), &command)
    };
    let begin = SystemTime::now();
    let mut session = typed(&scene, "--keep-ssh")?;
    session.wait_for_line("tick 30", Duration::from_secs(20))?;
    scene.expect_tunnel()?;
    let is_ssh = |packet: &Packet| packet.flow.is_with("tcp", address::client_v6(0).into(), 22);
    let closed = scene.watch.first_own_packet(begin)?;
    scene.watch.expect_closed_but(closed, "but for one ssh session", is_ssh)?;
    // another one from the same place is not let through
    let here = address::client_v6(0).into();
    let mut second = sshd.session("second", &scene.lab.web, here, "echo tick")?;
    assert!(second.wait_for_line("tick", Duration::from_secs(3)).is_err(), "a second session");
    drop(session);
    scene.client.run(&["disconnect"])?.ok()?;
    scene.expect_former_host("after an ssh session was kept")?;

    let begin = SystemTime::now();
    let mut session = typed(&scene, "")?;
    session.wait_for_error_line("--keep-ssh", Duration::from_secs(10))?;
    scene.client.wait_for_state("connected", Duration::from_secs(15))?;
    scene.closed_from(scene.watch.first_own_packet(begin)?);
    sleep(Duration::from_secs(1));
    let before = session.stdout();
    sleep(Duration::from_secs(1));
    assert_eq!(session.stdout(), before, "a session that nobody wanted to keep goes on");
    scene.end("without --keep-ssh")
}

fn set(client: &ClientNode, setting: &str) -> Result<()> {
    client.run(&["settings", "set", setting])?.ok().map(drop)
}

fn a_network_goes_outside_directly(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::prepared(programs, mode, &[])?;
    set(&scene.client, "direct=192.0.2.0/24")?;
    scene.start()?;
    scene.connect()?;
    let begin = scene.closed_since()?;
    let target: IpAddr = DIRECT.parse()?;
    assert_eq!(Ping::send(&scene.client.node, target, 10)?.received, 10, "echoes of {DIRECT}");
    let ask = ["dig", "+time=1", "+tries=1", &format!("@{DIRECT}"), "www.lab.test"];
    scene.client.node.run(&ask)?;
    let is_direct = |packet: &Packet| {
        packet.flow.destination == Some(target) && !matches!(packet.flow.port, 53 | 853)
    };
    scene.watch.expect_closed_but(begin, "but for a direct network", is_direct)?;
    let seen = scene.watch.expect_closed(begin, "").err().map(|error| error.to_string());
    assert!(seen.is_some_and(|seen| seen.contains(DIRECT)), "{DIRECT} is not reached directly");
    let status = scene.client.run(&["status"])?.ok()?;
    assert!(status.contains("192.0.2.0/24"), "status does not show it: {status}");
    // it stays reachable while the gateway is not, and nothing else is
    scene.lab.internet.nft(
        "table inet cut {\n chain c {\n type filter hook forward priority 0;\n ip daddr 203.0.113.2 \
         drop\n }\n }\n",
    )?;
    let cut = SystemTime::now();
    scene.client.wait_for_state("reconnecting", Duration::from_secs(40))?;
    until("echoes of a direct network", Duration::from_secs(5), || {
        Ok((Ping::send(&scene.client.node, target, 5)?.received == 5).then_some(()))
    })?;
    scene.watch.expect_closed_but(cut, "but for a direct network, reconnecting", is_direct)?;
    scene.lab.internet.ok(&["nft", "delete", "table", "inet", "cut"])?;
    scene.client.wait_for_state("connected", Duration::from_secs(30))?;
    scene.closed_from(SystemTime::now());
    scene.end("with a direct network")
}

fn only_one_network_goes_through_the_tunnel(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::prepared(programs, mode, &[])?;
    set(&scene.client, "only=198.51.100.0/24")?;
    scene.start()?;
    scene.connect()?;
    let target: IpAddr = DIRECT.parse()?;
    assert_eq!(Ping::send(&scene.client.node, target, 10)?.received, 10, "echoes of {DIRECT}");
    sleep(Duration::from_secs(1));
    let is_other = |packet: &Packet| {
        let inside = match packet.flow.destination {
            Some(IpAddr::V4(address)) => address.octets()[..3] == [198, 51, 100],
            Some(IpAddr::V6(_)) | None => false,
        };
        let is_dns =
            matches!(packet.flow.protocol.as_str(), "tcp" | "udp") && packet.flow.port == 53;
        !inside && !is_dns
    };
    let begin = scene.closed_since()?;
    scene.watch.expect_closed_but(begin, "of one network", is_other)?;
    scene.crash()?;
    sleep(Duration::from_secs(2));
    scene.watch.expect_closed_but(begin, "of one network, after kill -9", is_other)?;
    scene.start_again()?;
    scene.watch.expect_closed_but(begin, "of one network, after a restart", is_other)?;
    scene.client.run(&["disconnect"])?.ok()?;
    scene.expect_former_host("with one network in the tunnel")
}
