//! Segmentation and checksum offload: packets of up to 64 KiB that stand for many, and checksums
//! left for the device, both described by the header that Linux puts before a packet of a TUN
//! device (`struct virtio_net_hdr`, virtio 1.2, 5.1.6).
//!
//! The header travels through the tunnel, so it is input from a peer. [`check`] accepts exactly
//! one header per packet and way of segmentation; the sending side brings what its kernel says
//! into that form with [`OffloadHeader::from_kernel`]. [`split`] does in software what the header
//! asks for, for kernels that cannot.

mod check;
mod coalesce;
mod segments;

#[cfg(test)]
mod sample;

pub use check::{MAX_TCP_SEGMENTS, MAX_UDP_SEGMENTS, OffloadError, check};
pub use coalesce::Coalescer;
pub use segments::{Segments, split};

/// Length of an encoded [`OffloadHeader`] in bytes.
pub const HEADER_LEN: usize = 10;

/// In `flags`: the checksum at `csum_start + csum_offset` covers only the pseudo header so far.
pub const NEEDS_CSUM: u8 = 1;

/// In `gso_type`: no segmentation.
pub const GSO_NONE: u8 = 0;
/// In `gso_type`: TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// In `gso_type`: TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// In `gso_type`: UDP, each piece a datagram of its own (USO).
pub const GSO_UDP_L4: u8 = 5;
/// Added to a TCP `gso_type`: the packet has CWR set (RFC 3168), which only the first piece keeps.
pub const GSO_ECN: u8 = 0x80;

/// Offset of the checksum in a TCP header.
const TCP_CSUM_OFFSET: u16 = 16;
/// Offset of the checksum in a UDP header.
const UDP_CSUM_OFFSET: u16 = 6;
/// Length of a UDP header.
const UDP_HEADER_LEN: usize = 8;

/// What is still to be done to a packet. On the wire all fields are little-endian:
///
/// ```text
/// flags (1) | gso_type (1) | header_len (2) | gso_size (2) | csum_start (2) | csum_offset (2)
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffloadHeader {
    /// 0 or [`NEEDS_CSUM`].
    pub flags: u8,
    /// One of the `GSO_` constants.
    pub gso_type: u8,
    /// Length of IP and transport headers together, in bytes; 0 without segmentation.
    pub header_len: u16,
    /// Payload bytes of each piece but the last; 0 without segmentation.
    pub gso_size: u16,
    /// Where the checksum begins to count: offset of the transport header.
    pub csum_start: u16,
    /// Where the checksum stands, counted from `csum_start`.
    pub csum_offset: u16,
}

impl OffloadHeader {
    /// Nothing to be done: the packet is complete.
    pub const NONE: OffloadHeader = OffloadHeader {
        flags: 0,
        gso_type: GSO_NONE,
        header_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Decodes a header; says nothing about its values, see [`check`].
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> OffloadHeader {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        OffloadHeader {
            flags: bytes[0],
            gso_type: bytes[1],
            header_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    /// Encodes the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words = [self.header_len, self.gso_size, self.csum_start, self.csum_offset];
        for (at, word) in bytes[2..].as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *at = word.to_le_bytes();
        }
        bytes
    }

    /// Whether nothing is to be done.
    pub fn is_none(&self) -> bool {
        *self == OffloadHeader::NONE
    }

    /// Brings a header as a kernel made it into the form that [`check`] accepts, where the kernel
    /// takes liberties:
    ///
    /// * flags other than [`NEEDS_CSUM`] are cleared. `DATA_VALID` (2) says that a checksum was
    ///   verified on the way here, which the other end neither needs nor should believe;
    /// * `header_len` is a hint, and often too long: it becomes the real length;
    /// * a packet that makes only one piece is no segmented packet.
    ///
    /// `packet_len` is in bytes; `byte_at` gives the packet's byte at an offset. A header that is
    /// wrong beyond that stays wrong.
    pub fn from_kernel(
        self,
        packet_len: usize,
        byte_at: impl FnOnce(usize) -> Option<u8>,
    ) -> OffloadHeader {
        let plain = OffloadHeader {
            flags: self.flags & NEEDS_CSUM,
            gso_type: GSO_NONE,
            header_len: 0,
            gso_size: 0,
            ..self
        };
        if self.gso_type == GSO_NONE {
            return if plain.flags == 0 { OffloadHeader::NONE } else { plain };
        }
        let start = usize::from(self.csum_start);
        let transport_len = if self.gso_type == GSO_UDP_L4 {
            UDP_HEADER_LEN
        } else {
            byte_at(start + 12).map_or(0, |byte| usize::from(byte >> 4) * 4)
        };
        let header_len = start + transport_len;
        if packet_len <= header_len + usize::from(self.gso_size) {
            return plain;
        }
        // Below `packet_len`; should that be more than a packet can be, `check` refuses it.
        let header_len = u16::try_from(header_len).unwrap_or(u16::MAX);
        OffloadHeader { flags: plain.flags, header_len, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{Sample, samples};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_little_endian() {
        let header = OffloadHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            header_len: 0x0102,
            gso_size: 0x0304,
            csum_start: 0x0506,
            csum_offset: 0x0708,
        };
        assert_eq!(header.encode(), [1, 0x81, 2, 1, 4, 3, 6, 5, 8, 7]);
        assert!(!header.is_none());
        assert_eq!(OffloadHeader::NONE.encode(), [0; HEADER_LEN]);
    }

    #[test]
    fn a_single_piece_is_no_segmentation() {
        let sample = Sample { payload_len: 100, gso_size: 0, ..Sample::default() };
        let (plain, packet) = sample.build();
        let kernel = OffloadHeader {
            gso_type: GSO_TCPV4,
            header_len: packet.len() as u16,
            gso_size: 100,
            ..plain
        };
        assert_eq!(kernel.from_kernel(packet.len(), |at| packet.get(at).copied()), plain);
    }

    proptest! {
        #[test]
        fn encode_undoes_parse(bytes: [u8; HEADER_LEN]) {
            prop_assert_eq!(OffloadHeader::parse(&bytes).encode(), bytes);
        }

        #[test]
        fn what_a_kernel_may_vary_is_brought_into_form(
            sample in samples(), extra_flags in any::<u8>(), hint: u16,
        ) {
            let (header, packet) = sample.build();
            let mut kernel = header;
            kernel.flags |= extra_flags & !NEEDS_CSUM;
            if header.gso_type != GSO_NONE {
                kernel.header_len = hint;
            }
            let settled = kernel.from_kernel(packet.len(), |at| packet.get(at).copied());
            prop_assert_eq!(settled, header);
        }

        #[test]
        fn no_header_and_packet_panics(
            header: [u8; HEADER_LEN],
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let header = OffloadHeader::parse(&header);
            header.from_kernel(bytes.len(), |at| bytes.get(at).copied());
            let _ = check(&header, &bytes);
            let _ = split(&header, &bytes, &mut Vec::new(), &mut |_| ());
        }
    }
}
