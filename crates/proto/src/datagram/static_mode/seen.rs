//! The memory of packets from a peer whose IVs say nothing.

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hasher},
    mem,
};

/// How many packets are remembered at most, in two generations.
pub(super) const SEEN_MAX: usize = 1 << 20;

/// Remembers at least the last half of [`SEEN_MAX`] packets, by the beginning of their HMACs.
#[derive(Default)]
pub(super) struct Seen {
    current: Set,
    previous: Set,
}

type Set = HashSet<u64, BuildHasherDefault<AsItIs>>;

impl Seen {
    /// Notes an authentic packet; whether it is not among those that are remembered.
    pub(super) fn note(&mut self, hmac: u64) -> bool {
        if self.previous.contains(&hmac) || !self.current.insert(hmac) {
            return false;
        }
        if self.current.len() == SEEN_MAX / 2 {
            mem::swap(&mut self.current, &mut self.previous);
            self.current.clear();
        }
        true
    }

    /// Forgets everything and gives the memory back.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// HMACs are random already, and nobody without the key can choose any.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_half_million_are_remembered_and_no_more_than_a_million() {
        let hmac = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut seen = Seen::default();
        let total = 3 * SEEN_MAX as u64;
        for index in 0..total {
            assert!(seen.note(hmac(index)));
            assert!(seen.current.len() + seen.previous.len() <= SEEN_MAX);
        }
        for index in total - SEEN_MAX as u64 / 2..total {
            assert!(!seen.note(hmac(index)), "{index}");
        }
        assert!(seen.note(hmac(0)), "forgotten long ago");
        seen.forget();
        assert!(seen.note(hmac(total - 1)));
    }
}
