mod properties;

use super::super::sample::Sample;
use super::super::{GSO_TCPV4, split};
use super::*;

type Emitted = Vec<(OffloadHeader, Vec<u8>)>;

#[test]
fn segments_in_order_become_one_packet_and_the_last_may_be_shorter() {
    let (header, packet) = tcp(3_000, 1_200).build();
    assert_eq!(coalesce(&pieces(&header, &packet)), [(header, packet)]);
}

#[test]
fn a_packet_with_push_is_the_last() {
    let first = Sample { tcp_flags: 0x18, ..tcp(2_400, 1_200) };
    let second = Sample { sequence: 2_401, ..first.clone() };
    let (header, packet) = first.build();
    let mut input = pieces(&header, &packet);
    assert_eq!(input[1][33], 0x18);
    let mut coalescer = Coalescer::new(true, true);
    let early = push(&mut coalescer, &input);
    assert_eq!(early, [(header, packet)], "it is not kept until the flush");
    let (header, packet) = second.build();
    input.extend(pieces(&header, &packet));
    assert_eq!(coalesce(&input).len(), 2);
}

#[test]
fn nothing_comes_behind_a_packet_with_push() {
    let first = complete(&Sample { tcp_flags: 0x18, ..tcp(1_200, 0) });
    let second = complete(&Sample { sequence: 1_201, ..tcp(1_200, 0) });
    let input = [first, second];
    assert_eq!(coalesce(&input), alone(&input));
}

#[test]
fn no_more_datagrams_are_put_together_than_kernels_take() {
    let datagram = complete(&Sample { tcp: false, ..tcp(10, 0) });
    let emitted = coalesce(&vec![datagram; 100]);
    let lengths: Vec<_> = emitted.iter().map(|(_, packet)| packet.len()).collect();
    assert_eq!(lengths, [28 + 640, 28 + 360]);
}

#[test]
fn interleaved_flows_are_put_together_side_by_side() {
    let samples: Vec<_> = (0..GROUPS as u16)
        .map(|flow| Sample { port: 1_000 + flow, ..tcp(12_000, 1_200) }.build())
        .collect();
    let flows: Vec<_> = samples.iter().map(|(header, packet)| pieces(header, packet)).collect();
    let input: Vec<_> =
        (0..10).flat_map(|at| flows.iter().map(move |flow| flow[at].clone())).collect();
    assert_eq!(coalesce(&input), samples);
}

#[test]
fn a_flow_too_many_ends_the_oldest() {
    let input: Vec<_> = (0..=GROUPS as u16)
        .map(|flow| complete(&Sample { port: 1_000 + flow, ..tcp(1_200, 0) }))
        .collect();
    let mut coalescer = Coalescer::new(true, true);
    let early = push(&mut coalescer, &input);
    assert_eq!(early, [(OffloadHeader::NONE, input[0].clone())]);
}

#[test]
fn what_differs_is_not_put_together() {
    let (header, packet) = tcp(2_400, 1_200).build();
    let pieces = pieces(&header, &packet);
    let changes: [(&str, usize, u8); 8] = [
        ("TOS", 1, 8),
        ("TTL", 8, 9),
        ("evil bit", 6, 0x80),
        ("source port", 20, 1),
        ("acknowledgement", 28, 1),
        ("ECE", 33, 0x40),
        ("window", 34, 0x80),
        ("urgent pointer", 39, 1),
    ];
    for (what, at, bits) in changes {
        let mut second = pieces[1].clone();
        second[at] ^= bits;
        let input = [pieces[0].clone(), with_checksums(second)];
        assert_eq!(coalesce(&input), alone(&input), "{what}");
    }
    let mut other_protocol = pieces[1].clone();
    other_protocol[9] = 132;
    let input = [pieces[0].clone(), other_protocol];
    assert_eq!(coalesce(&input).len(), 2, "protocol");
}

#[test]
fn other_lengths_are_not_put_together() {
    let first = complete(&tcp(1_000, 0));
    let longer = complete(&Sample { sequence: 1_001, ..tcp(1_001, 0) });
    let with_options = complete(&Sample { sequence: 1_001, tcp_extra: 1, ..tcp(1_000, 0) });
    for second in [longer, with_options] {
        let input = [first.clone(), second];
        assert_eq!(coalesce(&input), alone(&input));
    }
}

#[test]
fn segments_that_open_or_break_a_connection_are_passed_at_once() {
    for flags in [0x02, 0x12, 0x14, 0x30, 0x90, 0x00] {
        let (header, packet) = Sample { tcp_flags: flags & !0x80, ..tcp(2_400, 1_200) }.build();
        let input: Vec<_> = pieces(&header, &packet)
            .into_iter()
            .map(|mut piece| {
                piece[33] = flags;
                with_checksums(piece)
            })
            .collect();
        assert_eq!(push(&mut Coalescer::new(true, true), &input), alone(&input), "{flags:#04x}");
    }
    let (header, packet) = tcp(2_400, 1_200).build();
    let mut input = pieces(&header, &packet);
    for piece in &mut input {
        piece[32] |= 1;
        *piece = with_checksums(piece.clone());
    }
    assert_eq!(push(&mut Coalescer::new(true, true), &input), alone(&input), "a reserved bit");
}

#[test]
fn flows_are_told_apart_even_if_they_look_alike() {
    // the hash of a flow is (ports * FACTOR ^ addresses) * FACTOR, rotated
    let first = complete(&tcp(1_200, 0));
    let mut second = complete(&Sample { port: 9_999, sequence: 1_201, ..tcp(1_200, 0) });
    let ports = |packet: &[u8]| u64::from(u32::from_be_bytes(packet[20..24].try_into().unwrap()));
    let mixed = |packet: &[u8]| (ports(packet) << 1 | 1).wrapping_mul(candidate::FACTOR);
    let addresses = u64::from_ne_bytes(first[12..20].try_into().unwrap());
    let same_hash = addresses ^ mixed(&first) ^ mixed(&second);
    second[12..20].copy_from_slice(&same_hash.to_ne_bytes());
    let third = complete(&Sample { sequence: 1_201, ..tcp(1_200, 0) });
    let emitted = coalesce(&[first, with_checksums(second.clone()), third]);
    assert_eq!(emitted.len(), 2);
    assert_eq!(emitted[0].1.len(), 2_440);
    assert_eq!(emitted[1].1, with_checksums(second));
}

#[test]
fn checksums_that_splitting_would_write_in_another_way_stay() {
    let (header, packet) = tcp(2_400, 1_200).build();
    let input = pieces(&header, &packet);
    // the field and two bytes of payload or of the identification make up for each other
    for (field, other, value) in [(36, 40, 0x0000), (10, 4, 0xffff)] {
        let mut second = input[1].clone();
        second[field..field + 2].fill(0);
        second[other..other + 2].fill(0);
        let mut changed = with_checksums(second);
        let needed: [u8; 2] = changed[field..field + 2].try_into().unwrap();
        changed[other..other + 2].copy_from_slice(&needed);
        changed[field..field + 2].copy_from_slice(&u16::to_be_bytes(value));
        if field == 10 {
            let mut right = with_checksums(changed.clone());
            right[10..12].copy_from_slice(&changed[10..12]);
            changed = right;
        }
        let input = [input[0].clone(), changed];
        assert_eq!(coalesce(&input), alone(&input), "{value:#06x} at {field}");
    }
}

#[test]
fn segments_out_of_order_stay_as_they_are() {
    let (header, packet) = tcp(3_600, 1_200).build();
    let mut input = pieces(&header, &packet);
    input.swap(0, 2);
    assert_eq!(coalesce(&input), alone(&input));
}

#[test]
fn a_wrong_checksum_is_passed_on_and_never_repaired() {
    let (header, packet) = tcp(6_000, 1_200).build();
    for (index, at) in [(0, 11), (0, 50), (1, 37), (2, 10), (2, 1_239)] {
        let mut input = pieces(&header, &packet);
        input[index][at] ^= 1;
        let emitted = coalesce(&input);
        let wrong = (OffloadHeader::NONE, input[index].clone());
        assert!(emitted.contains(&wrong), "piece {index} changed at {at}");
        assert_eq!(split_all(&emitted), input);
        assert_eq!(emitted.len(), if index == 0 { 2 } else { 3 });
    }
}

#[test]
fn numbers_of_packets_count_without_df_only() {
    let same_number = |dont_fragment| {
        let (header, packet) = Sample { dont_fragment, ..tcp(2_400, 1_200) }.build();
        let mut input = pieces(&header, &packet);
        input[1].copy_within(4..6, 4);
        let number = [input[0][4], input[0][5]];
        input[1][4..6].copy_from_slice(&number);
        let second = with_checksums(input[1].clone());
        coalesce(&[input[0].clone(), second]).len()
    };
    assert_eq!((same_number(true), same_number(false)), (1, 2));
}

#[test]
fn what_carries_no_data_ends_its_flow_and_no_other() {
    let other = Sample { port: 1, ..tcp(1_200, 0) };
    let input = [
        complete(&tcp(1_200, 0)),
        complete(&other),
        complete(&Sample { sequence: 1_201, ..tcp(0, 0) }),
        complete(&Sample { sequence: 1_201, ..tcp(1_200, 0) }),
        complete(&Sample { sequence: 1_201, ..other }),
    ];
    let emitted = coalesce(&input);
    let of_flow = |port| {
        let of_flow = emitted.iter().filter(move |(_, packet)| port_of(packet) == port);
        of_flow.map(|(_, packet)| packet.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of_flow(8_080), [input[0].clone(), input[2].clone(), input[3].clone()]);
    assert_eq!(of_flow(1).len(), 1);
}

#[test]
fn a_packet_is_never_longer_than_packets_may_be() {
    let mut input = Vec::new();
    for index in 0..100 {
        input.push(complete(&Sample { sequence: 1 + index * 1_400, ..tcp(1_400, 0) }));
    }
    let emitted = coalesce(&input);
    let lengths: Vec<_> = emitted.iter().map(|(_, packet)| packet.len()).collect();
    assert_eq!(lengths, [46 * 1_400 + 40, 46 * 1_400 + 40, 8 * 1_400 + 40]);
    assert!(emitted.iter().all(|(header, _)| header.gso_type == GSO_TCPV4));
}

#[test]
fn only_what_the_device_takes_is_put_together() {
    let (header, packet) = tcp(2_400, 1_200).build();
    let (udp_header, udp_packet) = Sample { tcp: false, ..tcp(2_400, 1_200) }.build();
    let input = [pieces(&header, &packet), pieces(&udp_header, &udp_packet)].concat();
    for (takes_tcp, takes_udp, count) in [(true, true, 2), (true, false, 3), (false, false, 4)] {
        let mut coalescer = Coalescer::new(takes_tcp, takes_udp);
        let mut emitted = push(&mut coalescer, &input);
        coalescer.flush(&mut |header, packet| emitted.push((*header, packet.to_vec())));
        assert_eq!(emitted.len(), count);
    }
}

#[test]
fn fragments_stay_behind_what_came_before_them() {
    let (header, packet) = tcp(3_600, 1_200).build();
    let mut input = pieces(&header, &packet);
    for fragment in &mut input[1..] {
        fragment[6] = 0x20;
        *fragment = with_checksums(fragment.clone());
    }
    let mut coalescer = Coalescer::new(true, true);
    assert_eq!(push(&mut coalescer, &input), alone(&input), "none is kept");
}

fn tcp(payload_len: usize, gso_size: u16) -> Sample {
    Sample { payload_len, gso_size, ..Sample::default() }
}

fn complete(sample: &Sample) -> Vec<u8> {
    let (header, packet) = sample.build();
    pieces(&header, &packet).remove(0)
}

fn pieces(header: &OffloadHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    split(header, packet, &mut Vec::new(), &mut |piece| pieces.push(piece.to_vec())).unwrap();
    pieces
}

fn push(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Emitted {
    let mut emitted = Vec::new();
    for packet in packets {
        coalescer.push(packet, &mut |header, packet| emitted.push((*header, packet.to_vec())));
    }
    emitted
}

fn coalesce(packets: &[Vec<u8>]) -> Emitted {
    let mut coalescer = Coalescer::new(true, true);
    let mut emitted = push(&mut coalescer, packets);
    coalescer.flush(&mut |header, packet| emitted.push((*header, packet.to_vec())));
    emitted
}

fn alone(packets: &[Vec<u8>]) -> Emitted {
    packets.iter().map(|packet| (OffloadHeader::NONE, packet.clone())).collect()
}

fn split_all(emitted: &Emitted) -> Vec<Vec<u8>> {
    let split = |(header, packet): &(OffloadHeader, Vec<u8>)| match header.is_none() {
        true => vec![packet.clone()],
        false => pieces(header, packet),
    };
    emitted.iter().flat_map(split).collect()
}

/// Right checksums for a TCP packet over IPv4 that was changed.
fn with_checksums(mut packet: Vec<u8>) -> Vec<u8> {
    use crate::checksum::Sum;
    for (range, at) in [(0..20, 10), (20..packet.len(), 36)] {
        packet[at..at + 2].fill(0);
        let pseudo = match at {
            10 => Sum::ZERO,
            _ => Sum::ZERO.bytes(&packet[12..20]).word(6).word(packet.len() as u16 - 20),
        };
        let checksum = pseudo.bytes(&packet[range]).finish();
        packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

fn port_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[20], packet[21]])
}
