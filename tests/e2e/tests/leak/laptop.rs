//! A day of a laptop, in short: it sleeps, wakes up in another network, and one of the three has a
//! captive portal. It is connected soon after each network can be used, and nothing leaks.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use e2e::{Beat, Node, Packet, Process, Programs, address, figure, full_or_short, until};

use crate::scene::{Mode, Scene, in_each_mode};

/// How soon it should be connected, and the lenience of tests.
const BAR: Duration = Duration::from_secs(2);
const LENIENCE: u32 = 5;
/// Long enough to be noticed as a sleep.
const SLEEP: Duration = Duration::from_secs(7);
/// How long a dead connection may be taken for a silent one.
const NOTICED: Duration = Duration::from_secs(40);
const STAY: Duration = Duration::from_secs(4);

in_each_mode! {
    a_laptop_between_networks: daemon Daemon, lockdown Lockdown;
}

/// A network that the laptop is in at times.
struct Network {
    name: &'static str,
    link: &'static str,
    number: u8,
    has_portal: bool,
}

const NETWORKS: [Network; 3] = [
    Network { name: "home", link: "eth0", number: 1, has_portal: false },
    Network { name: "office", link: "eth1", number: 77, has_portal: false },
    Network { name: "hotel", link: "eth2", number: 78, has_portal: true },
];

/// Everything in the hotel leads to its page, until somebody has paid.
const PORTAL: &str = "table ip portal {\n chain catch {\n type nat hook prerouting priority dstnat; \
                      \n iifname \"hotel\" tcp dport 80 redirect to :8080\n \
                      iifname \"hotel\" udp dport 53 redirect to :53\n }\n chain keep {\n \
                      type filter hook forward priority -5;\n iifname \"hotel\" drop\n }\n }\n";

const PORTAL_PAGE: &str = r#"
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"please pay")
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("", 8080), Page)
print("serving", flush=True)
server.serve_forever()
"#;

fn a_laptop_between_networks(programs: &Programs, mode: Mode) -> Result<()> {
    let mut scene = Scene::prepared(programs, mode, &[])?;
    let router = scene.lab.routers[0].clone();
    for (link, port, number) in [("eth1", "second", 77), ("eth2", "hotel", 78)] {
        scene.lab.add_link(link, port, number)?;
        scene.watch.look_at(&router, port)?;
    }
    let _portal = start_portal(&router)?;
    scene.host_before()?;
    scene.start()?;
    scene.connect()?;
    let beat = Beat::start(&scene.client.node, &scene.lab.web, address::WEB)?;
    let end = Instant::now() + Duration::from_secs(full_or_short(1_800, 45));
    let (mut here, mut asleep) = (0, false);
    while Instant::now() < end || here != 0 {
        let next = (here + 1) % NETWORKS.len();
        travel(&mut scene, &beat, &NETWORKS[here], &NETWORKS[next], asleep)?;
        (here, asleep) = (next, !asleep);
        sleep(STAY);
    }
    drop(beat);
    scene.end("on the road")
}

fn start_portal(router: &Node) -> Result<Process> {
    let mut page = router.spawn("portal", &["python3", "-c", PORTAL_PAGE])?;
    page.wait_for_line("serving", Duration::from_secs(10))?;
    Ok(page)
}

/// Leaves a network and comes to another one.
fn travel(
    scene: &mut Scene,
    beat: &Beat,
    from: &Network,
    to: &Network,
    asleep: bool,
) -> Result<()> {
    let (node, router) = (scene.client.node.clone(), scene.lab.routers[0].clone());
    let way = format!("from {} to {}", from.name, to.name);
    if to.has_portal {
        router.nft(PORTAL)?;
    }
    let leave = format!("ip -4 address flush dev {}", from.link);
    let arrive = format!(
        "ip address add 192.168.{0}.2/24 dev {1} && ip route replace default via 192.168.{0}.1",
        to.number, to.link
    );
    node.ok(&["sh", "-c", &leave])?;
    if asleep {
        scene.client.process()?.suspend(|| {
            sleep(SLEEP);
            node.ok(&["sh", "-c", &arrive]).map(drop)
        })?;
    } else {
        sleep(Duration::from_secs(1));
        node.ok(&["sh", "-c", &arrive])?;
    }
    let mut usable = Instant::now();
    if to.has_portal {
        usable = log_in(scene, &node, &router).context(way.clone())?;
    }
    let patience = BAR * LENIENCE;
    let time = until(&format!("traffic {way}"), patience, || Ok(beat.flow_after(usable)));
    let time = time.with_context(|| scene.logs())?;
    sleep(Duration::from_secs(1));
    let time = beat.flow_after(usable).unwrap_or(time);
    figure(&format!("{way}, asleep: {asleep}: traffic flows after"), time.as_secs_f64(), "s");
    assert!(time < patience, "{way}: {time:?}{}", scene.logs());
    Ok(())
}

/// Opens the portal and logs in; returns when the network can be used. Only web and DNS are outside
/// meanwhile, and nothing afterwards.
fn log_in(scene: &mut Scene, node: &Node, router: &Node) -> Result<Instant> {
    let page = ["curl", "--silent", "--noproxy", "*", "--max-time", "3", "http://198.51.100.80/"];
    assert_ne!(node.run(&page)?.stdout, "please pay", "before the portal was opened");
    scene.expect_closed("before the portal")?;
    // while a connection may come back, there is no portal to open
    scene.client.wait_for_state("reconnecting", NOTICED)?;
    let open = SystemTime::now();
    scene.client.run(&["portal"])?.ok()?;
    until("the portal's page", Duration::from_secs(10), || {
        Ok((node.run(&page)?.stdout == "please pay").then_some(()))
    })?;
    let status = scene.client.run(&["status"])?.ok()?;
    assert!(status.contains("portal"), "status does not speak of the portal: {status}");
    router.ok(&["nft", "delete", "table", "ip", "portal"])?;
    let usable = Instant::now();
    scene.client.wait_for_state("connected", BAR * LENIENCE)?;
    scene.expect_tunnel()?;
    let closed = SystemTime::now();
    let is_excused = |packet: &Packet| {
        let flow = &packet.flow;
        let web = flow.protocol == "tcp" && matches!(flow.port, 80 | 443 | 53);
        packet.time < closed && (web || flow.protocol == "udp" && flow.port == 53)
    };
    scene.watch.expect_closed_but(open, "while the portal is open", is_excused)?;
    scene.closed_from(closed);
    Ok(usable)
}
