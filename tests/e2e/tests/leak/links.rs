//! What happens to the client's links and routes.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use e2e::{Programs, address, full_or_short};

use crate::scene::{Mode, Scene, in_each_mode};

const SECOND: Duration = Duration::from_secs(1);

in_each_mode! {
    while_the_link_flaps: foreground Foreground, daemon Daemon, lockdown Lockdown;
    on_another_link: daemon Daemon, lockdown Lockdown;
    while_the_default_route_changes: daemon Daemon, lockdown Lockdown;
    while_links_appear: daemon Daemon, lockdown Lockdown;
    beside_another_vpn: daemon Daemon, lockdown Lockdown;
}

fn while_the_link_flaps(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    for time in [20, 200, 1_500, 50, 20, 3_000] {
        scene.lab.drop_link(Duration::from_millis(time))?;
        sleep(SECOND * full_or_short(5, 1));
    }
    scene.client.wait_for_state("connected", Duration::from_secs(30))?;
    scene.expect_tunnel()?;
    scene.end("while the link flaps")
}

fn on_another_link(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::prepared(programs, mode, &[])?;
    scene.lab.add_link("eth1", "second", 77)?;
    scene.watch.look_at(&scene.lab.routers[0], "second")?;
    scene.host_before()?;
    scene.start()?;
    scene.connect()?;
    for _ in 0..full_or_short(6, 2) {
        scene.lab.change_link()?;
        scene.client.wait_for_state("connected", Duration::from_secs(30))?;
        scene.expect_tunnel()?;
        sleep(SECOND);
    }
    // its IPv6 has stayed where it was
    scene.end("while the client changes its link")
}

fn while_the_default_route_changes(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::prepared(programs, mode, &[])?;
    scene.lab.add_link("eth1", "second", 77)?;
    scene.watch.look_at(&scene.lab.routers[0], "second")?;
    scene.client.node.ip(&["address", "add", "192.168.77.2/24", "dev", "eth1"])?;
    scene.host_before()?;
    scene.start()?;
    scene.connect()?;
    let (first, second, web) =
        (address::router(0).to_string(), "192.168.77.1", address::WEB.to_string());
    let node = scene.client.node.clone();
    let gone = |words: &str| node.ok(&["sh", "-c", words]).map(drop);
    for _ in 0..full_or_short(5, 1) {
        // a better one appears, and goes again
        gone(&format!("ip route add default via {second} dev eth1 metric 0"))
            .or_else(|_| gone(&format!("ip route prepend default via {second} dev eth1")))?;
        sleep(SECOND);
        gone(&format!("ip route del default via {second} dev eth1"))?;
        sleep(SECOND);
        // another one in its place
        gone(&format!("ip route replace default via {second} dev eth1"))?;
        sleep(SECOND);
        gone(&format!("ip route replace default via {first} dev eth0"))?;
        // none for a while
        gone("ip route del default")?;
        sleep(SECOND);
        gone(&format!("ip route add default via {first} dev eth0"))?;
        // and one that is more exact than any of ours
        gone(&format!("ip route add {web} via {first} dev eth0"))?;
        sleep(SECOND);
        gone(&format!("ip route del {web} via {first} dev eth0"))?;
    }
    scene.client.wait_for_state("connected", Duration::from_secs(30))?;
    scene.expect_tunnel()?;
    scene.end("while the default route changes")
}

fn while_links_appear(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    let node = scene.client.node.clone();
    let (router, web) = (address::router(0), address::WEB);
    let macvlan = format!(
        "ip link add mac0 link eth0 type macvlan mode bridge && \
         ip address add 192.168.1.77/24 dev mac0 && ip link set mac0 up && \
         ip route prepend default via {router} dev mac0 && \
         ip route add {web} via {router} dev mac0"
    );
    let veth = "ip link add veth0 type veth peer name veth1 && ip link set veth0 up && \
                ip link set veth1 up && ip address add 198.51.100.200/24 dev veth0";
    for appears in [macvlan.as_str(), veth] {
        node.ok(&["sh", "-c", appears])?;
        sleep(SECOND * 2);
        scene.expect_tunnel()?;
        let name = if appears == veth { "veth0" } else { "mac0" };
        node.ip(&["link", "delete", name])?;
        // it has answered for the client's other address, too, and the router believes that for long
        scene.lab.routers[0].ip(&["neighbour", "flush", "dev", "lan0"])?;
        sleep(SECOND / 2);
    }
    scene.end("while links appear")
}

fn beside_another_vpn(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::new(programs, mode)?;
    scene.connect()?;
    let node = scene.client.node.clone();
    // what such programs do: routes of their own, and rules that stand before everybody else's
    node.ok(&[
        "sh",
        "-c",
        "ip tuntap add other0 mode tun && ip address add 10.99.0.2/24 dev other0 && \
         ip link set other0 up && ip route add 198.51.0.0/16 dev other0",
    ])?;
    sleep(SECOND);
    scene.expect_tunnel()?;
    for family in ["-4", "-6"] {
        node.ip(&[family, "rule", "add", "pref", "100", "lookup", "main"])?;
    }
    node.ip(&["link", "delete", "other0"])?;
    sleep(SECOND * 2);
    scene.expect_closed("while all goes to the main table")?;
    for family in ["-4", "-6"] {
        node.ip(&[family, "rule", "delete", "pref", "100"])?;
    }
    scene.expect_tunnel()?;
    scene.end("beside another VPN")
}
