//! A channel: what its halves share, and what the link does for it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cipherwall_proto::{
    cipher::DatagramCipher,
    datagram::{
        self, Conversation, End, Head, KeyChange, Masks, Opened, Opener, Path, Settings, Transmit,
        Usage,
    },
};
use tokio::sync::Notify;

use super::{
    homes::{Home, Homes},
    incoming::{Arrival, Incoming},
    outgoing::Outgoing,
};
use crate::{tunnel::Sender, udp::UdpSocket};

/// How often a link looks for unanswered traffic.
const AWAKE: Duration = Duration::from_millis(150);

/// What a channel begins with.
pub struct Start {
    /// Keys and index.
    pub channel: datagram::Channel,
    /// Of the gateway that gave the index.
    pub masks: Masks,
    /// The client's socket, and where the gateway is; a gateway learns both.
    pub client: Option<(Arc<UdpSocket>, SocketAddr)>,
    /// The longest packet inside the tunnel, in bytes.
    pub inner_mtu: u16,
    /// How long a client sends nothing before it reminds NATs of itself.
    pub keepalive: Duration,
}

/// One end of a session's datagrams.
pub struct Channel {
    cipher: DatagramCipher,
    index: u32,
    masks: Masks,
    /// Whether packets go by datagram. Changes under the lock of `outgoing`.
    up: AtomicBool,
    outgoing: Mutex<Outgoing>,
    opener: Mutex<Opener>,
    talk: Mutex<Talk>,
    /// Bytes of packets received.
    received: AtomicU64,
    /// Tells the link that it has something to do.
    wake: Notify,
}

/// The conversation with the other end, and where that has been heard from.
pub(super) struct Talk {
    pub(super) conversation: Conversation,
    pub(super) homes: Homes,
    /// The sending half does not know of the latest socket.
    home_is_new: bool,
}

impl Channel {
    /// A channel that begins now.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(start: Start) -> Result<Arc<Self>, getrandom::Error> {
        let Start { channel, masks, client, inner_mtu, keepalive } = start;
        let (cipher, index) = (channel.cipher(), channel.index());
        let (sealer, opener) = channel.into_halves(&masks, random()?);
        let settings = Settings { keepalive, inner_mtu, cipher, seed: random()? };
        let (end, homes) = match client {
            Some((socket, gateway)) => {
                (End::Client { gateway }, Homes::One(Home { socket, address: None }))
            }
            None => (End::Gateway, Homes::Learned(Vec::new())),
        };
        let conversation = Conversation::new(Instant::now(), end, &settings);
        Ok(Arc::new(Self {
            cipher,
            index,
            masks,
            up: AtomicBool::new(false),
            outgoing: Mutex::new(Outgoing::new(sealer, conversation.path())),
            opener: Mutex::new(opener),
            talk: Mutex::new(Talk { conversation, homes, home_is_new: false }),
            received: AtomicU64::new(0),
            wake: Notify::new(),
        }))
    }

    /// The cipher.
    pub fn cipher(&self) -> DatagramCipher {
        self.cipher
    }

    /// The session in each datagram.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether packets go by datagram now.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Where datagrams go to, as far as known.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.talk().conversation.path().to
    }

    /// The smoothed round trip, once known.
    pub fn round_trip(&self) -> Option<Duration> {
        self.talk().conversation.round_trip()
    }

    /// Bytes of packets received and sent so far.
    pub fn traffic(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.outgoing().bytes)
    }

    /// Lets `fill` give packets, which are sent when it returns. `None` if datagrams do not get
    /// through. `stream`: of the same connection, for packets that may not go by datagram.
    pub fn fill<T>(&self, stream: &Sender, fill: impl FnOnce(&mut Filler<'_>) -> T) -> Option<T> {
        let mut outgoing = self.outgoing();
        if !outgoing.is_up() {
            return None;
        }
        let mut filler = Filler { outgoing: &mut outgoing, stream };
        let result = fill(&mut filler);
        self.flush_locked(outgoing, stream);
        Some(result)
    }

    /// Takes a packet with its offload header in front, to be sent by [`Channel::flush`].
    pub fn take(&self, stream: &Sender, packet: &[u8]) {
        self.outgoing().push(stream, packet);
    }

    /// Sends what was taken.
    pub fn flush(&self, stream: &Sender) {
        self.flush_locked(self.outgoing(), stream);
    }

    /// What a datagram says of itself, if it may be one of this channel.
    pub fn head(&self, datagram: &[u8]) -> Option<Head> {
        self.masks.heads(datagram).find(|head| head.index == self.index)
    }

    /// Opens datagrams of one arrival, each with its head. Packets go to `on_packet`, unchecked.
    /// What is not authentic, or has come before, is dropped.
    pub fn receive<'a>(
        &self,
        arrival: Arrival<'_>,
        datagrams: impl Iterator<Item = (Head, &'a mut [u8])>,
        on_packet: &mut impl FnMut(&[u8]),
    ) {
        let mut incoming = Incoming::new(self, arrival);
        let take = |opened: Opened<'_>| incoming.take(&opened, on_packet);
        self.opener().open_each(arrival.now, datagrams, take);
        incoming.finish();
    }

    /// The way to the other end may be another one: tries at once. A client's new socket, if it has
    /// one.
    pub fn doubt(&self, socket: Option<Arc<UdpSocket>>) {
        {
            let mut talk = self.talk();
            if let Some(socket) = socket {
                talk.homes.replace(socket);
                talk.home_is_new = true;
            }
            talk.conversation.handle_doubt(Instant::now());
        }
        self.wake.notify_one();
    }

    /// The connection is over, or another one carries the packets: nothing is sent any more. What
    /// comes is still opened.
    pub fn retire(&self, stream: &Sender) {
        let path = self.talk().conversation.path();
        self.set_path(&mut self.outgoing(), path, None, stream);
    }

    /// Waits until the link has something to do for the channel.
    pub(crate) async fn has_news(&self) {
        self.wake.notified().await;
    }

    /// Waits until a socket that was full may take more; for ever if none was.
    pub(crate) async fn writable(&self) {
        let home = self.outgoing().blocked().cloned();
        match home {
            // if this fails, so does sending
            Some(home) => drop(home.socket.writable().await),
            None => std::future::pending().await,
        }
    }

    /// The socket may take more.
    pub(crate) fn unblock(&self, stream: &Sender) {
        let mut outgoing = self.outgoing();
        outgoing.unblock(stream);
        self.flush_locked(outgoing, stream);
    }

    /// New keys.
    pub(crate) fn change_keys(&self, change: &KeyChange, stream: &Sender) {
        match change {
            KeyChange::Accept(keys) => self.opener().accept(keys),
            KeyChange::Use(keys) => {
                self.opener().advance(Instant::now());
                self.outgoing().install(keys, stream);
            }
        }
    }

    /// How far the keys are used up: those that seal and those that open.
    pub(crate) fn usage(&self) -> (Usage, Usage) {
        let opened = self.opener().usage();
        (self.outgoing().usage(), opened)
    }

    /// Packets dropped since the last call, since the socket was full.
    pub(crate) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.outgoing().dropped)
    }

    /// When [`Channel::drive`] is due, at the latest.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let sleeps = self.outgoing().link_sleeps();
        let awake = (!sleeps).then(|| now + AWAKE);
        let due = self.talk().conversation.poll_timeout().map(|(at, _)| at);
        due.into_iter().chain(awake).min()
    }

    /// Does what time and the other end ask for.
    pub(crate) fn drive(&self, now: Instant, stream: &Sender) {
        self.opener().expire(now);
        let (sent, too_long) = self.outgoing().take_sent();
        let (path, transmits) = {
            let mut talk = self.talk();
            let Talk { conversation, homes, home_is_new } = &mut *talk;
            conversation.handle_sent(now, sent);
            if let Some(length) = too_long {
                conversation.handle_too_long(now, length);
            }
            if conversation.poll_timeout().is_some_and(|(at, _)| at <= now) {
                conversation.handle_timeout(now);
            }
            let same = std::mem::take(home_is_new).then(|| conversation.path());
            let path = conversation.poll_path().or(same).map(|path| {
                let home = path.to.and_then(|to| homes.find(to));
                (path, home)
            });
            let transmits: Vec<(Transmit, Option<Home>)> =
                std::iter::from_fn(|| conversation.poll_transmit())
                    .map(|transmit| {
                        let home = homes.find(transmit.to);
                        (transmit, home)
                    })
                    .collect();
            (path, transmits)
        };
        if path.is_none() && transmits.is_empty() {
            return;
        }
        let mut outgoing = self.outgoing();
        if let Some((path, home)) = path {
            self.set_path(&mut outgoing, path, home, stream);
        }
        for (transmit, home) in transmits {
            if let Some(home) = home {
                outgoing.say(&transmit, home, stream);
            }
        }
        // what waited for the socket may have gone over to the stream
        self.flush_locked(outgoing, stream);
    }

    fn set_path(
        &self,
        outgoing: &mut Outgoing,
        mut path: Path,
        home: Option<Home>,
        stream: &Sender,
    ) {
        path.up &= home.is_some();
        outgoing.set_path(path, home, stream);
        if self.up.swap(path.up, Ordering::Relaxed) != path.up {
            tracing::debug!(up = path.up, peer = ?path.to, "datagrams");
        }
    }

    fn flush_locked(&self, mut outgoing: MutexGuard<'_, Outgoing>, stream: &Sender) {
        outgoing.flush(stream);
        let (wakes, diverted) = (outgoing.wakes_link(), outgoing.take_diverted());
        drop(outgoing);
        if wakes {
            self.wake.notify_one();
        }
        if diverted {
            // a connection that has failed is noticed by its link
            let _ = stream.flush();
        }
    }

    pub(super) fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn wake_link(&self) {
        self.wake.notify_one();
    }

    fn opener(&self) -> MutexGuard<'_, Opener> {
        self.opener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where [`Channel::fill`] puts packets.
pub struct Filler<'a> {
    outgoing: &'a mut Outgoing,
    stream: &'a Sender,
}

impl Filler<'_> {
    /// Takes a packet with its offload header in front.
    pub fn push(&mut self, packet: &[u8]) {
        self.outgoing.push(self.stream, packet);
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("cipher", &self.cipher)
            .field("is_up", &self.is_up())
            .finish_non_exhaustive()
    }
}

fn random() -> Result<[u8; 32], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
