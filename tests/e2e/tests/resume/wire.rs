//! What a bystander sees of a client's connections to the gateway: records, with their times.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Lab, Node, Process, address};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

const PORT: u16 = 8443;
/// Type and length of TLS records and of tunnel records alike.
const HEADER: usize = 5;
/// The least length of a record that holds a control message.
const ANSWER_MIN: usize = 1_024;
/// The length of a tunnel record that holds a ping or pong and nothing else.
const PING: usize = 8 + 12 + 16;

/// A running tcpdump that keeps packets whole.
pub(crate) struct Wire {
    path: PathBuf,
    _process: Process,
}

/// One connection, as far as it was seen.
pub(crate) struct Connection {
    /// The client's port.
    pub(crate) port: u16,
    /// When the client began.
    began: Duration,
    /// Records from the gateway: their length without header, and when they were whole.
    received: Vec<(usize, Duration)>,
}

impl Wire {
    /// Captures what this client exchanges with the gateway.
    pub(crate) fn start(client: &Node) -> Result<Wire> {
        let path = client.dir().join("wire.pcap");
        let file = path.to_str().context("path is not UTF-8")?;
        let words =
            ["tcpdump", "-i", "eth0", "-w", file, "-U", "--immediate-mode", "-n", "-Z", "root"];
        let mut process =
            client.spawn("tcpdump-wire", &[&words[..], &["tcp", "port", "8443"]].concat())?;
        process.wait_for_error_line("listening on", Duration::from_secs(10))?;
        Ok(Wire { path, _process: process })
    }

    /// The connections so far, in the order of their beginnings.
    pub(crate) fn connections(&self) -> Result<Vec<Connection>> {
        let packets = packets(&std::fs::read(&self.path)?);
        let mut connections = Vec::new();
        for packet in packets.iter().filter(|packet| packet.syn && !packet.from_gateway) {
            if connections.iter().any(|c: &Connection| c.port == packet.client_port) {
                continue;
            }
            let of_it = packets.iter().filter(|p| p.client_port == packet.client_port);
            connections.push(Connection {
                port: packet.client_port,
                began: packet.time,
                received: records(of_it.filter(|p| p.from_gateway)),
            });
        }
        Ok(connections)
    }
}

impl Connection {
    /// From the client's first packet to the first record behind the gateway's answer that has a
    /// packet in it.
    pub(crate) fn first_packet(&self) -> Option<Duration> {
        // the first one is the ServerHello
        let mut behind = self.received.iter().skip(1);
        behind.find(|(length, _)| *length >= ANSWER_MIN)?;
        Some(behind.find(|(length, _)| *length > 2 * PING)?.1 - self.began)
    }

    /// How many bytes of records the gateway sent before its answer.
    pub(crate) fn before_answer(&self) -> usize {
        let lengths = self.received.iter().skip(1).map(|(length, _)| *length);
        lengths.take_while(|length| *length < ANSWER_MIN).sum()
    }
}

struct Packet {
    time: Duration,
    client_port: u16,
    from_gateway: bool,
    syn: bool,
    sequence: u32,
    payload: Vec<u8>,
}

/// The packets of a pcap file (little-endian, as tcpdump writes it here) that are whole.
fn packets(file: &[u8]) -> Vec<Packet> {
    let word = |bytes: &[u8], at: usize| {
        bytes[at..at + 4].iter().rev().fold(0_u32, |value, byte| value << 8 | u32::from(*byte))
    };
    let mut found = Vec::new();
    let mut rest = file.get(24..).unwrap_or_default();
    while let Some((record, behind)) = rest.split_at_checked(16) {
        let Some((packet, behind)) = behind.split_at_checked(word(record, 8) as usize) else {
            break;
        };
        let seconds = Duration::from_secs(word(record, 0).into());
        let time = seconds + Duration::from_micros(word(record, 4).into());
        found.extend(parse(time, packet));
        rest = behind;
    }
    found
}

fn parse(time: Duration, packet: &[u8]) -> Option<Packet> {
    let parsed = SlicedPacket::from_ethernet(packet).ok()?;
    let Some(NetSlice::Ipv4(ip)) = parsed.net else { return None };
    let Some(TransportSlice::Tcp(tcp)) = parsed.transport else { return None };
    let from_gateway = IpAddr::from(ip.header().source_addr()) == IpAddr::from(address::GATEWAY);
    Some(Packet {
        time,
        client_port: if from_gateway { tcp.destination_port() } else { tcp.source_port() },
        from_gateway,
        syn: tcp.syn(),
        sequence: tcp.sequence_number(),
        payload: tcp.payload().to_vec(),
    })
}

/// The records of one direction, as far as nothing is missing.
fn records<'a>(packets: impl Iterator<Item = &'a Packet>) -> Vec<(usize, Duration)> {
    let (mut bytes, mut next, mut found) = (Vec::new(), None, Vec::new());
    for packet in packets {
        if packet.syn {
            next = Some(packet.sequence.wrapping_add(1));
            continue;
        }
        if packet.payload.is_empty() || next != Some(packet.sequence) {
            continue;
        }
        next = Some(packet.sequence.wrapping_add(packet.payload.len() as u32));
        bytes.extend_from_slice(&packet.payload);
        while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            if bytes.len() < HEADER + length {
                break;
            }
            bytes.drain(..HEADER + length);
            found.push((length, packet.time));
        }
    }
    found
}

/// Sends what somebody else once sent, from an address of its own. The gateway may answer with its
/// part of a handshake, which is another one: no `Welcome`, no tunnel.
pub(crate) fn replay(lab: &Lab, sent: &[u8]) -> Result<()> {
    let replay = || -> Result<Vec<u8>> {
        lab.internet.enter_network()?;
        let gateway = SocketAddr::from((address::GATEWAY, PORT));
        let mut stream = TcpStream::connect(gateway)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.write_all(sent)?;
        let mut answer = Vec::new();
        // however it ends
        let _ = stream.read_to_end(&mut answer);
        Ok(answer)
    };
    let answer = std::thread::scope(|scope| scope.spawn(replay).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    assert!(answer.len() < 3_000, "{} bytes in answer to a replay", answer.len());
    Ok(())
}
