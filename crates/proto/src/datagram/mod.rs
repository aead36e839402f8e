//! Packets over UDP: the data channel of a session beside its stream (docs/protocol.md, "Datagrams
//! of a session"; B3, A22), and static mode (B2).
//!
//! ```text
//!  (a)  index (4) | nonce (8) | ciphertext | tag (16)       the first 12 bytes masked
//!  (b)  HMAC (32) | IV (16) | ciphertext                    CipherWall packets (B1)
//! ```
//!
//! A session's channel has three parts that need no common lock:
//!
//! - [`Sealer`] makes datagrams of frames, where they stand in the sender's buffer. [`Outlet`] tells
//!   the sender where to, how long at most, and whether at all.
//! - [`Opener`] opens what [`Masks`] has found to be the session's.
//! - [`Conversation`] decides whether datagrams get through, to which address they go and how long
//!   they may be. What it wants to say is sealed by the sealer like everything else.
//!
//! The keys come with [`Channel`] from the opening, and [`KeyChange`] from the rekeys of the stream.
//! Everything that is not valid is dropped: no error, no answer, no state.

mod channel;
mod conversation;
mod frames;
mod masks;
mod opener;
mod outlet;
pub mod packet;
mod random;
mod sealer;
pub mod static_mode;
pub mod window;

pub use channel::{Channel, EpochKeys, KeyChange};
pub use conversation::{Conversation, End, KEEPALIVE, PING_LEN_MIN, Reason, Settings, Transmit};
pub use frames::{Frame, Frames, frames};
pub use masks::{Head, Masks};
pub use opener::{Opened, Opener};
pub use outlet::{Outlet, Path, Sent};
pub use sealer::{SealError, Sealer};
pub use window::Window;

use std::time::Duration;

use crate::cipher::{DatagramCipher, TAG_LEN};

/// How long datagrams of an epoch are accepted behind its end; also those of a channel whose stream
/// was replaced.
pub const OLD_KEYS_LIVE: Duration = Duration::from_secs(30);
/// Length of index and nonce in front of the ciphertext of format (a), in bytes.
const HEAD_LEN: usize = 12;

/// How much the datagram key of an epoch has been used in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The epoch: how many rekeys there were before.
    pub epoch: u32,
    /// Datagrams; for a sealer also the counter of the next one.
    pub datagrams: u64,
    /// Bytes of datagrams.
    pub bytes: u64,
    /// Datagrams that were not authentic.
    pub failures: u64,
}

impl Usage {
    fn new(epoch: u32) -> Self {
        Self { epoch, ..Self::default() }
    }

    fn add(&mut self, datagram_len: usize) {
        self.datagrams += 1;
        self.bytes += datagram_len as u64;
    }
}

impl DatagramCipher {
    /// Bytes in front of the frames in a datagram.
    pub fn prefix_len(self) -> usize {
        match self {
            DatagramCipher::Aead(_) => HEAD_LEN,
            DatagramCipher::Packet => packet::OVERHEAD,
        }
    }

    /// Bytes behind the frames in a datagram.
    pub fn suffix_len(self) -> usize {
        match self {
            DatagramCipher::Aead(_) => TAG_LEN,
            DatagramCipher::Packet => 0,
        }
    }

    /// Bytes of a datagram that are not frames.
    pub fn overhead(self) -> usize {
        self.prefix_len() + self.suffix_len()
    }
}
