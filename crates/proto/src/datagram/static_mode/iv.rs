//! Our IVs: `AES-256-ECB(K, "CW1" (3) | role (1) | run (6) | counter (6))`.
//!
//! A keyed permutation of values that never repeat is unpredictable without the key and never
//! repeats, which is what CFB asks of an IV (SP 800-38A, appendix C). The key is not that of CFB,
//! so no IV is ever one of its blocks.

use aes::{
    Aes256,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use zeroize::Zeroizing;

use super::{Role, StaticKey};

/// The highest run and the highest counter.
pub(super) const VALUE_MAX: u64 = (1 << 48) - 1;

const MAGIC: [u8; 3] = *b"CW1";

/// What an IV says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Whose packet it is.
    pub(super) role: Role,
    /// Rises with each start of that end.
    pub(super) run: u64,
    /// Counts the packets of the run, from 0.
    pub(super) counter: u64,
}

impl Mark {
    /// That of the next packet. Counting through a run takes years, and the numbers of later runs
    /// are times, so the run that follows need not be stored.
    pub(super) fn successor(self) -> Self {
        if self.counter == VALUE_MAX {
            Self { run: self.run + 1, counter: 0, ..self }
        } else {
            Self { counter: self.counter + 1, ..self }
        }
    }
}

/// Makes and reads IVs.
pub(super) struct Ivs(Box<Aes256>);

impl Ivs {
    pub(super) fn new(key: &StaticKey) -> Self {
        let mut derived = Zeroizing::new([0; 32]);
        key.derive("iv", derived.as_mut_slice());
        Self(Box::new(Aes256::new((&*derived).into())))
    }

    /// The IV that says so.
    pub(super) fn encrypt(&self, mark: Mark) -> [u8; 16] {
        let mut block = [0; 16];
        block[..3].copy_from_slice(&MAGIC);
        block[3] = match mark.role {
            Role::Client => 0,
            Role::Gateway => 1,
        };
        block[4..10].copy_from_slice(&mark.run.to_be_bytes()[2..]);
        block[10..].copy_from_slice(&mark.counter.to_be_bytes()[2..]);
        let mut block = block.into();
        self.0.encrypt_block(&mut block);
        block.into()
    }

    /// What an IV says; `None` for one that is not ours.
    pub(super) fn decrypt(&self, iv: [u8; 16]) -> Option<Mark> {
        let mut block = iv.into();
        self.0.decrypt_block(&mut block);
        let [m0, m1, m2, role, values @ ..]: [u8; 16] = block.into();
        let role = match ([m0, m1, m2], role) {
            (MAGIC, 0) => Role::Client,
            (MAGIC, 1) => Role::Gateway,
            _ => return None,
        };
        let values = values.iter().fold(0, |value, byte| value << 8 | u128::from(*byte));
        let (run, counter) = ((values >> 48) as u64, values as u64 & VALUE_MAX);
        Some(Mark { role, run, counter })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn ivs() -> Ivs {
        Ivs::new(&StaticKey::new([5; 64]))
    }

    #[test]
    fn ivs_of_successive_packets_have_nothing_in_common() {
        let mut mark = Mark { role: Role::Client, run: 1, counter: 0 };
        let mut seen = HashSet::new();
        let mut previous = [0; 16];
        for _ in 0..10_000 {
            let iv = ivs().encrypt(mark);
            let differing: u32 = iv.iter().zip(previous).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert!((20..108).contains(&differing), "{differing} of 128 bits differ");
            assert!(seen.insert(iv));
            (previous, mark) = (iv, mark.successor());
        }
    }

    #[test]
    fn the_highest_counter_is_followed_by_the_next_run() {
        let last = Mark { role: Role::Gateway, run: 6, counter: VALUE_MAX };
        assert_eq!(last.successor(), Mark { role: Role::Gateway, run: 7, counter: 0 });
    }

    #[test]
    fn another_magic_or_role_says_nothing() {
        let mut known = [0; 16];
        known[..3].copy_from_slice(b"CW1");
        for (at, value) in [(0, b'c'), (2, b'2'), (3, 2), (3, 0xff)] {
            let mut other = known;
            other[at] = value;
            for (plain, says) in [(known, true), (other, false)] {
                let mut block = plain.into();
                ivs().0.encrypt_block(&mut block);
                assert_eq!(ivs().decrypt(block.into()).is_some(), says, "{plain:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(gateway: bool, run in 0..=VALUE_MAX, counter in 0..=VALUE_MAX) {
            let role = if gateway { Role::Gateway } else { Role::Client };
            let mark = Mark { role, run, counter };
            prop_assert_eq!(ivs().decrypt(ivs().encrypt(mark)), Some(mark));
        }

        #[test]
        fn random_ivs_say_nothing(iv: [u8; 16]) {
            prop_assert_eq!(ivs().decrypt(iv), None);
        }
    }
}
