//! `cipherwall daemon`: commands go through it, and traffic outside of the tunnel is blocked from
//! `connect` until the user disconnects, whatever happens to the daemon.

mod access;
mod exceptions;
mod lifecycle;
mod lockdown;
mod shown;

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{ClientNode, GatewayNode, Lab, Node, Programs, address};

/// Exit codes.
const FAILED: i32 = 1;
const NOT_PERMITTED: i32 = 3;
const NOT_REACHABLE: i32 = 4;
const REJECTED: i32 = 5;

const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway, and a client that was imported, with its daemon.
struct Scene {
    lab: Lab,
    gateway: GatewayNode,
    client: ClientNode,
}

impl Scene {
    fn new() -> Result<Scene> {
        let lab = Lab::new()?;
        let programs = Programs::find()?;
        let gateway = GatewayNode::start_new(&lab, &programs)?;
        let mut client = ClientNode::new(&lab, 0, &programs)?;
        client.import(&gateway.invite("alice")?.link)?;
        client.start_daemon()?;
        Ok(Scene { lab, gateway, client })
    }

    fn connected() -> Result<Scene> {
        let scene = Scene::new()?;
        scene.client.connect_by_daemon(&[])?;
        Ok(scene)
    }

    /// What the web server sees: through the tunnel, or directly.
    fn expect_way(&self, through_tunnel: bool, when: &str) -> Result<()> {
        let seen = self.lab.visitor_address(&self.client.node, address::WEB.into())?;
        let expected = if through_tunnel { address::GATEWAY } else { address::CARRIER };
        ensure!(seen == expected.to_string(), "{when}: the web server sees {seen}");
        Ok(())
    }

    fn expect_blocked(&self, when: &str) -> Result<()> {
        expect_blocked(&self.client.node, when)
    }
}

/// Neither names nor pages, and not the gateway's own address for others than its client.
fn expect_blocked(node: &Node, when: &str) -> Result<()> {
    let (web, gateway) = (format!("http://{}/", address::WEB), address::GATEWAY);
    let gateway = format!("https://{gateway}:8443/");
    let server = format!("@{}", address::router(0));
    for words in [
        &["curl", "-s", "-m", "1", &web][..],
        &["curl", "-sk", "-m", "1", &gateway],
        &["dig", "+time=1", "+tries=1", "+short", &server, "www.lab.test"],
    ] {
        let ran = node.run(words)?;
        ensure!(ran.code() != 0, "{when}: {words:?} is not blocked: {ran:?}");
    }
    Ok(())
}
