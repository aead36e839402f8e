//! The topology: nodes, links, addresses, routes and NAT.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::node::{Node, host_command};
use crate::process::Process;
use crate::{Page, address, figure, power, run_dir, services, tools};

/// What a laboratory looks like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of clients, at most 16.
    pub clients: u8,
    /// All clients behind one router, so that the carrier sees one address.
    pub shared_router: bool,
    /// Clients have IPv6 of their own, past which nothing may leak.
    pub client_ipv6: bool,
    /// The gateway has IPv6 on its uplink.
    pub gateway_ipv6: bool,
    /// The first client has a disk of its own, so that its power can be cut.
    pub client_disk: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            clients: 1,
            shared_router: false,
            client_ipv6: true,
            gateway_ipv6: true,
            client_disk: false,
        }
    }
}

/// A running laboratory; dropping it removes every trace.
#[derive(Debug)]
pub struct Lab {
    /// The clients' machines; link `eth0`.
    pub clients: Vec<Node>,
    /// The routers in front of them; link `lanN` leads to client N (from 0).
    pub routers: Vec<Node>,
    /// The carrier's NAT.
    pub carrier: Node,
    /// The router in the middle; link `to-gateway` leads to the gateway.
    pub internet: Node,
    /// The gateway's machine; uplink `eth0`, private network `eth1`.
    pub gateway: Node,
    /// nginx, DNS, iperf3; link `eth0`.
    pub web: Node,
    /// A host behind the gateway that clients must not reach.
    pub private: Node,
    web_root_dir: PathBuf,
    services: Vec<Process>,
    pub(crate) holders: Vec<Child>,
    id: String,
    pub(crate) dir: PathBuf,
    kept: bool,
}

impl Lab {
    /// One client behind its router and the carrier's NAT; IPv6 everywhere.
    pub fn new() -> Result<Lab> {
        Lab::with(Options::default())
    }

    /// Builds the laboratory and starts nginx and the DNS servers.
    pub fn with(options: Options) -> Result<Lab> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the laboratory needs root (network namespaces): run `sudo cargo xtask test`"
        );
        run_dir::remove_stale()?;
        let (id, dir) = run_dir::claim()?;
        let built = build(&id, &dir, options);
        if built.is_err() {
            run_dir::remove(&id);
        }
        let mut lab = built?;
        lab.start_services().context("cannot start nginx and dnsmasq in the laboratory")?;
        Ok(lab)
    }

    /// Its name, which all namespaces begin with.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory that nginx serves.
    pub fn web_root_dir(&self) -> &Path {
        &self.web_root_dir
    }

    /// Makes a file of `size` random bytes for download and returns its SHA-256.
    pub fn make_download(&self, name: &str, size: u64) -> Result<String> {
        let path = self.web_root_dir.join(name);
        let path = path.to_str().context("path is not UTF-8")?;
        self.web.ok(&["sh", "-c", &format!("head -c {size} /dev/urandom > {path}")])?;
        tools::sha256(&self.web, path)
    }

    /// Carries a file of `size` random bytes each way between `node` and the web host, which is asked
    /// by its address: names need not be looked up while ways are broken.
    ///
    /// # Errors
    /// One of them arrives changed, or not within ten minutes.
    pub fn transfer(&self, node: &Node, size: u64) -> Result<()> {
        let sent = self.make_download("file", size)?;
        let (page, received) = Page::download(node, &format!("http://{}/file", address::WEB))?;
        ensure!(received == sent, "SHA-256 of a download");
        figure("download", page.rate * 8.0 / 1e6, "Mbit/s");
        let url = format!("http://{}/upload/file", address::WEB);
        let (page, sent) = Page::upload(node, &url, size)?;
        let stored = self.web_root_dir.join("upload/file").display().to_string();
        ensure!(tools::sha256(&self.web, &stored)? == sent, "SHA-256 of an upload");
        figure("upload", page.rate * 8.0 / 1e6, "Mbit/s");
        Ok(())
    }

    /// The page's view of a visitor of nginx, from `node`, over the family of `server`.
    pub fn visitor_address(&self, node: &Node, server: IpAddr) -> Result<String> {
        let url = match server {
            IpAddr::V4(v4) => format!("http://{v4}/visitor"),
            IpAddr::V6(v6) => format!("http://[{v6}]/visitor"),
        };
        Ok(Page::open(node, &url)?.body.trim().to_owned())
    }

    /// Starts iperf3 on the web host. One client at a time.
    pub fn start_iperf3(&self) -> Result<Process> {
        services::start_iperf3(&self.web)
    }

    /// Leaves everything running when this value goes; [`crate::remove_kept`] removes it.
    pub fn keep(mut self) -> Result<()> {
        run_dir::keep(&self.dir)?;
        self.kept = true;
        self.services.drain(..).for_each(Process::detach);
        Ok(())
    }

    /// Removes the laboratory from another thread, as after Ctrl-C.
    pub fn remover(&self) -> impl FnOnce() + Send + 'static + use<> {
        let id = self.id.clone();
        move || run_dir::remove(&id)
    }

    fn start_services(&mut self) -> Result<()> {
        self.services.push(services::start_dns_server(&self.web)?);
        self.services.push(services::start_nginx(&self.web, &self.web_root_dir)?);
        for router in &self.routers {
            self.services.push(services::start_dns_forwarder(router)?);
        }
        services::wait_for_dns(&self.clients[0], address::router(0))?;
        tools::until("nginx to answer", Duration::from_secs(10), || {
            Ok(Page::open(&self.web, &format!("http://{}/", address::WEB)).ok())
        })?;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // politely first, so that nginx takes its worker along
        self.services.iter_mut().for_each(Process::start_terminating);
        for service in &mut self.services {
            let _ = service.wait(Duration::from_secs(1));
        }
        run_dir::remove(&self.id);
        for holder in &mut self.holders {
            let _ = holder.wait();
        }
    }
}

fn build(id: &str, dir: &Path, options: Options) -> Result<Lab> {
    ensure!((1..=16).contains(&options.clients), "1 to 16 clients");
    let mut holders = Vec::new();
    let mut node_with = |name: &str, resolver: Ipv4Addr, disk_path: Option<&Path>| {
        let made = Node::new_with(id, dir, name, &resolver.to_string(), disk_path);
        made.map(|(node, holder)| {
            holders.push(holder);
            node
        })
    };
    let disk_path = options.client_disk.then(|| power::make_disk(dir)).transpose()?;
    let mut clients = Vec::new();
    let mut routers = Vec::new();
    for index in 0..options.clients {
        let disk_path = disk_path.as_deref().filter(|_| index == 0);
        let name = format!("client{}", index + 1);
        clients.push(node_with(&name, address::router(index), disk_path)?);
        if index == 0 || !options.shared_router {
            routers.push(node_with(&format!("router{}", index + 1), address::DNS, None)?);
        }
    }
    let mut node = |name: &str, resolver| node_with(name, resolver, None);
    let carrier = node("carrier", address::DNS)?;
    let internet = node("internet", address::DNS)?;
    let gateway = node("gateway", address::DNS)?;
    let web = node("web", address::DNS)?;
    let private = node("private", address::DNS)?;
    let web_root_dir = web.dir().join("www");
    fs::create_dir_all(&web_root_dir)?;

    for router in &routers {
        start_routing(router)?;
    }
    start_routing(&carrier)?;
    start_routing(&internet)?;
    for (index, client) in (0..).zip(&clients) {
        let router = routers.get(usize::from(index)).unwrap_or(&routers[0]);
        link_client(client, router, index, options.client_ipv6)?;
    }
    for (index, router) in (0..).zip(&routers) {
        let behind = if options.shared_router { 0..options.clients } else { index..index + 1 };
        link_router(router, &carrier, index, behind, options.client_ipv6)?;
    }
    link_carrier(&carrier, &internet)?;
    link_gateway(&gateway, &internet, &private, options.gateway_ipv6)?;
    link_web(&web, &internet)?;
    Ok(Lab {
        clients,
        routers,
        carrier,
        internet,
        gateway,
        web,
        private,
        web_root_dir,
        services: Vec::new(),
        holders,
        id: id.to_owned(),
        dir: dir.to_owned(),
        kept: false,
    })
}

fn start_routing(node: &Node) -> Result<()> {
    node.sysctl(&["net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"])
}

/// The client's link: 192.168.N.0/24 with NAT, and its own /64 without.
fn link_client(client: &Node, router: &Node, index: u8, ipv6: bool) -> Result<()> {
    let lan = format!("lan{index}");
    cable(client, "eth0", &[], router, &lan, &[&format!("{}/24", address::router(index))])?;
    if ipv6 {
        add_address(router, &lan, &format!("{}/64", first_of(address::client_v6(index))))?;
    }
    configure_client(client, index, ipv6)
}

/// The client's addresses and routes.
pub(crate) fn configure_client(client: &Node, index: u8, ipv6: bool) -> Result<()> {
    // no duplicate address detection: it would hold IPv6 back for seconds
    client.sysctl(&["net/ipv6/conf/eth0/accept_dad=0"])?;
    client.ip(&["link", "set", "dev", "eth0", "up"])?;
    add_address(client, "eth0", &format!("{}/24", address::client(index)))?;
    client.ip(&["route", "add", "default", "via", &address::router(index).to_string()])?;
    if ipv6 {
        let host = address::client_v6(index);
        add_address(client, "eth0", &format!("{host}/64"))?;
        client.ip(&["route", "add", "default", "via", &first_of(host).to_string()])?;
    }
    Ok(())
}

/// The router's link to the carrier: 100.64.N.0/24 (RFC 6598).
fn link_router(
    router: &Node,
    carrier: &Node,
    index: u8,
    clients: std::ops::Range<u8>,
    ipv6: bool,
) -> Result<()> {
    let port = format!("home{index}");
    let (host, gate) = (format!("100.64.{index}.2"), format!("100.64.{index}.1"));
    let (host_v6, gate_v6) = (format!("2001:db8:cc:{index}::2"), format!("2001:db8:cc:{index}::1"));
    let here = [format!("{host}/24"), format!("{host_v6}/64")];
    let there = [format!("{gate}/24"), format!("{gate_v6}/64")];
    cable(router, "wan", &[&here[0], &here[1]], carrier, &port, &[&there[0], &there[1]])?;
    router.ip(&["route", "add", "default", "via", &gate])?;
    router.ip(&["route", "add", "default", "via", &gate_v6])?;
    for client in clients.filter(|_| ipv6) {
        let prefix = format!("2001:db8:c:{}::/64", client + 1);
        carrier.ip(&["route", "add", &prefix, "via", &host_v6])?;
    }
    masquerade(router, "wan")
}

fn link_carrier(carrier: &Node, internet: &Node) -> Result<()> {
    let host = format!("{}/24", address::CARRIER);
    let here = [host.as_str(), "2001:db8:ca::2/64"];
    cable(carrier, "wan", &here, internet, "to-carrier", &["192.0.2.1/24", "2001:db8:ca::1/64"])?;
    carrier.ip(&["route", "add", "default", "via", "192.0.2.1"])?;
    carrier.ip(&["route", "add", "default", "via", "2001:db8:ca::1"])?;
    for prefix in ["2001:db8:c::/48", "2001:db8:cc::/48"] {
        internet.ip(&["route", "add", prefix, "via", "2001:db8:ca::2"])?;
    }
    masquerade(carrier, "wan")
}

fn link_gateway(gateway: &Node, internet: &Node, private: &Node, ipv6: bool) -> Result<()> {
    let host = format!("{}/24", address::GATEWAY);
    cable(gateway, "eth0", &[&host], internet, "to-gateway", &["203.0.113.1/24"])?;
    gateway.ip(&["route", "add", "default", "via", "203.0.113.1"])?;
    if ipv6 {
        let gate = first_of(address::GATEWAY_V6);
        add_address(gateway, "eth0", &format!("{}/64", address::GATEWAY_V6))?;
        add_address(internet, "to-gateway", &format!("{gate}/64"))?;
        gateway.ip(&["route", "add", "default", "via", &gate.to_string()])?;
    }
    let there = [format!("{}/24", address::PRIVATE), format!("{}/32", address::METADATA)];
    cable(gateway, "eth1", &["10.77.0.1/24"], private, "eth0", &[&there[0], &there[1]])?;
    private.ip(&["route", "add", "default", "via", "10.77.0.1"])?;
    gateway.ip(&["route", "add", &there[1], "dev", "eth1"]).map(drop)
}

fn link_web(web: &Node, internet: &Node) -> Result<()> {
    let gate = first_of(address::WEB_V6);
    let here = [
        format!("{}/24", address::WEB),
        format!("{}/24", address::DNS),
        format!("{}/64", address::WEB_V6),
    ];
    let here: Vec<&str> = here.iter().map(String::as_str).collect();
    cable(web, "eth0", &here, internet, "to-web", &["198.51.100.1/24", &format!("{gate}/64")])?;
    web.ip(&["route", "add", "default", "via", "198.51.100.1"])?;
    web.ip(&["route", "add", "default", "via", &gate.to_string()]).map(drop)
}

/// A veth pair between two nodes, up, with addresses on both ends. MTU 1500, offloads as they are.
pub(crate) fn cable(
    a: &Node,
    a_link: &str,
    a_addresses: &[&str],
    b: &Node,
    b_link: &str,
    b_addresses: &[&str],
) -> Result<()> {
    let (a_space, b_space) = (a.namespace(), b.namespace());
    let mut words = vec!["ip", "link", "add", a_link, "netns", a_space, "type", "veth"];
    words.extend(["peer", "name", b_link, "netns", b_space]);
    host_command(&words)?;
    for (node, link, addresses) in [(a, a_link, a_addresses), (b, b_link, b_addresses)] {
        // no duplicate address detection: it would hold IPv6 back for seconds
        node.sysctl(&[&format!("net/ipv6/conf/{link}/accept_dad=0")])?;
        node.ip(&["link", "set", "dev", link, "up"])?;
        for address in addresses {
            add_address(node, link, address)?;
        }
    }
    Ok(())
}

fn add_address(node: &Node, link: &str, address: &str) -> Result<()> {
    let mut words = vec!["address", "add", address, "dev", link];
    if address.contains(':') {
        words.push("nodad");
    }
    node.ip(&words).map(drop)
}

fn masquerade(node: &Node, link: &str) -> Result<()> {
    node.nft(&format!(
        "table ip lab {{\n chain post {{\n type nat hook postrouting priority srcnat;\n\
         oifname \"{link}\" masquerade\n }}\n }}\n"
    ))
}

/// `...::1`, the router of a network.
fn first_of(address: Ipv6Addr) -> Ipv6Addr {
    let [a, b, c, d, ..] = address.segments();
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 1)
}
