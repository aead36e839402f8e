//! The hint: what a client may send as TLS early data, so that the gateway looks its session up
//! beforehand (A9; docs/protocol.md, "The hint").
//!
//! ```text
//!  02 ‖ SHA-256(G)[..4] ‖ SHA-256(token) (32) ‖ HMAC-SHA256(G, "cipherwall 1 hint" ‖ 00 ‖ SHA-256(token))[..16]
//! ```
//!
//! Early data can be replayed, so it asks for nothing and lets nobody in. The door key is in it so
//! that a stranger cannot tell by a hint of his own that the gateway is no web server.

use hmac::Mac;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::credential::{first_16, hmac_sha256};
use crate::keys::DoorKey;

/// Length of a hint, in bytes.
pub const HINT_LEN: usize = 53;
const KIND: u8 = 2;
const HASH_AT: usize = 5;
const TAG_AT: usize = HASH_AT + 32;

/// The bytes that a client sends before it resumes with this token.
pub fn hint(token: &[u8; 16], door: &DoorKey) -> [u8; HINT_LEN] {
    build(&Sha256::digest(token).into(), door)
}

/// The SHA-256 of the token that is hinted at, if `bytes` begin with a hint that was made with one
/// of these keys. Constant time for hints that are wrong.
pub fn read(bytes: &[u8], doors: &[DoorKey]) -> Option<[u8; 32]> {
    let given = bytes.first_chunk::<HINT_LEN>()?;
    let mut hash = [0; 32];
    hash.copy_from_slice(&given[HASH_AT..TAG_AT]);
    let mut found = subtle::Choice::from(0);
    for door in doors {
        found |= build(&hash, door).ct_eq(given);
    }
    bool::from(found).then_some(hash)
}

fn build(hash: &[u8; 32], door: &DoorKey) -> [u8; HINT_LEN] {
    let mut mac = hmac_sha256(&door.0);
    mac.update(b"cipherwall 1 hint\0");
    mac.update(hash);
    let mut hint = [0; HINT_LEN];
    hint[0] = KIND;
    hint[1..HASH_AT].copy_from_slice(&door.id());
    hint[HASH_AT..TAG_AT].copy_from_slice(hash);
    hint[TAG_AT..].copy_from_slice(&first_16(&mac.finalize().into_bytes()));
    hint
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: [u8; 16] = [7; 16];

    #[test]
    fn only_who_has_a_door_key_can_hint_and_whatever_follows_is_no_part_of_it() {
        let (current, previous, other) = (DoorKey([1; 32]), DoorKey([2; 32]), DoorKey([3; 32]));
        let hash: [u8; 32] = Sha256::digest(TOKEN).into();
        let doors = [current.clone(), previous.clone()];
        for door in [&current, &previous] {
            let mut bytes = hint(&TOKEN, door).to_vec();
            assert_eq!(read(&bytes, &doors), Some(hash));
            bytes.extend_from_slice(b"GET / HTTP/1.1");
            assert_eq!(read(&bytes, &doors), Some(hash));
            assert_eq!(read(&bytes[..HINT_LEN - 1], &doors), None, "it is not whole");
        }
        assert_eq!(read(&hint(&TOKEN, &other), &doors), None);
        assert_eq!(read(&hint(&TOKEN, &current), &[]), None);
        assert_eq!(read(b"", &doors), None);
    }

    #[test]
    fn a_hint_with_any_byte_changed_is_none() {
        let door = DoorKey([1; 32]);
        let good = hint(&TOKEN, &door);
        for at in 0..HINT_LEN {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(read(&bad, std::slice::from_ref(&door)), None, "byte {at}");
        }
    }
}
