//! "Block always" from before the network is there, and the daemon under systemd: not one packet
//! outside, seen by a program that sends everything from before the machine boots.

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use e2e::{GatewayNode, Lab, LeakWatch, Page, Programs};

use super::machine::Machine;
use super::{expect_names, wait_for_network, wait_for_state};

/// How long a state is looked at.
const LOOK: Duration = Duration::from_secs(2);
const DAEMON: &str = "cipherwall.service";
const PAGE: &str = "http://www.lab.test/";

/// A machine with the daemon installed as a package would, and a profile; somebody sends everything
/// from its network all the time.
struct Sprayed {
    machine: Machine,
    watch: LeakWatch,
    _gateway: GatewayNode,
    _lab: Lab,
}

impl Sprayed {
    fn boot() -> Result<Sprayed> {
        let (lab, programs) = (Lab::new()?, Programs::find()?);
        let gateway = GatewayNode::start_new(&lab, &programs)?;
        let link = gateway.invite("alice")?.link;
        let watch = LeakWatch::start(&lab)?;
        let mut machine = Machine::new(&lab, &programs)?;
        machine.install()?;
        machine.boot()?;
        wait_for_network(&machine.node)?;
        watch.expect_open("after the machine has booted")?;
        machine.node.ok(&["cipherwall", "import", &link])?;
        Ok(Sprayed { machine, watch, _gateway: gateway, _lab: lab })
    }

    fn expect_closed(&self, since: SystemTime, when: &str) -> Result<()> {
        sleep(LOOK);
        self.watch.expect_closed(since, when)
    }

    fn expect_page(&self, when: &str) -> Result<()> {
        expect_names(&self.machine.node, when)?;
        let page =
            Page::open(&self.machine.node, PAGE).with_context(|| format!("a page {when}"))?;
        ensure!(page.body.contains("laboratory"), "{page:?}");
        Ok(())
    }
}

#[test]
fn lockdown_holds_from_before_the_network_until_it_is_lifted() -> Result<()> {
    let mut scene = Sprayed::boot()?;
    scene.machine.node.ok(&["cipherwall", "lockdown", "on"])?;
    let since = SystemTime::now();
    scene.expect_closed(since, "after lockdown on")?;

    scene.machine.cut_power()?;
    scene.machine.mask(DAEMON)?;
    let since = SystemTime::now();
    scene.machine.boot()?;
    wait_for_network(&scene.machine.node)?;
    scene.expect_closed(since, "from the start of the machine, without the daemon")?;

    scene.machine.cut_power()?;
    scene.machine.unmask(DAEMON)?;
    scene.machine.boot()?;
    wait_for_network(&scene.machine.node)?;
    scene.expect_closed(since, "from the start of the machine")?;
    let node = scene.machine.node.clone();
    wait_for_state(&node, "blocked")?;

    node.ok(&["cipherwall", "connect"])?;
    wait_for_state(&node, "connected")?;
    scene.expect_page("through the tunnel")?;
    scene.expect_closed(since, "while connected")?;
    node.ok(&["cipherwall", "disconnect"])?;
    wait_for_state(&node, "blocked")?;
    scene.expect_closed(since, "after disconnecting")?;
    let repaired = node.run(&["cipherwall", "repair"])?;
    ensure!(format!("{repaired}").contains("cipherwall lockdown off"), "{repaired}");
    scene.expect_closed(since, "after repair")?;

    node.ok(&["cipherwall", "lockdown", "off"])?;
    scene.watch.expect_open("after lockdown off")?;
    scene.expect_page("directly")?;
    scene.machine.cut_power()?;
    scene.machine.boot()?;
    wait_for_network(&scene.machine.node)?;
    scene.watch.expect_open("after a start without lockdown")?;
    scene.watch.finish()
}

#[test]
fn nothing_leaks_whatever_systemd_does_to_the_daemon() -> Result<()> {
    let scene = Sprayed::boot()?;
    let node = &scene.machine.node;
    node.ok(&["cipherwall", "connect"])?;
    wait_for_state(node, "connected")?;
    let since = SystemTime::now();
    scene.expect_page("through the tunnel")?;
    for words in [
        &["systemctl", "kill", "--signal=KILL", DAEMON][..],
        &["systemctl", "restart", DAEMON],
        &["systemctl", "restart", "NetworkManager.service"],
        &["nmcli", "device", "reapply", "eth0"],
        // it removes rules and routes that it does not know
        &["systemctl", "start", "systemd-networkd.service"],
        &["systemctl", "stop", DAEMON],
        &["systemctl", "start", DAEMON],
        &["nft", "flush", "ruleset"],
    ] {
        // a flush of all tables opens for as long as the guard takes to notice
        let from = if words[0] == "nft" { None } else { Some(since) };
        node.ok(words)?;
        scene.watch.expect_closed(from.unwrap_or_else(SystemTime::now), &format!("{words:?}"))?;
        if !words.contains(&"stop") {
            wait_for_state(node, "connected").with_context(|| format!("after {words:?}"))?;
            scene.expect_page(&format!("after {words:?}"))?;
        }
        scene.expect_closed(from.unwrap_or_else(SystemTime::now), &format!("after {words:?}"))?;
    }
    node.ok(&["cipherwall", "disconnect"])?;
    scene.watch.expect_open("after disconnecting")?;
    scene.watch.finish()
}

#[test]
fn the_units_are_right_and_confined() -> Result<()> {
    let scene = Sprayed::boot()?;
    let node = &scene.machine.node;
    for unit in ["cipherwall.service", "cipherwall-lockdown.service"] {
        let verified = node.run(&["systemd-analyze", "verify", unit])?;
        ensure!(verified.code() == 0 && verified.stderr.is_empty(), "{verified}");
        let path = format!("/usr/lib/systemd/system/{unit}");
        let words = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", &path];
        node.ok(&words).context("more than 3.0 is too open")?;
    }
    // nobody but root and the group commands the daemon
    let stranger =
        node.run(&["setpriv", "--reuid=nobody", "--clear-groups", "cipherwall", "status"])?;
    ensure!(stranger.code() == 3, "{stranger}");
    Ok(())
}
