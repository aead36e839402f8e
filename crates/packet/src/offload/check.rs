//! The offload header against the packet it describes, field by field.

use super::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, OffloadHeader,
    TCP_CSUM_OFFSET, UDP_CSUM_OFFSET, UDP_HEADER_LEN,
};
use crate::ip::{self, ParseError, Version};

/// Most pieces a TCP packet may be cut into: 64 KiB at the smallest segment Linux sends
/// (`tcp_min_snd_mss`, 48 bytes of options and payload) and some. It bounds the work that one
/// packet of a peer can make.
pub const MAX_TCP_SEGMENTS: usize = 2_048;

/// Most pieces a UDP packet may be cut into, Linux' `UDP_MAX_SEGMENTS`.
pub const MAX_UDP_SEGMENTS: usize = 128;

const TCP_MIN_HEADER_LEN: usize = 20;
const TCP_CWR: u8 = 0x80;

/// Why an offload header does not fit its packet; the packet must not reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The packet is no IP packet.
    #[error("offload: {0}")]
    Packet(#[from] ParseError),
    /// Flags other than [`NEEDS_CSUM`].
    #[error("offload: unknown flags {0:#04x}")]
    Flags(u8),
    /// A value that `gso_type` cannot have.
    #[error("offload: unknown segmentation type {0:#04x}")]
    GsoType(u8),
    /// Segmentation without a checksum to complete, or a field set that nothing asks for.
    #[error("offload: fields that contradict each other")]
    Contradiction,
    /// The packet is a fragment; fragments are complete.
    #[error("offload: the packet is a fragment")]
    Fragment,
    /// The packet is not of the IP version and protocol that the header says, or neither TCP nor
    /// UDP.
    #[error("offload: the packet is not of the header's protocol")]
    Protocol,
    /// The packet's TCP or UDP header is cut or has a wrong length.
    #[error("offload: the packet's transport header is wrong")]
    TransportHeader,
    /// `csum_start` or `csum_offset` is not the transport header's.
    #[error("offload: wrong place of the checksum")]
    ChecksumPlace,
    /// `header_len` is not the length of the packet's headers.
    #[error("offload: wrong header length")]
    HeaderLen,
    /// `gso_size` makes no piece, only one, or too many.
    #[error("offload: segment size {0} does not fit the packet")]
    GsoSize(u16),
    /// The packet is longer than it may be, and is none that can be cut into pieces that are not.
    #[error("offload: a packet of {len} bytes cannot be cut into pieces of {limit} bytes")]
    TooLong {
        /// Length of the packet in bytes.
        len: usize,
        /// Bytes that a piece may have.
        limit: usize,
    },
}

/// Checks every field of `header` against `packet`. What passes is safe to give to the kernel:
///
/// * without offload all fields are 0 and the IP header is sound ([`ip::addresses`]);
/// * `flags` is [`NEEDS_CSUM`], `csum_start` and `csum_offset` are those of the packet's TCP or
///   UDP header, which is whole and not of a fragment;
/// * `gso_type` is that of the packet's IP version and protocol, with [`GSO_ECN`] exactly when
///   TCP's CWR is set, `header_len` is the length of its headers, and `gso_size` makes 2 to
///   [`MAX_TCP_SEGMENTS`] or [`MAX_UDP_SEGMENTS`] pieces.
pub fn check(header: &OffloadHeader, packet: &[u8]) -> Result<(), OffloadError> {
    layout(header, packet).map(|_| ())
}

/// What is to be done to a packet, and where.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) version: Version,
    pub(super) transport: Transport,
    /// Offset of the transport header.
    pub(super) transport_offset: usize,
    /// Offset of the checksum.
    pub(super) csum_at: usize,
    /// Offset of the payload.
    pub(super) payload_offset: usize,
    /// Payload bytes of a piece; `None`: only the checksum is to be completed.
    pub(super) piece_len: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// `None`: nothing to do.
pub(super) fn layout(
    header: &OffloadHeader,
    packet: &[u8],
) -> Result<Option<Layout>, OffloadError> {
    if header.is_none() {
        ip::addresses(packet)?;
        return Ok(None);
    }
    check_alone(header)?;
    let parsed = ip::parse(packet)?;
    if parsed.fragment {
        return Err(OffloadError::Fragment);
    }
    let segment = packet.get(parsed.transport_offset..).unwrap_or_default();
    let (transport, transport_len, csum_offset) = match parsed.protocol {
        ip::TCP => (Transport::Tcp, tcp_header_len(segment)?, TCP_CSUM_OFFSET),
        ip::UDP => (Transport::Udp, udp_header_len(segment)?, UDP_CSUM_OFFSET),
        _ => return Err(OffloadError::Protocol),
    };
    if usize::from(header.csum_start) != parsed.transport_offset
        || header.csum_offset != csum_offset
    {
        return Err(OffloadError::ChecksumPlace);
    }
    let payload_offset = parsed.transport_offset + transport_len;
    let piece_len = if header.gso_type == GSO_NONE {
        None
    } else {
        check_type(header.gso_type, parsed.version, transport, segment)?;
        if usize::from(header.header_len) != payload_offset {
            return Err(OffloadError::HeaderLen);
        }
        Some(piece_len(header.gso_size, packet.len() - payload_offset, transport)?)
    };
    Ok(Some(Layout {
        version: parsed.version,
        transport,
        transport_offset: parsed.transport_offset,
        csum_at: parsed.transport_offset + usize::from(csum_offset),
        payload_offset,
        piece_len,
    }))
}

/// What can be said of the header without the packet.
fn check_alone(header: &OffloadHeader) -> Result<(), OffloadError> {
    if header.flags & !NEEDS_CSUM != 0 {
        return Err(OffloadError::Flags(header.flags));
    }
    if header.flags != NEEDS_CSUM {
        return Err(OffloadError::Contradiction);
    }
    if header.gso_type == GSO_NONE && (header.header_len, header.gso_size) != (0, 0) {
        return Err(OffloadError::Contradiction);
    }
    Ok(())
}

pub(super) fn tcp_header_len(segment: &[u8]) -> Result<usize, OffloadError> {
    let len = usize::from(segment.get(12).ok_or(OffloadError::TransportHeader)? >> 4) * 4;
    if len < TCP_MIN_HEADER_LEN || len > segment.len() {
        return Err(OffloadError::TransportHeader);
    }
    Ok(len)
}

pub(super) fn udp_header_len(segment: &[u8]) -> Result<usize, OffloadError> {
    let header = segment.first_chunk::<UDP_HEADER_LEN>().ok_or(OffloadError::TransportHeader)?;
    if usize::from(u16::from_be_bytes([header[4], header[5]])) != segment.len() {
        return Err(OffloadError::TransportHeader);
    }
    Ok(UDP_HEADER_LEN)
}

fn check_type(
    gso_type: u8,
    version: Version,
    transport: Transport,
    segment: &[u8],
) -> Result<(), OffloadError> {
    let ecn = transport == Transport::Tcp && segment.get(13).is_some_and(|f| f & TCP_CWR != 0);
    let right = match (transport, version) {
        (Transport::Tcp, Version::V4) => GSO_TCPV4,
        (Transport::Tcp, Version::V6) => GSO_TCPV6,
        (Transport::Udp, _) => GSO_UDP_L4,
    } | if ecn { GSO_ECN } else { 0 };
    if gso_type == right {
        return Ok(());
    }
    match gso_type & !GSO_ECN {
        GSO_TCPV4 | GSO_TCPV6 => Err(OffloadError::Protocol),
        GSO_UDP_L4 if gso_type & GSO_ECN == 0 => Err(OffloadError::Protocol),
        _ => Err(OffloadError::GsoType(gso_type)),
    }
}

fn piece_len(
    gso_size: u16,
    payload_len: usize,
    transport: Transport,
) -> Result<usize, OffloadError> {
    let size = usize::from(gso_size);
    let most = match transport {
        Transport::Tcp => MAX_TCP_SEGMENTS,
        Transport::Udp => MAX_UDP_SEGMENTS,
    };
    if size == 0 || size >= payload_len || payload_len.div_ceil(size) > most {
        return Err(OffloadError::GsoSize(gso_size));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, samples};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_offload_passes_with_a_sound_packet_only() {
        let (_, packet) = Sample::default().build();
        assert_eq!(check(&OffloadHeader::NONE, &packet), Ok(()));
        assert!(matches!(
            check(&OffloadHeader::NONE, &packet[1..]),
            Err(OffloadError::Packet(ParseError::Version(_)))
        ));
    }

    #[test]
    fn says_what_is_wrong() {
        let (good, packet) = Sample::default().build();
        assert_eq!(check(&good, &packet), Ok(()));
        let with = |change: &dyn Fn(&mut OffloadHeader)| {
            let mut header = good;
            change(&mut header);
            check(&header, &packet)
        };
        assert_eq!(with(&|h| h.flags = 3), Err(OffloadError::Flags(3)));
        assert_eq!(with(&|h| h.flags = 0), Err(OffloadError::Contradiction));
        assert_eq!(with(&|h| h.gso_type = 3), Err(OffloadError::GsoType(3)));
        assert_eq!(with(&|h| h.gso_type = GSO_UDP_L4), Err(OffloadError::Protocol));
        assert_eq!(with(&|h| h.gso_type = GSO_NONE), Err(OffloadError::Contradiction));
        assert_eq!(with(&|h| h.csum_start += 2), Err(OffloadError::ChecksumPlace));
        assert_eq!(with(&|h| h.csum_offset = 6), Err(OffloadError::ChecksumPlace));
        assert_eq!(with(&|h| h.header_len += 4), Err(OffloadError::HeaderLen));
        assert_eq!(with(&|h| h.gso_size = 0), Err(OffloadError::GsoSize(0)));
        assert_eq!(with(&|h| h.gso_size = 0xffff), Err(OffloadError::GsoSize(0xffff)));
    }

    #[test]
    fn the_number_of_pieces_is_bounded() {
        let tcp = Sample { payload_len: 60_000, gso_size: 30, ..Sample::default() };
        let udp = Sample { tcp: false, payload_len: 1_280, gso_size: 10, ..Sample::default() };
        for (sample, too_small) in [(tcp, 29), (udp, 9)] {
            let (header, packet) = sample.build();
            assert_eq!(check(&header, &packet), Ok(()));
            let header = OffloadHeader { gso_size: too_small, ..header };
            assert_eq!(check(&header, &packet), Err(OffloadError::GsoSize(too_small)));
        }
    }

    #[test]
    fn fragments_and_other_protocols_are_refused() {
        let (header, mut packet) = Sample::default().build();
        packet[6] = 0x20;
        assert_eq!(check(&header, &packet), Err(OffloadError::Fragment));
        packet[6] = 0;
        packet[9] = 132;
        assert_eq!(check(&header, &packet), Err(OffloadError::Protocol));
    }

    proptest! {
        #[test]
        fn accepts_what_a_sender_makes(sample in samples()) {
            let (header, packet) = sample.build();
            prop_assert_eq!(check(&header, &packet), Ok(()));
        }

        /// Any other value of any field is refused; `gso_size` may be any that makes a permitted
        /// number of pieces, because the packet does not say which it was.
        #[test]
        fn rejects_any_other_value(sample in samples(), field in 0usize..6, value: u16) {
            let (good, packet) = sample.build();
            let mut header = good;
            match field {
                0 => header.flags = value as u8,
                1 => header.gso_type = value as u8,
                2 => header.header_len = value,
                3 => header.gso_size = value,
                4 => header.csum_start = value,
                _ => header.csum_offset = value,
            }
            let payload_len = sample.payload_len;
            let most = if sample.tcp { MAX_TCP_SEGMENTS } else { MAX_UDP_SEGMENTS };
            let plausible = header.gso_type != GSO_NONE
                && header.gso_size != 0
                && usize::from(header.gso_size) < payload_len
                && payload_len.div_ceil(usize::from(header.gso_size)) <= most;
            let right = OffloadHeader { gso_size: good.gso_size, ..header } == good
                && (header == good || plausible);
            prop_assert_eq!(check(&header, &packet).is_ok(), right, "{:?}", header);
        }

        #[test]
        fn a_packet_cut_or_changed_never_passes_as_another_layout(
            sample in samples(), at: prop::sample::Index, value: u8,
        ) {
            let (header, mut packet) = sample.build();
            let headers = packet.len() - sample.payload_len;
            packet[at.index(headers)] = value;
            // Whatever it says, it must not panic, and what passes must still fit.
            if check(&header, &packet).is_ok() {
                let parsed = ip::parse(&packet).unwrap();
                prop_assert_eq!(parsed.transport_offset, usize::from(header.csum_start));
            }
            if sample.payload_len > 0 {
                prop_assert!(check(&header, &packet[..headers]).is_err());
            }
        }
    }
}
