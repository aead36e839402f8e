//! HMAC-SHA256 (RFC 2104) of several packets in turns: a third faster than one by one, which all
//! libraries do (`benches/packet.rs`). The hash's inner function is the library's.

use std::array;

use sha2::block_api::compress256;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of an HMAC, in bytes.
pub(super) const TAG_LEN: usize = 32;
/// Packets that take turns.
pub(super) const LANES: usize = 4;

const BLOCK_LEN: usize = 64;
/// Of the length behind the padding.
const LENGTH_LEN: usize = 8;
/// FIPS 180-4, 5.3.3.
const INITIAL: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

type State = [u32; 8];

/// A key, as the two states of the hash behind its block.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Mac {
    inner: State,
    outer: State,
}

impl Mac {
    /// For a key of at most a block, which is padded with zeros.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let keyed = |pad: u8| {
            let mut block = [pad; BLOCK_LEN];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            let mut state = INITIAL;
            compress256(&mut state, array::from_ref(&block));
            block.zeroize();
            state
        };
        Self { inner: keyed(0x36), outer: keyed(0x5c) }
    }

    /// Gives each packet and the tag of what is in it behind the place of the tag.
    ///
    /// # Panics
    /// If there are more than [`LANES`] packets, or one is shorter than a tag.
    pub(super) fn tag<'a>(
        &self,
        packets: &mut [&'a mut [u8]],
        mut with_tag: impl FnMut(&mut &'a mut [u8], &[u8; TAG_LEN]),
    ) {
        let mut states = [self.inner; LANES];
        let states = &mut states[..packets.len()];
        let lengths = packets.iter().map(|packet| (packet.len() - TAG_LEN) / BLOCK_LEN);
        let shared = lengths.min().unwrap_or(0);
        for block in 0..shared {
            for (state, packet) in states.iter_mut().zip(&*packets) {
                let blocks = packet[TAG_LEN + block * BLOCK_LEN..].as_chunks().0;
                compress256(state, &blocks[..1]);
            }
        }
        for (state, packet) in states.iter_mut().zip(packets) {
            let hashed = BLOCK_LEN + packet.len() - TAG_LEN;
            let inner = finish(state, &packet[TAG_LEN + shared * BLOCK_LEN..], hashed);
            let mut outer = self.outer;
            let tag = finish(&mut outer, &inner, BLOCK_LEN + TAG_LEN);
            with_tag(packet, &tag);
        }
    }
}

/// Hashes the last bytes of `hashed` in all, with padding and length (FIPS 180-4, 5.1.1).
fn finish(state: &mut State, bytes: &[u8], hashed: usize) -> [u8; TAG_LEN] {
    let (blocks, rest) = bytes.as_chunks();
    compress256(state, blocks);
    let mut last = [[0; BLOCK_LEN]; 2];
    let used = if rest.len() < BLOCK_LEN - LENGTH_LEN { 1 } else { 2 };
    last[0][..rest.len()].copy_from_slice(rest);
    last[0][rest.len()] = 0x80;
    let bits = (hashed as u64 * 8).to_be_bytes();
    last[used - 1][BLOCK_LEN - LENGTH_LEN..].copy_from_slice(&bits);
    compress256(state, &last[..used]);
    let mut hash = [0; TAG_LEN];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(&*state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    hash
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit, Mac as _};
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;

    fn tag_of(mac: &Mac, message: &[u8]) -> [u8; TAG_LEN] {
        let mut packet = [&[0; TAG_LEN], message].concat();
        let mut given = [0; TAG_LEN];
        mac.tag(&mut [&mut packet], |_, tag| given = *tag);
        given
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 4231, test cases 1 to 4: those with keys of at most 32 bytes, which zeros do not change.
    #[test]
    fn it_is_the_hmac_of_rfc_4231() {
        let count: Vec<u8> = (1..=25).collect();
        let cases: [(&[u8], &[u8], &str); 4] = [
            (
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                &count,
                &[0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
        ];
        for (key, message, expected) in cases {
            let mut padded = [0; 32];
            padded[..key.len()].copy_from_slice(key);
            assert_eq!(hex(&tag_of(&Mac::new(&padded), message)), expected);
        }
    }

    proptest! {
        /// Whatever the lengths beside each other, each tag is the one the library makes alone.
        #[test]
        fn it_is_the_hmac_of_the_library(
            key: [u8; 32],
            lengths in prop::collection::vec(0usize..300, 1..=LANES),
        ) {
            let mut packets: Vec<Vec<u8>> =
                lengths.iter().map(|length| (0..32 + length).map(|i| (i * 7) as u8).collect()).collect();
            let expected: Vec<_> = packets
                .iter()
                .map(|packet| {
                    let mut library = Hmac::<Sha256>::new_from_slice(&key).unwrap();
                    library.update(&packet[TAG_LEN..]);
                    library.finalize().into_bytes().to_vec()
                })
                .collect();
            let mut slices: Vec<&mut [u8]> = packets.iter_mut().map(Vec::as_mut_slice).collect();
            let mut tags = Vec::new();
            Mac::new(&key).tag(&mut slices, |_, tag| tags.push(tag.to_vec()));
            prop_assert_eq!(tags, expected);
        }
    }
}
