//! The sending half of a tunnel.
//!
//! ```text
//!  packets ──┬────────────► filling ──seal──► sealed ──► socket
//!            └──► queue ──────┘
//! ```
//!
//! A packet goes straight into the batch that is being filled, unless the socket is full and there
//! is enough ahead of it ([`Pace`]): then it queues, where an old one can still be dropped.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use cipherwall_proto::{
    frame::{self, Control},
    queue::{self, Queue},
    record::{Batch, SealError, Sealer, Usage},
    rekey::Outgoing,
};
use tokio::sync::Notify;

use super::{pace::Pace, pool};
use crate::{Carrier, datagram::Channel};

/// Sends frames over a tunnel's connection. Shared by whoever has packets for the other end.
pub struct Sender {
    stream: Carrier,
    state: Mutex<State>,
    /// Datagrams beside the stream, if there are any.
    channel: OnceLock<Arc<Channel>>,
    /// Tells the [`super::Link`] that it has something to do.
    pub(super) wake_link: Notify,
}

struct State {
    sealer: Sealer,
    /// Frames that are not sealed yet.
    filling: Option<Box<Batch>>,
    /// Records that the socket has taken up to `written`.
    sealed: Option<Box<Batch>>,
    written: usize,
    /// Packets that found no room.
    queue: Queue,
    pace: Pace,
    /// The path's, once known.
    round_trip: Duration,
    /// Packets stay in the queue.
    holds: bool,
    /// The connection is of no use any more.
    failed: bool,
    sent: Sent,
    /// Whether the link sleeps until it is told of traffic.
    link_sleeps: bool,
}

/// What has been sent since the link last asked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    /// When the first packets of the user were.
    pub(super) traffic: Option<Instant>,
    /// When the last bytes were.
    pub(super) last: Option<Instant>,
    /// How many bytes of packets.
    pub(super) bytes: u64,
    /// How many packets were dropped, since the path is too slow for them.
    pub(super) dropped: u64,
    /// How far the key is used up.
    pub(super) usage: Usage,
}

/// Whether everything has gone to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Everything.
    Done,
    /// The socket is full; the link sends the rest.
    Blocked,
}

/// What has become of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is in what is sent next.
    AtOnce,
    /// It has to wait for the socket, or for another connection.
    Queued,
}

/// Why nothing can be sent any more.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The key is used up, or the cipher failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The socket failed.
    #[error("sending: {0}")]
    Io(#[from] io::Error),
    /// The connection failed earlier.
    #[error("the connection has failed")]
    Failed,
}

impl Sender {
    pub(super) fn new(stream: Carrier, sealer: Sealer) -> Self {
        Self {
            stream,
            state: Mutex::new(State {
                sealer,
                filling: None,
                sealed: None,
                written: 0,
                queue: Queue::default(),
                pace: Pace::default(),
                round_trip: Duration::ZERO,
                holds: false,
                failed: false,
                sent: Sent::default(),
                link_sleeps: false,
            }),
            channel: OnceLock::new(),
            wake_link: Notify::new(),
        }
    }

    /// What carries the stream.
    pub fn carrier(&self) -> &Carrier {
        &self.stream
    }

    /// There are datagrams beside the stream.
    pub(super) fn set_channel(&self, channel: Arc<Channel>) {
        // a connection has one
        let _ = self.channel.set(channel);
    }

    /// The datagrams beside the stream, if there are any.
    pub fn channel(&self) -> Option<&Arc<Channel>> {
        self.channel.get()
    }

    /// The same while packets go that way.
    pub fn datagrams(&self) -> Option<&Channel> {
        self.channel.get().map(|channel| &**channel).filter(|channel| channel.is_up())
    }

    /// Lets `fill` read packets straight into what is sent next, up to about so many bytes as it
    /// is told; [`Sender::flush`] sends it. `None` if packets have to queue: then they go to
    /// [`Sender::take_packet`].
    pub fn fill<T>(&self, fill: impl FnOnce(&mut Batch, usize) -> T) -> Option<T> {
        let mut state = self.state();
        let enough = state.room()?;
        let batch = state.filling.get_or_insert_with(pool::take_batch);
        let before = batch.len();
        let result = fill(batch, enough);
        let added = batch.len() - before;
        if added > 0 {
            self.note_traffic(&mut state, added);
        }
        Some(result)
    }

    /// Takes the packet that was just read into `from` (`read` bytes with its offload header), to
    /// be sent by the next [`Sender::flush`] or as soon as there is room for it; by the next
    /// connection ([`Sender::adopt`]) if this one has failed.
    pub fn take_packet(&self, from: &Batch, read: usize) -> Taken {
        let mut state = self.state();
        let has_room = state.room().is_some();
        if has_room && state.filling.get_or_insert_with(pool::take_batch).take_packet(from, read) {
            self.note_traffic(&mut state, read);
            Taken::AtOnce
        } else {
            state.queue.push(Instant::now(), from.read_packet(read));
            self.note_traffic(&mut state, 0);
            Taken::Queued
        }
    }

    /// As [`Sender::take_packet`], for a packet in one piece behind its offload header.
    pub fn take(&self, packet: &[u8]) -> Taken {
        let mut state = self.state();
        let has_room = state.room().is_some();
        if has_room && state.filling.get_or_insert_with(pool::take_batch).push_packet(packet) {
            self.note_traffic(&mut state, packet.len());
            Taken::AtOnce
        } else {
            state.queue.push(Instant::now(), packet.into());
            self.note_traffic(&mut state, 0);
            Taken::Queued
        }
    }

    /// The packets that this connection has not sent, for the one that takes its place. Over this
    /// one there is only a farewell to come.
    pub fn retire(&self) -> Queue {
        if let Some(channel) = self.channel() {
            channel.retire(self);
        }
        let mut state = self.state();
        state.holds = true;
        state.take_back();
        std::mem::take(&mut state.queue)
    }

    /// Sends what another connection could not.
    pub fn adopt(&self, packets: Queue) -> Result<Flushed, SendError> {
        self.state().queue.adopt(Instant::now(), packets);
        self.flush()
    }

    /// The connection has failed; packets are kept for the next one, up to so many bytes.
    pub fn keep(&self, bytes: usize) {
        if let Some(channel) = self.channel() {
            channel.retire(self);
        }
        let mut state = self.state();
        state.fail();
        state.queue.set_bytes_max(bytes);
    }

    /// While the path is in doubt, packets stay where another connection can have them: the kernel
    /// would only wait, too.
    pub(super) fn hold(&self, holds: bool) -> Result<(), SendError> {
        let mut state = self.state();
        if std::mem::replace(&mut state.holds, holds) == holds {
            return Ok(());
        }
        state.queue.forgive(Instant::now());
        drop(state);
        self.flush().map(drop)
    }

    /// Whether nothing can be sent any more.
    pub fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// Adds frames that are no packets; `false` if there is no room, since the socket is full.
    pub(super) fn push_frames(&self, frames: &[u8]) -> bool {
        self.state().filling.get_or_insert_with(pool::take_batch).push(frames)
    }

    /// Says something to the other end; `false` if there is no room at the moment, since the socket
    /// is full or the keys are being changed.
    pub fn say(&self, control: &Control) -> Result<bool, SendError> {
        let has_room = self.push_frames(&frame::control(control));
        self.flush()?;
        Ok(has_room)
    }

    /// Adds a frame that must not be left out; `false` if there is no room at the moment, since the
    /// socket is full or the keys are being changed.
    pub(super) fn push(&self, outgoing: &Outgoing) -> bool {
        let mut state = self.state();
        let batch = state.filling.get_or_insert_with(pool::take_batch);
        match &outgoing.next_keys {
            Some(keys) => batch.push_last(&outgoing.frame, keys),
            None => batch.push(&outgoing.frame),
        }
    }

    /// Sends as much as the socket takes.
    pub fn flush(&self) -> Result<Flushed, SendError> {
        let mut state = self.state();
        if state.failed {
            return Err(SendError::Failed);
        }
        let flushed = state.flush(&self.stream);
        match &flushed {
            Ok(Flushed::Done) => {}
            Ok(Flushed::Blocked) => self.wake_link.notify_one(),
            Err(_) => {
                state.fail();
                self.wake_link.notify_one();
            }
        }
        flushed
    }

    /// Sends everything, waiting for the socket where it is full.
    pub async fn drain(&self) -> Result<(), SendError> {
        while self.flush()? == Flushed::Blocked {
            self.stream.writable().await?;
        }
        Ok(())
    }

    /// Whether records are waiting for the socket.
    pub(super) fn is_blocked(&self) -> Result<bool, SendError> {
        let state = self.state();
        if state.failed { Err(SendError::Failed) } else { Ok(state.sealed.is_some()) }
    }

    /// What has been sent since the last call. `round_trip`: that of the path, once known.
    pub(super) fn take_sent(&self, round_trip: Option<Duration>) -> Sent {
        let mut state = self.state();
        if let Some(round_trip) = round_trip {
            state.round_trip = round_trip;
            state.queue.set_round_trip(round_trip);
        }
        let (usage, dropped) = (state.sealer.usage(), state.queue.take_dropped());
        Sent { usage, dropped, ..std::mem::take(&mut state.sent) }
    }

    /// The link goes to sleep unless something has been sent since it last asked; `false` then.
    pub(super) fn link_sleeps(&self) -> bool {
        let mut state = self.state();
        state.link_sleeps = state.sent.traffic.is_none();
        state.link_sleeps
    }

    fn note_traffic(&self, state: &mut State, bytes: usize) {
        state.sent.traffic.get_or_insert_with(Instant::now);
        state.sent.bytes += bytes as u64;
        if std::mem::take(&mut state.link_sleeps) {
            self.wake_link.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Up to how many bytes the next batch may be filled; `None` if packets have to queue.
    fn room(&self) -> Option<usize> {
        let enough = self.pace.bytes();
        let has_room = |batch: &Batch| batch.len() < enough && batch.has_room();
        let direct = !self.failed
            && !self.holds
            && self.queue.is_empty()
            && self.filling.as_deref().is_none_or(has_room);
        direct.then_some(enough)
    }

    fn flush(&mut self, stream: &Carrier) -> Result<Flushed, SendError> {
        loop {
            let written = self.write(stream)?;
            let now = Instant::now();
            if self.pace.wrote(now, written == Flushed::Blocked) {
                self.follow_pace(stream)?;
            }
            if written == Flushed::Blocked {
                return Ok(Flushed::Blocked);
            }
            let Some(mut batch) = self.next_batch(now) else { return Ok(Flushed::Done) };
            batch.seal(&mut self.sealer, now)?;
            self.sent.last = Some(now);
            self.sealed = Some(batch);
        }
    }

    /// Writes what is sealed.
    fn write(&mut self, stream: &Carrier) -> io::Result<Flushed> {
        let Some(sealed) = &self.sealed else { return Ok(Flushed::Done) };
        let bytes = sealed.sealed();
        while self.written < bytes.len() {
            match stream.try_write(&bytes[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    self.pace.took(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        self.sealed.take().into_iter().for_each(pool::give_back_batch);
        Ok(Flushed::Done)
    }

    /// What is to be sealed next, if anything.
    fn next_batch(&mut self, now: Instant) -> Option<Box<Batch>> {
        if !self.queue.is_empty() && !self.holds {
            let batch = self.filling.get_or_insert_with(pool::take_batch);
            while batch.has_room() && batch.len() < self.pace.bytes() {
                let Some(packet) = self.queue.pop(now) else { break };
                // there is room for any
                batch.push_packet(&packet);
                self.sent.bytes += packet.len() as u64;
            }
        }
        let batch = self.filling.take()?;
        if batch.is_empty() {
            pool::give_back_batch(batch);
            return None;
        }
        Some(batch)
    }

    /// The queue and the kernel shall hold no more than is needed to keep the path busy.
    fn follow_pace(&mut self, stream: &Carrier) -> io::Result<()> {
        self.queue.set_bytes_max(self.pace.queue_bytes(self.round_trip));
        stream.set_unsent_max(self.pace.bytes())
    }

    /// Nothing can be sent any more; what was to be sent next may be sent by another connection.
    fn fail(&mut self) {
        self.failed = true;
        self.take_back();
    }

    /// Puts packets that are not sealed yet back into the queue.
    fn take_back(&mut self) {
        self.queue.set_bytes_max(queue::BYTES_MAX);
        if let Some(batch) = self.filling.take() {
            let mut unsent = Queue::default();
            let now = Instant::now();
            batch.packets().into_iter().for_each(|packet| unsent.push(now, packet));
            self.queue.put_in_front(unsent);
            pool::give_back_batch(batch);
        }
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("stream", &self.stream).finish_non_exhaustive()
    }
}
