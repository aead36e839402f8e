//! Whatever happens to packets on the way.

use proptest::prelude::*;

use super::super::super::check;
use super::*;
use crate::ip;

/// What happens to a packet on the way; most packets come as they were sent.
#[derive(Clone, Debug)]
enum Fate {
    Comes,
    Twice,
    Lost,
    Changed(prop::sample::Index, u8),
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Comes),
        1 => Just(Fate::Twice),
        1 => Just(Fate::Lost),
        2 => (any::<prop::sample::Index>(), any::<u8>())
            .prop_map(|(at, value)| Fate::Changed(at, value)),
    ]
}

fn flows() -> impl Strategy<Value = Sample> {
    let kind = (any::<bool>(), any::<bool>(), any::<bool>(), 0usize..=3, 0usize..=10);
    let flags = prop_oneof![4 => Just(0x10u8), 2 => Just(0x18), 1 => Just(0x19), 1 => any::<u8>()];
    let size = (prop_oneof![1usize..=40, 500usize..=1_500], 0usize..20_000);
    (kind, flags, any::<u32>(), 0u16..20, size).prop_map(
        |((v6, tcp, dont_fragment, ip_extra, tcp_extra), tcp_flags, sequence, port, size)| Sample {
            v6,
            tcp,
            ip_extra: ip_extra.saturating_sub(2),
            tcp_extra,
            tcp_flags,
            sequence,
            port,
            dont_fragment,
            payload_len: size.1.min(size.0 * 60),
            gso_size: if size.1.min(size.0 * 60) > size.0 { size.0 as u16 } else { 0 },
        },
    )
}

proptest! {
    /// The point of it all: nobody can tell that packets were put together.
    #[test]
    fn splitting_gives_each_flow_back_byte_for_byte(
        flows in proptest::collection::vec(flows(), 1..6),
        fates in proptest::collection::vec((any::<prop::sample::Index>(), fates()), 0..200),
        takes in any::<(bool, bool)>(),
    ) {
        let mut sent: Vec<_> = flows
            .iter()
            .map(|sample| { let (header, packet) = sample.build(); pieces(&header, &packet).into_iter() })
            .collect();
        let mut input = Vec::new();
        for (flow, fate) in fates {
            let flow = flow.index(sent.len());
            let Some(mut packet) = sent[flow].next() else { continue };
            match fate {
                Fate::Comes => {}
                Fate::Twice => input.push(packet.clone()),
                Fate::Lost => continue,
                Fate::Changed(at, value) => {
                    let len = packet.len().min(100);
                    packet[at.index(len)] = value;
                }
            }
            input.push(packet);
        }
        let mut coalescer = Coalescer::new(takes.0, takes.1);
        let mut emitted = push(&mut coalescer, &input);
        coalescer.flush(&mut |header, packet| emitted.push((*header, packet.to_vec())));
        for (header, packet) in &emitted {
            prop_assert!(header.is_none() || check(header, packet).is_ok());
        }
        let mut expected: Vec<_> = input.iter().map(|p| without_number(p)).collect();
        let mut got: Vec<_> = split_all(&emitted).iter().map(|p| without_number(p)).collect();
        // stable: the order within a flow counts, that between flows does not
        expected.sort_by_key(|packet| flow_of(packet));
        got.sort_by_key(|packet| flow_of(packet));
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn no_bytes_make_it_panic_or_drop_one(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20),
    ) {
        let emitted = coalesce(&packets);
        prop_assert_eq!(emitted.len(), packets.len());
    }
}

/// Without the identification of an IPv4 packet with DF, which may change.
fn without_number(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 && ip::parse(&packet).is_ok() {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// Addresses, protocol and ports.
fn flow_of(packet: &[u8]) -> Vec<u8> {
    match ip::parse(packet) {
        Ok(header) => {
            let ports = packet.iter().skip(header.transport_offset).take(4);
            let addresses = match header.version {
                ip::Version::V4 => &packet[12..20],
                ip::Version::V6 => &packet[8..40],
            };
            addresses.iter().chain([&header.protocol]).chain(ports).copied().collect()
        }
        Err(_) => Vec::new(),
    }
}
