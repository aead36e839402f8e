//! The IP header: version, addresses, and where the transport header starts.
//!
//! Lengths are strict: a packet is exactly as long as its header says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

const V4_MIN_HEADER_LEN: usize = 20;
const V6_HEADER_LEN: usize = 40;

/// Extension headers of IPv6 that are skipped on the way to the transport header (RFC 8200).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What `parse` found out about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// IP version.
    pub version: Version,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol of the header at `transport_offset`. IPv6 extension headers other than
    /// hop-by-hop, routing, fragment and destination options count as such a protocol.
    pub protocol: u8,
    /// Offset of the first byte behind the IP header and its extension headers, at most the
    /// packet's length.
    pub transport_offset: usize,
    /// The packet is a piece of a fragmented one (for IPv6: has a fragment header). What stands at
    /// `transport_offset` is then a transport header at best in part.
    pub fragment: bool,
}

/// Why bytes are no IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No bytes at all.
    #[error("the packet is empty")]
    Empty,
    /// The version nibble is neither 4 nor 6.
    #[error("IP version {0} is neither 4 nor 6")]
    Version(u8),
    /// The packet ends within its IP header or an extension header.
    #[error("the packet ends within its IP header")]
    HeaderCut,
    /// The IPv4 header length is below 20.
    #[error("the IPv4 header length is below 20")]
    HeaderLength,
    /// The length in the header is not the packet's.
    #[error("the header says {header} bytes, the packet has {packet}")]
    TotalLength {
        /// Length according to the header, in bytes.
        header: usize,
        /// Length of the packet, in bytes.
        packet: usize,
    },
}

/// Source and destination address of a packet whose IP header has been checked: version, header
/// length, total length equal to `packet.len()`. IPv6 extension headers are not looked at.
pub fn addresses(packet: &[u8]) -> Result<(IpAddr, IpAddr), ParseError> {
    match version(packet)? {
        Version::V4 => v4_fixed(packet).map(|(_, source, destination)| (source, destination)),
        Version::V6 => v6_fixed(packet),
    }
}

/// Parses the IP header and, for IPv6, skips extension headers.
pub fn parse(packet: &[u8]) -> Result<Header, ParseError> {
    match version(packet)? {
        Version::V4 => parse_v4(packet),
        Version::V6 => parse_v6(packet),
    }
}

fn version(packet: &[u8]) -> Result<Version, ParseError> {
    match packet.first().ok_or(ParseError::Empty)? >> 4 {
        4 => Ok(Version::V4),
        6 => Ok(Version::V6),
        other => Err(ParseError::Version(other)),
    }
}

fn parse_v4(packet: &[u8]) -> Result<Header, ParseError> {
    let (header_len, source, destination) = v4_fixed(packet)?;
    // More-fragments bit or an offset; the don't-fragment and reserved bits say nothing.
    let fragment = be16(packet, 6)? & 0x3fff != 0;
    Ok(Header {
        version: Version::V4,
        source,
        destination,
        protocol: byte(packet, 9)?,
        transport_offset: header_len,
        fragment,
    })
}

fn parse_v6(packet: &[u8]) -> Result<Header, ParseError> {
    let (source, destination) = v6_fixed(packet)?;
    let mut protocol = byte(packet, 6)?;
    let mut offset = V6_HEADER_LEN;
    let mut fragment = false;
    loop {
        let len = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                (usize::from(byte(packet, offset + 1)?) + 1) * 8
            }
            FRAGMENT => {
                fragment = true;
                8
            }
            _ => break,
        };
        let next = byte(packet, offset)?;
        // Behind the header of a later fragment comes data, not another header.
        let later_fragment = protocol == FRAGMENT && be16(packet, offset + 2)? & 0xfff8 != 0;
        offset += len;
        if offset > packet.len() {
            return Err(ParseError::HeaderCut);
        }
        protocol = next;
        if later_fragment {
            break;
        }
    }
    Ok(Header {
        version: Version::V6,
        source,
        destination,
        protocol,
        transport_offset: offset,
        fragment,
    })
}

/// Header length, source, destination.
fn v4_fixed(packet: &[u8]) -> Result<(usize, IpAddr, IpAddr), ParseError> {
    let Some(fixed) = packet.first_chunk::<V4_MIN_HEADER_LEN>() else {
        return Err(ParseError::HeaderCut);
    };
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    if header_len < V4_MIN_HEADER_LEN {
        return Err(ParseError::HeaderLength);
    }
    check_len(usize::from(u16::from_be_bytes([fixed[2], fixed[3]])), packet)?;
    if header_len > packet.len() {
        return Err(ParseError::HeaderCut);
    }
    let source = Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]);
    let destination = Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]);
    Ok((header_len, source.into(), destination.into()))
}

/// Source, destination.
fn v6_fixed(packet: &[u8]) -> Result<(IpAddr, IpAddr), ParseError> {
    let Some(fixed) = packet.first_chunk::<V6_HEADER_LEN>() else {
        return Err(ParseError::HeaderCut);
    };
    check_len(usize::from(u16::from_be_bytes([fixed[4], fixed[5]])) + V6_HEADER_LEN, packet)?;
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    Ok((address(8), address(24)))
}

fn check_len(header: usize, packet: &[u8]) -> Result<(), ParseError> {
    if header == packet.len() {
        Ok(())
    } else {
        Err(ParseError::TotalLength { header, packet: packet.len() })
    }
}

fn byte(packet: &[u8], at: usize) -> Result<u8, ParseError> {
    packet.get(at).copied().ok_or(ParseError::HeaderCut)
}

fn be16(packet: &[u8], at: usize) -> Result<u16, ParseError> {
    Ok(u16::from_be_bytes([byte(packet, at)?, byte(packet, at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_an_ipv4_header_with_options() {
        let mut packet = v4(24, 17, 30);
        packet[20..24].copy_from_slice(&[1, 1, 1, 0]);
        let header = parse(&packet).unwrap();
        assert_eq!(header.version, Version::V4);
        assert_eq!(header.source, IpAddr::from([10, 8, 0, 2]));
        assert_eq!(header.destination, IpAddr::from([192, 0, 2, 1]));
        assert_eq!((header.protocol, header.transport_offset, header.fragment), (17, 24, false));
        assert_eq!(addresses(&packet), Ok((header.source, header.destination)));
    }

    #[test]
    fn tells_ipv4_fragments_from_whole_packets() {
        for (field, fragment) in [(0x4000u16, false), (0x2000, true), (0x0001, true)] {
            let mut packet = v4(20, 6, 40);
            packet[6..8].copy_from_slice(&field.to_be_bytes());
            assert_eq!(parse(&packet).unwrap().fragment, fragment, "{field:#06x}");
        }
    }

    #[test]
    fn skips_ipv6_extension_headers() {
        let mut rest = vec![60, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop, then destination options
        rest.extend([43, 1]); // 16 bytes, then routing
        rest.extend([0; 14]);
        rest.extend([6, 0, 0, 0, 0, 0, 0, 0]); // then TCP
        rest.extend([0; 20]);
        let packet = v6(0, &rest);
        let header = parse(&packet).unwrap();
        assert_eq!((header.protocol, header.transport_offset, header.fragment), (6, 72, false));
        assert_eq!(header.source, "fd00::2".parse::<IpAddr>().unwrap());
        assert_eq!(header.destination, "2001:db8::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn does_not_read_headers_out_of_the_data_of_a_later_fragment() {
        let mut rest = vec![60, 0, 0, 8, 0, 0, 0, 1];
        rest.extend([0xff; 16]);
        let header = parse(&v6(44, &rest)).unwrap();
        assert_eq!((header.protocol, header.transport_offset, header.fragment), (60, 48, true));
    }

    #[test]
    fn a_length_other_than_the_packets_is_refused() {
        for packet in [v4(20, 6, 40), v6(6, &[0; 20])] {
            let mut longer = packet.clone();
            longer.push(0);
            for wrong in [&longer[..], &packet[..packet.len() - 1]] {
                assert!(matches!(parse(wrong), Err(ParseError::TotalLength { .. })));
                assert!(matches!(addresses(wrong), Err(ParseError::TotalLength { .. })));
            }
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(parse(&[]), Err(ParseError::Empty));
        assert_eq!(parse(&[0x50; 60]), Err(ParseError::Version(5)));
        assert_eq!(parse(&[0x45; 19]), Err(ParseError::HeaderCut));
        assert_eq!(parse(&[0x60; 39]), Err(ParseError::HeaderCut));
        let mut short_header = v4(20, 6, 40);
        short_header[0] = 0x44;
        assert_eq!(parse(&short_header), Err(ParseError::HeaderLength));
        let mut long_header = v4(20, 6, 40);
        long_header[0] = 0x4f;
        assert_eq!(parse(&long_header), Err(ParseError::HeaderCut));
        assert_eq!(parse(&v6(0, &[6, 1, 0, 0, 0, 0, 0, 0])), Err(ParseError::HeaderCut));
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_agrees_with_addresses(
            version in prop_oneof![Just(0x45u8), Just(0x4f), Just(0x60), any::<u8>()],
            next in prop_oneof![Just(0u8), Just(43), Just(44), Just(60), any::<u8>()],
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
            fix_length: bool,
        ) {
            let len = bytes.len() as u16;
            for (at, value) in [(0, version), (6, next)] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            if fix_length && bytes.len() >= 40 {
                let (at, len) = if version >> 4 == 4 { (2, len) } else { (4, len - 40) };
                bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
            }
            if let Ok(header) = parse(&bytes) {
                prop_assert!(header.transport_offset <= bytes.len());
                prop_assert_eq!(addresses(&bytes), Ok((header.source, header.destination)));
            }
        }
    }

    fn v4(header_len: usize, protocol: u8, len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[0] = 0x40 | (header_len / 4) as u8;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&[10, 8, 0, 2]);
        packet[16..20].copy_from_slice(&[192, 0, 2, 1]);
        packet
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(rest.len() as u16).to_be_bytes());
        packet[6] = next;
        packet[8..24].copy_from_slice(&"fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        packet[24..40].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(rest);
        packet
    }
}
