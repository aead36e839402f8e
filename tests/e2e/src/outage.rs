//! What happens to the path between client and gateway in real life. Each returns the moment from
//! which on the path works again, or another one does.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::address;
use crate::lab::Lab;
use crate::node::host_command;

/// The carrier loses everything in silence.
const CUT: &str = "table inet cut {\n chain everything {\n type filter hook forward priority -10;\n \
                   drop\n }\n }\n";

/// The carrier lets no datagrams pass to or from the gateway's ports for them.
const BLOCK_UDP: &str = "table inet block {\n chain datagrams {\n type filter hook forward \
                         priority -10;\n udp dport { 1194, 9000-9099 } drop\n udp sport { 1194, \
                         9000-9099 } drop\n }\n }\n";

/// The client's second link.
const SECOND_LINK: &str = "eth1";

impl Lab {
    /// Nothing passes the carrier for a while, and nobody is told.
    pub fn cut_path(&self, time: Duration) -> Result<Instant> {
        self.carrier.nft(CUT)?;
        sleep(time);
        let back = Instant::now();
        self.carrier.ok(&["nft", "delete", "table", "inet", "cut"])?;
        Ok(back)
    }

    /// The first client's link goes down and comes up again, with its addresses and routes.
    pub fn drop_link(&self, time: Duration) -> Result<Instant> {
        let client = &self.clients[0];
        client.ip(&["link", "set", "eth0", "down"])?;
        sleep(time);
        let back = Instant::now();
        let (host_v6, router) = (address::client_v6(0), address::router(0));
        let up = format!(
            "ip link set eth0 up && ip route replace default via {router} && \
             ip -6 address replace {host_v6}/64 dev eth0 nodad && \
             ip -6 route replace default via 2001:db8:c:1::1"
        );
        client.ok(&["sh", "-c", &up])?;
        Ok(back)
    }

    /// The carrier's NAT gives every flow another port from now on, as one does that was
    /// restarted. The gateway's packets to the old ones are answered with a reset.
    pub fn rebind_nat(&self) -> Result<Instant> {
        self.randomise_nat()?;
        let back = Instant::now();
        self.flush_nat()?;
        Ok(back)
    }

    /// The flows to the gateway that there are now are dropped in silence for ever; others pass.
    pub fn swallow_flows(&self) -> Result<Instant> {
        let gateway = address::GATEWAY.to_string();
        let known = self.carrier.ok(&["conntrack", "-L", "--orig-dst", &gateway])?;
        let mut ports: Vec<&str> = known
            .lines()
            .filter_map(|flow| flow.rsplit_once("dport=")?.1.split(' ').next())
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ensure!(!ports.is_empty(), "the carrier knows of no flow to the gateway: {known}");
        let ports = ports.join(", ");
        let rules = format!(
            "table inet swallow\ndelete table inet swallow\ntable inet swallow {{\n \
             chain flows {{\n type filter hook forward priority -10;\n \
             meta l4proto {{ tcp, udp }} th sport {{ {ports} }} drop\n \
             meta l4proto {{ tcp, udp }} th dport {{ {ports} }} drop\n }}\n }}\n"
        );
        let back = Instant::now();
        self.internet.nft(&rules)?;
        Ok(back)
    }

    /// Lays another cable from the first client, where it is called `link`, to its router: network
    /// 192.168.`network`.0/24, in which the client has no address yet.
    pub fn add_link(&self, link: &str, port: &str, network: u8) -> Result<()> {
        let (client, router) = (&self.clients[0], &self.routers[0]);
        let (here, there) = (client.namespace(), router.namespace());
        let cable = ["ip", "link", "add", link, "netns", here, "type", "veth", "peer"];
        host_command(&[&cable[..], &["name", port, "netns", there]].concat())?;
        // link-local addresses are there at once, for good
        client.sysctl(&[&format!("net/ipv6/conf/{link}/accept_dad=0")])?;
        router.ip(&["address", "add", &format!("192.168.{network}.1/24"), "dev", port])?;
        router.ip(&["link", "set", port, "up"])?;
        client.ip(&["link", "set", link, "up"]).map(drop)
    }

    /// The first client goes from its link, with another address, to another one, and the next
    /// time back again.
    pub fn change_link(&self) -> Result<Instant> {
        let client = &self.clients[0];
        if !client.ip(&["-brief", "link"])?.contains(SECOND_LINK) {
            self.add_link(SECOND_LINK, "second", 77)?;
        }
        let second = client.ip(&["-brief", "-4", "address", "show", "dev", SECOND_LINK])?;
        let (from, to) =
            if second.is_empty() { ("eth0", SECOND_LINK) } else { (SECOND_LINK, "eth0") };
        let (host, router) = if second.is_empty() {
            ("192.168.77.2".to_owned(), "192.168.77.1".to_owned())
        } else {
            (address::client(0).to_string(), address::router(0).to_string())
        };
        // the links themselves stay up: how long the far end takes to notice is not the client's
        let change = format!(
            "ip address replace {host}/24 dev {to} && \
             ip route replace default via {router} dev {to} && ip -4 address flush dev {from}"
        );
        let back = Instant::now();
        client.ok(&["sh", "-c", &change])?;
        Ok(back)
    }

    /// From now on datagrams between clients and gateway get lost; TCP passes.
    pub fn block_datagrams(&self) -> Result<Instant> {
        let since = Instant::now();
        self.carrier.nft(BLOCK_UDP)?;
        Ok(since)
    }

    /// The end of [`Lab::block_datagrams`].
    pub fn let_datagrams_pass(&self) -> Result<()> {
        self.carrier.ok(&["nft", "delete", "table", "inet", "block"]).map(drop)
    }

    /// The carrier's NAT gives the clients' datagrams another port from now on; TCP stays.
    pub fn rebind_datagrams(&self) -> Result<Instant> {
        self.randomise_nat()?;
        let back = Instant::now();
        self.carrier.ok(&["conntrack", "-D", "-p", "udp"])?;
        Ok(back)
    }

    /// The largest packet between carrier and internet. Larger ones are answered as the standards
    /// ask for.
    pub fn set_path_mtu(&self, mtu: u16) -> Result<()> {
        let mtu = mtu.to_string();
        self.carrier.ip(&["link", "set", "wan", "mtu", &mtu])?;
        self.internet.ip(&["link", "set", "to-carrier", "mtu", &mtu]).map(drop)
    }

    /// All NATs forget all flows.
    pub fn flush_nat(&self) -> Result<()> {
        for node in self.routers.iter().chain([&self.carrier]) {
            node.ok(&["conntrack", "-F"])?;
        }
        Ok(())
    }

    /// The carrier's NAT chooses ports by chance, so that a flow does not get the same one twice.
    pub fn randomise_nat(&self) -> Result<()> {
        self.carrier.nft(
            "table ip lab\ndelete table ip lab\ntable ip lab {\n chain post {\n \
             type nat hook postrouting priority srcnat;\n oifname \"wan\" masquerade fully-random\n \
             }\n }\n",
        )
    }
}
