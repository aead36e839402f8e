//! A stream of bytes over datagrams, with the calls of a TCP connection.

#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Shutdown, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cipherwall_proto::kcp::{Conversation, Head, Transmit};
use tokio::sync::Notify;

use crate::{
    datagram::pool,
    udp::{OutBatch, UdpSocket},
};

/// How long what was written may take to arrive after the stream is given up.
const LINGER: Duration = Duration::from_secs(3);
/// At a gateway with more conversations than this that have not logged in, those that are given up end
/// at once.
const STRANGERS_MAX: usize = 1_536;

/// Counts conversations that have not logged in, by its clones.
#[derive(Clone, Default)]
pub(super) struct Strangers(Arc<()>);

/// One end of a conversation. When it is dropped, what was written still arrives, for a while.
pub struct KcpStream(pub(super) Arc<Shared>);

/// What the stream, its driver and those who receive have in common.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Tells the driver to look at the time again.
    pub(super) wake: Notify,
    /// How many seconds the gateway's clock is ahead of this host's.
    clock_offset: i64,
}

struct State {
    conversation: Conversation,
    home: Home,
    /// Datagrams that the socket had no room for, and where they go.
    waiting: Option<(OutBatch, SocketAddr)>,
    readers: Vec<Waker>,
    writers: Vec<Waker>,
    /// Who waits for the other end's first sign of life has been told of it.
    told_of_life: bool,
    /// When the driver wakes up by itself.
    driver_due: Option<Instant>,
    /// At a gateway, until log-in.
    stranger: Option<Strangers>,
    /// The stream is dropped, and its end is waited for until then.
    lingers_until: Option<Instant>,
}

/// The socket that datagrams leave from, and the own address if it is known.
#[derive(Clone)]
pub(super) struct Home {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) address: Option<IpAddr>,
}

/// What the driver has to do next.
pub(super) enum Next {
    /// Wait: for time, and for the socket if it is full.
    Wait(Option<Instant>, Option<Arc<UdpSocket>>),
    /// Nothing any more.
    End,
}

impl Shared {
    pub(super) fn new(
        conversation: Conversation,
        home: Home,
        clock_offset: i64,
        stranger: Option<Strangers>,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                conversation,
                home,
                waiting: None,
                readers: Vec::new(),
                writers: Vec::new(),
                told_of_life: false,
                driver_due: None,
                stranger,
                lingers_until: None,
            }),
            wake: Notify::new(),
            clock_offset,
        }
    }

    /// Takes a datagram with this head that has come to `home`; it is answered by [`Shared::drive`].
    pub(super) fn receive(
        &self,
        now: Instant,
        home: &Home,
        from: SocketAddr,
        head: &Head,
        datagram: &mut [u8],
    ) {
        let mut state = self.lock();
        let heard = state.conversation.handle(now, from, head, datagram).is_some();
        if heard && state.conversation.peer() == from {
            state.home = home.clone();
        }
    }

    /// Sends what is to be sent now, and tells those who wait.
    pub(super) fn drive(&self) {
        self.drive_locked(&mut self.lock());
    }

    fn drive_locked(&self, state: &mut State) {
        let was_full = state.waiting.is_some();
        state.send(Instant::now(), unix_s(self.clock_offset));
        state.tell();
        let due = state.due();
        let is_earlier = due.is_some_and(|due| state.driver_due.is_none_or(|known| due < known));
        if is_earlier {
            state.driver_due = due;
        }
        if is_earlier || state.waiting.is_some() && !was_full {
            self.wake.notify_one();
        }
    }

    /// Does what time asks for.
    pub(super) fn look(&self) -> Next {
        let mut state = self.lock();
        state.send(Instant::now(), unix_s(self.clock_offset));
        state.tell();
        if let Some(until) = state.lingers_until
            && (Instant::now() >= until || state.conversation.is_finished())
        {
            return Next::End;
        }
        let due = [state.due(), state.lingers_until];
        state.driver_due = due.into_iter().flatten().min();
        let full = state.waiting.as_ref().map(|_| state.home.socket.clone());
        Next::Wait(state.driver_due, full)
    }

    /// Asks the other end for an answer.
    pub(super) fn ask(&self) {
        let mut state = self.lock();
        state.conversation.ask();
        self.drive_locked(&mut state);
    }

    /// Resolves once something authentic has come.
    pub(super) async fn heard(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.conversation.is_heard() {
                return Poll::Ready(());
            }
            remember(&mut state.readers, cx);
            Poll::Pending
        })
        .await;
    }

    pub(super) fn number(&self) -> [u8; 8] {
        self.lock().conversation.number()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends as much as may leave and the socket takes.
    fn send(&mut self, now: Instant, time_s: u32) {
        if let Some((mut batch, to)) = self.waiting.take()
            && !self.send_batch(&mut batch, to)
        {
            self.waiting = Some((batch, to));
            return;
        }
        let mut batch = pool::take_batch();
        loop {
            self.conversation.poll(now);
            let to = self.conversation.peer();
            let last = loop {
                let outcome = self.conversation.transmit(time_s, |len| batch.room(len));
                match outcome {
                    Transmit::Written(len) => batch.commit(len),
                    Transmit::NoRoom | Transmit::Nothing => break outcome,
                }
            };
            if batch.is_empty() {
                break;
            }
            if !self.send_batch(&mut batch, to) {
                self.waiting = Some((batch, to));
                return;
            }
            if last == Transmit::Nothing && self.conversation.poll_timeout() > Some(now) {
                break;
            }
        }
        pool::give_back_batch(batch);
    }

    /// `false` if the socket is full. What cannot be sent for another reason is lost, as datagrams are.
    fn send_batch(&self, batch: &mut OutBatch, to: SocketAddr) -> bool {
        match batch.send(&self.home.socket, to, self.home.address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                tracing::debug!(%error, %to, "a datagram could not be sent");
                true
            }
            Ok(()) => true,
        }
    }

    /// When the conversation has something to do; with a full socket only that there is room again.
    fn due(&self) -> Option<Instant> {
        if self.waiting.is_some() { None } else { self.conversation.poll_timeout() }
    }

    fn tell(&mut self) {
        let first_sign = self.conversation.is_heard() && !self.told_of_life;
        self.told_of_life |= first_sign;
        if first_sign || self.is_readable() {
            self.readers.drain(..).for_each(Waker::wake);
        }
        if self.is_writable() {
            self.writers.drain(..).for_each(Waker::wake);
        }
    }

    /// The stream is given up: its end is waited for, if somebody is there who could miss something.
    fn give_up(&mut self) {
        let crowd = self.stranger.as_ref().map_or(0, |all| Arc::strong_count(&all.0));
        let waits = self.conversation.is_heard() && crowd <= STRANGERS_MAX;
        let patience = if waits { LINGER } else { Duration::ZERO };
        self.lingers_until.get_or_insert(Instant::now() + patience);
    }

    fn is_readable(&self) -> bool {
        self.conversation.is_readable() || self.conversation.is_at_end()
    }

    fn is_writable(&self) -> bool {
        self.conversation.has_room()
    }
}

impl KcpStream {
    /// Where the other end is now.
    pub fn peer(&self) -> SocketAddr {
        self.0.lock().conversation.peer()
    }

    /// Waits until there is something to read, or the end.
    pub(crate) async fn readable(&self) {
        poll_fn(|cx| self.poll_readable(cx)).await;
    }

    /// Waits until there is room to write.
    pub(crate) async fn writable(&self) {
        poll_fn(|cx| self.poll_writable(cx)).await;
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.is_readable() {
            return Poll::Ready(());
        }
        remember(&mut state.readers, cx);
        Poll::Pending
    }

    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.is_writable() {
            return Poll::Ready(());
        }
        remember(&mut state.writers, cx);
        Poll::Pending
    }

    pub(crate) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        match state.conversation.read(bytes) {
            0 if bytes.is_empty() || state.conversation.is_at_end() => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => {
                self.0.drive_locked(&mut state);
                Ok(count)
            }
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        match state.conversation.write(bytes) {
            0 if bytes.is_empty() => Ok(0),
            0 if state.conversation.has_room() => Err(io::ErrorKind::BrokenPipe.into()),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => {
                self.0.drive_locked(&mut state);
                Ok(count)
            }
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) {
        if how != Shutdown::Read {
            let mut state = self.0.lock();
            state.conversation.finish();
            if how == Shutdown::Both {
                state.give_up();
                self.0.wake.notify_one();
            }
            self.0.drive_locked(&mut state);
        }
    }

    /// The other end has logged in.
    pub(crate) fn admit(&self) {
        let mut state = self.0.lock();
        state.stranger = None;
        state.conversation.admit();
    }

    pub(crate) fn set_unsent_max(&self, bytes: usize) {
        self.0.lock().conversation.set_unsent_max(bytes);
    }
}

impl Drop for KcpStream {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.conversation.finish();
        state.give_up();
        self.0.drive_locked(&mut state);
        self.0.wake.notify_one();
    }
}

impl std::fmt::Debug for KcpStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KcpStream").field(&self.peer()).finish()
    }
}

fn remember(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

/// Unix seconds by the gateway's clock.
pub(super) fn unix_s(clock_offset: i64) -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_add(clock_offset);
    u32::try_from(now.max(0)).unwrap_or(u32::MAX)
}
