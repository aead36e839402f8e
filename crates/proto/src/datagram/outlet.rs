//! What the sending half has to know of the path, and what the conversation has to know of what
//! was sent.

use std::{net::SocketAddr, time::Instant};

use crate::{cipher::DatagramCipher, frame};

/// The path as the conversation sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Whether datagrams get through: packets go by them, otherwise over the stream.
    pub up: bool,
    /// Where to.
    pub to: Option<SocketAddr>,
    /// The longest datagram that gets through, in bytes.
    pub datagram_max: usize,
    /// The other end may be elsewhere, and has not answered from there: so many bytes of datagrams
    /// may go there in all.
    pub allowance: Option<u64>,
    /// Counts the moves from address to address.
    pub(super) moves: u64,
}

/// What was sent since the conversation was last told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Activity {
    pub(super) first: Option<Instant>,
    pub(super) last: Option<Instant>,
    /// The longest datagram, in bytes.
    pub(super) longest: usize,
}

/// Decides for the sending half where datagrams with packets go. Kept beside the sealer.
#[derive(Debug)]
pub struct Outlet {
    cipher: DatagramCipher,
    path: Path,
    /// Bytes that went to this address.
    sent: u64,
    activity: Activity,
}

impl Outlet {
    /// For a path that [`super::Conversation::path`] describes.
    pub fn new(cipher: DatagramCipher, path: Path) -> Self {
        Self { cipher, path, sent: 0, activity: Activity::default() }
    }

    /// The path has changed: [`super::Conversation::poll_path`].
    pub fn update(&mut self, path: Path) {
        if path.moves != self.path.moves {
            self.sent = 0;
        }
        self.path = path;
    }

    /// Whether packets go by datagram.
    pub fn is_up(&self) -> bool {
        self.path.up && self.path.to.is_some()
    }

    /// The longest datagram, in bytes.
    pub fn datagram_max(&self) -> usize {
        self.path.datagram_max
    }

    /// The longest packet that fits into a datagram, in bytes. Longer ones are cut, or go over the
    /// stream.
    pub fn packet_max(&self) -> usize {
        self.path.datagram_max - self.cipher.overhead() - frame::HEADER_LEN
    }

    /// Where datagrams with packets may go: `bytes` in all, the longest one of `longest` bytes. They
    /// count as sent. `None`: they go over the stream.
    pub fn admit(&mut self, now: Instant, bytes: usize, longest: usize) -> Option<SocketAddr> {
        let to = self.path.to.filter(|_| self.path.up)?;
        let sent = self.sent + bytes as u64;
        if self.path.allowance.is_some_and(|allowance| sent > allowance) {
            return None;
        }
        self.sent = sent;
        self.activity.first.get_or_insert(now);
        self.activity.last = Some(now);
        self.activity.longest = self.activity.longest.max(longest);
        Some(to)
    }

    /// Whether nothing was sent that the conversation has not been told of.
    pub fn is_quiet(&self) -> bool {
        self.activity.first.is_none()
    }

    /// What to tell [`super::Conversation::handle_sent`].
    pub fn take_sent(&mut self) -> Sent {
        Sent(std::mem::take(&mut self.activity))
    }
}

/// What an [`Outlet`] has let out since the conversation was last told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent(pub(super) Activity);
