//! Networks that want the client's traffic: routes by DHCP (TunnelVision, CVE-2024-3661), and public
//! addresses that claim to be local (TunnelCrack LocalNet, CVE-2023-36672).

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Node, Process, Programs, address, until};

use crate::scene::{Mode, Scene, in_each_mode};

const PATIENCE: Duration = Duration::from_secs(10);

in_each_mode! {
    routes_by_dhcp: foreground Foreground, daemon Daemon, lockdown Lockdown;
    public_addresses_in_the_local_network: daemon Daemon, lockdown Lockdown;
}

/// The DHCP server in the home router.
struct DhcpServer {
    process: Process,
}

impl DhcpServer {
    /// Gives the client the address that it has, for two minutes, with these options.
    fn start(router: &Node, options: &[&str]) -> Result<DhcpServer> {
        let leases = format!("--dhcp-leasefile={}", router.dir().join("leases").display());
        let (client, gate) = (address::client(0), address::router(0));
        let range = format!("--dhcp-range={client},{client},255.255.255.0,2m");
        let route = format!("--dhcp-option=option:router,{gate}");
        let mut words =
            vec!["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0"];
        words.extend(["--user=root", "--pid-file=", "--log-facility=-", "--log-dhcp"]);
        words.extend([
            "--interface=lan0",
            "--no-ping",
            "--dhcp-authoritative",
            &leases,
            &range,
            &route,
        ]);
        words.extend(options);
        let mut process = router.spawn("dhcp-server", &words)?;
        process.wait_for_error_line("IP range", PATIENCE)?;
        Ok(DhcpServer { process })
    }

    fn stop(mut self) -> Result<()> {
        self.process.terminate(PATIENCE).map(drop)
    }
}

/// What udhcpc calls: sets address and routes, also those of option 121, as Debian's clients do.
const SCRIPT: &str = r#"#!/bin/sh
case "$1" in bound|renew) ;; *) exit 0 ;; esac
ip address replace "$ip/$mask" dev "$interface"
if [ -n "$staticroutes" ]; then
    set -- $staticroutes
    while [ $# -ge 2 ]; do
        if [ "$2" = 0.0.0.0 ]; then ip route replace "$1" dev "$interface"
        else ip route replace "$1" via "$2" dev "$interface"; fi
        shift 2
    done
else
    for router in $router; do ip route replace default via "$router" dev "$interface"; done
fi
echo "lease $ip"
"#;

/// The client's DHCP client.
struct DhcpClient {
    process: Process,
    leases: usize,
}

impl DhcpClient {
    /// Waits for a lease.
    fn start(node: &Node) -> Result<DhcpClient> {
        let script_path = node.dir().join("udhcpc.sh");
        fs::write(&script_path, SCRIPT)?;
        let script = script_path.to_str().context("path is not UTF-8")?;
        node.ok(&["chmod", "+x", script])?;
        let words = ["busybox", "udhcpc", "-f", "-i", "eth0", "-O", "staticroutes", "-s", script];
        let mut client = DhcpClient { process: node.spawn("dhcp-client", &words)?, leases: 0 };
        client.expect_lease()?;
        Ok(client)
    }

    /// Asks for the lease again, as it does after half of its time.
    fn renew(&mut self, node: &Node) -> Result<()> {
        let pid = self.process.pid().to_string();
        node.ok(&["kill", "-USR1", &pid])?;
        self.expect_lease()
    }

    fn expect_lease(&mut self) -> Result<()> {
        until("a lease", PATIENCE, || {
            let leases = self.process.stdout().matches("lease ").count();
            Ok((leases > self.leases).then_some(()))
        })
        .with_context(|| self.process.logs())?;
        self.leases = self.process.stdout().matches("lease ").count();
        Ok(())
    }
}

fn routes_by_dhcp(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::prepared(programs, mode, &[])?;
    let (node, router) = (scene.client.node.clone(), scene.lab.routers[0].clone());
    let server = DhcpServer::start(&router, &[])?;
    let lease = DhcpClient::start(&node);
    let mut lease = lease.with_context(|| server.process.logs())?;
    scene.host_before()?;
    scene.start()?;
    scene.connect()?;
    lease.renew(&node).context("DHCP while connected")?;
    server.stop()?;

    let gate = address::router(0);
    let (web, gateway) = (address::WEB, address::GATEWAY);
    let hostile = format!(
        "--dhcp-option=121,0.0.0.0/0,{gate},0.0.0.0/2,{gate},64.0.0.0/2,{gate},128.0.0.0/2,{gate},\
         192.0.0.0/2,{gate},{web}/32,{gate},198.51.100.53/32,{gate},{gateway}/32,{gate}"
    );
    let server = DhcpServer::start(&router, &[&hostile])?;
    lease.renew(&node).context("DHCP with option 121")?;
    let routes = node.ip(&["route"])?;
    assert!(routes.contains(&format!("{web} via {gate}")), "the attack does not work: {routes}");
    sleep(Duration::from_secs(2));
    scene.expect_closed("with routes by DHCP")?;
    scene.expect_tunnel()?;
    // the client keeps away from them with its next connection, too
    scene.crash()?;
    sleep(Duration::from_secs(1));
    scene.start_again()?;

    server.stop()?;
    for route in routes.lines().filter(|line| line.contains(&format!("via {gate}"))) {
        let target = route.split(' ').next().unwrap_or_default();
        if target != "default" {
            node.ip(&["route", "delete", target])?;
        }
    }
    scene.end("with routes by DHCP")
}

fn public_addresses_in_the_local_network(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    let node = scene.client.node.clone();
    // as a lease for addresses of the web host's network would do
    let (web, gateway) = ("198.51.100.77/24", "203.0.113.77/24");
    for address in [web, gateway, "2001:db8:80::77/64"] {
        let mut words = vec!["address", "add", address, "dev", "eth0"];
        words.extend(address.contains(':').then_some("nodad"));
        node.ip(&words)?;
        sleep(Duration::from_secs(2));
        scene.expect_closed(address)?;
        if address != gateway {
            scene.expect_tunnel()?;
        }
        node.ip(&["address", "delete", address, "dev", "eth0"])?;
        scene.client.wait_for_state("connected", Duration::from_secs(30))?;
    }
    scene.expect_tunnel()?;
    scene.end("with public addresses in the local network")
}
