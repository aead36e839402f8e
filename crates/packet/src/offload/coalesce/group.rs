//! Packets of a flow that have been put together.

use super::super::check::{MAX_TCP_SEGMENTS, Transport};
use super::super::{
    GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, OffloadHeader, TCP_CSUM_OFFSET, UDP_CSUM_OFFSET,
};
use super::candidate::{Candidate, TCP_LAST, has_right_checksums};
use crate::checksum::Sum;
use crate::ip::Version;

/// As long as a packet may be.
const PACKET_MAX: usize = 65_535;
/// What all kernels take (`UDP_MAX_SEGMENTS` up to Linux 6.5).
const UDP_PIECES: usize = 64;
const V4_DONT_FRAGMENT: u8 = 0x40;

/// The first packet, with the payloads of the others behind its own.
#[derive(Debug)]
pub(super) struct Group {
    buffer: Vec<u8>,
    flow: u64,
    version: Version,
    transport: Transport,
    transport_offset: usize,
    payload_offset: usize,
    /// Payload bytes of the first packet, hence of all but the last.
    piece_len: usize,
    pieces: usize,
    /// The sequence number that comes next.
    sequence: u32,
    /// The last packet was shorter than the others.
    is_closed: bool,
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            buffer: Vec::with_capacity(PACKET_MAX),
            flow: 0,
            version: Version::V4,
            transport: Transport::Tcp,
            transport_offset: 0,
            payload_offset: 0,
            piece_len: 0,
            pieces: 0,
            sequence: 0,
            is_closed: false,
        }
    }

    /// Starts anew with this packet.
    pub(super) fn begin(&mut self, first: &Candidate<'_>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(first.packet);
        let piece_len = first.packet.len() - first.payload_offset;
        *self = Self {
            buffer,
            flow: first.flow,
            version: first.version,
            transport: first.transport,
            transport_offset: first.transport_offset,
            payload_offset: first.payload_offset,
            piece_len,
            pieces: 1,
            sequence: sequence(&first.packet[first.transport_offset..], piece_len),
            is_closed: false,
        };
    }

    /// Whether the packet belongs to the same flow; `flow` is its hash.
    pub(super) fn is_of(&self, flow: u64, packet: &[u8]) -> bool {
        let addresses_and_ports = match self.version {
            Version::V4 => 12..24,
            Version::V6 => 8..44,
        };
        self.flow == flow
            && self.buffer[0] >> 4 == packet[0] >> 4
            && self.protocol() == protocol(packet, self.version)
            && packet.get(addresses_and_ports.clone()) == self.buffer.get(addresses_and_ports)
    }

    /// Adds a packet of the flow; `false`, and no change, if it does not go with the others. There
    /// must be room ([`Group::is_full`]).
    pub(super) fn append(&mut self, next: &Candidate<'_>) -> bool {
        let payload = &next.packet[next.payload_offset..];
        let goes_with_them = next.payload_offset == self.payload_offset
            && payload.len() <= self.piece_len
            && self.has_same_ip_header(next.packet)
            && self.has_same_transport_header(&next.packet[self.transport_offset..])
            && (self.pieces > 1 || self.is_right(&self.buffer))
            && self.is_right(next.packet);
        if !goes_with_them {
            return false;
        }
        self.buffer.extend_from_slice(payload);
        self.pieces += 1;
        self.is_closed = payload.len() < self.piece_len;
        if self.transport == Transport::Tcp {
            self.sequence = self.sequence.wrapping_add(payload.len() as u32);
            self.buffer[self.transport_offset + 13] |=
                next.packet[self.transport_offset + 13] & TCP_LAST;
        }
        true
    }

    /// Whether there is no room for more.
    pub(super) fn is_full(&self) -> bool {
        let most = match self.transport {
            Transport::Tcp => MAX_TCP_SEGMENTS,
            Transport::Udp => UDP_PIECES,
        };
        self.is_closed || self.pieces == most || self.buffer.len() + self.piece_len > PACKET_MAX
    }

    /// Gives out what there is.
    pub(super) fn emit(&mut self, emit: &mut impl FnMut(&OffloadHeader, &[u8])) {
        if self.pieces == 1 {
            return emit(&OffloadHeader::NONE, &self.buffer);
        }
        self.finish_headers();
        let (gso_type, csum_offset) = match (self.transport, self.version) {
            (Transport::Tcp, Version::V4) => (GSO_TCPV4, TCP_CSUM_OFFSET),
            (Transport::Tcp, Version::V6) => (GSO_TCPV6, TCP_CSUM_OFFSET),
            (Transport::Udp, _) => (GSO_UDP_L4, UDP_CSUM_OFFSET),
        };
        let header = OffloadHeader {
            flags: NEEDS_CSUM,
            gso_type,
            header_len: low16(self.payload_offset),
            gso_size: low16(self.piece_len),
            csum_start: low16(self.transport_offset),
            csum_offset,
        };
        emit(&header, &self.buffer);
    }

    /// Lengths, IPv4 checksum, and the sum of the pseudo header for the transport's.
    fn finish_headers(&mut self) {
        let transport_len = low16(self.buffer.len() - self.transport_offset);
        let protocol = self.protocol();
        let packet = &mut self.buffer;
        let addresses = match self.version {
            Version::V4 => {
                let len = low16(packet.len());
                put(packet, 2, len);
                put(packet, 10, 0);
                let checksum = Sum::ZERO.bytes(&packet[..self.transport_offset]).finish();
                put(packet, 10, checksum);
                12..20
            }
            Version::V6 => {
                put(packet, 4, transport_len);
                8..40
            }
        };
        let pseudo =
            Sum::ZERO.bytes(&packet[addresses]).word(u16::from(protocol)).word(transport_len);
        let csum_offset = match self.transport {
            Transport::Tcp => TCP_CSUM_OFFSET,
            Transport::Udp => {
                put(packet, self.transport_offset + 4, transport_len);
                UDP_CSUM_OFFSET
            }
        };
        put(packet, self.transport_offset + usize::from(csum_offset), pseudo.fold());
    }

    fn is_right(&self, packet: &[u8]) -> bool {
        has_right_checksums(packet, self.version, self.transport, self.transport_offset)
    }

    /// All but lengths and checksum. The addresses have been compared.
    fn has_same_ip_header(&self, packet: &[u8]) -> bool {
        let first = &self.buffer;
        match self.version {
            Version::V4 => {
                // Pieces are numbered; with DF the number means nothing (RFC 6864).
                let number = read(first, 4).wrapping_add(low16(self.pieces));
                first[..2] == packet[..2]
                    && first[6..10] == packet[6..10]
                    && (first[6] & V4_DONT_FRAGMENT != 0 || read(packet, 4) == number)
            }
            Version::V6 => first[..4] == packet[..4] && first[6..8] == packet[6..8],
        }
    }

    /// All but what differs between pieces. The ports have been compared.
    fn has_same_transport_header(&self, segment: &[u8]) -> bool {
        let first = &self.buffer[self.transport_offset..self.payload_offset];
        match self.transport {
            Transport::Udp => true,
            Transport::Tcp => {
                sequence(segment, 0) == self.sequence
                    && first[8..13] == segment[8..13]
                    && (first[13] ^ segment[13]) & !TCP_LAST == 0
                    && first[14..16] == segment[14..16]
                    && first[18..] == segment[18..first.len()]
            }
        }
    }

    fn protocol(&self) -> u8 {
        protocol(&self.buffer, self.version)
    }
}

fn protocol(packet: &[u8], version: Version) -> u8 {
    match version {
        Version::V4 => packet[9],
        Version::V6 => packet[6],
    }
}

/// The sequence number of a TCP segment, and so many bytes on. It means nothing for UDP.
fn sequence(segment: &[u8], passed: usize) -> u32 {
    u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]).wrapping_add(passed as u32)
}

fn read(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Lengths within a packet are below 65,536.
fn low16(len: usize) -> u16 {
    len as u16
}
