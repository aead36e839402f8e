//! TCP connections to whichever of some addresses answers first, again and again.
//!
//! A connection attempt on a path that is dead is lost, and TCP itself waits longer and longer
//! before it asks again. So there is a new attempt every half second or so ([`Pace`]), with those
//! before it still waiting: whenever the path comes back, one of them finds it at once (C5). Among
//! addresses, the next is tried 250 ms after the one before, or when that has failed (RFC 8305).

use std::{io, pin::Pin, time::Duration};

use cipherwall_proto::backoff::Pace;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// How long an address is waited for before the next is tried beside it (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);
/// How long an attempt may take: longer than any round trip. With the pace of a path that has just
/// fallen silent, six are under way.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long whoever wants to know whether it works at all has to wait.
const ONCE: Duration = Duration::from_secs(5);

/// When to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Once every address has failed, or after 5 s.
    Once,
    /// Never.
    Endless,
}

/// An address whose attempt failed, and why.
pub(super) type Failed<A> = (A, io::Error);

/// Attempts under way. `A` is an address, `T` a connection to one.
pub(super) struct Hedge<A, T> {
    addresses: Vec<A>,
    open: Open<A, T>,
    patience: Patience,
    started: Instant,
    pace: Pace,
    attempts: JoinSet<(Attempt, io::Result<T>)>,
    round: u64,
    /// The place in `addresses` of the next attempt of this round.
    position: usize,
    round_started: Instant,
    /// When the next attempt is due.
    next_at: Instant,
    /// The most telling failure since it was last asked for.
    failed: Option<(usize, io::Error)>,
}

type Open<A, T> = Box<dyn Fn(&A) -> Opening<T> + Send>;

#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// Which of the addresses.
    at: usize,
    round: u64,
    begun: Instant,
}

/// A connection that is being opened.
pub(super) type Opening<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// A connection.
pub(super) struct Opened<A, T> {
    pub(super) address: A,
    pub(super) connection: T,
    /// How long it took.
    pub(super) took: Duration,
}

impl<A: Clone + PartialEq, T: Send + 'static> Hedge<A, T> {
    /// Nothing happens before [`Hedge::next`].
    pub(super) fn new(
        addresses: Vec<A>,
        patience: Patience,
        open: impl Fn(&A) -> Opening<T> + Send + 'static,
    ) -> Self {
        let now = Instant::now();
        Self {
            addresses,
            open: Box::new(open),
            patience,
            started: now,
            pace: Pace::new(now.into_std(), getrandom::u64().unwrap_or_default()),
            attempts: JoinSet::new(),
            round: 0,
            position: 0,
            round_started: now,
            next_at: now,
            failed: None,
        }
    }

    /// Waits for the next connection; attempts beside it are given up. An error means that the
    /// patience is at its end. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Opened<A, T>, Option<Failed<A>>> {
        loop {
            let now = Instant::now();
            if self.patience == Patience::Once
                && (now >= self.started + ONCE || self.all_have_failed())
            {
                return Err(self.take_failed());
            }
            if now >= self.next_at {
                self.attempt(now);
                continue;
            }
            let give_up_at = match self.patience {
                Patience::Once => self.started + ONCE,
                Patience::Endless => self.next_at,
            };
            tokio::select! {
                Some(done) = self.attempts.join_next() => {
                    let Ok((attempt, result)) = done else { continue };
                    match result {
                        Ok(connection) => {
                            self.attempts = JoinSet::new();
                            let took = attempt.begun.elapsed();
                            let address = self.addresses[attempt.at].clone();
                            return Ok(Opened { address, connection, took });
                        }
                        Err(error) => self.note_failed(attempt, error),
                    }
                }
                () = sleep_until(self.next_at.min(give_up_at)) => {}
            }
        }
    }

    /// Begins at once with another round.
    pub(super) fn again(&mut self) {
        self.next_at = Instant::now();
        self.begin_round(self.next_at);
    }

    /// Tries this address no more and begins with another round; `false` if none is left.
    pub(super) fn leave_out(&mut self, address: &A) -> bool {
        self.addresses.retain(|known| known != address);
        // what is under way counts the addresses as they were
        self.attempts = JoinSet::new();
        self.failed = None;
        self.again();
        !self.addresses.is_empty()
    }

    /// What has gone wrong since this was last asked.
    pub(super) fn take_failed(&mut self) -> Option<Failed<A>> {
        let (at, error) = self.failed.take()?;
        Some((self.addresses[at].clone(), error))
    }

    fn attempt(&mut self, now: Instant) {
        if self.position == self.addresses.len() {
            self.begin_round(now);
        }
        let at = self.position;
        let Some(address) = self.addresses.get(at) else {
            // no address at all: nothing will ever come of it
            self.next_at = now + ONCE;
            return;
        };
        let open = (self.open)(address);
        let attempt = Attempt { at, round: self.round, begun: now };
        self.attempts.spawn(async move {
            let result = timeout(ATTEMPT, open).await;
            (attempt, result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
        });
        self.position += 1;
        self.next_at = if self.position < self.addresses.len() {
            now + STAGGER
        } else {
            let pause = self.pace.after_silence(now.into_std());
            (self.round_started + pause).max(now + STAGGER)
        };
    }

    fn begin_round(&mut self, now: Instant) {
        self.position = 0;
        self.round += 1;
        self.round_started = now;
    }

    fn note_failed(&mut self, attempt: Attempt, error: io::Error) {
        let now = Instant::now();
        if attempt.round != self.round {
            // of no importance for when to go on
        } else if self.position < self.addresses.len() {
            self.next_at = now;
        } else if is_refusal(&error) {
            self.next_at = now + self.pace.after_refusal(now.into_std());
        }
        // that somebody answered says more than that nobody did
        if is_refusal(&error) || !self.failed.as_ref().is_some_and(|(_, e)| is_refusal(e)) {
            self.failed = Some((attempt.at, error));
        }
    }

    /// Every address was tried, and none of them may still answer.
    fn all_have_failed(&self) -> bool {
        self.position == self.addresses.len() && self.attempts.is_empty()
    }
}

/// Whether somebody is there and says no.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What becomes of an attempt, by address and how often it was tried before.
    #[derive(Clone, Copy)]
    enum Fate {
        Connects(u64),
        Refused,
        NoRoute,
        Silent,
    }

    type Log = Arc<Mutex<Vec<(u64, char)>>>;

    /// A hedge over addresses named by letters, with a log of when each was tried (ms).
    fn hedge(
        addresses: &str,
        patience: Patience,
        fate: impl Fn(char, u64) -> Fate + Send + 'static,
    ) -> (Hedge<char, char>, Log) {
        let log = Log::default();
        let tried = log.clone();
        let start = Instant::now();
        let open = move |address: &char| -> Opening<char> {
            let address = *address;
            let at = start.elapsed().as_millis() as u64;
            tried.lock().unwrap().push((at, address));
            let fate = fate(address, at);
            Box::pin(async move {
                match fate {
                    Fate::Connects(after) => {
                        tokio::time::sleep(MS * after as u32).await;
                        Ok(address)
                    }
                    Fate::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
                    Fate::NoRoute => Err(io::ErrorKind::NetworkUnreachable.into()),
                    Fate::Silent => std::future::pending().await,
                }
            })
        };
        (Hedge::new(addresses.chars().collect(), patience, open), log)
    }

    async fn tried_within(hedge: &mut Hedge<char, char>, log: &Log, time: Duration) -> Vec<u64> {
        assert!(timeout(time, hedge.next()).await.is_err());
        std::mem::take(&mut *log.lock().unwrap()).iter().map(|(at, _)| *at).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_address_that_answers_wins_and_the_next_does_not_wait_for_long() {
        let (mut hedge, log) = hedge("abc", Patience::Once, |address, _| match address {
            'a' => Fate::Silent,
            'b' => Fate::Connects(400),
            _ => Fate::Connects(10),
        });
        let start = Instant::now();
        let won = hedge.next().await.ok().unwrap();
        assert_eq!((won.address, won.connection, won.took), ('c', 'c', 10 * MS));
        assert_eq!(start.elapsed(), 510 * MS);
        assert_eq!(*log.lock().unwrap(), [(0, 'a'), (250, 'b'), (500, 'c')]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_makes_place_for_the_next_at_once() {
        let (mut hedge, log) = hedge("ab", Patience::Once, |address, _| match address {
            'a' => Fate::NoRoute,
            _ => Fate::Connects(5),
        });
        assert_eq!(hedge.next().await.ok().unwrap().address, 'b');
        assert_eq!(*log.lock().unwrap(), [(0, 'a'), (0, 'b')]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_once_hears_of_a_refusal_at_once_and_of_silence_after_5_s() {
        let (mut refused, _) = hedge("ab", Patience::Once, |address, _| match address {
            'a' => Fate::Refused,
            _ => Fate::NoRoute,
        });
        let start = Instant::now();
        let (address, error) = refused.next().await.err().flatten().unwrap();
        assert_eq!((address, error.kind()), ('a', io::ErrorKind::ConnectionRefused));
        assert_eq!(start.elapsed(), Duration::ZERO);

        let (mut silent, _) = hedge("a", Patience::Once, |_, _| Fate::Silent);
        let (_, error) = silent.next().await.err().flatten().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), ONCE);

        let (mut none, _) = hedge("", Patience::Once, |_, _| Fate::Silent);
        assert!(none.next().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_return_of_a_silent_path_is_found_within_half_a_second() {
        for back in (3_000..4_000).step_by(37) {
            let (mut hedge, _) = hedge("a", Patience::Endless, move |_, at| {
                if at >= back { Fate::Connects(20) } else { Fate::Silent }
            });
            let start = Instant::now();
            assert!(hedge.next().await.is_ok());
            let after = start.elapsed() - MS * back as u32;
            assert!(after <= 600 * MS, "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_round_trip_is_no_failure() {
        let (mut hedge, _) = hedge("a", Patience::Endless, |_, _| Fate::Connects(2_500));
        let start = Instant::now();
        assert_eq!(hedge.next().await.ok().unwrap().took, 2_500 * MS);
        assert_eq!(start.elapsed(), 2_500 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_knocked_at_more_seldom_by_and_by_and_never_given_up() {
        let (mut hedge, log) = hedge("a", Patience::Endless, |_, _| Fate::Silent);
        let minute = tried_within(&mut hedge, &log, Duration::from_secs(60)).await.len();
        assert!((100..=140).contains(&minute), "{minute}");
        tried_within(&mut hedge, &log, Duration::from_secs(3_600)).await;
        let minute = tried_within(&mut hedge, &log, Duration::from_secs(60)).await.len();
        assert!((5..=7).contains(&minute), "{minute}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarting_gateway_is_tried_every_quarter_second_but_not_for_long() {
        let (mut hedge, log) = hedge("a", Patience::Endless, |_, _| Fate::Refused);
        let at_first = tried_within(&mut hedge, &log, Duration::from_secs(5)).await.len();
        assert!((17..=25).contains(&at_first), "{at_first}");
        tried_within(&mut hedge, &log, Duration::from_secs(60)).await;
        let later = tried_within(&mut hedge, &log, Duration::from_secs(60)).await.len();
        assert!((3..=7).contains(&later), "{later}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_where_it_was_left_and_begins_again_when_told() {
        let (mut hedge, log) = hedge("a", Patience::Endless, |_, at| {
            if at >= 1_000 { Fate::Connects(700) } else { Fate::Silent }
        });
        let start = Instant::now();
        while timeout(100 * MS, hedge.next()).await.is_err() {}
        assert!(start.elapsed() < 1_000 * MS + 600 * MS + 700 * MS, "{:?}", start.elapsed());
        log.lock().unwrap().clear();
        hedge.again();
        assert!(hedge.next().await.is_ok());
        assert_eq!(log.lock().unwrap().len(), 2, "at once, and half a second later");
    }
}
