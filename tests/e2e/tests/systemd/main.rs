//! The client on a Debian machine that boots: with systemd, systemd-resolved, NetworkManager and
//! resolvconf as they are.

mod dns;
mod lockdown;
mod machine;

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Capture, GatewayNode, Lab, Node, Programs, address, until};

use machine::Machine;

/// How long the machine may take for a change.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway, and a machine with a profile for it, not booted.
struct Scene {
    machine: Machine,
    _gateway: GatewayNode,
    lab: Lab,
    link: String,
}

impl Scene {
    fn new() -> Result<Scene> {
        let (lab, programs) = (Lab::new()?, Programs::find()?);
        let gateway = GatewayNode::start_new(&lab, &programs)?;
        let link = gateway.invite("alice")?.link;
        let machine = Machine::new(&lab, &programs)?;
        Ok(Scene { machine, _gateway: gateway, lab, link })
    }

    /// Boots the machine and waits for its network; then imports the invitation.
    fn boot(&mut self) -> Result<()> {
        self.machine.boot()?;
        wait_for_network(&self.machine.node)?;
        self.machine.node.ok(&["cipherwall", "import", &self.link]).map(drop)
    }

    fn connect(&self) -> Result<()> {
        let node = &self.machine.node;
        node.ok(&[
            "systemd-run",
            "--unit=tunnel",
            "--collect",
            "cipherwall",
            "connect",
            "--foreground",
        ])?;
        wait_for_state(node, "connected")
    }

    fn disconnect(&self) -> Result<()> {
        self.machine.node.ok(&["cipherwall", "disconnect"]).map(drop)
    }

    /// Boots a machine without any program that rules the network or the resolver, and sets it up by
    /// hand; `script` sets up the resolver.
    fn boot_bare(&mut self, script: &str) -> Result<()> {
        for unit in ["systemd-resolved.service", "NetworkManager.service"] {
            self.machine.mask(unit)?;
        }
        self.machine.boot()?;
        let (node, router) = (&self.machine.node, address::router(0).to_string());
        node.ip(&["link", "set", "eth0", "up"])?;
        node.ip(&["address", "add", &format!("{}/24", address::client(0)), "dev", "eth0"])?;
        node.ip(&["route", "add", "default", "via", &router])?;
        node.ok(&["sh", "-ec", script])?;
        node.ok(&["cipherwall", "import", &self.link]).map(drop)
    }

    /// What the machine sends on its link.
    fn watch(&self) -> Result<Capture> {
        Capture::start_incoming(&self.lab.routers[0], "lan0")
    }
}

/// Waits for the lease.
fn wait_for_network(node: &Node) -> Result<()> {
    until("a lease", PATIENCE, || {
        let (routes, address) = (node.ip(&["route", "show", "default"])?, address::client(0));
        Ok(routes.contains(&format!("src {address}")).then_some(()))
    })
}

/// Waits for a state of the client.
fn wait_for_state(node: &Node, wanted: &str) -> Result<()> {
    until(&format!("the state {wanted}"), PATIENCE, || {
        let text = node.ok(&["cipherwall", "status", "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&text)?;
        ensure!(status["state"] == wanted, "{text}");
        Ok(Some(()))
    })
}

/// What decides about names, to be read where they are not found.
fn resolver(node: &Node) -> Result<String> {
    let script = "cat /etc/resolv.conf; stat -c '%F %a %u %g %N' /etc/resolv.conf; ls -A /etc; \
                  lsattr /etc/resolv.conf 2> /dev/null; ls -AR /run/NetworkManager/conf.d; \
                  resolvectl status 2> /dev/null; resolvconf -l 2> /dev/null; true";
    node.ok(&["sh", "-c", script])
}

/// Waits until the names of this internet are found.
fn expect_names(node: &Node, when: &str) -> Result<()> {
    until(&format!("names to be found {when}"), PATIENCE, || {
        let found = node.run(&["getent", "ahostsv4", "www.lab.test"])?;
        let is_found = found.stdout.contains(&address::WEB.to_string());
        ensure!(is_found, "{found}\n{}", resolver(node)?);
        Ok(Some(()))
    })
}
