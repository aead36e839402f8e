//! Unpredictable bytes from a seed that comes in: this crate has no randomness of its own.

use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit, StreamCipher},
};

const BLOCK: usize = 64;

/// A stream of random bytes. It ends after 2^32 blocks, which is beyond any channel's life.
pub(super) struct Random {
    stream: ChaCha20,
    block: [u8; BLOCK],
    used: usize,
}

impl Random {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        let stream = ChaCha20::new(&seed.into(), &[0; 12].into());
        Self { stream, block: [0; BLOCK], used: BLOCK }
    }

    /// The next bytes; `N` divides 64.
    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > BLOCK {
            self.block = [0; BLOCK];
            // at the end of the stream there are zeros: still nothing that repeats an IV
            let _ = self.stream.try_apply_keystream(&mut self.block);
            self.used = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.block[self.used..self.used + N]);
        self.block[self.used..self.used + N].fill(0);
        self.used += N;
        bytes
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_repeats_and_each_seed_has_its_own() {
        let mut random = Random::new([1; 32]);
        let mut all: Vec<[u8; 8]> = (0..1_000).map(|_| random.bytes()).collect();
        all.push(Random::new([2; 32]).bytes());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1_001);
    }
}
