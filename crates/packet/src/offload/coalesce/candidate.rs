//! Which packets can be put together with others at all.

use super::super::check::{self, Transport};
use crate::checksum::Sum;
use crate::ip::{self, Version};

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_ACK: u8 = 0x10;
const TCP_ECE: u8 = 0x40;

/// Only the last packet of a group may have these: only the last piece gets them when it is cut.
pub(super) const TCP_LAST: u8 = TCP_FIN | TCP_PSH;

/// An IPv4 header without options.
const V4_HEADER_LEN: usize = 20;
const V6_HEADER_LEN: usize = 40;
const V4_FIRST_BYTE: u8 = 0x45;
/// More fragments, or an offset.
const V4_FRAGMENT: u16 = 0x3fff;
const V6_HOP_BY_HOP: u8 = 0;
const V6_ROUTING: u8 = 43;
const V6_FRAGMENT: u8 = 44;
const V6_DESTINATION_OPTIONS: u8 = 60;

/// What a packet is to the others.
pub(super) enum Verdict<'a> {
    /// It has nothing to do with any group.
    Unrelated,
    /// It may belong to any group: its flow is not looked for.
    Odd,
    /// It belongs to this flow, but goes with no others.
    Alone(u64),
    /// It may go with others.
    Candidate(Candidate<'a>),
}

/// A packet that may go with others; its checksums have not been looked at.
pub(super) struct Candidate<'a> {
    pub(super) packet: &'a [u8],
    /// Equal in all packets of a flow, and seldom in others.
    pub(super) flow: u64,
    pub(super) version: Version,
    pub(super) transport: Transport,
    pub(super) transport_offset: usize,
    pub(super) payload_offset: usize,
    /// Nothing goes behind it.
    pub(super) is_last: bool,
}

/// `tcp` and `udp`: which of them are to be put together.
pub(super) fn judge(packet: &[u8], tcp: bool, udp: bool) -> Verdict<'_> {
    let Some((version, protocol, transport_offset)) = ip_header(packet) else {
        return Verdict::Odd;
    };
    let transport = match protocol {
        ip::TCP if tcp => Transport::Tcp,
        ip::UDP if udp => Transport::Udp,
        _ => return Verdict::Unrelated,
    };
    let segment = &packet[transport_offset..];
    let header_len = match transport {
        Transport::Tcp => check::tcp_header_len(segment),
        Transport::Udp => check::udp_header_len(segment),
    };
    let Ok(header_len) = header_len else { return Verdict::Odd };
    let payload_offset = transport_offset + header_len;
    let flow = flow(packet, version, transport, segment);
    let fits = match transport {
        // ACK is set in all segments but the first; the reserved bits are not known here
        Transport::Tcp => segment[13] & !(TCP_LAST | TCP_ECE) == TCP_ACK && segment[12] & 0x0f == 0,
        Transport::Udp => true,
    };
    if !fits || payload_offset == packet.len() {
        return Verdict::Alone(flow);
    }
    let is_last = transport == Transport::Tcp && segment[13] & TCP_LAST != 0;
    Verdict::Candidate(Candidate {
        packet,
        flow,
        version,
        transport,
        transport_offset,
        payload_offset,
        is_last,
    })
}

/// Version, protocol and length of a header without options or extension headers; `None` for any
/// other, and for fragments.
fn ip_header(packet: &[u8]) -> Option<(Version, u8, usize)> {
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    match packet.first()? >> 4 {
        4 => {
            let sound = packet.len() >= V4_HEADER_LEN
                && packet[0] == V4_FIRST_BYTE
                && usize::from(word(2)) == packet.len()
                && word(6) & V4_FRAGMENT == 0;
            sound.then(|| (Version::V4, packet[9], V4_HEADER_LEN))
        }
        6 => {
            let sound = packet.len() >= V6_HEADER_LEN
                && usize::from(word(4)) + V6_HEADER_LEN == packet.len()
                && !matches!(
                    packet[6],
                    V6_HOP_BY_HOP | V6_ROUTING | V6_FRAGMENT | V6_DESTINATION_OPTIONS
                );
            sound.then(|| (Version::V6, packet[6], V6_HEADER_LEN))
        }
        _ => None,
    }
}

/// What addresses and ports are mixed with; a large odd number without a pattern.
pub(super) const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes addresses, ports and protocol.
fn flow(packet: &[u8], version: Version, transport: Transport, segment: &[u8]) -> u64 {
    let addresses = match version {
        Version::V4 => &packet[12..20],
        Version::V6 => &packet[8..40],
    };
    let ports = u32::from_be_bytes([segment[0], segment[1], segment[2], segment[3]]);
    let protocol = u64::from(transport == Transport::Tcp);
    let seed = u64::from(ports) << 1 | protocol;
    let (words, _) = addresses.as_chunks::<8>();
    words.iter().fold(seed.wrapping_mul(FACTOR), |mixed, word| {
        (mixed ^ u64::from_ne_bytes(*word)).wrapping_mul(FACTOR).rotate_left(29)
    })
}

/// Whether the checksums of IPv4 and transport header are right, in the very form that cutting
/// gives them: 0 and 0xffff are equal in ones' complement. UDP without a checksum (0) has none
/// that is right.
pub(super) fn has_right_checksums(
    packet: &[u8],
    version: Version,
    transport: Transport,
    transport_offset: usize,
) -> bool {
    let (header, segment) = packet.split_at(transport_offset);
    let (addresses, protocol) = match version {
        Version::V4 => (&header[12..20], header[9]),
        Version::V6 => (&header[8..40], header[6]),
    };
    let ip_is_right = match version {
        Version::V4 => Sum::ZERO.bytes(header).finish() == 0 && header[10..12] != [0xff, 0xff],
        Version::V6 => true,
    };
    let at = match transport {
        Transport::Tcp => 16,
        Transport::Udp => 6,
    };
    // at most 65,535 bytes
    let pseudo = Sum::ZERO.bytes(addresses).word(u16::from(protocol)).word(segment.len() as u16);
    ip_is_right && segment[at..at + 2] != [0, 0] && pseudo.bytes(segment).finish() == 0
}
