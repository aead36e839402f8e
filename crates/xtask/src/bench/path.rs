//! The paths that are measured beside each other, and a laboratory with one of them.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use e2e::{Lab, Node, Process, address};

use super::Bench;
use super::interrupt;
use super::ours::Ours;
use super::peers::Peer;
use super::report::Described;

/// An address of the web host that can be reached through a tunnel only: nothing that is measured
/// there went around it.
const BEHIND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 81);

/// Ways to measure to the web host.
pub(crate) struct Path {
    /// As the tables call it.
    pub(crate) name: String,
    pub(crate) via: Via,
    /// The congestion control of what iperf3 sends.
    pub(crate) inside: &'static str,
    /// The congestion control that a peer's connection gets, if it has one.
    pub(crate) outside: &'static str,
}

/// What carries the packets.
#[derive(Clone, Copy)]
pub(crate) enum Via {
    /// Nothing: routed and translated as they are.
    Direct,
    /// CipherWall.
    Ours(Ours),
    /// Another VPN.
    Peer(Peer),
}

impl Path {
    /// With CUBIC wherever nobody chooses, which is Linux's default.
    pub(crate) fn new(name: &str, via: Via) -> Path {
        Path { name: name.to_owned(), via, inside: "cubic", outside: "cubic" }
    }

    /// Before anything is known about it.
    pub(crate) fn described(&self) -> Described {
        let is_peer = match self.via {
            Via::Direct | Via::Ours(_) => false,
            Via::Peer(_) => true,
        };
        let (version, settings) = (String::new(), String::new());
        Described { name: self.name.clone(), is_peer, version, settings }
    }

    /// Through CipherWall.
    pub(crate) fn ours(ours: Ours) -> Path {
        Path::new(&ours.name(), Via::Ours(ours))
    }
}

/// The two ends of a VPN in a laboratory. The gateway's end runs as long as this value.
pub(crate) trait Vpn {
    /// Starts the client's end, and does all that is the user's to do. It may return before
    /// packets get through.
    fn connect(&mut self) -> Result<()>;
    /// Waits until packets get through in the way that is to be measured.
    fn settle(&mut self) -> Result<()>;
    /// Ends the client's end.
    fn disconnect(&mut self) -> Result<()>;
    /// Stops the gateway's end and starts it again, until it is ready; `false` if this cannot be
    /// done.
    fn restart_gateway(&mut self) -> Result<bool> {
        Ok(false)
    }
    /// Process ids of the client's end, without children.
    fn client_pids(&self) -> Vec<u32>;
    /// Process ids of the gateway's end, without children.
    fn gateway_pids(&self) -> Vec<u32>;
    /// Version and settings, while connected.
    fn describe(&self) -> Result<(String, String)>;
}

/// A laboratory of its own for one path in one round.
pub(crate) struct Site {
    /// First, so that it ends first.
    pub(crate) vpn: Option<Box<dyn Vpn>>,
    _iperf3: Process,
    pub(crate) lab: Lab,
    /// Where the web host is reached on this path.
    pub(crate) target: IpAddr,
    /// The congestion control of what iperf3 sends.
    pub(crate) inside: &'static str,
    /// Busy processors before each measurement.
    pub(crate) noise: Vec<f64>,
}

impl Site {
    /// The gateway's end is running, the client is not connected.
    pub(crate) fn new(bench: &Bench, path: &Path) -> Result<Site> {
        let lab = Lab::new()?;
        interrupt::remove_later(&lab);
        lab.web.ip(&["address", "add", &format!("{BEHIND}/24"), "dev", "eth0"])?;
        lab.routers[0].ip(&["route", "add", "blackhole", &BEHIND.to_string()])?;
        let vpn: Option<Box<dyn Vpn>> = match path.via {
            Via::Direct => None,
            Via::Ours(ours) => Some(ours.start(&lab, &bench.programs)?),
            Via::Peer(peer) => Some(peer.start(&lab, BEHIND, path.outside)?),
        };
        let target = if vpn.is_some() { BEHIND } else { address::WEB };
        Ok(Site {
            vpn,
            _iperf3: lab.start_iperf3()?,
            lab,
            target: target.into(),
            inside: path.inside,
            noise: Vec::new(),
        })
    }

    /// The client's machine.
    pub(crate) fn client(&self) -> &Node {
        &self.lab.clients[0]
    }

    /// What is being measured, while it is connected.
    pub(crate) fn describe(&self, path: &Path) -> Result<Described> {
        let (version, mut settings) = match &self.vpn {
            None => (String::new(), "routed and translated".to_owned()),
            Some(vpn) => vpn.describe()?,
        };
        settings += &format!("; {} inside", path.inside);
        if let Via::Peer(peer) = path.via
            && peer.is_over_tcp()
        {
            settings += &format!(", {} outside", path.outside);
        }
        Ok(Described { version, settings, ..path.described() })
    }
}

/// The MTU of an interface.
pub(crate) fn mtu(node: &Node, interface: &str) -> Result<String> {
    Ok(node.ok(&["cat", &format!("/sys/class/net/{interface}/mtu")])?.trim().to_owned())
}
