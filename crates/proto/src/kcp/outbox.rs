//! The KCP bytes of datagrams on their way out.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::gate::{self, PUSH};

/// Filled by the library, one datagram with each write. Clones are the same: the library keeps one.
#[derive(Debug, Clone, Default)]
pub(super) struct Outbox(Arc<Mutex<Datagrams>>);

#[derive(Debug, Default)]
struct Datagrams {
    conversation: u32,
    bytes: Vec<u8>,
    /// Where each datagram ends that has not been taken, and how many segments with data it has.
    ends: VecDeque<(usize, u32)>,
    taken: usize,
    /// Datagrams that do not wait for their turn.
    in_front: VecDeque<Vec<u8>>,
    /// The number behind the highest one of all segments so far.
    next_number: u32,
    /// Segments with data since the last call of [`Outbox::take_counts`].
    counts: Counts,
    /// The room that the last segment has told of.
    window_told: Option<u16>,
}

/// How many datagrams may be in front.
const IN_FRONT_MAX: usize = 8;

/// Segments with data that went into the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// For the first time.
    pub(super) new: u64,
    /// Once more.
    pub(super) again: u64,
}

impl Outbox {
    pub(super) fn new(conversation: u32) -> Self {
        Self(Arc::new(Mutex::new(Datagrams { conversation, ..Datagrams::default() })))
    }

    pub(super) fn is_empty(&self) -> bool {
        let datagrams = self.lock();
        datagrams.ends.is_empty() && datagrams.in_front.is_empty()
    }

    /// Adds one datagram.
    pub(super) fn push(&self, kcp: &[u8]) {
        self.lock().push(kcp);
    }

    /// Adds one datagram without data, to leave before the others.
    pub(super) fn push_in_front(&self, kcp: &[u8]) {
        let mut datagrams = self.lock();
        // who asks for more than this asks for nothing
        if datagrams.in_front.len() < IN_FRONT_MAX {
            datagrams.in_front.push_back(kcp.to_vec());
        }
    }

    /// How many segments with data the next datagram has.
    pub(super) fn next_segments(&self) -> Option<u32> {
        let datagrams = self.lock();
        if !datagrams.in_front.is_empty() {
            return Some(0);
        }
        datagrams.ends.front().map(|(_, segments)| *segments)
    }

    /// Hands the next datagram out; it is gone if `take` says that it took it.
    pub(super) fn take(&self, take: impl FnOnce(&[u8]) -> bool) -> bool {
        let mut datagrams = self.lock();
        if let Some(first) = datagrams.in_front.front() {
            let taken = take(first);
            if taken {
                datagrams.in_front.pop_front();
            }
            return taken;
        }
        let Some(&(end, _)) = datagrams.ends.front() else { return false };
        if !take(&datagrams.bytes[datagrams.taken..end]) {
            return false;
        }
        datagrams.ends.pop_front();
        datagrams.taken = end;
        if datagrams.ends.is_empty() {
            (datagrams.bytes, datagrams.taken) = (Vec::new(), 0);
        }
        true
    }

    pub(super) fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.lock().counts)
    }

    /// The room that the other end was told of last.
    pub(super) fn window_told(&self) -> Option<u16> {
        self.lock().window_told
    }

    fn lock(&self) -> MutexGuard<'_, Datagrams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Datagrams {
    fn push(&mut self, kcp: &[u8]) {
        let mut with_data = 0;
        for segment in gate::segments(self.conversation, kcp).into_iter().flatten() {
            self.window_told = Some(segment.window);
            if segment.command != PUSH {
                continue;
            }
            with_data += 1;
            if segment.number.wrapping_sub(self.next_number).cast_signed() >= 0 {
                self.next_number = segment.number.wrapping_add(1);
                self.counts.new += 1;
            } else {
                self.counts.again += 1;
            }
        }
        self.bytes.extend_from_slice(kcp);
        self.ends.push_back((self.bytes.len(), with_data));
    }
}

impl io::Write for Outbox {
    fn write(&mut self, kcp: &[u8]) -> io::Result<usize> {
        self.push(kcp);
        Ok(kcp.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
