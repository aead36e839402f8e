//! What leaves when: data at the pace of the congestion control, and the little that is said beside it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{ENDS, End, Stream, VARIATION_MIN, WINDOW};
use crate::kcp::{
    DATAGRAM_MAX, OVERHEAD, SEGMENT_HEADER, SEGMENT_MAX,
    control::WINDOW_FIRST,
    gate::{self, ACK, ASK_WINDOW, Segment, TELL_WINDOW},
    path::Challenge,
};

/// How often lost segments are looked for while something is in flight.
const LOOK: Duration = Duration::from_millis(10);
/// A host that is late makes up for so much time.
const LATE: f64 = 0.05;
/// How often an end is said, and how often somebody with no room is asked whether there is some now.
const REPEAT: Duration = Duration::from_millis(200);

impl Stream {
    /// Decides what is to be sent now. To be called after everything else.
    pub(in crate::kcp) fn poll(&mut self, now: Instant) {
        self.refill(now);
        if !self.outbox.is_empty() {
            self.waits = true;
            return;
        }
        let in_flight = self.kcp.wait_snd();
        if in_flight == 0 && self.unsent.is_empty() {
            // a gateway may have thousands of these that do nothing
            self.unsent = VecDeque::new();
            self.samples.rest();
        }
        let fed = self.feed(in_flight);
        let looks = in_flight > 0 && now - self.flushed_at >= LOOK;
        if fed || looks || self.owes {
            self.tell_window();
            self.flush(now, in_flight);
        }
        self.repeats.forget(now, self.control.has_spare(self.kcp.wait_snd() as f64));
        self.ask_window(now);
        self.say_end(now);
        self.waits = !self.outbox.is_empty() || self.wants_to_send(self.kcp.wait_snd());
    }

    /// Hands the next datagram to `take` if it may leave now; `true` if that took it.
    pub(in crate::kcp) fn transmit(&mut self, take: impl FnOnce(&[u8]) -> bool) -> bool {
        let now = self.refilled_at;
        let Some(segments) = self.outbox.next_segments() else { return self.repeat(now, take) };
        if segments > 0 && self.tokens < 0.0 {
            return false;
        }
        let repeats = segments > 0 && self.repeats.wants(self.control.length());
        let taken = self.outbox.take(|kcp| {
            let taken = take(kcp);
            if taken && repeats {
                self.repeats.push(now, kcp);
            }
            taken
        });
        if taken {
            self.tokens -= f64::from(segments);
        }
        taken
    }

    /// The same with one that was sent before.
    fn repeat(&mut self, now: Instant, take: impl FnOnce(&[u8]) -> bool) -> bool {
        if self.tokens < 0.0 || !self.repeats.due(now).is_some_and(take) {
            return false;
        }
        self.repeats.on_repeated();
        self.tokens -= 1.0;
        true
    }

    /// A datagram as somebody sends who only wants an answer.
    pub(in crate::kcp) fn ask(&mut self) {
        self.push_bare(ASK_WINDOW, 0);
    }

    /// Asks with two numbers, which the answers have to repeat.
    pub(in crate::kcp) fn challenge(&mut self, numbers: Challenge) {
        let questions = numbers.map(|number| self.bare_now(ASK_WINDOW, number));
        self.outbox.push_in_front(questions.as_flattened());
    }

    /// Repeats the number of a question.
    pub(super) fn answer(&mut self, question: &Segment) {
        self.push_bare(TELL_WINDOW, question.number);
    }

    /// When [`Stream::poll`] has something to do, if nothing else happens.
    pub(in crate::kcp) fn poll_timeout(&self) -> Option<Instant> {
        let in_flight = self.kcp.wait_snd();
        let turn = || {
            let rate = self.control.rate().unwrap_or(1_000.0).max(1.0);
            let missing = (1.0 - self.tokens).max(0.0);
            self.refilled_at + Duration::from_secs_f64((missing / rate).clamp(0.001, 1.0))
        };
        if !self.outbox.is_empty() {
            // nothing is looked at before that has left
            return Some(turn());
        }
        let looks = (in_flight > 0).then(|| self.flushed_at + LOOK);
        let paced = self.wants_to_send(in_flight).then(turn);
        let repeats = self.repeats.next().map(|at| at.max(turn()));
        let ends = match self.end {
            End::Said(times, at) if times < ENDS && !self.ended => Some(at),
            End::Open | End::Wanted | End::Said(..) => None,
        };
        [looks, paced, repeats, self.ask_at, ends].into_iter().flatten().min()
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled_at).as_secs_f64();
        self.refilled_at = now;
        self.tokens = match self.control.rate() {
            Some(rate) => {
                let late = if self.waits { elapsed.min(LATE) * rate } else { 0.0 };
                (self.tokens + elapsed * rate).min(self.control.burst().max(late))
            }
            // the first ones need no pace
            None => WINDOW_FIRST,
        };
    }

    /// Segments for which there is room in the path, and at the other end.
    fn room(&self, in_flight: usize) -> f64 {
        let window = self.control.window().min(f64::from(self.kcp.rmt_wnd()));
        window - in_flight as f64
    }

    fn wants_to_send(&self, in_flight: usize) -> bool {
        !self.unsent.is_empty() && self.room(in_flight) >= 1.0
    }

    /// Gives the library what may leave now.
    fn feed(&mut self, in_flight: usize) -> bool {
        let segments = self.room(in_flight).min(self.tokens.ceil()).max(0.0) as usize;
        let count = self.unsent.len().min(segments * SEGMENT_MAX);
        let (first, second) = self.unsent.as_slices();
        let in_first = first.len().min(count);
        // the library takes no more at once
        let pieces = first[..in_first].chunks(64 * SEGMENT_MAX);
        for piece in pieces.chain(second[..count - in_first].chunks(64 * SEGMENT_MAX)) {
            let taken = self.kcp.send(piece);
            debug_assert_eq!(taken.ok(), Some(piece.len()));
        }
        self.unsent.drain(..count);
        if self.unsent.is_empty() {
            let in_flight = self.kcp.wait_snd();
            if self.room(in_flight) >= 1.0 {
                self.samples.on_limited(in_flight as u64);
            }
        }
        count > 0
    }

    fn flush(&mut self, now: Instant, in_flight: usize) {
        if let Some(length) = self.control.length() {
            let half = (length / 2).as_millis() as u32;
            self.kcp.set_interval(half.max(VARIATION_MIN));
        }
        self.update(now);
        let _ = self.kcp.flush();
        (self.flushed_at, self.owes, self.arrived) = (now, false, 0);
        self.note_sent(now, in_flight);
        self.acknowledge_again();
    }

    /// Acknowledges what the library was not given once more.
    fn acknowledge_again(&mut self) {
        let window = self.outbox.window_told().unwrap_or(WINDOW);
        let acknowledge = |&(number, time): &(u32, u32)| {
            let unacknowledged = self.next_read;
            let segment = Segment { command: ACK, window, time, number, unacknowledged, len: 0 };
            gate::encode(self.conversation, &segment)
        };
        for some in self.arrivals.take_again().chunks((DATAGRAM_MAX - OVERHEAD) / SEGMENT_HEADER) {
            let all: Vec<_> = some.iter().map(acknowledge).collect();
            self.outbox.push(all.as_flattened());
        }
    }

    /// The library tells of new room only to whom it told that there is none, and only once.
    fn tell_window(&mut self) {
        if self.owes && self.outbox.window_told().is_some_and(|told| told < WINDOW / 4) {
            let window = self.kcp.rmt_wnd();
            // as the other end would ask
            let ask = self.bare(ASK_WINDOW, window, 0, self.unacknowledged);
            let _ = self.kcp.input(&ask);
        }
    }

    /// Asks somebody who has told of no room. The library does so too, after seven seconds.
    fn ask_window(&mut self, now: Instant) {
        let waits = self.kcp.rmt_wnd() == 0 && !self.unsent.is_empty();
        let at = *self.ask_at.get_or_insert(now + REPEAT);
        if !waits {
            self.ask_at = None;
        } else if now >= at {
            self.ask();
            self.ask_at = Some(now + REPEAT);
        }
    }

    /// An empty datagram is an end.
    fn say_end(&mut self, now: Instant) {
        let times = match self.end {
            End::Wanted if self.unsent.is_empty() && self.kcp.wait_snd() == 0 => 0,
            End::Said(times, at) if times < ENDS && now >= at => times,
            End::Open | End::Wanted | End::Said(..) => return,
        };
        self.outbox.push(&[]);
        self.end = End::Said(times + 1, now + REPEAT);
    }

    fn push_bare(&mut self, command: u8, number: u32) {
        let bare = self.bare_now(command, number);
        self.outbox.push_in_front(&bare);
    }

    fn bare_now(&self, command: u8, number: u32) -> [u8; SEGMENT_HEADER] {
        let window = self.outbox.window_told().unwrap_or(WINDOW);
        // what has been read has come; more may have, but the library does not tell
        self.bare(command, window, number, self.next_read)
    }

    fn bare(
        &self,
        command: u8,
        window: u16,
        number: u32,
        unacknowledged: u32,
    ) -> [u8; SEGMENT_HEADER] {
        let segment = Segment { command, window, time: 0, number, unacknowledged, len: 0 };
        gate::encode(self.conversation, &segment)
    }
}
