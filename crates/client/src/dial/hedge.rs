//! Connections to whichever of some addresses answers first, again and again.
//!
//! A connection attempt on a path that is dead is lost, and TCP itself waits longer and longer
//! before it asks again. So there is a new attempt every half second or so ([`Pace`]), with those
//! before it still waiting: whenever the path comes back, one of them finds it at once (C5). Among
//! addresses, the next is tried 250 ms after the one before, or when that has failed (RFC 8305).
//!
//! An address may be taken more reluctantly than others ([`cipherwall_proto::ladder`]). If one such
//! answers first, those that would be preferred get another attempt and a moment more: a path that
//! comes back does so for all of them, and which one was being tried just then is chance.

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
/// How long a connection is held back for the sake of a better one, over twice what it took.
const HOLD: Duration = Duration::from_millis(250);

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
    /// With how reluctantly each is taken.
    addresses: Vec<(A, u8)>,
    open: Open<A, T>,
    patience: Patience,
    started: Instant,
    pace: Pace,
    attempts: JoinSet<(Attempt<A>, io::Result<T>)>,
    under_way: Vec<Attempt<A>>,
    round: u64,
    /// The place in `addresses` of the next attempt of this round.
    position: usize,
    round_started: Instant,
    /// When the next attempt is due.
    next_at: Instant,
    held: Option<Held<A, T>>,
    /// The failures since they were last asked for, the latest of each address.
    failed: Vec<Failed<A>>,
}

type Open<A, T> = Box<dyn Fn(&A) -> Opening<T> + Send>;

#[derive(Debug, Clone, PartialEq)]
struct Attempt<A> {
    address: A,
    reluctance: u8,
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

/// A connection that waits for a better one.
struct Held<A, T> {
    opened: Opened<A, T>,
    reluctance: u8,
    since: Instant,
    until: Instant,
    /// What may still be better.
    waits_for: Vec<A>,
}

impl<A: Clone + PartialEq + Send + 'static, T: Send + 'static> Hedge<A, T> {
    /// Nothing happens before [`Hedge::next`].
    pub(super) fn new(
        addresses: Vec<(A, u8)>,
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
            under_way: Vec::new(),
            round: 0,
            position: 0,
            round_started: now,
            next_at: now,
            held: None,
            failed: Vec::new(),
        }
    }

    /// Waits for the next connection; attempts beside it are given up. An error means that the
    /// patience is at its end. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Opened<A, T>, Vec<Failed<A>>> {
        loop {
            let now = Instant::now();
            if let Some(held) = self.held.take_if(|held| now >= held.until) {
                return Ok(self.take(held.opened));
            }
            let is_over = now >= self.started + ONCE || self.all_have_failed();
            if self.patience == Patience::Once && self.held.is_none() && is_over {
                return Err(self.take_failed());
            }
            if now >= self.next_at {
                self.attempt(now);
                continue;
            }
            let wakes_at = self.wakes_at();
            tokio::select! {
                Some(done) = self.attempts.join_next() => {
                    let Ok((attempt, result)) = done else { continue };
                    self.under_way.retain(|other| *other != attempt);
                    match result {
                        Ok(connection) => {
                            let (took, reluctance) = (attempt.begun.elapsed(), attempt.reluctance);
                            let opened = Opened { address: attempt.address, connection, took };
                            if let Some(opened) = self.or_hold(opened, reluctance) {
                                return Ok(self.take(opened));
                            }
                        }
                        Err(error) => self.note_failed(&attempt, error),
                    }
                }
                () = sleep_until(wakes_at) => {}
            }
        }
    }

    /// Begins at once with another round.
    pub(super) fn again(&mut self) {
        self.next_at = Instant::now();
        self.begin_round(self.next_at);
    }

    /// As [`Hedge::again`], with this address after all others, and taken only if none of them
    /// answers.
    pub(super) fn set_back(&mut self, address: &A) {
        self.addresses.sort_by_key(|(known, _)| known == address);
        if let Some((_, reluctance)) = self.addresses.last_mut() {
            *reluctance = u8::MAX;
        }
        self.again();
    }

    /// Tries this address no more and begins with another round; `false` if none is left.
    pub(super) fn leave_out(&mut self, address: &A) -> bool {
        self.addresses.retain(|(known, _)| known != address);
        self.give_up_others();
        self.held.take_if(|held| held.opened.address == *address);
        self.failed.clear();
        self.again();
        !self.addresses.is_empty()
    }

    /// What has gone wrong since this was last asked.
    pub(super) fn take_failed(&mut self) -> Vec<Failed<A>> {
        std::mem::take(&mut self.failed)
    }

    fn wakes_at(&self) -> Instant {
        let mut at = self.next_at;
        if self.patience == Patience::Once {
            at = at.min(self.started + ONCE);
        }
        self.held.as_ref().map_or(at, |held| at.min(held.until))
    }

    fn attempt(&mut self, now: Instant) {
        if self.position == self.addresses.len() {
            self.begin_round(now);
        }
        let Some((address, reluctance)) = self.addresses.get(self.position) else {
            // no address at all: nothing will ever come of it
            self.next_at = now + ONCE;
            return;
        };
        let (address, reluctance) = (address.clone(), *reluctance);
        let open = (self.open)(&address);
        let attempt = Attempt { address, reluctance, round: self.round, begun: now };
        self.under_way.push(attempt.clone());
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

    /// The connection, unless there may soon be a better one.
    fn or_hold(&mut self, opened: Opened<A, T>, reluctance: u8) -> Option<Opened<A, T>> {
        if let Some(held) = &mut self.held {
            if reluctance >= held.reluctance {
                return None;
            }
            held.waits_for.clear();
        }
        let better = self.addresses.iter().filter(|(_, other)| *other < reluctance);
        let waits_for: Vec<A> = better.map(|(address, _)| address.clone()).collect();
        if waits_for.is_empty() {
            return Some(opened);
        }
        let since = Instant::now();
        let until = match &self.held {
            Some(held) => held.until,
            None => since + HOLD + opened.took * 2,
        };
        if self.held.replace(Held { opened, reluctance, since, until, waits_for }).is_none() {
            // there is time for two of those that are preferred
            self.addresses.sort_by_key(|(_, other)| *other >= reluctance);
            self.again();
        }
        None
    }

    /// Everything else is given up. What did not answer in twice the time has failed.
    fn take(&mut self, opened: Opened<A, T>) -> Opened<A, T> {
        self.held = None;
        for attempt in std::mem::take(&mut self.under_way) {
            let long = STAGGER.max(opened.took * 2);
            if attempt.begun.elapsed() >= long && attempt.address != opened.address {
                self.keep_failed(attempt.address, io::ErrorKind::TimedOut.into());
            }
        }
        self.give_up_others();
        opened
    }

    fn give_up_others(&mut self) {
        self.attempts = JoinSet::new();
        self.under_way.clear();
    }

    fn note_failed(&mut self, attempt: &Attempt<A>, error: io::Error) {
        let now = Instant::now();
        if attempt.round != self.round {
            // of no importance for when to go on
        } else if self.position < self.addresses.len() {
            self.next_at = now;
        } else if is_refusal(&error) {
            self.next_at = now + self.pace.after_refusal(now.into_std());
        }
        if let Some(held) = self.held.as_mut().filter(|held| attempt.begun >= held.since) {
            held.waits_for.retain(|address| *address != attempt.address);
            if held.waits_for.is_empty() {
                held.until = now;
            }
        }
        self.keep_failed(attempt.address.clone(), error);
    }

    fn keep_failed(&mut self, address: A, error: io::Error) {
        self.failed.retain(|(other, _)| *other != address);
        self.failed.push((address, error));
    }

    /// Every address was tried, and none of them may still answer.
    fn all_have_failed(&self) -> bool {
        self.position == self.addresses.len() && self.attempts.is_empty()
    }
}

/// Of some failures, the one to be told of: that somebody answered says more than that nobody did.
pub(super) fn most_telling<A>(failed: Vec<Failed<A>>) -> Option<Failed<A>> {
    let refused = failed.iter().position(|(_, error)| is_refusal(error));
    failed.into_iter().nth(refused.unwrap_or(0))
}

/// Whether somebody is there and says no.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests;
