//! How much may be sent: congestion control by a model of the path, after BBR
//! (draft-cardwell-iccrg-bbr-congestion-control-00), in segments.
//!
//! The path's rate is the highest delivery rate of late, its length the shortest round trip. Single
//! losses say nothing, so that a lossy path is used to the full; a round that loses many does, and
//! less is kept in flight then.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{outbox::Counts, samples::Sample};

/// Doubles what is sent each round trip: 2 / ln 2.
const STARTUP_GAIN: f64 = 2.885;
/// What is kept in flight, in products of rate and round trip.
const WINDOW_GAIN: f64 = 2.0;
/// One after the other, each for a round trip: more is tried, its queue drained, then steady.
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const PHASE_MIN: Duration = Duration::from_millis(5);
/// Segments in flight before anything is known; a gateway takes no more from whom it does not know.
pub(super) const WINDOW_FIRST: f64 = 16.0;
/// As little as any path takes, at least each so long.
const WINDOW_MIN: f64 = 8.0;
const WINDOW_MIN_EACH: Duration = Duration::from_millis(100);
/// What leaves at once: so much time's worth. Timers are no finer, and system calls cost.
const BURST: Duration = Duration::from_millis(2);
/// In how many round trips a rate is forgotten.
const ROUNDS: u64 = 10;
/// When growing by less than a quarter in three round trips, the path's rate has been found.
const GROWTH: f64 = 1.25;
const GROWTH_ROUNDS: u32 = 3;
/// The shortest round trip is looked for again when it is so old, with little in flight for a while.
const LENGTH_VALID: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);
/// And when so many rounds had no round trip below twice of it and this more: our own queue is shorter.
const LONGER_ROUNDS: u32 = 3;
const LONGER: Duration = Duration::from_millis(10);
/// A round that loses more than this part of its segments is congested, whatever else is wrong with the path.
const LOSS_MAX: f64 = 0.2;
const LOSS_SEGMENTS: u64 = 32;
const YIELD: f64 = 0.85;
/// What is kept in flight all the same: what the path takes, and what is lost on it.
const WINDOW_LOSSY: f64 = 1.5;
/// And one that loses more than this shows that the path is not what it was.
const LOSS_HEAVY: f64 = 0.4;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    /// Looking for the path's rate.
    Startup,
    /// What queued meanwhile leaves, since then.
    Drain { since: Instant },
    /// At the path's rate.
    Cruise { phase: usize, since: Instant },
    /// Looking for the path's length since then, with so little in flight; it was this before.
    Look { since: Instant, window: f64, before: Duration },
}

/// The model of the path, and what follows from it.
#[derive(Debug)]
pub(super) struct Control {
    mode: Mode,
    /// The highest rates of the last rounds, falling: round and segments a second.
    rates: VecDeque<(u64, f64)>,
    shortest: Option<Duration>,
    shortest_at: Instant,
    /// The shortest of this round, and how many rounds before it had only much longer ones.
    round_shortest: Option<Duration>,
    longer: u32,
    round: u64,
    /// The round ends when something is acknowledged that was sent after so many were delivered.
    round_end: u64,
    /// The rate that the last growth is measured from, and for how many rounds it has not grown.
    grown: (f64, u32),
    /// Sent in this round.
    counts: Counts,
    /// At most so many in flight since a round lost many.
    ceiling: Option<f64>,
}

impl Control {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            mode: Mode::Startup,
            rates: VecDeque::new(),
            shortest: None,
            shortest_at: now,
            round_shortest: None,
            longer: 0,
            round: 0,
            round_end: 0,
            grown: (0.0, 0),
            counts: Counts::default(),
            ceiling: None,
        }
    }

    /// Segments a second; `None` before anything is known.
    pub(super) fn rate(&self) -> Option<f64> {
        let (rate, shortest) = (self.path_rate()?, self.shortest?);
        let gain = match self.mode {
            Mode::Startup => {
                // what little an opening sends says nothing of the path
                let first = WINDOW_FIRST / shortest.as_secs_f64().max(0.001);
                return Some(STARTUP_GAIN * rate.max(first));
            }
            Mode::Drain { .. } => 1.0 / STARTUP_GAIN,
            Mode::Cruise { phase, .. } => CYCLE[phase],
            Mode::Look { .. } => 1.0,
        };
        let least = WINDOW_MIN / shortest.max(WINDOW_MIN_EACH).as_secs_f64();
        Some((gain * rate).max(least))
    }

    /// The path's length: its shortest round trip of late.
    pub(super) fn length(&self) -> Option<Duration> {
        self.shortest
    }

    /// Segments that may be in flight.
    pub(super) fn window(&self) -> f64 {
        let Some(product) = self.product() else { return WINDOW_FIRST };
        let window = match self.mode {
            Mode::Startup => (STARTUP_GAIN * product + self.allowance()).max(WINDOW_FIRST),
            Mode::Drain { .. } | Mode::Cruise { .. } => WINDOW_GAIN * product + self.allowance(),
            Mode::Look { window, .. } => return window,
        };
        self.ceiling.map_or(window, |ceiling| window.min(ceiling)).max(WINDOW_MIN)
    }

    /// Whether the path would take more than twice of what is in flight.
    pub(super) fn has_spare(&self, in_flight: f64) -> bool {
        let part = match self.mode {
            Mode::Startup => 0.5,
            Mode::Cruise { .. } => 0.25,
            Mode::Drain { .. } | Mode::Look { .. } => return false,
        };
        in_flight <= part * self.window()
    }

    /// Segments that may leave at once.
    pub(super) fn burst(&self) -> f64 {
        self.rate().map_or(WINDOW_FIRST, |rate| (rate * BURST.as_secs_f64()).max(2.0))
    }

    /// Segments have been sent.
    pub(super) fn on_sent(&mut self, counts: Counts) {
        self.counts.new += counts.new;
        self.counts.again += counts.again;
    }

    /// Acknowledgements have come. `delivered`: segments so far; `in_flight`: what is left.
    pub(super) fn on_acknowledged(
        &mut self,
        now: Instant,
        sample: &Sample,
        delivered: u64,
        in_flight: u64,
    ) {
        let in_flight = in_flight as f64;
        if sample.delivered_before >= self.round_end {
            self.round_end = delivered;
            self.round += 1;
            self.on_round(now, sample.limited, in_flight);
        }
        if let Some(rate) = sample.rate
            && (!sample.limited || self.path_rate().is_none_or(|known| rate > known))
        {
            self.note_rate(rate);
        }
        self.note_length(now, sample);
        self.change_mode(now, in_flight);
    }

    /// The highest rate of the last rounds.
    fn path_rate(&self) -> Option<f64> {
        self.rates.front().map(|(_, rate)| *rate)
    }

    /// Rate times round trip: what fills the path.
    fn product(&self) -> Option<f64> {
        Some(self.path_rate()? * self.shortest?.as_secs_f64())
    }

    /// Acknowledgements come in bursts, as data does.
    fn allowance(&self) -> f64 {
        3.0 * self.burst()
    }

    fn note_rate(&mut self, rate: f64) {
        while self.rates.pop_back_if(|(_, known)| *known <= rate).is_some() {}
        self.rates.push_back((self.round, rate));
        let round = self.round;
        while self.rates.pop_front_if(|(noted, _)| *noted + ROUNDS < round).is_some() {}
    }

    fn note_length(&mut self, now: Instant, sample: &Sample) {
        let this = sample.round_trip;
        self.round_shortest = Some(self.round_shortest.map_or(this, |shortest| shortest.min(this)));
        let Some(before) = self.shortest else {
            (self.shortest, self.shortest_at) = (Some(this), now);
            return;
        };
        let is_old = now - self.shortest_at > LENGTH_VALID || self.longer >= LONGER_ROUNDS;
        if !is_old && this > before {
            return;
        }
        let half = self.product().map_or(0.0, |product| product / 2.0);
        (self.shortest, self.shortest_at, self.longer) = (Some(this), now, 0);
        let looks = matches!(self.mode, Mode::Cruise { .. } | Mode::Startup);
        if is_old && looks && !sample.limited {
            self.mode = Mode::Look { since: now, window: half.max(WINDOW_MIN), before };
        } else if is_old && is_longer(this, before) {
            self.start_over(now);
        }
    }

    /// The path has become another one: what is known of its rate holds no more.
    fn start_over(&mut self, now: Instant) {
        let Self { shortest, round, round_end, counts, .. } = *self;
        *self = Self { shortest, round, round_end, counts, ..Self::new(now) };
    }

    /// A round trip is over.
    fn on_round(&mut self, now: Instant, limited: bool, in_flight: f64) {
        if let (Some(this), Some(shortest)) = (self.round_shortest.take(), self.shortest) {
            self.longer = if is_longer(this, shortest) { self.longer + 1 } else { 0 };
        }
        let Counts { new, again } = std::mem::take(&mut self.counts);
        let lost = again as f64 / (new + again).max(1) as f64;
        let congested = lost > LOSS_MAX && new + again >= LOSS_SEGMENTS;
        let heavily = congested && lost > LOSS_HEAVY;
        if heavily {
            // the latest is the lowest
            self.rates.drain(..self.rates.len().saturating_sub(1));
        }
        match (congested, self.product()) {
            (true, Some(product)) => {
                // no less than the path takes, lost segments on top
                let held = self.ceiling.unwrap_or(f64::MAX).min(in_flight);
                self.ceiling = Some((held * YIELD).max(product * WINDOW_LOSSY).max(WINDOW_MIN));
            }
            (false, Some(product)) => {
                // a little more each round, until it is no limit any more
                let more = self.ceiling.map(|ceiling| ceiling * 1.05 + 1.0);
                self.ceiling = more.filter(|ceiling| *ceiling < 2.0 * WINDOW_GAIN * product);
            }
            (_, None) => {}
        }
        // who has little to send still fills the path now and then
        let fills = self.product().is_some_and(|product| in_flight > product * GROWTH);
        if self.mode == Mode::Startup && (!limited || fills || congested) {
            let rate = self.path_rate().unwrap_or_default();
            if rate >= self.grown.0 * GROWTH {
                self.grown = (rate, 0);
            } else {
                self.grown.1 += 1;
            }
            if self.grown.1 >= if heavily { 1 } else { GROWTH_ROUNDS } {
                self.mode = Mode::Drain { since: now };
            }
        }
    }

    fn change_mode(&mut self, now: Instant, in_flight: f64) {
        let (Some(product), Some(shortest)) = (self.product(), self.shortest) else { return };
        let phase_len = shortest.max(PHASE_MIN);
        self.mode = match self.mode {
            // lost segments are in flight, too, as far as is known, and do not drain
            Mode::Drain { since }
                if in_flight <= product + self.burst() || now - since > shortest + shortest / 2 =>
            {
                // not all flows of a path are to try more at the same time
                Mode::Cruise { phase: 2 + self.round as usize % 6, since: now }
            }
            Mode::Cruise { phase, since } if now - since > phase_len => {
                Mode::Cruise { phase: (phase + 1) % CYCLE.len(), since: now }
            }
            Mode::Look { since, before, .. } if now - since > LOOK.max(shortest) => {
                self.shortest_at = now;
                if is_longer(shortest, before) {
                    return self.start_over(now);
                }
                Mode::Cruise { phase: 2, since: now }
            }
            Mode::Startup | Mode::Drain { .. } | Mode::Cruise { .. } | Mode::Look { .. } => {
                self.mode
            }
        };
    }
}

/// Whether a round trip belongs to a path that is longer than before.
fn is_longer(this: Duration, before: Duration) -> bool {
    this > 2 * before + LONGER
}
