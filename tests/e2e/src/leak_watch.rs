//! Shows that nothing leaks: a program sends everything everywhere ([`Sprayer`]), and what the host
//! sends on its link is captured at the other end of it, in the router. Before and after, each kind
//! of packet has to be seen there: otherwise an empty capture would prove nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::address;
use crate::capture::{Capture, Flow, Packet};
use crate::lab::Lab;
use crate::node::Node;
use crate::sprayer::{Kind, SOURCE_PORT, Source, Sprayer};
use crate::tools::until;

/// How long it may take until everything is seen outside again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long tcpdump may take to write a packet.
const WRITING_TIME: Duration = Duration::from_millis(100);
/// The ports of gateways for streams.
const STREAM_PORTS: [u16; 2] = [8_443, 443];
/// The ports of gateways for KCP and for datagrams.
const DATAGRAM_PORTS: [RangeInclusive<u16>; 3] = [443..=443, 1_194..=1_194, 9_000..=9_099];

/// A running sprayer and what is seen of it.
#[derive(Debug)]
pub struct LeakWatch {
    captures: Vec<Capture>,
    sprayer: Option<Sprayer>,
    kinds: Vec<Kind>,
    gateways: Vec<IpAddr>,
    names: Vec<String>,
    allow_lan: bool,
}

impl LeakWatch {
    /// Sprays from the lab's first client; returns when each kind was seen outside.
    pub fn start(lab: &Lab) -> Result<LeakWatch> {
        let source = Source::client(lab, 0);
        let kinds = source.kinds();
        LeakWatch::start_with(lab, &source, kinds)
    }

    /// Sprays these kinds from `source`, which is the lab's first client or behind it.
    pub fn start_with(lab: &Lab, source: &Source, kinds: Vec<Kind>) -> Result<LeakWatch> {
        let watch = LeakWatch {
            captures: vec![Capture::start_incoming(&lab.routers[0], "lan0")?],
            sprayer: Some(Sprayer::start(lab, source, &kinds)?),
            kinds,
            gateways: vec![address::GATEWAY.into(), address::GATEWAY_V6.into()],
            names: Vec::new(),
            allow_lan: true,
        };
        watch.expect_all("at first", SystemTime::now(), |_| true)?;
        Ok(watch)
    }

    /// Sprays anew, from the lab's first client after a new start.
    pub fn spray_again(&mut self, lab: &Lab) -> Result<()> {
        self.sprayer = None;
        self.sprayer = Some(Sprayer::start(lab, &Source::client(lab, 0), &self.kinds)?);
        Ok(())
    }

    /// The client has another link, which leads to `link` of `node`.
    pub fn look_at(&mut self, node: &Node, link: &str) -> Result<()> {
        self.captures.push(Capture::start_incoming(node, link)?);
        Ok(())
    }

    /// There is another gateway.
    pub fn add_gateway(&mut self, gateway: IpAddr) {
        self.gateways.push(gateway);
    }

    /// The client may ask for this name outside, while it is not connected.
    pub fn allow_question(&mut self, name: &str) {
        self.names.push(name.to_owned());
    }

    /// Whether the local network may be reached, as it may at first.
    pub fn allow_lan(&mut self, allow: bool) {
        self.allow_lan = allow;
    }

    /// Waits until everything is seen outside, from now on.
    pub fn expect_open(&self, when: &str) -> Result<()> {
        self.expect_all(when, SystemTime::now(), Kind::is_regular)
    }

    /// As [`LeakWatch::expect_open`], of kinds like this.
    pub fn expect_open_for(&self, when: &str, is_it: impl Fn(&Kind) -> bool) -> Result<()> {
        self.expect_all(when, SystemTime::now(), |kind| kind.is_regular() && is_it(kind))
    }

    fn expect_all(
        &self,
        when: &str,
        since: SystemTime,
        is_it: impl Fn(&Kind) -> bool,
    ) -> Result<()> {
        until(&format!("all kinds of packets to be seen outside {when}"), PATIENCE, || {
            let seen = self.packets_since(since)?;
            let is_seen = |kind: &Kind| seen.iter().any(|packet| kind.is(&packet.flow));
            let missing: Vec<&Kind> =
                self.kinds.iter().filter(|kind| is_it(kind) && !is_seen(kind)).collect();
            if !missing.is_empty() {
                bail!("not seen: {missing:?}");
            }
            Ok(Some(()))
        })
    }

    /// When the client sent its first packet of its own after this, but for connections from before:
    /// to the gateway, or a question for its name. From then on it has to be closed.
    pub fn first_own_packet(&self, since: SystemTime) -> Result<SystemTime> {
        let packets = self.packets_since(UNIX_EPOCH)?;
        let (before, after) = packets.split_at(packets.partition_point(|it| it.time < since));
        let known: BTreeSet<&Flow> =
            before.iter().filter(|packet| self.is_own(packet)).map(|packet| &packet.flow).collect();
        let is_first = |packet: &&Packet| self.is_own(packet) && !known.contains(&packet.flow);
        Ok(after.iter().find(is_first).context("the client has sent nothing to the gateway")?.time)
    }

    /// Fails if anything leaked from `since` until now, and shows what, and when.
    pub fn expect_closed(&self, since: SystemTime, when: &str) -> Result<()> {
        self.expect_closed_but(since, when, |_| false)
    }

    /// As [`LeakWatch::expect_closed`], where packets like this are let through.
    pub fn expect_closed_but(
        &self,
        since: SystemTime,
        when: &str,
        is_excused: impl Fn(&Packet) -> bool,
    ) -> Result<()> {
        let end = SystemTime::now();
        sleep(WRITING_TIME);
        let packets = self.packets_since(since)?;
        let leaks: Vec<&Packet> = packets
            .iter()
            .filter(|packet| packet.time <= end && !self.is_allowed(packet))
            .filter(|packet| !is_excused(packet))
            .collect();
        if leaks.is_empty() {
            return Ok(());
        }
        bail!("leaked outside {when}:\n{}", self.describe(&leaks, since))
    }

    /// Ends it; an error if the capture is not complete.
    pub fn finish(mut self) -> Result<()> {
        self.sprayer = None;
        self.captures.iter_mut().try_for_each(Capture::stop)
    }

    /// What came from the client, over all of its links.
    fn packets_since(&self, since: SystemTime) -> Result<Vec<Packet>> {
        let mut packets = Vec::new();
        for capture in &self.captures {
            packets.extend(capture.packets_since(since)?);
        }
        packets.sort_by_key(|packet| packet.time);
        Ok(packets)
    }

    fn is_own(&self, packet: &Packet) -> bool {
        let Packet { flow, question, .. } = packet;
        let ports_match = match flow.protocol.as_str() {
            "tcp" => STREAM_PORTS.contains(&flow.port),
            "udp" => DATAGRAM_PORTS.iter().any(|ports| ports.contains(&flow.port)),
            _ => false,
        };
        let to_gateway = ports_match
            && flow.source_port != SOURCE_PORT
            && flow.destination.is_some_and(|address| self.gateways.contains(&address));
        to_gateway || question.as_ref().is_some_and(|name| self.names.contains(name))
    }

    fn is_allowed(&self, packet: &Packet) -> bool {
        let flow = &packet.flow;
        self.is_own(packet)
            || flow.is_link_housekeeping()
            || flow.protocol == "igmp"
            || is_dhcp(flow)
            || self.allow_lan && is_local(flow)
    }

    /// A line for each flow: how often, and when.
    fn describe(&self, leaks: &[&Packet], since: SystemTime) -> String {
        let mut flows: BTreeMap<Flow, (usize, Duration, Duration, &Packet)> = BTreeMap::new();
        for leak in leaks {
            let after = leak.time.duration_since(since).unwrap_or_default();
            let any_port = Flow { source_port: 0, ..leak.flow.clone() };
            let entry = flows.entry(any_port).or_insert((0, after, after, leak));
            entry.0 += 1;
            entry.2 = after;
        }
        let mut text = String::new();
        for (flow, (count, first, last, packet)) in flows {
            let kind = self.kinds.iter().find(|kind| kind.is(&packet.flow));
            let kind = kind.map_or("no spray".to_owned(), |kind| format!("{kind:?}"));
            let _ = write!(text, "{count} x {flow} [{kind}], {first:.3?} to {last:.3?} after");
            if let Some(name) = &packet.question {
                let _ = write!(text, ", asking for {name}");
            }
            text.push('\n');
        }
        text
    }
}

fn is_dhcp(flow: &Flow) -> bool {
    flow.protocol == "udp" && matches!((flow.source_port, flow.port), (68, 67) | (546, 547))
}

/// In the local network, but for DNS.
fn is_local(flow: &Flow) -> bool {
    let is_dns = matches!(flow.protocol.as_str(), "tcp" | "udp") && matches!(flow.port, 53 | 853);
    let is_local = match flow.destination {
        Some(IpAddr::V4(address)) => {
            let is_multicast = address.octets()[..3] == [224, 0, 0] || address.octets()[0] == 239;
            address.is_private()
                || address.is_link_local()
                || is_multicast
                || address == Ipv4Addr::BROADCAST
        }
        Some(IpAddr::V6(address)) => {
            address.is_unique_local()
                || address.is_unicast_link_local()
                || is_link_multicast(address)
        }
        None => false,
    };
    is_local && !is_dns
}

/// Of interface, link, realm, admin and site scope (RFC 7346).
fn is_link_multicast(address: Ipv6Addr) -> bool {
    address.is_multicast() && (1..=5).contains(&(address.octets()[1] & 0x0f))
}
