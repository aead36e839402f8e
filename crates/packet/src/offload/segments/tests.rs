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

#[test]
fn a_segmented_packet_is_cut_smaller_where_the_path_asks_for_it() {
    let (header, packet) =
        Sample { payload_len: 4_000, gso_size: 1_400, ..Sample::default() }.build();
    let lengths =
        |limit| cut(&header, &packet, limit).unwrap().iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(1_440), [1_440, 1_440, 1_240]);
    assert_eq!(lengths(1_439), [1_439, 1_439, 1_242]);
    assert_eq!(lengths(9_000), [1_440, 1_440, 1_240], "never longer than asked for");
}

#[test]
fn a_plain_tcp_packet_is_cut_only_if_it_is_too_long() {
    let packet = complete(&Sample { payload_len: 1_000, ..PLAIN });
    assert_eq!(cut(&OffloadHeader::NONE, &packet, 1_040).unwrap().concat(), packet);
    let pieces = cut(&OffloadHeader::NONE, &packet, 1_039).unwrap();
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1_039, 41]);
    assert!(pieces.iter().all(|piece| sample::checksums_are_valid(piece)));
    assert_eq!(read(&pieces[1], 4), read(&packet, 4).wrapping_add(1));
}

#[test]
fn what_cannot_be_cut_is_told() {
    let udp = Sample { tcp: false, payload_len: 1_000, ..PLAIN };
    let uso = Sample { gso_size: 500, ..udp.clone() };
    let flags = |tcp_flags| Sample { tcp_flags, payload_len: 1_000, ..PLAIN };
    for (what, sample) in [
        ("UDP", udp),
        ("USO", uso),
        ("SYN", flags(0x02)),
        ("RST", flags(0x14)),
        ("URG", flags(0x30)),
    ] {
        let (header, packet) = sample.build();
        let expected = OffloadError::TooLong { len: packet.len(), limit: 400 };
        assert_eq!(cut(&header, &packet, 400), Err(expected), "{what}");
    }
    let mut fragment = complete(&Sample { payload_len: 1_000, ..PLAIN });
    fragment[6] = 0x20;
    assert!(cut(&OffloadHeader::NONE, &fragment, 400).is_err());
    let (header, packet) = Sample::default().build();
    assert!(cut(&header, &packet, 40).is_err(), "no room for a byte of payload");
    assert!(cut(&header, &packet, 41).is_err(), "too many pieces");
}

#[test]
fn a_signed_packet_and_a_wrong_checksum_are_not_cut() {
    for (option, may_be_cut) in [(8u8, true), (TCP_MD5, false), (TCP_AUTHENTICATION, false)] {
        let (header, mut packet) = Sample { tcp_extra: 5, payload_len: 1_000, ..PLAIN }.build();
        packet[42..44].copy_from_slice(&[option, 18]);
        assert_eq!(cut(&header, &packet, 500).is_ok(), may_be_cut, "option {option}");
    }
    let mut packet = complete(&Sample { payload_len: 1_000, ..PLAIN });
    packet[500] ^= 1;
    assert!(cut(&OffloadHeader::NONE, &packet, 500).is_err());
}

const PLAIN: Sample = Sample {
    v6: false,
    tcp: true,
    ip_extra: 0,
    tcp_extra: 0,
    tcp_flags: 0x10,
    sequence: 0xffff_ff00,
    port: 8_080,
    dont_fragment: true,
    payload_len: 0,
    gso_size: 0,
};

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

    #[test]
fn pieces_within_a_limit_carry_the_same_bytes(
        sample in samples(), limit in 60usize..1_700, is_complete: bool,
    ) {
        let (mut header, mut packet) = sample.build();
        if is_complete && sample.gso_size == 0 {
            (header, packet) = (OffloadHeader::NONE, complete(&sample));
        }
        let headers = packet.len() - sample.payload_len;
        let fits = headers + sample.payload_len.min(match sample.gso_size {
            0 => usize::MAX,
            size => usize::from(size),
        }) <= limit;
        let Ok(pieces) = cut(&header, &packet, limit) else {
            let most = MAX_TCP_SEGMENTS * limit.saturating_sub(headers);
            let may_fail = !sample.tcp
                || sample.tcp_flags & (TCP_SYN | TCP_RST | TCP_URG) != 0
                || sample.payload_len > most;
            prop_assert!(!fits && may_fail);
            return Ok(());
        };
        let whole = ip::parse(&packet).unwrap();
        let mut payload = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            prop_assert!(piece.len() <= limit);
            prop_assert_eq!(ip::parse(piece).unwrap(), whole);
            prop_assert!(sample::checksums_are_valid(piece), "piece {}", index);
            prop_assert!(index + 1 == pieces.len() || piece.len() == pieces[0].len());
            if sample.tcp {
                let sequence = &piece[whole.transport_offset + 4..][..4];
                let expected = sample.sequence.wrapping_add(payload.len() as u32);
                prop_assert_eq!(sequence, expected.to_be_bytes());
                let first = if index == 0 { TCP_CWR } else { 0 };
                let last = if index + 1 == pieces.len() { TCP_FIN | TCP_PSH } else { 0 };
                let may_be_set = !(TCP_CWR | TCP_FIN | TCP_PSH) | first | last;
                let flags = piece[whole.transport_offset + 13];
                prop_assert_eq!(flags, sample.tcp_flags & may_be_set);
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

fn complete(sample: &Sample) -> Vec<u8> {
    let (header, packet) = Sample { gso_size: 0, ..sample.clone() }.build();
    pieces(&header, &packet).remove(0)
}

/// With a buffer that is exactly as long as it says.
fn cut(header: &OffloadHeader, packet: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, OffloadError> {
    let mut segments = Segments::new(header, packet, limit)?;
    let mut pieces = Vec::new();
    while let Some(len) = segments.next_len() {
        let mut piece = vec![0xa5; len];
        assert_eq!(segments.next_into(&mut piece), Some(len));
        pieces.push(piece);
    }
    Ok(pieces)
}
