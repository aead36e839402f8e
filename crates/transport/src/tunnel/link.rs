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
    tunnel::{Event, Tunnel},
};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::{
    pool,
    sender::{SendError, Sender},
};

/// How long a link looks for unanswered traffic before it sleeps until told of some.
const AWAKE: Duration = Duration::from_millis(500);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a tunnel begins with.
#[derive(Debug)]
pub struct Start {
    /// The TCP connection, after the switch.
    pub tcp: TcpStream,
    /// Bytes that came behind the last TLS record.
    pub leftover: Vec<u8>,
    /// Seals what goes out.
    pub sealer: Sealer,
    /// Opens what comes in.
    pub opener: Opener,
    /// How patient this end is.
    pub keepalive: Keepalive,
}

/// One end of a tunnel. Its owner calls [`Link::run`] again and again.
pub struct Link {
    stream: Arc<TcpStream>,
    sender: Arc<Sender>,
    opener: Opener,
    inflow: Option<Box<Inflow>>,
    tunnel: Tunnel,
    /// Bytes of packets received, and sent as far as the link has looked.
    received: u64,
    sent: u64,
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
}

impl Link {
    /// A tunnel on this connection, from now on.
    pub fn new(start: Start) -> Self {
        let stream = Arc::new(start.tcp);
        let now = Instant::now();
        let inflow = (!start.leftover.is_empty()).then(|| {
            // at most what one read took from the socket, far less than there is room for
            let mut inflow = pool::take_inflow();
            inflow.spare()[..start.leftover.len()].copy_from_slice(&start.leftover);
            inflow.filled(start.leftover.len());
            inflow
        });
        Self {
            sender: Arc::new(Sender::new(stream.clone(), start.sealer)),
            stream,
            opener: start.opener,
            unread: inflow.is_some(),
            inflow,
            tunnel: Tunnel::new(now, start.keepalive, random_u64()),
            received: 0,
            sent: 0,
            active_until: now,
        }
    }

    /// What sends over this tunnel.
    pub fn sender(&self) -> &Arc<Sender> {
        &self.sender
    }

    /// Bytes of frames received and sent so far.
    pub fn traffic(&self) -> (u64, u64) {
        (self.received, self.sent)
    }

    /// Whether [`Event::Suspect`] was the last that is known of the path.
    pub fn is_suspect(&self) -> bool {
        self.tunnel.is_suspect()
    }

    /// The smoothed round trip, once known.
    pub fn round_trip(&self) -> Option<Duration> {
        self.tunnel.round_trip()
    }

    /// Asks for an answer, to learn the round trip.
    pub fn ping(&mut self) -> Result<(), LinkError> {
        self.tunnel.ping(Instant::now());
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
        let due = self.due();
        let blocked = self.sender.is_blocked()?;
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
            () = tokio::time::sleep_until(due.into()) => {
                self.note_sent();
                let event = self.tunnel.handle_timeout(Instant::now());
                self.send_frames()?;
                Ok(event)
            }
        }
    }

    /// Says farewell and closes, within a second.
    pub async fn finish(mut self, farewell: &Control) {
        self.tunnel.say(farewell);
        let goodbye = async {
            self.send_frames().ok()?;
            self.sender.drain().await.ok()?;
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
        let _ = SockRef::from(&*self.stream).shutdown(Shutdown::Write);
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
                Frame::Ping(_) | Frame::Pong(_) | Frame::Control(_) | Frame::Skipped => {
                    event = self.tunnel.handle_frame(now, &frame);
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

    /// Sends what the tunnel wants to say. Where there is no room since the socket is full, it is
    /// left out: a ping or pong would come too late to mean anything.
    fn send_frames(&mut self) -> Result<(), LinkError> {
        if let Some(frames) = self.tunnel.poll_frames() {
            self.sender.push_frames(&frames);
            self.sender.flush()?;
        }
        Ok(())
    }

    /// Tells the tunnel what its sender has sent.
    fn note_sent(&mut self) {
        let sent = self.sender.take_sent();
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
        let _ = SockRef::from(&*self.stream).shutdown(Shutdown::Both);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// A seed for jitter, or a nonce where uniqueness is all that counts.
fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_default()
}
