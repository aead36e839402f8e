//! How each datagram is encrypted, by keys from the door key.

use aes::{
    Aes256,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use zeroize::Zeroizing;

use crate::{
    cipher::{Aead, CipherId, TAG_LEN},
    keys::{Direction, DoorKey, StreamKeys, expand},
};

const HEAD_LEN: usize = 16;
const TIME_LEN: usize = 4;
/// Where the KCP segments begin.
pub(super) const PREFIX_LEN: usize = HEAD_LEN + TIME_LEN;
/// Bytes of a datagram that are not KCP.
pub const OVERHEAD: usize = PREFIX_LEN + TAG_LEN;
/// The bit of the counter that tells the direction: set from gateway to client.
const DIRECTION: u64 = 1 << 63;

/// A door key, ready to read the heads of datagrams.
#[derive(Clone)]
pub struct Door {
    key: DoorKey,
    head: Aes256,
}

/// What a datagram says of itself. Not authentic before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The conversation's number.
    pub conversation: [u8; 8],
    /// Which way it goes.
    pub direction: Direction,
    /// Of the datagrams of the conversation in this direction, from 0.
    pub counter: u64,
}

impl Door {
    /// Of this door key.
    pub fn new(key: &DoorKey) -> Self {
        let mut head = Zeroizing::new([0; 32]);
        expand(&key.0, "kcp head", b"", &mut *head);
        Self { key: key.clone(), head: Aes256::new((&*head).into()) }
    }

    /// What a datagram says of itself if it was made with this door key, and anything otherwise.
    /// `None` if it is too short.
    pub fn head(&self, datagram: &[u8]) -> Option<Head> {
        if datagram.len() < OVERHEAD {
            return None;
        }
        let mut block = *datagram.first_chunk::<HEAD_LEN>()?;
        self.head.decrypt_block((&mut block).into());
        Some(Head::from_bytes(block))
    }
}

impl Head {
    fn from_bytes(bytes: [u8; HEAD_LEN]) -> Self {
        let bits = u128::from_be_bytes(bytes);
        let (conversation, counter) = ((bits >> 64) as u64, bits as u64);
        let direction = if counter & DIRECTION == 0 {
            Direction::ClientToServer
        } else {
            Direction::ServerToClient
        };
        Self { conversation: conversation.to_be_bytes(), direction, counter: counter & !DIRECTION }
    }

    fn to_bytes(self) -> [u8; HEAD_LEN] {
        let conversation = u128::from(u64::from_be_bytes(self.conversation));
        let direction = match self.direction {
            Direction::ClientToServer => 0,
            Direction::ServerToClient => DIRECTION,
        };
        (conversation << 64 | u128::from(self.counter | direction)).to_be_bytes()
    }
}

/// The keys of one conversation.
pub(super) struct Wrap {
    head: Aes256,
    conversation: [u8; 8],
    aead: Aead,
}

impl Wrap {
    pub(super) fn new(door: &Door, conversation: [u8; 8]) -> Self {
        let mut keys = StreamKeys { key: [0; 32], iv: [0; 12] };
        expand(&door.key.0, "kcp key", &conversation, &mut keys.key);
        let aead = Aead::new(CipherId::ChaCha20Poly1305, &keys);
        Self { head: door.head.clone(), conversation, aead }
    }

    pub(super) fn conversation(&self) -> [u8; 8] {
        self.conversation
    }

    /// Seals a whole datagram, whose KCP bytes stand where they belong; `false` if the cipher fails.
    pub(super) fn seal(
        &self,
        direction: Direction,
        counter: u64,
        time_s: u32,
        datagram: &mut [u8],
    ) -> bool {
        let head = Head { conversation: self.conversation, direction, counter }.to_bytes();
        let Some((prefix, rest)) = datagram.split_first_chunk_mut::<HEAD_LEN>() else {
            return false;
        };
        let Some((plaintext, tag)) = rest.split_last_chunk_mut::<TAG_LEN>() else {
            return false;
        };
        let Some(time) = plaintext.first_chunk_mut::<TIME_LEN>() else { return false };
        *time = time_s.to_be_bytes();
        let nonce = head.last_chunk().copied().unwrap_or_default();
        *prefix = head;
        self.head.encrypt_block(prefix.into());
        self.aead.seal(&nonce, &head, plaintext, tag).is_ok()
    }

    /// Opens a datagram with this head where it stands: its time and its KCP bytes.
    pub(super) fn open<'a>(&self, head: &Head, datagram: &'a mut [u8]) -> Option<(u32, &'a [u8])> {
        let head = head.to_bytes();
        let nonce = head.last_chunk().copied().unwrap_or_default();
        let sealed = datagram.get_mut(HEAD_LEN..)?;
        let plaintext = self.aead.open_in_place(&nonce, &head, sealed).ok()?;
        let (time, kcp) = plaintext.split_first_chunk::<TIME_LEN>()?;
        Some((u32::from_be_bytes(*time), kcp))
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door(..)")
    }
}

impl std::fmt::Debug for Wrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wrap(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(wrap: &Wrap, counter: u64, kcp: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; kcp.len() + OVERHEAD];
        datagram[PREFIX_LEN..][..kcp.len()].copy_from_slice(kcp);
        assert!(wrap.seal(Direction::ServerToClient, counter, 1_700_000_000, &mut datagram));
        datagram
    }

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        let door = Door::new(&DoorKey([7; 32]));
        let wrap = Wrap::new(&door, [1; 8]);
        let datagram = sealed(&wrap, 5, b"segments");
        let head = door.head(&datagram).unwrap();
        let expected =
            Head { conversation: [1; 8], direction: Direction::ServerToClient, counter: 5 };
        assert_eq!(head, expected);
        let opened = wrap.open(&head, &mut datagram.clone()).map(|(t, k)| (t, k.to_vec()));
        assert_eq!(opened, Some((1_700_000_000, b"segments".to_vec())));
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            let head = door.head(&changed).unwrap();
            assert!(wrap.open(&head, &mut changed).is_none(), "byte {at}");
        }
        for length in 0..datagram.len() {
            let mut cut = datagram[..length].to_vec();
            let opened = door.head(&cut).map(|head| wrap.open(&head, &mut cut).is_some());
            assert_ne!(opened, Some(true), "{length} bytes");
        }
        let other = Door::new(&DoorKey([8; 32]));
        assert_ne!(other.head(&datagram), Some(head));
        assert!(Wrap::new(&other, [1; 8]).open(&head, &mut datagram.clone()).is_none());
        assert!(Wrap::new(&door, [2; 8]).open(&head, &mut datagram.clone()).is_none());
    }

    #[test]
    fn nothing_on_the_wire_repeats() {
        let wrap = Wrap::new(&Door::new(&DoorKey([7; 32])), [1; 8]);
        let (first, second) = (sealed(&wrap, 0, &[0; 64]), sealed(&wrap, 1, &[0; 64]));
        let same = first.iter().zip(&second).filter(|(a, b)| a == b).count();
        assert!(same < 8, "{same} bytes of {} are the same", first.len());
    }
}
