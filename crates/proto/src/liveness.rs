//! Whether the path still works (A8).
//!
//! - **Idle**: a ping after 15 s (±20%) without sending, or as long without life; if none comes within
//!   5 s the path is dead.
//! - **Waiting for an answer**: once something was sent and nothing has come back for
//!   T = max(0.3 s, 4 × smoothed round trip), a probe (a ping); after another T without life the
//!   path is suspect: whoever can should try another one beside it. T is 1 s while the round trip
//!   is not known. (A8 asks for 1 s always, and C5 for a new path within the second.)
//! - **Doubted**: the host was asleep, or its way to the other end has changed: a ping at once, and
//!   the path is suspect until life comes back.
//! - 30 s of silence are the end in any case in which something was expected.
//!
//! Any authentic record is life.

use std::time::{Duration, Instant};

use crate::jitter::Jitter;

const KEEPALIVE_SPREAD_PERCENT: u32 = 20;
const PONG_WITHIN: Duration = Duration::from_secs(5);
const PROBE_AFTER_MIN: Duration = Duration::from_millis(300);
/// While the round trip is not known.
const PROBE_AFTER: Duration = Duration::from_secs(1);

/// How patient an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// How long the path may be idle before it is pinged.
    pub interval: Duration,
    /// How long an answer may fail to come before the path is dead.
    pub silence: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(15), silence: Duration::from_secs(30) }
    }
}

/// The timers of one path.
#[derive(Debug, Clone)]
pub struct Liveness {
    keepalive: Keepalive,
    jitter: Jitter,
    /// When the next ping of an idle path is due.
    ping_at: Instant,
    last_received: Instant,
    /// Since when traffic has gone out without anything coming back.
    unanswered_since: Option<Instant>,
    /// The ping that nothing has come back since.
    probe: Option<Probe>,
    /// The last ping, for the round trip.
    ping: Option<(u64, Instant)>,
    sequence: u64,
    smoothed: Option<Duration>,
    shortest: Option<Duration>,
    latest: Option<Duration>,
    answered: u32,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    sent: Instant,
    /// Sent because traffic went unanswered, not because of idleness.
    for_traffic: bool,
    suspected: bool,
}

/// What a timer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Send a ping with this payload.
    Ping([u8; 8]),
    /// The path is suspect; said once until life comes back.
    Suspect,
    /// The path is dead.
    Dead,
}

/// Why a timer is set: for logs and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An idle path is pinged.
    Keepalive,
    /// Unanswered traffic is probed.
    Probe,
    /// A probe goes unanswered.
    Suspect,
    /// Nothing has come back for too long.
    Dead,
}

impl Liveness {
    /// For a path that works now; `seed` decides the jitter.
    pub fn new(now: Instant, keepalive: Keepalive, seed: u64) -> Self {
        let mut jitter = Jitter::new(seed);
        let ping_at = now + jitter.spread(keepalive.interval, KEEPALIVE_SPREAD_PERCENT);
        Self {
            keepalive,
            jitter,
            ping_at,
            last_received: now,
            unanswered_since: None,
            probe: None,
            ping: None,
            sequence: 0,
            smoothed: None,
            shortest: None,
            latest: None,
            answered: 0,
        }
    }

    /// Changes how patient this end is, from now on.
    pub fn set_keepalive(&mut self, now: Instant, keepalive: Keepalive) {
        self.keepalive = keepalive;
        self.ping_at = self.next_ping(now);
    }

    /// The smoothed round trip, once a ping was answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The shortest round trip so far, and of how many.
    pub fn shortest_round_trip(&self) -> Option<(Duration, u32)> {
        Some((self.shortest?, self.answered))
    }

    /// The latest round trip, and of how many.
    pub fn latest_round_trip(&self) -> Option<(Duration, u32)> {
        Some((self.latest?, self.answered))
    }

    /// Whether [`Due::Suspect`] was said and no life has come back since.
    pub fn is_suspect(&self) -> bool {
        self.probe.is_some_and(|probe| probe.suspected)
    }

    /// Whether traffic has gone unanswered for so long that a probe was sent, and nothing has come
    /// back since.
    pub fn is_doubtful(&self) -> bool {
        self.probe.is_some_and(|probe| probe.for_traffic || probe.suspected)
    }

    /// Something was sent; `traffic`: packets of the user, to which answers are expected.
    pub fn on_sent(&mut self, now: Instant, traffic: bool) {
        if self.probe.is_none() {
            // what asks for no answer puts no question off
            let interval = self.keepalive.interval;
            let latest = self.last_received + interval + interval * KEEPALIVE_SPREAD_PERCENT / 100;
            self.ping_at = self.next_ping(now).min(latest);
        }
        if traffic {
            self.unanswered_since.get_or_insert(now);
        }
    }

    /// An authentic record has come.
    pub fn on_received(&mut self, now: Instant) {
        self.last_received = now;
        self.unanswered_since = None;
        self.probe = None;
    }

    /// A pong has come.
    pub fn on_pong(&mut self, now: Instant, payload: [u8; 8]) {
        if let Some((sequence, sent)) = self.ping
            && payload == sequence.to_be_bytes()
        {
            self.ping = None;
            let sample = now.saturating_duration_since(sent);
            self.answered += 1;
            self.shortest = Some(self.shortest.map_or(sample, |shortest| shortest.min(sample)));
            self.latest = Some(sample);
            // RFC 6298, 2.3
            self.smoothed = Some(self.smoothed.map_or(sample, |s| s * 7 / 8 + sample / 8));
        }
    }

    /// A ping to be sent now, outside of any timer: to learn the round trip.
    pub fn ping(&mut self, now: Instant) -> [u8; 8] {
        self.sequence += 1;
        self.ping = Some((self.sequence, now));
        self.sequence.to_be_bytes()
    }

    /// There is a reason to believe that the path is dead: it is suspect from now on. The ping to
    /// be sent now.
    pub fn doubt(&mut self, now: Instant) -> [u8; 8] {
        self.probe = Some(Probe { sent: now, for_traffic: true, suspected: true });
        self.ping(now)
    }

    /// When [`Liveness::handle_timeout`] is due next, and why.
    pub fn poll_timeout(&self) -> (Instant, Reason) {
        let after = self.probe_after();
        let keepalive = (self.ping_at, Reason::Keepalive);
        let Some(probe) = self.probe else {
            let probe_at = self.unanswered_since.map(|since| (since + after, Reason::Probe));
            return probe_at
                .into_iter()
                .chain([keepalive])
                .min_by_key(|(at, _)| *at)
                .unwrap_or(keepalive);
        };
        let pong_due = probe.sent + PONG_WITHIN;
        let (suspect, dead) = if probe.for_traffic {
            let silence = self.last_received + self.keepalive.silence;
            (Some(probe.sent + after), silence.max(pong_due))
        } else {
            // traffic that began behind a keepalive has been probed already
            (self.unanswered_since.map(|since| since + after * 2), pong_due)
        };
        match suspect {
            Some(at) if !probe.suspected && at < dead => (at, Reason::Suspect),
            Some(_) | None => (dead, Reason::Dead),
        }
    }

    /// Time has passed: what is to be done, if anything.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        let (at, reason) = self.poll_timeout();
        if now < at {
            return None;
        }
        Some(match reason {
            Reason::Keepalive | Reason::Probe => {
                let for_traffic = reason == Reason::Probe;
                self.probe = Some(Probe { sent: now, for_traffic, suspected: false });
                self.ping_at = self.next_ping(now);
                Due::Ping(self.ping(now))
            }
            Reason::Suspect => {
                if let Some(probe) = &mut self.probe {
                    probe.suspected = true;
                }
                Due::Suspect
            }
            Reason::Dead => Due::Dead,
        })
    }

    fn next_ping(&mut self, now: Instant) -> Instant {
        now + self.jitter.spread(self.keepalive.interval, KEEPALIVE_SPREAD_PERCENT)
    }

    fn probe_after(&self) -> Duration {
        self.smoothed.map_or(PROBE_AFTER, |round_trip| PROBE_AFTER_MIN.max(round_trip * 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn start() -> (Liveness, Instant) {
        let now = Instant::now();
        (Liveness::new(now, Keepalive::default(), 1), now)
    }

    /// Runs the timers until `until`; what they asked for, with the seconds since `start`.
    fn run(l: &mut Liveness, start: Instant, until: Duration) -> Vec<(u64, Due)> {
        let mut all = Vec::new();
        while l.poll_timeout().0 <= start + until {
            let at = l.poll_timeout().0;
            if let Some(due) = l.handle_timeout(at) {
                if let Due::Ping(_) = due {
                    l.on_sent(at, false);
                }
                all.push(((at - start).as_millis() as u64 / 100, due));
                if due == Due::Dead {
                    break;
                }
            }
        }
        all
    }

    #[test]
    fn an_idle_path_is_pinged_after_15_s_and_dead_5_s_later() {
        for seed in 0..20 {
            let now = Instant::now();
            let mut l = Liveness::new(now, Keepalive::default(), seed);
            let all = run(&mut l, now, 40 * S);
            let [(ping, Due::Ping(_)), (dead, Due::Dead)] = all[..] else { panic!("{all:?}") };
            assert!((120..=180).contains(&ping), "{ping}");
            assert_eq!(dead, ping + 50);
        }
    }

    #[test]
    fn what_asks_for_no_answer_does_not_put_the_ping_off() {
        let (mut l, now) = start();
        let mut all = Vec::new();
        for second in (10..60).step_by(10) {
            all.extend(run(&mut l, now, second * S));
            l.on_sent(now + second * S, false);
        }
        let [(ping, Due::Ping(_)), (dead, Due::Dead), ..] = all[..] else { panic!("{all:?}") };
        assert!((120..=180).contains(&ping) && dead == ping + 50, "{all:?}");
    }

    #[test]
    fn unanswered_traffic_is_probed_suspected_and_given_up() {
        let (mut l, now) = start();
        l.on_sent(now, true);
        let all = run(&mut l, now, 60 * S);
        let [(10, Due::Ping(_)), (20, Due::Suspect), (300, Due::Dead)] = all[..] else {
            panic!("{all:?}")
        };
    }

    #[test]
    fn traffic_behind_an_unanswered_keepalive_makes_the_path_suspect_as_well() {
        let (mut l, _) = start();
        let ping_at = l.poll_timeout().0;
        assert!(matches!(l.handle_timeout(ping_at), Some(Due::Ping(_))));
        l.on_sent(ping_at, false);
        l.on_sent(ping_at + S / 2, true);
        let all = run(&mut l, ping_at, 60 * S);
        let [(25, Due::Suspect), (50, Due::Dead)] = all[..] else { panic!("{all:?}") };
    }

    #[test]
    fn a_slow_path_is_given_more_time() {
        let (mut l, now) = start();
        let payload = l.ping(now);
        l.on_pong(now + S / 2, payload);
        assert_eq!(l.round_trip(), Some(S / 2));
        l.on_received(now + S / 2);
        l.on_sent(now + S / 2, true);
        let all = run(&mut l, now + S / 2, 10 * S);
        assert!(matches!(all[..], [(20, Due::Ping(_)), (40, Due::Suspect)]), "{all:?}");
    }

    #[test]
    fn a_new_path_is_tried_within_a_second_on_a_fast_one() {
        let (mut l, now) = start();
        let payload = l.ping(now);
        l.on_pong(now + S / 25, payload);
        l.on_sent(now, true);
        let all = run(&mut l, now, S);
        assert!(matches!(all[..], [(3, Due::Ping(_)), (6, Due::Suspect)]), "{all:?}");
    }

    #[test]
    fn life_ends_every_suspicion() {
        let (mut l, now) = start();
        l.on_sent(now, true);
        run(&mut l, now, 2 * S);
        l.on_received(now + 3 * S);
        assert_eq!(l.poll_timeout().1, Reason::Keepalive);
        assert_eq!(l.handle_timeout(now + 4 * S), None);
    }

    #[test]
    fn a_doubted_path_is_suspect_until_it_answers_and_dead_if_it_does_not() {
        let (mut l, now) = start();
        let ping = l.doubt(now);
        assert!(l.is_suspect());
        let mut silent = l.clone();
        let all = run(&mut silent, now, 60 * S);
        let [(300, Due::Dead)] = all[..] else { panic!("{all:?}") };
        l.on_pong(now + S / 10, ping);
        l.on_received(now + S / 10);
        assert!(!l.is_suspect());
        assert_eq!(l.poll_timeout().1, Reason::Keepalive);
    }

    #[test]
    fn after_a_long_sleep_there_is_time_for_an_answer() {
        let (mut l, now) = start();
        l.on_sent(now, true);
        let woken = now + 3_600 * S;
        l.doubt(woken);
        assert_eq!(l.handle_timeout(woken), None);
        assert_eq!(l.poll_timeout(), (woken + PONG_WITHIN, Reason::Dead));
    }

    #[test]
    fn a_path_that_sends_and_receives_is_left_alone() {
        let (mut l, now) = start();
        for tenth in 0..600 {
            let at = now + S * tenth / 10;
            l.on_sent(at, true);
            l.on_received(at + S / 100);
            assert_eq!(l.handle_timeout(at + S / 50), None, "at {tenth}");
        }
    }

    #[test]
    fn a_pong_of_another_ping_is_no_round_trip() {
        let (mut l, now) = start();
        l.ping(now);
        l.on_pong(now + S, [0xff; 8]);
        assert_eq!(l.round_trip(), None);
    }
}
