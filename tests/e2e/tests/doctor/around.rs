//! Faults of this computer and of the network that it is in.

use std::fs;

use anyhow::{Context, Result};
use e2e::{Node, Process, address};

use crate::scene::{NAME, Scene, fault, heal};

/// The router answers no questions for names.
const NO_QUESTIONS: &str = "meta l4proto { tcp, udp } th dport 53 drop";

#[test]
fn no_network() -> Result<()> {
    let scene = Scene::new()?;
    let router = &scene.lab.routers[0];
    router.ip(&["link", "set", "lan0", "down"])?;
    scene.expect("no-network", &["eth0", "carrier"], &["cable", "router"])?;
    router.ip(&["link", "set", "lan0", "up"])?;
    // the router has no way out itself: the client is in a network that leads nowhere
    fault(router, &[("forward", "drop"), ("input", NO_QUESTIONS)])?;
    scene.expect("no-network", &["nothing outside"], &["router"])?;
    heal(router)?;
    scene.expect_healthy("with a network again")
}

#[test]
fn captive_portal() -> Result<()> {
    let scene = Scene::new()?;
    let router = &scene.lab.routers[0];
    let portal = start_portal(router)?;
    redirect(router, "tcp dport 80", 8080)?;
    fault(router, &[("forward", "iifname lan0 drop")])?;
    let page = "http://login.hotel.test/";
    scene.expect("captive-portal", &[page], &["browser", "cipherwall portal"])?;
    heal(router)?;
    router.nft("delete table ip astray\n")?;
    drop(portal);
    scene.expect_healthy("after the log-in")
}

#[test]
fn dns_broken() -> Result<()> {
    let scene = Scene::new()?;
    let router = &scene.lab.routers[0];
    fault(router, &[("input", NO_QUESTIONS)])?;
    let server = format!("{}:53 did not answer", address::router(0));
    scene.expect("dns-broken", &[&server], &["another DNS server", "9.9.9.9"])?;
    heal(router)?;
    scene.expect_healthy("with DNS again")
}

#[test]
fn dns_lying() -> Result<()> {
    let scene = Scene::new()?;
    let router = &scene.lab.routers[0];
    // a filter's own page, and an address of nobody
    for lie in [address::WEB.to_string(), "10.10.34.34".to_owned()] {
        let liar = start_liar(router, &lie)?;
        redirect(router, "udp dport 53", 5353)?;
        let truth = "but the gateway is at";
        scene.expect("dns-lying", &[&lie, truth], &["another DNS server"])?;
        router.nft("delete table ip astray\n")?;
        drop(liar);
        scene.expect_healthy("with an honest DNS server again")?;
    }
    Ok(())
}

#[test]
fn leftovers() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.client.connect(&[])?;
    scene.expect_connected()?;
    scene.client.kill9()?;
    scene.expect("leftovers", &["a process that died"], &["sudo cipherwall repair"])?;
    scene.client.run(&["repair"])?.ok()?;
    scene.expect_healthy("after the repair")
}

/// Leads what comes from the client to another port of the router.
fn redirect(router: &Node, what: &str, port: u16) -> Result<()> {
    let hook = "type nat hook prerouting priority dstnat";
    let rule = format!("iifname lan0 {what} redirect to :{port}");
    router.nft(&format!("table ip astray {{\n chain pre {{\n {hook}\n {rule}\n }}\n }}\n"))
}

/// A web server in the router that sends everybody to its log-in.
fn start_portal(router: &Node) -> Result<Process> {
    let dir = router.dir().join("portal");
    fs::create_dir_all(&dir)?;
    let config = format!(
        "user root; worker_processes 1; daemon off; pid {}/pid; error_log stderr;
         events {{ }}
         http {{ access_log off; server {{
           listen 8080; listen [::]:8080; return 302 http://login.hotel.test/;
         }} }}\n",
        dir.display()
    );
    let config_path = dir.join("nginx.conf");
    fs::write(&config_path, config)?;
    let dir = dir.to_str().context("path is not UTF-8")?;
    let config = config_path.to_str().context("path is not UTF-8")?;
    router.spawn("portal", &["nginx", "-p", dir, "-c", config, "-e", "stderr"])
}

/// A DNS server in the router that gives this address for the gateway's name.
fn start_liar(router: &Node, lie: &str) -> Result<Process> {
    let upstream = address::DNS;
    let config = format!(
        "no-resolv\nno-hosts\nport=5353\naddress=/{NAME}/{lie}\nlocal=/{NAME}/\nserver={upstream}\n"
    );
    let config_path = router.dir().join("liar.conf");
    fs::write(&config_path, config)?;
    let option = format!("--conf-file={}", config_path.display());
    let words = ["dnsmasq", "--keep-in-foreground", &option, "--user=root", "--pid-file="];
    router.spawn("liar", &words)
}
