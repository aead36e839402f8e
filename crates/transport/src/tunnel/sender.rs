//! The sending half of a tunnel.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use cipherwall_proto::record::{Batch, SealError, Sealer};
use tokio::{net::TcpStream, sync::Notify};

use super::pool;

/// Sends frames over a tunnel's TCP connection. Shared by whoever has packets for the other end.
pub struct Sender {
    stream: Arc<TcpStream>,
    state: Mutex<State>,
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
}

/// Whether everything has gone to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Everything.
    Done,
    /// The socket is full; the link sends the rest.
    Blocked,
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
    pub(super) fn new(stream: Arc<TcpStream>, sealer: Sealer) -> Self {
        Self {
            stream,
            state: Mutex::new(State {
                sealer,
                filling: None,
                sealed: None,
                written: 0,
                failed: false,
                sent: Sent::default(),
                link_sleeps: false,
            }),
            wake_link: Notify::new(),
        }
    }

    /// Lets `fill` add packets to what is sent next; [`Sender::flush`] sends it. The batch may
    /// have no room left for a packet while the socket is full.
    pub fn fill<T>(&self, fill: impl FnOnce(&mut Batch) -> T) -> T {
        let mut state = self.state();
        let batch = state.filling.get_or_insert_with(pool::take_batch);
        let before = batch.len();
        let result = fill(batch);
        let added = batch.len() - before;
        if added > 0 {
            state.sent.traffic.get_or_insert_with(Instant::now);
            state.sent.bytes += added as u64;
            if std::mem::take(&mut state.link_sleeps) {
                self.wake_link.notify_one();
            }
        }
        result
    }

    /// Adds frames that are no packets; `false` if there is no room, since the socket is full.
    pub(super) fn push_frames(&self, frames: &[u8]) -> bool {
        self.state().filling.get_or_insert_with(pool::take_batch).push(frames)
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
                state.failed = true;
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

    /// What has been sent since the last call.
    pub(super) fn take_sent(&self) -> Sent {
        std::mem::take(&mut self.state().sent)
    }

    /// The link goes to sleep unless something has been sent since it last asked; `false` then.
    pub(super) fn link_sleeps(&self) -> bool {
        let mut state = self.state();
        state.link_sleeps = state.sent.traffic.is_none();
        state.link_sleeps
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn flush(&mut self, stream: &TcpStream) -> Result<Flushed, SendError> {
        loop {
            if let Some(sealed) = &self.sealed {
                let bytes = sealed.sealed();
                while self.written < bytes.len() {
                    match stream.try_write(&bytes[self.written..]) {
                        Ok(count) => self.written += count,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Ok(Flushed::Blocked);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                self.written = 0;
            }
            if let Some(done) = self.sealed.take() {
                pool::give_back_batch(done);
            }
            let Some(mut batch) = self.filling.take() else {
                return Ok(Flushed::Done);
            };
            if batch.is_empty() {
                pool::give_back_batch(batch);
                return Ok(Flushed::Done);
            }
            let now = Instant::now();
            batch.seal(&mut self.sealer, now)?;
            self.sent.last = Some(now);
            self.sealed = Some(batch);
        }
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("stream", &self.stream).finish_non_exhaustive()
    }
}
