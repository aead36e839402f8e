//! The internet checksum (RFC 1071): ones' complement sum over 16-bit words.
//!
//! Sums are added up in native byte order over 64-bit words, and the bytes swapped once at the
//! end: the ones' complement sum does not care about byte order (RFC 1071, 2 B).

use std::net::IpAddr;

/// A ones' complement sum in the making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum(0);

    /// Adds bytes. An odd last byte counts as if a zero byte followed, so only the last piece of a
    /// message may be odd.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Sum {
        let mut sum = self.0;
        let (blocks, rest) = bytes.as_chunks::<32>();
        // Four carries per block are kept apart, which lets the processor add side by side.
        let mut lanes = [0u64; 4];
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane = add(*lane, u64::from_ne_bytes(*word));
            }
        }
        for lane in lanes {
            sum = add(sum, lane);
        }
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            sum = add(sum, u64::from_ne_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        Sum(add(sum, u64::from_ne_bytes(last)))
    }

    /// Adds a 16-bit word given in host order.
    #[must_use]
    pub fn word(self, word: u16) -> Sum {
        Sum(add(self.0, u64::from(word.to_be())))
    }

    /// Adds the pseudo header of TCP or UDP over IPv4 (RFC 9293) or IPv6 (RFC 8200, 8.1);
    /// `len` is the length of transport header and payload, in bytes, at most 65,535.
    #[must_use]
    pub fn pseudo_header(self, source: IpAddr, destination: IpAddr, protocol: u8, len: u16) -> Sum {
        self.address(source).address(destination).word(u16::from(protocol)).word(len)
    }

    /// The sum folded to 16 bits, in host order, not complemented: what a sender leaves in the
    /// checksum field for the device to complete.
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // The loop leaves 16 bits.
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the folded sum, in host order.
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    fn address(self, address: IpAddr) -> Sum {
        match address {
            IpAddr::V4(v4) => self.bytes(&v4.octets()),
            IpAddr::V6(v6) => self.bytes(&v6.octets()),
        }
    }
}

/// Adds with the carry brought round.
fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gives_the_example_of_rfc_1071() {
        let sum = Sum::ZERO.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn checks_a_real_ipv4_header() {
        // Checksum 0xb861 at offset 10.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(Sum::ZERO.bytes(&header).finish(), 0);
    }

    proptest! {
        #[test]
        fn equals_the_plain_sum_wherever_it_is_cut(
            bytes in proptest::collection::vec(prop_oneof![Just(0xffu8), any::<u8>()], 0..300),
            cut in 0usize..150,
        ) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let sum = Sum::ZERO.bytes(&bytes[..cut]).bytes(&bytes[cut..]);
            prop_assert_eq!(sum.fold(), plain(&bytes));
        }

        #[test]
        fn pseudo_header_equals_its_bytes(
            source: [u8; 16], destination: [u8; 16], protocol: u8, len: u16,
        ) {
            let mut bytes = [&source[..], &destination[..]].concat();
            bytes.extend([0, protocol]);
            bytes.extend(len.to_be_bytes());
            let sum = Sum::ZERO.pseudo_header(source.into(), destination.into(), protocol, len);
            prop_assert_eq!(sum.fold(), plain(&bytes));
        }
    }

    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}
