//! Deterministic jitter: a seed comes in, evenly spread values go out. Not for secrets.

use std::time::Duration;

/// A sequence of pseudo-random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A duration between `1 - percent` and `1 + percent` hundredths of the one given.
    pub(crate) fn spread(&mut self, around: Duration, percent: u32) -> Duration {
        let fraction = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let width = f64::from(percent) / 100.0;
        around.mul_f64(1.0 - width + 2.0 * width * fraction)
    }
}
