//! Segmentation and checksum completion in software.

use super::OffloadHeader;
use super::check::{Layout, OffloadError, Transport, layout};
use crate::checksum::Sum;
use crate::ip::Version;

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// Checks `header` against `packet` and passes the complete packets that it stands for to `emit`,
/// in order: the pieces of a segmented packet with their own lengths, sequence numbers, IPv4
/// identifications, flags and checksums, or the packet itself with its checksum completed.
///
/// `scratch` holds the piece at hand; its contents do not matter, giving the same one again saves
/// the allocation. On an error nothing has been emitted.
pub fn split(
    header: &OffloadHeader,
    packet: &[u8],
    scratch: &mut Vec<u8>,
    emit: &mut dyn FnMut(&[u8]),
) -> Result<(), OffloadError> {
    let Some(layout) = layout(header, packet)? else {
        emit(packet);
        return Ok(());
    };
    let (headers, payload) = packet.split_at(layout.payload_offset);
    let pieces = payload.len().div_ceil(layout.piece_len.unwrap_or(usize::MAX)).max(1);
    let template = Template { layout: &layout, headers, whole_len: packet.len(), pieces };
    for index in 0..pieces {
        let piece = layout.piece_len.map_or(payload, |len| {
            let start = index * len;
            &payload[start..payload.len().min(start + len)]
        });
        template.fill(index, piece, scratch);
        emit(scratch);
    }
    Ok(())
}

/// What the pieces of a packet have in common.
struct Template<'a> {
    layout: &'a Layout,
    /// IP and transport header of the whole packet.
    headers: &'a [u8],
    /// Length of the whole packet.
    whole_len: usize,
    pieces: usize,
}

impl Template<'_> {
    fn fill(&self, index: usize, payload: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.headers);
        out.extend_from_slice(payload);
        if self.layout.piece_len.is_some() {
            self.fix_ip(index, out);
            match self.layout.transport {
                Transport::Tcp => self.fix_tcp(index, out),
                Transport::Udp => {
                    let len = low16(out.len() - self.layout.transport_offset);
                    put(out, self.layout.transport_offset + 4, len);
                }
            }
        }
        self.complete_checksum(out);
    }

    fn fix_ip(&self, index: usize, out: &mut [u8]) {
        match self.layout.version {
            Version::V4 => {
                put(out, 2, low16(out.len()));
                put(out, 4, read(out, 4).wrapping_add(low16(index)));
                put(out, 10, 0);
                let header_len = usize::from(out[0] & 0x0f) * 4;
                let checksum = Sum::ZERO.bytes(&out[..header_len]).finish();
                put(out, 10, checksum);
            }
            Version::V6 => put(out, 4, low16(out.len() - 40)),
        }
    }

    fn fix_tcp(&self, index: usize, out: &mut [u8]) {
        let tcp = &mut out[self.layout.transport_offset..];
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        // At most 64 KiB from the first byte.
        let passed = (index * self.layout.piece_len.unwrap_or(0)) as u32;
        tcp[4..8].copy_from_slice(&sequence.wrapping_add(passed).to_be_bytes());
        if index != 0 {
            tcp[13] &= !TCP_CWR;
        }
        if index + 1 != self.pieces {
            tcp[13] &= !(TCP_FIN | TCP_PSH);
        }
    }

    /// The sum of the pseudo header stands in the checksum field. It is used as it is, with the
    /// length changed to the piece's: with a routing header, the addresses in the packet are not
    /// the ones that count.
    fn complete_checksum(&self, out: &mut [u8]) {
        let Layout { transport_offset, csum_at, .. } = *self.layout;
        let partial = read(out, csum_at);
        put(out, csum_at, 0);
        let sum = Sum::ZERO
            .word(partial)
            .word(!low16(self.whole_len - transport_offset))
            .word(low16(out.len() - transport_offset))
            .bytes(&out[transport_offset..]);
        // To UDP, 0 says that there is no checksum; 0xffff is equal in ones' complement.
        let checksum = match sum.finish() {
            0 => 0xffff,
            other => other,
        };
        put(out, csum_at, checksum);
    }
}

fn read(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Lengths within a checked packet are below 65,536.
fn low16(len: usize) -> u16 {
    len as u16
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample, samples};
    use super::super::{GSO_NONE, OffloadHeader};
    use super::*;
    use crate::ip;
    use proptest::prelude::*;

    #[test]
    fn a_complete_packet_passes_unchanged() {
        let (_, packet) = Sample::default().build();
        assert_eq!(pieces(&OffloadHeader::NONE, &packet), [packet]);
    }

    #[test]
    fn a_wrong_header_emits_nothing() {
        let (header, packet) = Sample::default().build();
        let header = OffloadHeader { header_len: header.header_len + 4, ..header };
        let mut emitted = 0;
        let result = split(&header, &packet, &mut Vec::new(), &mut |_| emitted += 1);
        assert_eq!((result, emitted), (Err(OffloadError::HeaderLen), 0));
    }

    #[test]
    fn flags_that_mean_one_piece_stand_in_one_piece() {
        let (header, packet) =
            Sample { tcp_flags: 0xd9, payload_len: 3_000, gso_size: 1_000, ..Sample::default() }
                .build();
        let flags: Vec<u8> = pieces(&header, &packet).iter().map(|p| p[33]).collect();
        assert_eq!(flags, [0xd0, 0x50, 0x59]); // CWR first, FIN and PSH last, ECE and ACK in all
    }

    #[test]
    fn a_udp_checksum_of_zero_is_sent_as_ones() {
        // The payload makes the sum 0xffff, hence the checksum 0.
        let sample = Sample { tcp: false, payload_len: 2, gso_size: 0, ..Sample::default() };
        let (header, mut packet) = sample.build();
        packet[28..30].fill(0);
        let missing = !Sum::ZERO.bytes(&packet[20..]).fold();
        packet[28..30].copy_from_slice(&missing.to_be_bytes());
        assert_eq!(pieces(&header, &packet)[0][26..28], [0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn pieces_are_valid_and_make_up_the_whole(sample in samples()) {
            let (header, packet) = sample.build();
            let whole = ip::parse(&packet).unwrap();
            let pieces = pieces(&header, &packet);
            let headers = packet.len() - sample.payload_len;
            let mut payload = Vec::new();
            for (index, piece) in pieces.iter().enumerate() {
                let parsed = ip::parse(piece).unwrap();
                prop_assert_eq!(parsed, whole);
                prop_assert!(sample::checksums_are_valid(piece), "piece {}", index);
                let transport = &piece[parsed.transport_offset..];
                if sample.tcp {
                    let sequence = u32::from_be_bytes(transport[4..8].try_into().unwrap());
                    let expected = sample.sequence.wrapping_add(payload.len() as u32);
                    prop_assert_eq!(sequence, expected);
                } else {
                    prop_assert_eq!(usize::from(read(transport, 4)), transport.len());
                }
                if !sample.v6 {
                    prop_assert_eq!(read(piece, 4), read(&packet, 4).wrapping_add(index as u16));
                }
                if header.gso_type != GSO_NONE && index + 1 < pieces.len() {
                    prop_assert_eq!(piece.len() - headers, usize::from(header.gso_size));
                }
                payload.extend_from_slice(&piece[headers..]);
            }
            prop_assert_eq!(&payload[..], &packet[headers..]);
        }
    }

    fn pieces(header: &OffloadHeader, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        split(header, packet, &mut vec![1, 2, 3], &mut |p| pieces.push(p.to_vec())).unwrap();
        pieces
    }
}
