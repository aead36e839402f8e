//! Datagrams of static mode: whoever can reach the socket can send any, and whoever has the key
//! can put anything into them.

use std::net::{IpAddr, Ipv4Addr};

use cipherwall_packet::ip;
use cipherwall_proto::datagram::{
    packet::{IV_RANGE, OVERHEAD, PacketCipher, PacketKeys},
    static_mode::{Inside, Opener, Policy, Refused, Role, StaticKey, Stored, start},
};

const INSIDE: Inside =
    Inside { gateway: Ipv4Addr::new(10, 8, 0, 1), client: Ipv4Addr::new(10, 8, 0, 2) };

/// First byte: role, policy, and whether the sender has the key; the rest is one datagram, or
/// several with their lengths, or what a key file holds.
pub(crate) fn run(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let (role, peer) = match kind & 1 {
        0 => (Role::Gateway, Role::Client),
        _ => (Role::Client, Role::Gateway),
    };
    let policy = Policy::ALL[usize::from(kind >> 1) % Policy::ALL.len()].1;
    match kind >> 6 {
        0 => key_file(data),
        1 => stranger(&mut opener(role, policy), data),
        _ => holder_of_the_key(&mut opener(role, policy), role, peer, policy, data),
    }
}

fn key() -> StaticKey {
    StaticKey::new([7; 64])
}

fn opener(role: Role, policy: Policy) -> Opener {
    start(&key(), role, INSIDE, policy, Stored::default(), 1_000).expect("a first run").1
}

/// What is read can be written again, apart from the case of its digits and its line's end.
fn key_file(text: &[u8]) {
    if let Ok(key) = StaticKey::parse(text) {
        let written = key.to_text();
        assert_eq!(text.trim_ascii_end().to_ascii_lowercase(), written.trim_end().as_bytes());
        assert!(StaticKey::parse(written.as_bytes()) == Ok(key));
    }
}

/// Nothing of a stranger comes out, and nothing is remembered.
fn stranger(opener: &mut Opener, data: &[u8]) {
    let before = opener.state();
    assert_eq!(opener.open(&mut data.to_vec()), Err(Refused::NotAuthentic));
    assert_eq!(opener.state(), before);
}

/// Several datagrams: a length (2 bytes); an IV (16 bytes), or where its first byte is even, the
/// peer's own next one; the plaintext. Only sound packets with the right address come out, and none
/// twice.
fn holder_of_the_key(opener: &mut Opener, role: Role, peer: Role, policy: Policy, mut data: &[u8]) {
    let (mut sealer, _) =
        start(&key(), peer, INSIDE, policy, Stored::default(), 2_000).expect("a first run");
    let foreign = PacketCipher::new(&PacketKeys { enc: [7; 32], mac: [7; 32] });
    while let Some((&length, rest)) = data.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(length)).clamp(17, 4_096);
        let Some((now, later)) = rest.split_at_checked(length) else { return };
        data = later;
        let (iv, plaintext) = now.split_at(16);
        let mut datagram = [&[0; OVERHEAD], plaintext].concat();
        datagram[IV_RANGE].copy_from_slice(iv);
        if iv[0] & 1 == 0 {
            sealer.seal([datagram.as_mut_slice()].into_iter());
        } else {
            foreign.seal([datagram.as_mut_slice()].into_iter());
        }
        if let Ok(packet) = opener.open(&mut datagram.clone()) {
            assert_eq!(packet.bytes, plaintext);
            assert_sound(role, plaintext);
            let again = opener.open(&mut datagram);
            assert_eq!(again.is_ok(), policy == Policy::Off, "a packet came twice");
        }
    }
}

fn assert_sound(role: Role, packet: &[u8]) {
    let (source, destination) = ip::addresses(packet).expect("an IP packet");
    let client = IpAddr::from(INSIDE.client);
    match role {
        Role::Gateway => assert_eq!(source, client),
        Role::Client => assert_eq!(destination, client),
    }
}
