//! The receiving half of a tunnel, and what keeps it alive.

use std::{
    io,
    net::Shutdown,
    sync::Arc,
    time::{Duration, Instant},
};

use cipherwall_packet::offload::OffloadHeader;
use cipherwall_proto::{
    frame::{Control, Frame},
    liveness::Keepalive,
    record::{self, Inflow, InflowError, Opener, Sealer},
    rekey::{Randomness, RekeyError, Side},
    tunnel::{Event, Tunnel},
};

use super::{
    beside, pool,
    sender::{Flushed, SendError, Sender},
};
use crate::{Carrier, datagram::Channel, socket::PathLength};

/// How long a link looks for unanswered traffic before it sleeps until told of some.
const AWAKE: Duration = Duration::from_millis(150);
/// How many round trips are looked at before a path is taken for long.
const SAMPLES: u32 = 3;
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a tunnel begins with.
#[derive(Debug)]
pub struct Start {
    /// The connection, after the switch.
    pub carrier: Carrier,
    /// Seals what goes out.
    pub sealer: Sealer,
    /// Opens what comes in.
    pub opener: Opener,
    /// How patient this end is.
    pub keepalive: Keepalive,
    /// Which end this is, and when it wants new keys.
    pub side: Side,
}

/// One end of a tunnel. Its owner calls [`Link::run`] again and again.
pub struct Link {
    stream: Carrier,
    sender: Arc<Sender>,
    opener: Opener,
    inflow: Option<Box<Inflow>>,
    tunnel: Tunnel,
    /// Bytes of packets received, and sent as far as the link has looked.
    received: u64,
    sent: u64,
    /// Packets dropped since somebody asked.
    dropped: u64,
    /// Round trips from which the socket's settings were chosen.
    samples: u32,
    /// Bytes are in `inflow` that no frame has been looked for in.
    unread: bool,
    active_until: Instant,
}

/// Why a link has ended without a farewell: the path, not the session.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other end is gone.
    #[error("the connection was closed")]
    Closed,
    /// Receiving failed.
    #[error("receiving: {0}")]
    Receive(#[source] io::Error),
    /// Sending failed.
    #[error(transparent)]
    Send(#[from] SendError),
    /// What came was no tunnel record or frame.
    #[error(transparent)]
    Inflow(#[from] InflowError),
    /// The keys could not be changed.
    #[error(transparent)]
    Rekey(#[from] RekeyError),
    /// The operating system gave no random bytes for new keys.
    #[error("no random bytes for new keys: {0}")]
    Randomness(#[from] getrandom::Error),
}

impl Link {
    /// A tunnel on this connection, from now on.
    pub fn new(start: Start) -> Self {
        let stream = start.carrier;
        stream.admit();
        let now = Instant::now();
        Self {
            sender: Arc::new(Sender::new(stream.clone(), start.sealer)),
            stream,
            opener: start.opener,
            unread: false,
            inflow: None,
            tunnel: Tunnel::new(now, start.keepalive, start.side, random_u64()),
            received: 0,
            sent: 0,
            dropped: 0,
            samples: 0,
            active_until: now,
        }
    }

    /// Changes how patient this end is: a client that resumes learns it only with the answer.
    pub fn set_keepalive(&mut self, keepalive: Keepalive) {
        self.tunnel.set_keepalive(Instant::now(), keepalive);
    }

    /// The gateway's, or the client's, last TLS record was read; behind it came these bytes. To be
    /// told before [`Link::run`].
    pub fn begin(&mut self, leftover: &[u8]) {
        if !leftover.is_empty() {
            // at most what one read took from the socket, far less than there is room for
            let inflow = self.inflow.get_or_insert_with(pool::take_inflow);
            inflow.spare()[..leftover.len()].copy_from_slice(leftover);
            inflow.filled(leftover.len());
            self.unread = true;
        }
    }

    /// There are datagrams beside the stream. To be told before [`Link::run`].
    pub fn add_datagrams(&mut self, channel: Arc<Channel>) {
        self.tunnel.set_datagrams(channel.cipher());
        self.sender.set_channel(channel);
    }

    /// What sends over this tunnel.
    pub fn sender(&self) -> &Arc<Sender> {
        &self.sender
    }

    /// Bytes of frames received and sent so far.
    pub fn traffic(&self) -> (u64, u64) {
        let (received, sent) = self.sender.channel().map_or((0, 0), |channel| channel.traffic());
        (self.received + received, self.sent + sent)
    }

    /// Packets that were not sent since the path is too slow for them; since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Whether [`Event::Suspect`] was the last that is known of the path.
    pub fn is_suspect(&self) -> bool {
        self.tunnel.is_suspect()
    }

    /// The latest round trip, and of how many.
    pub fn latest_round_trip(&self) -> Option<(Duration, u32)> {
        self.tunnel.latest_round_trip()
    }

    /// The smoothed round trip of what carries packets now, once known.
    pub fn round_trip(&self) -> Option<Duration> {
        let datagrams = self.sender.datagrams().and_then(Channel::round_trip);
        datagrams.or_else(|| self.tunnel.round_trip())
    }

    /// How often the keys have been changed: those of the stream, and of the datagrams beside it.
    pub fn epoch(&self) -> u32 {
        let stream = self.opener.usage().epoch;
        self.sender.channel().map_or(stream, |channel| stream.min(channel.usage().0.epoch))
    }

    /// Asks for an answer, to learn the round trip.
    pub fn ping(&mut self) -> Result<(), LinkError> {
        self.tunnel.ping(Instant::now());
        self.send_frames()
    }

    /// There is a reason to believe that the path is dead: asks for an answer at once, and
    /// [`Link::is_suspect`] until it comes.
    pub fn doubt(&mut self) -> Result<(), LinkError> {
        self.tunnel.doubt(Instant::now());
        self.send_frames()
    }

    /// Receives and keeps the path alive until there is something to decide, or once something
    /// has been received. Packets go to `on_packet` with what is left to do to them, unchecked.
    /// May be dropped at any time and called again.
    pub async fn run(
        &mut self,
        on_packet: &mut impl FnMut(&OffloadHeader, &[u8]),
    ) -> Result<Option<Event>, LinkError> {
        // a link that always has something to read must let others run
        tokio::task::consume_budget().await;
        if std::mem::take(&mut self.unread) {
            return self.read_frames(Instant::now(), on_packet);
        }
        if self.tunnel.poll_outgoing().is_some() {
            // there was no room for it; now there may be
            self.send_frames()?;
        }
        let due = self.due();
        let blocked = self.sender.is_blocked()?;
        let channel = self.sender.channel();
        tokio::select! {
            ready = self.stream.readable() => {
                ready.map_err(LinkError::Receive)?;
                self.receive(on_packet)
            }
            ready = self.stream.writable(), if blocked => {
                ready.map_err(LinkError::Receive)?;
                self.sender.flush()?;
                Ok(None)
            }
            // something to look at above: a full socket, a failure, traffic after a pause
            () = self.sender.wake_link.notified() => Ok(None),
            () = beside::wants_attention(channel, &self.sender) => Ok(None),
            () = tokio::time::sleep_until(due.into()) => {
                self.note_sent();
                beside::drive(&self.sender);
                let event = self.tunnel.handle_timeout(Instant::now())?;
                self.send_frames()?;
                self.sender.hold(self.tunnel.is_doubtful())?;
                Ok(event)
            }
        }
    }

    /// Says farewell and closes, within a second.
    pub async fn finish(mut self, farewell: &Control) {
        self.tunnel.say(farewell);
        let goodbye = async {
            while self.tunnel.poll_outgoing().is_some() {
                self.send_frames().ok()?;
                self.sender.drain().await.ok()?;
            }
            let mut random = [0; 19];
            getrandom::fill(&mut random).ok()?;
            let mut close = &record::close_bytes(random)[..];
            while !close.is_empty() {
                self.stream.writable().await.ok()?;
                match self.stream.try_write(close) {
                    Ok(count) => close = &close[count..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return None,
                }
            }
            Some(())
        };
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Takes the packets that still come over a connection that another one has replaced, until the
    /// other end has closed it. The caller sets a time limit.
    ///
    /// # Errors
    /// What comes is of no use any more.
    pub async fn drain(
        mut self,
        on_packet: &mut impl FnMut(&OffloadHeader, &[u8]),
    ) -> Result<(), LinkError> {
        loop {
            let inflow = self.inflow.get_or_insert_with(pool::take_inflow);
            while let Some(frame) = inflow.next_frame(&mut self.opener)? {
                match frame {
                    Frame::Packet(packet) => on_packet(&OffloadHeader::NONE, packet),
                    Frame::Offload(header, packet) => on_packet(&header, packet),
                    Frame::Control(Control::Kick { .. } | Control::Close) => return Ok(()),
                    Frame::Ping(_)
                    | Frame::Pong(_)
                    | Frame::Control(Control::TokenStored | Control::RekeyPlease)
                    | Frame::Rekey(_)
                    | Frame::Skipped => {}
                }
            }
            self.stream.readable().await.map_err(LinkError::Receive)?;
            match self.stream.try_read(inflow.spare()) {
                Ok(0) => return Ok(()),
                Ok(count) => inflow.filled(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(LinkError::Receive(error)),
            }
        }
    }

    fn receive(
        &mut self,
        on_packet: &mut impl FnMut(&OffloadHeader, &[u8]),
    ) -> Result<Option<Event>, LinkError> {
        let inflow = self.inflow.get_or_insert_with(pool::take_inflow);
        match self.stream.try_read(inflow.spare()) {
            Ok(0) => Err(LinkError::Closed),
            Ok(count) => {
                inflow.filled(count);
                self.read_frames(Instant::now(), on_packet)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.release_inflow();
                Ok(None)
            }
            Err(error) => Err(LinkError::Receive(error)),
        }
    }

    /// Acts upon all whole frames that have arrived.
    fn read_frames(
        &mut self,
        now: Instant,
        on_packet: &mut impl FnMut(&OffloadHeader, &[u8]),
    ) -> Result<Option<Event>, LinkError> {
        self.note_sent();
        let Some(inflow) = &mut self.inflow else {
            return Ok(None);
        };
        let mut event = None;
        while let Some(frame) = inflow.next_frame(&mut self.opener)? {
            match frame {
                Frame::Packet(packet) => {
                    self.received += packet.len() as u64;
                    on_packet(&OffloadHeader::NONE, packet);
                }
                Frame::Offload(header, packet) => {
                    self.received += packet.len() as u64;
                    on_packet(&header, packet);
                }
                Frame::Ping(_)
                | Frame::Pong(_)
                | Frame::Control(_)
                | Frame::Rekey(_)
                | Frame::Skipped => {
                    event = self.tunnel.handle_frame(now, &frame, &mut self.opener)?;
                    beside::change_keys(&mut self.tunnel, &self.sender);
                    if event.is_some() {
                        // what is behind it is looked at in the next round
                        self.unread = true;
                        break;
                    }
                }
            }
        }
        if inflow.take_authentic() {
            self.tunnel.handle_received(now);
            self.sender.hold(false)?;
        }
        self.release_inflow();
        self.send_frames()?;
        Ok(event)
    }

    /// Gives empty buffers back for others to use.
    fn release_inflow(&mut self) {
        if let Some(inflow) = self.inflow.take_if(|inflow| inflow.is_empty()) {
            pool::give_back_inflow(inflow);
        }
    }

    /// Sends what the tunnel wants to say. What has no room since the socket is full waits, but not
    /// pings and pongs.
    fn send_frames(&mut self) -> Result<(), LinkError> {
        if self.tunnel.wants_randomness() {
            let randomness = randomness()?;
            self.tunnel.handle_randomness(Instant::now(), &randomness, &self.opener)?;
            beside::change_keys(&mut self.tunnel, &self.sender);
        }
        let mut frames = self.tunnel.poll_frames();
        let mut blocked = false;
        while (frames.is_some() || self.tunnel.poll_outgoing().is_some()) && !blocked {
            if let Some(frames) = frames.take() {
                self.sender.push_frames(&frames);
            }
            while let Some(outgoing) = self.tunnel.poll_outgoing()
                && self.sender.push(outgoing)
            {
                self.tunnel.outgoing_taken();
            }
            blocked = self.sender.flush()? == Flushed::Blocked;
        }
        Ok(())
    }

    /// Chooses the connection's settings by the path's round trip. One that seems long is measured
    /// again: the other end may have been busy setting its host up.
    fn suit_path(&mut self) {
        if self.samples < SAMPLES
            && let Some((shortest, samples)) = self.tunnel.shortest_round_trip()
            && samples > self.samples
        {
            self.samples = samples;
            if self.stream.suit_path(shortest) == PathLength::Short {
                self.samples = SAMPLES;
            } else if samples < SAMPLES {
                self.tunnel.ping(Instant::now());
            }
        }
    }

    /// Tells the tunnel what its sender has sent.
    fn note_sent(&mut self) {
        self.suit_path();
        let sent = self.sender.take_sent(self.tunnel.round_trip());
        self.dropped += sent.dropped;
        self.tunnel.handle_usage(&sent.usage, &self.opener.usage());
        self.dropped += beside::note_usage(&mut self.tunnel, &self.sender, &self.opener);
        self.sent += sent.bytes;
        if let Some(at) = sent.last {
            self.tunnel.handle_sent(at, false);
        }
        if let Some(at) = sent.traffic {
            self.tunnel.handle_sent(at, true);
            self.active_until = Instant::now() + AWAKE;
        }
    }

    /// When the timers have to be looked at. While there is traffic, often enough to notice soon
    /// that it goes unanswered; otherwise the sender tells when traffic begins.
    fn due(&mut self) -> Instant {
        let now = Instant::now();
        let (timeout, _) = self.tunnel.poll_timeout();
        let datagrams = self.sender.channel().and_then(|channel| channel.poll_timeout(now));
        let timeout = datagrams.map_or(timeout, |at| timeout.min(at));
        if now < self.active_until || !self.sender.link_sleeps() {
            timeout.min(now + AWAKE)
        } else {
            timeout
        }
    }
}

/// Senders may be held by others for a while; the connection ends here all the same.
impl Drop for Link {
    fn drop(&mut self) {
        if let Some(channel) = self.sender.channel() {
            channel.retire(&self.sender);
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Fresh bytes for one step of a rekey.
fn randomness() -> Result<Randomness, getrandom::Error> {
    let mut randomness = Randomness { secret: [0; 32], random: [0; 32] };
    getrandom::fill(&mut randomness.secret)?;
    getrandom::fill(&mut randomness.random)?;
    Ok(randomness)
}

/// A seed for jitter, or a nonce where uniqueness is all that counts.
fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_default()
}
