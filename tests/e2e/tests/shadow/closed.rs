//! What is not for clients: the gateway's own entrance, and the networks that the gateway is in.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use e2e::{Ping, address};

use super::{LONG_ENOUGH, Scene, udp};

/// Azure's service for its machines: a public address, but the provider's.
const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// What curl says of the gateway's web site, asked through the tunnel: the status, or that the
/// connection was refused.
fn site_from_inside(scene: &Scene) -> Result<String> {
    let url = format!("https://{}:8443/", address::GATEWAY);
    let words = ["curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", &url];
    let ran = scene.attacker.node.run(&words)?;
    Ok(if ran.code() == 7 { "refused".to_owned() } else { ran.stdout })
}

/// How many datagrams came from inside to the gateway's port for them, before and after its filter.
fn datagrams_from_inside(scene: &Scene) -> Result<(u64, u64)> {
    scene.gateway.node.nft(
        "table inet watch {\n chain before {\n type filter hook input priority -20;\n \
         iifname \"cw0\" udp dport 1194 counter comment \"before\"\n }\n chain after {\n \
         type filter hook input priority 20;\n iifname \"cw0\" udp dport 1194 counter comment \
         \"after\"\n }\n }\n",
    )?;
    let socket = udp(&scene.attacker.node, scene.attacker.inner_address()?, 0)?;
    socket.send_to(&[7; 60], (address::GATEWAY, 1194))?;
    std::thread::sleep(LONG_ENOUGH);
    let rules = scene.gateway.node.ok(&["nft", "list", "table", "inet", "watch"])?;
    scene.gateway.node.ok(&["nft", "delete", "table", "inet", "watch"])?;
    let counted = |name: &str| {
        let line = rules.lines().find(|line| line.contains(&format!("comment \"{name}\"")));
        let words = line.and_then(|line| line.split("packets ").nth(1));
        words.and_then(|words| words.split(' ').next()?.parse().ok()).context("no counter")
    };
    Ok((counted("before")?, counted("after")?))
}

#[test]
fn there_is_no_tunnel_in_the_tunnel() -> Result<()> {
    let scene = Scene::new()?;
    assert_eq!(site_from_inside(&scene)?, "refused");
    assert_eq!(datagrams_from_inside(&scene)?, (1, 0), "datagrams");
    scene.without("to_gateway", &[])?;
    assert_eq!(site_from_inside(&scene)?, "200", "control: it answers without the rule");
    assert_eq!(datagrams_from_inside(&scene)?, (1, 1), "control: datagrams without the rule");
    Ok(())
}

/// Those of the provider's and the owner's addresses that answer to the attacker.
fn answering(scene: &Scene) -> Result<Vec<IpAddr>> {
    let behind = [address::PRIVATE.into(), address::METADATA.into(), AZURE.into()];
    let of_the_gateway = IpAddr::from(Ipv4Addr::new(10, 77, 0, 1));
    let mut answering = Vec::new();
    for target in behind.into_iter().chain([of_the_gateway]) {
        if Ping::send(&scene.attacker.node, target, 2)?.received > 0 {
            answering.push(target);
        }
    }
    Ok(answering)
}

#[test]
fn private_networks_and_the_providers_services_are_closed() -> Result<()> {
    let scene = Scene::new()?;
    scene.lab.private.ip(&["address", "add", &format!("{AZURE}/32"), "dev", "eth0"])?;
    scene.gateway.node.ip(&["route", "add", &AZURE.to_string(), "dev", "eth1"])?;
    for target in [address::PRIVATE, address::METADATA, AZURE] {
        let received = Ping::send(&scene.gateway.node, target.into(), 1)?.received;
        assert_eq!(received, 1, "control: {target} from the gateway");
    }
    assert_eq!(answering(&scene)?, [] as [IpAddr; 0]);
    scene.without("through_gateway", &[])?;
    scene.without("to_gateway", &[])?;
    assert_eq!(answering(&scene)?.len(), 4, "control: all answer without the rules");
    Ok(())
}
