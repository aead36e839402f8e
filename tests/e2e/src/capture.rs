//! tcpdump on a link, read back as flows: what a bystander on the network sees.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

use crate::address;
use crate::node::Node;
use crate::process::Process;
use crate::tools::until;

/// Ethernet, in the header of a pcap file.
const LINK_ETHERNET: u32 = 1;
/// Bare IP packets, as from a TUN device.
const LINK_RAW: u32 = 101;

const DNS_PORT: u16 = 53;

/// The same packets but for their count: protocol, addresses, destination port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// `arp`, `tcp`, `udp`, `icmp`, `icmpv6`, `igmp`, or a number.
    pub protocol: String,
    /// Source address; `None` if it is no IP packet.
    pub source: Option<IpAddr>,
    /// Destination address; `None` if it is no IP packet.
    pub destination: Option<IpAddr>,
    /// Source port; 0 where there are none.
    pub source_port: u16,
    /// Destination port, or the type of an ICMP message.
    pub port: u16,
}

impl Flow {
    /// Between an address and port of this protocol and anybody, in either direction.
    pub fn is_with(&self, protocol: &str, address: IpAddr, port: u16) -> bool {
        let to = self.destination == Some(address) && self.port == port;
        let from = self.source == Some(address) && self.source_port == port;
        self.protocol == protocol && (to || from)
    }

    /// What any idle host sends on its link: ARP, IPv6 neighbour and router discovery (133 to
    /// 137), multicast listener reports (131, 132, 143).
    pub fn is_link_housekeeping(&self) -> bool {
        let is_icmpv6 = self.protocol == "icmpv6";
        self.protocol == "arp" || is_icmpv6 && matches!(self.port, 131..=137 | 143)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.protocol)?;
        if let (Some(source), Some(destination)) = (self.source, self.destination) {
            write!(f, " {source}:{} -> {destination}:{}", self.source_port, self.port)?;
        }
        Ok(())
    }
}

/// One packet, and when it came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The time of its arrival.
    pub time: SystemTime,
    /// What it is.
    pub flow: Flow,
    /// The name that is asked for, in a DNS question over UDP.
    pub question: Option<String>,
}

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    path: PathBuf,
    link: String,
}

impl Capture {
    /// Captures on `link` of `node`; returns when tcpdump listens.
    pub fn start(node: &Node, link: &str) -> Result<Capture> {
        Capture::start_named(node, link, link, &[])
    }

    /// As [`Capture::start`], but only of packets that come to `node`. May run beside another one.
    pub fn start_incoming(node: &Node, link: &str) -> Result<Capture> {
        Capture::start_named(node, link, &format!("{link}-incoming"), &["-Q", "in"])
    }

    fn start_named(node: &Node, link: &str, name: &str, options: &[&str]) -> Result<Capture> {
        let path = node.dir().join(format!("{name}.pcap"));
        let file = path.to_str().context("path is not UTF-8")?;
        // whole in time (-U, immediate mode), headers only, and no user to change to
        let mut words = vec!["tcpdump", "-i", link, "-w", file, "-U", "--immediate-mode", "-n"];
        words.extend(["-s", "200", "-B", "16384", "-Z", "root"]);
        words.extend(options);
        let mut process = node.spawn(&format!("tcpdump-{name}"), &words)?;
        process.wait_for_error_line("listening on", Duration::from_secs(10))?;
        Ok(Capture { process, path, link: link.to_owned() })
    }

    /// The flows so far, with the number of packets of each.
    pub fn flows(&self) -> Result<BTreeMap<Flow, usize>> {
        let mut flows = BTreeMap::new();
        for packet in self.packets()? {
            *flows.entry(packet.flow).or_insert(0) += 1;
        }
        Ok(flows)
    }

    /// The packets so far, in the order in which they came by.
    pub fn packets(&self) -> Result<Vec<Packet>> {
        self.packets_since(UNIX_EPOCH)
    }

    /// Those that came by at this time or later.
    pub fn packets_since(&self, since: SystemTime) -> Result<Vec<Packet>> {
        read_pcap(&fs::read(&self.path)?, since)
    }

    /// Ends the capture and returns its flows; an error if the kernel had to drop packets, because
    /// then it proves nothing.
    pub fn finish(mut self) -> Result<BTreeMap<Flow, usize>> {
        self.stop()?;
        self.flows()
    }

    /// Ends the capture, which can be read for as long as there is the laboratory; errors as of
    /// [`Capture::finish`].
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate(Duration::from_secs(5))?;
        let report = self.process.stderr();
        ensure!(report.contains("\n0 packets dropped by kernel"), "capture incomplete: {report}");
        Ok(())
    }

    /// The positive control: `client` sends a UDP datagram to the web host past any VPN, and this
    /// capture has to show it. Without that an empty capture would prove nothing.
    pub fn expect_probe(&self, client: &Node) -> Result<()> {
        let probe = format!("echo probe > /dev/udp/{}/9", address::WEB);
        client.ok(&["bash", "-c", &probe])?;
        self.wait_for("the probe", |flow| flow.is_with("udp", address::WEB.into(), 9))
    }

    /// Waits until a packet of a flow like this has come by.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Flow) -> bool) -> Result<()> {
        let what = format!("{what} to come by on {}", self.link);
        until(&what, Duration::from_secs(3), || Ok(self.flows()?.keys().any(&is_it).then_some(())))
    }
}

/// The packets of a pcap file (little-endian, as tcpdump writes it here). An incomplete record at
/// the end is what tcpdump is writing right now.
fn read_pcap(file: &[u8], since: SystemTime) -> Result<Vec<Packet>> {
    let Some((header, mut rest)) = file.split_at_checked(24) else { return Ok(Vec::new()) };
    ensure!(word(header, 0) == 0xa1b2_c3d4, "not a pcap file of this machine");
    let link = word(header, 20);
    let mut packets = Vec::new();
    while let Some((record, behind)) = rest.split_at_checked(16) {
        let length = word(record, 8) as usize;
        let Some((packet, behind)) = behind.split_at_checked(length) else { break };
        rest = behind;
        let since_epoch = Duration::new(word(record, 0).into(), word(record, 4) * 1_000);
        let time = UNIX_EPOCH + since_epoch;
        if time >= since {
            let (flow, question) = parse(link, packet)?;
            packets.push(Packet { time, flow, question });
        }
    }
    Ok(packets)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn parse(link: u32, packet: &[u8]) -> Result<(Flow, Option<String>)> {
    let parsed = match link {
        LINK_ETHERNET => LaxSlicedPacket::from_ethernet(packet).ok(),
        LINK_RAW => LaxSlicedPacket::from_ip(packet).ok(),
        other => bail!("captures of link type {other} are not read here"),
    };
    let mut flow = Flow {
        protocol: "unknown".to_owned(),
        source: None,
        destination: None,
        source_port: 0,
        port: 0,
    };
    let Some(parsed) = parsed else { return Ok((flow, None)) };
    match parsed.net {
        Some(LaxNetSlice::Arp(_)) => flow.protocol = "arp".to_owned(),
        Some(LaxNetSlice::Ipv4(ip)) => {
            flow.protocol = u8::from(ip.payload().ip_number).to_string();
            flow.source = Some(ip.header().source_addr().into());
            flow.destination = Some(Ipv4Addr::from(ip.header().destination()).into());
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            flow.protocol = u8::from(ip.payload().ip_number).to_string();
            flow.source = Some(ip.header().source_addr().into());
            flow.destination = Some(ip.header().destination_addr().into());
        }
        None => {}
    }
    let mut question = None;
    let (name, source_port, port) = match parsed.transport {
        Some(TransportSlice::Tcp(tcp)) => ("tcp", tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => {
            if udp.destination_port() == DNS_PORT {
                question = asked_name(udp.payload());
            }
            ("udp", udp.source_port(), udp.destination_port())
        }
        Some(TransportSlice::Icmpv4(icmp)) => ("icmp", 0, icmp.type_u8().into()),
        Some(TransportSlice::Icmpv6(icmp)) => ("icmpv6", 0, icmp.type_u8().into()),
        Some(TransportSlice::Igmp(_)) => ("igmp", 0, 0),
        None => return Ok((flow, None)),
    };
    Ok((Flow { protocol: name.to_owned(), source_port, port, ..flow }, question))
}

/// The name in a DNS question (RFC 1035, 4.1), without the final dot.
fn asked_name(message: &[u8]) -> Option<String> {
    let mut labels = Vec::new();
    let mut rest = message.get(12..)?;
    while let Some((&length @ 1.., behind)) = rest.split_first() {
        let (label, behind) = behind.split_at_checked(length.into())?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        rest = behind;
    }
    Some(labels.join("."))
}
