//! The stream of bytes: the library's retransmission, with our congestion control in front of it.
//!
//! The library gets only what may leave now, and so has no window of its own; what it wants to send,
//! new or again, leaves at the pace of [`Control`].

mod sending;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::VecDeque,
    time::{Duration, Instant},
};

use kcp::Kcp;

use super::{
    DATAGRAM_MAX, OVERHEAD, SEGMENT_HEADER,
    arrivals::{Arrival, Arrivals},
    control::Control,
    gate::{self, ACK, ASK_WINDOW, PUSH, Segment, TELL_WINDOW},
    outbox::Outbox,
    repeats::Repeats,
    samples::Samples,
};

/// Segments that are received ahead of what was read, from somebody who has logged in: a path of
/// 300 Mbit/s and 200 ms, while something lost on it is sent again.
const WINDOW: u16 = super::arrivals::WINDOW;
/// The same from others: some 32 KiB.
const WINDOW_STRANGER: u16 = 26;
/// Bytes that wait for the path at most, to begin with.
const UNSENT_FIRST: usize = 64 * 1024;
/// Something is sent again after its round trip and at least so long, milliseconds: longer than the
/// pauses of a busy host. And at least half of a round trip, by which queues may grow.
const VARIATION_MIN: u32 = 40;
const RETRANSMISSION_MIN: u32 = 60;
/// What the path is expected to be before anything is known, milliseconds.
const FIRST_ROUND_TRIP: u32 = 333;
/// The longest round trip that the library is told of, milliseconds: once a path that held everything
/// up is good again, what was lost meanwhile must not wait as long once more.
const ROUND_TRIP_MAX: u32 = 5_000;
/// So many datagrams with later acknowledgements, and a segment is taken for lost.
const REORDERED_MAX: i32 = 3;
/// How often an end is said.
const ENDS: u32 = 3;

/// One end's part of the stream.
pub(super) struct Stream {
    kcp: Kcp<Outbox>,
    outbox: Outbox,
    conversation: u32,
    start: Instant,
    control: Control,
    samples: Samples,
    repeats: Repeats,
    /// What the library has not been given.
    unsent: VecDeque<u8>,
    unsent_max: usize,
    /// Segments that may leave; less than none after more had to.
    tokens: f64,
    refilled_at: Instant,
    /// Something waits for more of them.
    waits: bool,
    flushed_at: Instant,
    /// The segment that is read next, and what was left of the last one.
    next_read: u32,
    arrivals: Arrivals,
    /// Segments with data since the last flush, each of which the library owes an acknowledgement.
    arrived: u32,
    rest: Vec<u8>,
    window: u16,
    /// The number before which the other end has received everything.
    unacknowledged: u32,
    /// Something has come that has to be answered.
    owes: bool,
    ask_at: Option<Instant>,
    end: End,
    /// The other end has said that it sends no more.
    ended: bool,
}

/// What a datagram has told.
#[derive(Default)]
struct Said {
    /// When the last of what it acknowledges was sent, in milliseconds of this end's clock.
    acknowledged: Option<u64>,
    /// The numbers of challenges that it answers.
    answers: Vec<u32>,
}

/// How far this end has come with ending.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Open,
    /// As soon as everything has been acknowledged.
    Wanted,
    /// It was said so often; the next time then.
    Said(u32, Instant),
}

impl Stream {
    pub(super) fn new(now: Instant, conversation: u32) -> Self {
        let outbox = Outbox::new(conversation);
        let mut kcp = Kcp::new_stream(conversation, outbox.clone());
        // without its own window and congestion control
        kcp.set_nodelay(true, VARIATION_MIN as i32, REORDERED_MAX, true);
        kcp.set_rx_minrto(RETRANSMISSION_MIN);
        kcp.set_wndsize(u16::MAX, WINDOW);
        // decided elsewhere
        kcp.set_maximum_resend_times(u32::MAX);
        let fits = kcp.set_mtu(DATAGRAM_MAX - OVERHEAD);
        debug_assert!(fits.is_ok());
        expect_round_trip(&mut kcp, conversation);
        Self {
            kcp,
            outbox,
            conversation,
            start: now,
            control: Control::new(now),
            samples: Samples::new(now),
            repeats: Repeats::new(now),
            unsent: VecDeque::new(),
            unsent_max: UNSENT_FIRST,
            tokens: super::control::WINDOW_FIRST,
            refilled_at: now,
            waits: false,
            flushed_at: now,
            next_read: 0,
            arrivals: Arrivals::new(),
            arrived: 0,
            rest: Vec::new(),
            window: WINDOW_STRANGER,
            unacknowledged: 0,
            owes: false,
            ask_at: None,
            end: End::Open,
            ended: false,
        }
    }

    /// The other end has logged in.
    pub(super) fn admit(&mut self) {
        self.window = WINDOW;
    }

    /// So many bytes may wait for the path.
    pub(super) fn set_unsent_max(&mut self, bytes: usize) {
        self.unsent_max = bytes;
    }

    /// Whether [`Stream::write`] takes something.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.len() < self.unsent_max
    }

    /// Takes bytes to be sent, as many as there is room for.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        if self.end != End::Open {
            return 0;
        }
        let room = self.unsent_max.saturating_sub(self.unsent.len());
        let taken = &bytes[..bytes.len().min(room)];
        self.unsent.extend(taken);
        taken.len()
    }

    /// Whether [`Stream::read`] gives something.
    pub(super) fn is_readable(&self) -> bool {
        !self.rest.is_empty() || self.kcp.peeksize().is_ok()
    }

    /// Whether the other end has sent everything, and it was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.ended && !self.is_readable()
    }

    /// Reads what has come.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> usize {
        let mut count = 0;
        while count < bytes.len() {
            if !self.rest.is_empty() {
                let part = self.rest.len().min(bytes.len() - count);
                bytes[count..count + part].copy_from_slice(&self.rest[..part]);
                self.rest.drain(..part);
                count += part;
                continue;
            }
            let Ok(len) = self.kcp.peeksize() else { break };
            let read = if len <= bytes.len() - count {
                self.kcp.recv(&mut bytes[count..]).inspect(|read| count += read)
            } else {
                self.rest.resize(len, 0);
                self.kcp.recv(&mut self.rest)
            };
            if read.is_err() {
                break;
            }
            self.arrivals.on_read(self.next_read);
            self.next_read = self.next_read.wrapping_add(1);
        }
        // who was told of no room is told of some in good time
        self.owes |= self.outbox.window_told().is_some_and(|told| told < WINDOW / 4);
        count
    }

    /// This end sends no more once everything has arrived.
    pub(super) fn finish(&mut self) {
        if self.end == End::Open {
            self.end = End::Wanted;
        }
    }

    /// Whether all is said, and nothing more has to be.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.end, End::Said(times, _) if times >= ENDS || self.ended)
    }

    /// The shortest time that something and its acknowledgement have taken of late.
    pub(super) fn path_length(&self) -> Option<Duration> {
        self.control.length()
    }

    /// Takes what came in an authentic datagram. Returns the numbers of challenges that it answers.
    pub(super) fn handle(&mut self, now: Instant, kcp: &[u8]) -> Vec<u32> {
        self.ended |= kcp.is_empty();
        let Some(said) = self.look_at(now, kcp) else { return Vec::new() };
        self.update(now);
        let before = self.kcp.wait_snd();
        let sifted = self.sift(now, kcp);
        // checked above
        let _ = self.kcp.input(&sifted);
        let in_flight = self.kcp.wait_snd();
        let acknowledged = before.saturating_sub(in_flight) as u64;
        if let Some(newest) = said.acknowledged
            && let Some(sample) = self.samples.on_acknowledged(now, acknowledged, newest)
        {
            let delivered = self.samples.delivered();
            self.control.on_acknowledged(now, &sample, delivered, in_flight as u64);
        }
        said.answers
    }

    /// What the segments of a datagram say; `None` if it is not to be taken.
    fn look_at(&mut self, now: Instant, kcp: &[u8]) -> Option<Said> {
        let ms = self.ms(now);
        let mut said = Said::default();
        let mut owes = false;
        let mut arrived = self.arrived;
        for segment in gate::segments(self.conversation, kcp)? {
            self.unacknowledged = segment.unacknowledged;
            match segment.command {
                PUSH => {
                    let ahead = segment.number.wrapping_sub(self.next_read).cast_signed();
                    if ahead >= i32::from(self.window) {
                        return None;
                    }
                    owes = true;
                    arrived += 1;
                }
                ACK => {
                    let ago = u64::from((ms as u32).wrapping_sub(segment.time));
                    said.acknowledged = said.acknowledged.max(ms.checked_sub(ago));
                }
                ASK_WINDOW if segment.number != 0 => self.answer(&segment),
                ASK_WINDOW => owes = true,
                _ if segment.number != 0 => said.answers.push(segment.number),
                _ => {}
            }
        }
        if owes && arrived > u32::from(self.window) {
            // before they are acknowledged there is no room for more
            return None;
        }
        self.arrived = arrived;
        self.owes |= owes;
        Some(said)
    }

    /// What of this the library gets: no segment a second time, and not too many at once that belong
    /// far before others. What it does not get only tells of the window and of what has arrived. And no
    /// round trip that is endless.
    fn sift<'a>(&mut self, now: Instant, kcp: &'a [u8]) -> Cow<'a, [u8]> {
        let oldest = (self.ms(now) as u32).wrapping_sub(ROUND_TRIP_MAX);
        let mut sifted = Cow::Borrowed(kcp);
        let (mut from, mut to, mut work) = (0, 0, 0);
        for segment in gate::segments(self.conversation, kcp).into_iter().flatten() {
            let next = from + SEGMENT_HEADER + segment.len;
            let instead = match segment.command {
                PUSH if self.arrivals.take(self.next_read, &segment, &mut work) != Arrival::New => {
                    Some(Segment { command: TELL_WINDOW, ..segment })
                }
                ACK if segment.time.wrapping_sub(oldest).cast_signed() < 0 => {
                    Some(Segment { time: oldest, ..segment })
                }
                _ => None,
            };
            if let Some(instead) = instead {
                let sifted = sifted.to_mut();
                sifted.truncate(to);
                sifted.extend_from_slice(&gate::encode(self.conversation, &instead));
                to = sifted.len();
            } else {
                if let Cow::Owned(sifted) = &mut sifted {
                    sifted.extend_from_slice(&kcp[from..next]);
                }
                to += next - from;
            }
            from = next;
        }
        sifted
    }

    /// Milliseconds of this end's clock, which begins with the stream.
    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis() as u64
    }

    /// Sets the library's clock, by which it now and then sends something.
    fn update(&mut self, now: Instant) {
        if !self.outbox.is_empty() {
            // what waits there would be sent again
            return;
        }
        let in_flight = self.kcp.wait_snd();
        // the outbox takes everything
        let _ = self.kcp.update(self.ms(now) as u32);
        self.note_sent(now, in_flight);
    }

    /// Segments may have gone into the outbox.
    fn note_sent(&mut self, now: Instant, in_flight: usize) {
        let counts = self.outbox.take_counts();
        if counts.new + counts.again > 0 {
            self.samples.on_sent(now, self.ms(now), in_flight as u64);
            self.control.on_sent(counts);
            self.repeats.on_sent(now, counts);
        }
    }
}

/// The library sends its first segments again after 200 ms, whatever the path is. It is told of a
/// round trip that makes that a second (RFC 6298, 2.1), by an acknowledgement of nothing.
fn expect_round_trip(kcp: &mut Kcp<Outbox>, conversation: u32) {
    let window = kcp.rmt_wnd();
    let (time, number) = (0_u32.wrapping_sub(FIRST_ROUND_TRIP), u32::MAX);
    let nothing = Segment { command: ACK, window, time, number, unacknowledged: 0, len: 0 };
    let taken = kcp.input(&gate::encode(conversation, &nothing));
    debug_assert!(taken.is_ok());
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("control", &self.control).finish_non_exhaustive()
    }
}
