//! A program that sends whatever a host may send to public addresses, every 10 ms, and takes no
//! account of a VPN: what leaves the host outside the tunnel is then seen within that time.
//!
//! Used through [`crate::LeakWatch`], whose capture on the far side tells the kinds apart.

mod far_side;
mod sender;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use self::far_side::FarSide;
use self::sender::Sender;
use crate::address;
use crate::capture::Flow;
use crate::lab::Lab;
use crate::node::Node;
use crate::soak::figure;

/// The time between two packets of a kind.
const TICK: Duration = Duration::from_millis(10);
/// Where spray that goes to the gateway's own port comes from, to be told from the client's own
/// packets. Below the ports that a kernel chooses by itself.
pub(crate) const SOURCE_PORT: u16 = 20_001;
/// Where [`FarSide`] waits for connections that stay.
const LASTING_PORT: u16 = 9_005;
/// For experiments (RFC 3692): no filter knows it.
const STRANGE_PROTOCOL: u8 = 253;

/// How packets of a kind are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// A new TCP connection each time.
    Connect,
    /// One TCP connection that stays, for as long as it is not broken.
    Lasting,
    /// UDP from one socket, which is opened anew every second.
    Datagram,
    /// A question for a name over UDP.
    Question,
    /// An echo request.
    Echo,
    /// A protocol without ports.
    Bare,
    /// The host's own answer to a stranger's echo request.
    Answer,
}

/// What the socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    Nothing,
    /// The link to the internet (`SO_BINDTODEVICE`), past all routing rules.
    Device,
    /// The host's address on that link.
    Address,
    /// [`SOURCE_PORT`].
    Port,
}

/// One kind of packet, which a capture recognises by protocol, destination and port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    name: &'static str,
    protocol: &'static str,
    destination: IpAddr,
    port: u16,
    means: Means,
    binding: Binding,
}

impl Kind {
    /// Whether a packet is of this kind.
    pub fn is(&self, flow: &Flow) -> bool {
        self.protocol == flow.protocol
            && Some(self.destination) == flow.destination
            && self.port == flow.port
            && (self.binding != Binding::Port || flow.source_port == SOURCE_PORT)
    }

    /// Whether it is sent anew every 10 ms, so that it must be seen soon wherever it can leave. A
    /// connection that was broken waits before it tries again.
    pub fn is_regular(&self) -> bool {
        self.means != Means::Lasting
    }

    /// Whether it is of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.destination.is_ipv6()
    }

    /// Whether routing rules let it past a tunnel, so that only a packet filter keeps it in: what is
    /// bound to the link, and what goes to a server in the local network.
    pub fn only_a_filter_holds(&self) -> bool {
        let is_local = matches!(self.destination, IpAddr::V4(address) if address.is_private());
        self.binding == Binding::Device || is_local
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.is_ipv6() { "IPv6" } else { "IPv4" };
        write!(f, "{} ({family})", self.name)
    }
}

/// Where spray comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The machine.
    pub node: Node,
    /// Its link to the internet.
    pub device: String,
    /// The address on it.
    pub address: Ipv4Addr,
    /// The IPv6 address on it, if it has one.
    pub address_v6: Option<Ipv6Addr>,
    /// The resolver that the local network offers.
    pub resolver: Ipv4Addr,
}

impl Source {
    /// A client of the laboratory (from 0), which has IPv6.
    pub fn client(lab: &Lab, index: u8) -> Source {
        Source {
            node: lab.clients[usize::from(index)].clone(),
            device: "eth0".to_owned(),
            address: address::client(index),
            address_v6: Some(address::client_v6(index)),
            resolver: address::router(index),
        }
    }

    /// All that is sent from here.
    pub fn kinds(&self) -> Vec<Kind> {
        let kind = |name, protocol, destination: IpAddr, port, means, binding| Kind {
            name,
            protocol,
            destination,
            port,
            means,
            binding,
        };
        let mut kinds = Vec::new();
        let v6 = self.address_v6.map(|_| IpAddr::from(address::WEB_V6));
        for web in [Some(IpAddr::from(address::WEB)), v6].into_iter().flatten() {
            let (echo, echo_type) = if web.is_ipv4() { ("icmp", 8) } else { ("icmpv6", 128) };
            let dns = if web.is_ipv4() { IpAddr::from(address::DNS) } else { web };
            kinds.extend([
                kind("TCP", "tcp", web, 9_001, Means::Connect, Binding::Nothing),
                kind("TCP bound to the link", "tcp", web, 9_006, Means::Connect, Binding::Device),
                kind("TCP from before", "tcp", web, LASTING_PORT, Means::Lasting, Binding::Nothing),
                kind("UDP", "udp", web, 9_002, Means::Datagram, Binding::Nothing),
                kind("UDP bound to the link", "udp", web, 9_003, Means::Datagram, Binding::Device),
                kind("UDP of an address", "udp", web, 9_004, Means::Datagram, Binding::Address),
                kind("ping", echo, web, echo_type, Means::Echo, Binding::Nothing),
                kind("DNS", "udp", dns, 53, Means::Question, Binding::Nothing),
                kind("a strange protocol", "253", web, 0, Means::Bare, Binding::Nothing),
            ]);
        }
        let (gateway, resolver) = (address::GATEWAY.into(), self.resolver.into());
        let dns = address::DNS.into();
        kinds.extend([
            kind("DNS over TCP", "tcp", dns, 53, Means::Connect, Binding::Nothing),
            kind("DNS in the LAN", "udp", resolver, 53, Means::Question, Binding::Nothing),
            // TunnelCrack ServerIP (CVE-2023-35838)
            kind("UDP to the gateway", "udp", gateway, 1_194, Means::Datagram, Binding::Port),
            kind("TCP to the gateway", "tcp", gateway, 22, Means::Connect, Binding::Nothing),
        ]);
        // the internet does not find it by a unique local address
        let is_global = self.address_v6.is_some_and(|address| !address.is_unique_local());
        if let Some(web) = v6.filter(|_| is_global) {
            kinds.push(kind("pong", "icmpv6", web, 129, Means::Answer, Binding::Nothing));
        }
        kinds
    }
}

/// The running program. It ends with this value.
#[derive(Debug)]
pub struct Sprayer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Sprayer {
    /// Sends these kinds from `source`, until this value is dropped.
    pub fn start(lab: &Lab, source: &Source, kinds: &[Kind]) -> Result<Sprayer> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut sprayer = Sprayer { stop: stop.clone(), threads: Vec::new() };
        if kinds.iter().any(|kind| matches!(kind.means, Means::Lasting | Means::Answer)) {
            let far_side = FarSide::listen(&lab.web, source.address_v6)?;
            let stop = stop.clone();
            sprayer.run("far side", move || far_side.serve(&stop))?;
        }
        // a connection that waits must not hold up the others
        let (lasting, others): (Vec<Kind>, Vec<Kind>) =
            kinds.iter().partition(|kind| kind.means == Means::Lasting);
        for kinds in lasting.iter().map(|kind| vec![*kind]).chain([others]) {
            let (stop, source) = (stop.clone(), source.clone());
            sprayer.run("sprayer", move || spray(&source, &kinds, &stop))?;
        }
        Ok(sprayer)
    }

    fn run(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let body = move || {
            if let Err(error) = work() {
                complain(&error);
            }
        };
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(body)?);
        Ok(())
    }
}

impl Drop for Sprayer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[expect(clippy::print_stderr, reason = "the control then fails, and this says why")]
fn complain(error: &anyhow::Error) {
    eprintln!("no spray: {error:#}");
}

fn spray(source: &Source, kinds: &[Kind], stop: &AtomicBool) -> Result<()> {
    source.node.enter_network()?;
    let mut senders: Vec<Sender> = kinds.iter().map(|kind| Sender::new(*kind, source)).collect();
    let (mut due, mut latest) = (Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        senders.iter_mut().for_each(Sender::send);
        due += TICK;
        let now = Instant::now();
        thread::sleep(due.saturating_duration_since(now));
        latest = latest.max(now.saturating_duration_since(due));
        // what was missed is not made up for
        due = due.max(now);
    }
    if kinds.len() > 1 {
        figure("longest pause of the spray", latest.as_secs_f64() * 1e3, "ms");
    }
    Ok(())
}
