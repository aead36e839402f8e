//! Packets as a well-formed sender makes them, for the tests of this module.

use super::*;
use crate::checksum::Sum;
use crate::ip;
use proptest::prelude::*;

/// What varies in a packet; the default is a TCP segment over IPv4 to be cut in three.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) v6: bool,
    pub(super) tcp: bool,
    /// IPv4 options or an IPv6 destination options header, in words of 4 or 8 bytes.
    pub(super) ip_extra: usize,
    /// Words of 4 bytes of TCP options.
    pub(super) tcp_extra: usize,
    pub(super) tcp_flags: u8,
    pub(super) sequence: u32,
    /// The source port; tells flows apart.
    pub(super) port: u16,
    /// DF, with IPv4.
    pub(super) dont_fragment: bool,
    pub(super) payload_len: usize,
    /// 0: only the checksum is left to be done.
    pub(super) gso_size: u16,
}

impl Default for Sample {
    fn default() -> Sample {
        Sample {
            v6: false,
            tcp: true,
            ip_extra: 0,
            tcp_extra: 0,
            tcp_flags: 0x10,
            sequence: 1,
            port: 8_080,
            dont_fragment: true,
            payload_len: 3_000,
            gso_size: 1_200,
        }
    }
}

/// All kinds of them.
pub(super) fn samples() -> impl Strategy<Value = Sample> {
    let kind = (any::<bool>(), any::<bool>(), 0usize..=10, 0usize..=10);
    let size = prop_oneof![
        (0usize..3_000).prop_map(|len| (len, 0)),
        (1u16..=1_500, 2usize..=40, 0u16..=1_499).prop_map(|(size, pieces, short)| {
            let len = usize::from(size) * pieces - usize::from(short % size);
            (len.min(60_000), size)
        }),
    ];
    (kind, any::<u8>(), any::<u32>(), size).prop_map(
        |((v6, tcp, ip_extra, tcp_extra), tcp_flags, sequence, (payload_len, gso_size))| Sample {
            v6,
            tcp,
            ip_extra,
            tcp_extra,
            tcp_flags,
            sequence,
            payload_len,
            gso_size,
            ..Sample::default()
        },
    )
}

impl Sample {
    pub(super) fn build(&self) -> (OffloadHeader, Vec<u8>) {
        let mut packet = if self.v6 { self.v6_header() } else { self.v4_header() };
        let transport_offset = packet.len();
        packet.extend(self.transport_header());
        let header_len = packet.len() as u16;
        packet.extend((0..self.payload_len).map(|at| (at * 7 % 251) as u8));
        self.fill_lengths(&mut packet, transport_offset);

        let csum_offset = if self.tcp { TCP_CSUM_OFFSET } else { UDP_CSUM_OFFSET };
        let plain = OffloadHeader {
            flags: NEEDS_CSUM,
            csum_start: transport_offset as u16,
            csum_offset,
            ..OffloadHeader::NONE
        };
        let gso_type = match (self.tcp, self.v6) {
            (true, false) => GSO_TCPV4,
            (true, true) => GSO_TCPV6,
            (false, _) => GSO_UDP_L4,
        } | if self.tcp && self.tcp_flags & 0x80 != 0 { GSO_ECN } else { 0 };
        let header = match self.gso_size {
            0 => plain,
            gso_size => OffloadHeader { gso_type, header_len, gso_size, ..plain },
        };
        (header, packet)
    }

    fn protocol(&self) -> u8 {
        if self.tcp { ip::TCP } else { ip::UDP }
    }

    fn v4_header(&self) -> Vec<u8> {
        let mut header = vec![1; 20 + self.ip_extra * 4];
        header[..12].copy_from_slice(&[0x45, 0, 0, 0, 0xff, 0xfe, 0x40, 0, 64, 0, 0, 0]);
        header[0] += self.ip_extra as u8;
        header[6] = if self.dont_fragment { 0x40 } else { 0 };
        header[9] = self.protocol();
        header[12..20].copy_from_slice(&[10, 8, 0, 2, 192, 0, 2, 1]);
        header
    }

    fn v6_header(&self) -> Vec<u8> {
        let mut header = vec![0; 40];
        header[0] = 0x60;
        header[6] = self.protocol();
        header[8..24].copy_from_slice(&[0xfd; 16]);
        header[24..40].copy_from_slice(&[0x20; 16]);
        if let Some(words) = self.ip_extra.checked_sub(1) {
            header[6] = 60;
            header.extend([self.protocol(), words as u8, 1, 4]);
            header.extend(vec![0; words * 8 + 4]);
        }
        header
    }

    fn transport_header(&self) -> Vec<u8> {
        let mut header = [self.port.to_be_bytes(), 80u16.to_be_bytes()].concat();
        if self.tcp {
            header.extend(self.sequence.to_be_bytes());
            header.extend([0, 0, 0, 9, 0x50 + ((self.tcp_extra as u8) << 4), self.tcp_flags]);
            header.extend([0xff, 0xff, 0, 0, 0, 0]);
            header.extend(vec![1; self.tcp_extra * 4]);
        } else {
            header.extend([0; 4]);
        }
        header
    }

    /// Lengths, the IPv4 checksum, and the pseudo header's sum in the transport checksum.
    fn fill_lengths(&self, packet: &mut [u8], transport_offset: usize) {
        let len = packet.len() as u16;
        let transport_len = (packet.len() - transport_offset) as u16;
        if self.v6 {
            packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        } else {
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            let sum = Sum::ZERO.bytes(&packet[..transport_offset]).finish();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        if !self.tcp {
            packet[transport_offset + 4..transport_offset + 6]
                .copy_from_slice(&transport_len.to_be_bytes());
        }
        let (source, destination) = ip::addresses(packet).unwrap();
        let partial =
            Sum::ZERO.pseudo_header(source, destination, self.protocol(), transport_len).fold();
        let at = transport_offset
            + usize::from(if self.tcp { TCP_CSUM_OFFSET } else { UDP_CSUM_OFFSET });
        packet[at..at + 2].copy_from_slice(&partial.to_be_bytes());
    }
}

/// The receiver's view: IPv4 header and transport checksum both add up.
pub(super) fn checksums_are_valid(packet: &[u8]) -> bool {
    let header = ip::parse(packet).unwrap();
    let transport = &packet[header.transport_offset..];
    let sum = Sum::ZERO
        .pseudo_header(header.source, header.destination, header.protocol, transport.len() as u16)
        .bytes(transport)
        .finish();
    let ip_sum = match header.version {
        ip::Version::V4 => Sum::ZERO.bytes(&packet[..header.transport_offset]).finish(),
        ip::Version::V6 => 0,
    };
    sum == 0 && ip_sum == 0
}
