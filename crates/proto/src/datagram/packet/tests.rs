use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn cipher() -> PacketCipher {
    PacketCipher::new(&PacketKeys { enc: [0x11; 32], mac: [0x22; 32] })
}

fn unsealed(iv: u8, plaintext: &[u8]) -> Vec<u8> {
    [&[0; TAG_LEN], &[iv; IV_LEN][..], plaintext].concat()
}

fn sealed(iv: u8, plaintext: &[u8]) -> Vec<u8> {
    let mut packet = unsealed(iv, plaintext);
    cipher().seal([packet.as_mut_slice()].into_iter());
    packet
}

/// SP 800-38A, F.3.17 and F.3.18: CFB128-AES256, also cut within a block.
#[test]
fn it_is_cfb128_of_sp_800_38a() {
    let enc = bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    let iv = bytes("000102030405060708090a0b0c0d0e0f");
    let plaintext = bytes(concat!(
        "6bc1bee22e409f96e93d7e117393172a",
        "ae2d8a571e03ac9c9eb76fac45af8e51",
        "30c81c46a35ce411e5fbc1191a0a52ef",
        "f69f2445df4f9b17ad2b417be66c3710",
    ));
    let ciphertext = bytes(concat!(
        "dc7e84bfda79164b7ecd8486985d3860",
        "39ffed143b28b1c832113c6331e5407b",
        "df10132415e54b92a13ed0a8267ae2f9",
        "75a385741ab9cef82031623d55b1e471",
    ));
    let cipher = PacketCipher::new(&PacketKeys { enc: enc.try_into().unwrap(), mac: [7; 32] });
    for length in 1..=plaintext.len() {
        let mut packet = [&[0; TAG_LEN], &iv[..], &plaintext[..length]].concat();
        cipher.seal([packet.as_mut_slice()].into_iter());
        assert_eq!(packet[OVERHEAD..], ciphertext[..length]);
        assert_eq!(cipher.open(&mut packet).unwrap(), &plaintext[..length]);
        assert_eq!(packet[IV_RANGE], iv);
    }
}

#[test]
fn packets_of_every_length_up_to_the_longest_datagram_can_be_opened() {
    let longest = vec![0x5a; 65_507 - OVERHEAD];
    for length in (1..=1_500).chain([4_095, 4_096, 16_385, longest.len()]) {
        let mut packet = sealed(3, &longest[..length]);
        assert!(packet[OVERHEAD..] != longest[..length] || length < 3);
        assert_eq!(cipher().open(&mut packet).unwrap(), &longest[..length]);
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = sealed(1, &[9; 50]);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(cipher().open(&mut bad).is_none(), "bit {bit}");
    }
}

#[test]
fn a_packet_without_ciphertext_or_cut_anywhere_is_refused() {
    assert!(cipher().open(&mut sealed(1, &[])).is_none(), "the HMAC of nothing");
    let good = sealed(1, &[9; 50]);
    for length in 0..good.len() {
        assert!(cipher().open(&mut good[..length].to_vec()).is_none(), "{length}");
    }
}

#[test]
fn what_is_refused_is_left_as_it_was() {
    let mut bad = sealed(1, &[9; 50]);
    bad[60] ^= 1;
    let before = bad.clone();
    assert!(cipher().open(&mut bad).is_none());
    assert_eq!(bad, before);
}

#[test]
fn bad_datagrams_among_good_ones_are_the_only_ones_refused() {
    let mut datagrams: Vec<Vec<u8>> = (0..20).map(|i| sealed(i, &[i; 100])).collect();
    datagrams[3].truncate(47);
    datagrams[4][0] ^= 1;
    datagrams[11].clear();
    datagrams[19][147] ^= 0x80;
    let mut opened = Vec::new();
    let each = datagrams.iter_mut().enumerate().map(|(i, datagram)| (i, datagram.as_mut_slice()));
    cipher().open_each(each, |i, plaintext| {
        opened.push((i, plaintext.map(|p| p[OVERHEAD..].to_vec())))
    });
    for (place, (i, plaintext)) in opened.iter().enumerate() {
        let good = ![3, 4, 11, 19].contains(&place);
        assert_eq!(*i, place);
        assert_eq!(*plaintext, good.then(|| vec![place as u8; 100]), "{place}");
    }
    assert_eq!(opened.len(), 20);
}

proptest! {
    /// Any number of packets of any lengths beside each other, as each one alone.
    #[test]
    fn interleaved_is_as_one_by_one(lengths in prop::collection::vec(1usize..400, 1..40)) {
        let plaintexts: Vec<Vec<u8>> = lengths.iter().map(|length| vec![*length as u8; *length]).collect();
        let mut packets: Vec<Vec<u8>> =
            plaintexts.iter().zip(0..).map(|(plaintext, iv)| unsealed(iv, plaintext)).collect();
        cipher().seal(packets.iter_mut().map(Vec::as_mut_slice));
        for ((packet, plaintext), iv) in packets.iter_mut().zip(&plaintexts).zip(0..) {
            prop_assert_eq!(&*packet, &sealed(iv, plaintext));
            prop_assert_eq!(cipher().open(packet).unwrap(), &plaintext[..]);
        }
    }

    /// Nobody without the key makes a packet.
    #[test]
    fn noise_is_refused(mut noise in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(cipher().open(&mut noise).is_none());
    }
}
