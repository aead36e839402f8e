//! Which authentic packets are new (B4).
//!
//! Our own packets carry a counter, for which there is a window. What a foreign peer sends can only
//! be remembered for a while.

use super::{Progress, iv::Mark, seen::Seen};
use crate::datagram::Window;

/// So many packets of one run, and the peer is one of ours: a random IV looks like one of ours once
/// in 2^32 times.
const PROOF: u32 = 4;
/// Runs that are looked at before one is nailed down.
const CANDIDATES: usize = 4;

/// How replayed packets are told from new ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// As [`Policy::Seen`] until the peer is recognised as one of ours, from then on as
    /// [`Policy::Counter`].
    #[default]
    Auto,
    /// By the counter in our IVs; others are refused.
    Counter,
    /// By memory: a packet is refused if it is among the last half million.
    Seen,
    /// Not at all.
    Off,
}

impl Policy {
    /// All, with the names that users give.
    pub const ALL: [(&str, Policy); 4] = [
        ("auto", Policy::Auto),
        ("counter", Policy::Counter),
        ("seen", Policy::Seen),
        ("off", Policy::Off),
    ];
}

/// What becomes of an authentic packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is new.
    Fresh {
        /// No packet came that was sent later, as far as one can tell.
        newest: bool,
        /// With this packet the peer is recognised.
        nailed: bool,
    },
    /// It came before, or may have: it is too old to tell.
    Replayed,
    /// It belongs to a run before the current one.
    OldRun,
    /// Its IV says nothing, where only counters are taken.
    NoCounter,
}

/// What is known of the peer's packets.
pub(super) struct Replay {
    policy: Policy,
    nailed: bool,
    peer: Option<Run>,
    /// Before the peer is nailed down.
    candidates: Vec<Run>,
    seen: Seen,
}

struct Run {
    number: u64,
    packets: u32,
    window: Window,
}

impl Run {
    fn new(number: u64) -> Self {
        Self { number, packets: 0, window: Window::default() }
    }
}

impl Replay {
    pub(super) fn new(policy: Policy, peer: Option<Progress>, nailed: bool) -> Self {
        let peer = peer.map(|Progress { run: number, counter }| {
            // what came after the state was last stored may come again, once
            Run { number, packets: 0, window: Window::after(counter) }
        });
        Self { policy, nailed, peer, candidates: Vec::new(), seen: Seen::default() }
    }

    /// Judges an authentic packet by the beginning of its HMAC and by what its IV says, if that is
    /// one of the peer's.
    pub(super) fn judge(&mut self, hmac: u64, mark: Option<Mark>) -> Verdict {
        match (self.policy, mark) {
            (Policy::Off, _) => Verdict::Fresh { newest: true, nailed: false },
            (Policy::Seen, _) => self.remember(hmac),
            (Policy::Auto, None) if !self.nailed => self.remember(hmac),
            (Policy::Auto, Some(mark)) if !self.nailed => match self.remember(hmac) {
                Verdict::Fresh { newest, .. } => {
                    Verdict::Fresh { newest, nailed: self.study(mark) }
                }
                known @ (Verdict::Replayed | Verdict::OldRun | Verdict::NoCounter) => known,
            },
            (Policy::Auto | Policy::Counter, None) => Verdict::NoCounter,
            (Policy::Auto | Policy::Counter, Some(mark)) => self.count(mark),
        }
    }

    /// What has to be kept of the peer.
    pub(super) fn progress(&self) -> Option<Progress> {
        let peer = self.peer.as_ref()?;
        Some(Progress { run: peer.number, counter: peer.window.highest()? })
    }

    pub(super) fn is_nailed(&self) -> bool {
        self.nailed
    }

    fn remember(&mut self, hmac: u64) -> Verdict {
        if self.seen.note(hmac) {
            Verdict::Fresh { newest: true, nailed: false }
        } else {
            Verdict::Replayed
        }
    }

    /// Whether the peer is recognised by this packet.
    fn study(&mut self, mark: Mark) -> bool {
        let mut run = self.take_candidate(mark.run);
        run.window.mark(mark.counter);
        run.packets += 1;
        if run.packets < PROOF {
            self.candidates.push(run);
            return false;
        }
        self.nailed = true;
        self.peer = Some(run);
        self.seen.forget();
        true
    }

    /// What is known of this run. Of those with the fewest packets the oldest makes room for it.
    fn take_candidate(&mut self, number: u64) -> Run {
        if let Some(index) = self.candidates.iter().position(|run| run.number == number) {
            return self.candidates.remove(index);
        }
        if self.candidates.len() == CANDIDATES {
            let fewest = (0..CANDIDATES).min_by_key(|index| self.candidates[*index].packets);
            self.candidates.remove(fewest.unwrap_or(0));
        }
        Run::new(number)
    }

    fn count(&mut self, mark: Mark) -> Verdict {
        let current = self.peer.as_ref().map(|run| run.number);
        if current.is_some_and(|current| mark.run < current) {
            return Verdict::OldRun;
        }
        if current != Some(mark.run) {
            self.peer = Some(self.take_candidate(mark.run));
        }
        let Some(Run { window, .. }) = &mut self.peer else { return Verdict::OldRun };
        if !window.accepts(mark.counter) {
            return Verdict::Replayed;
        }
        let newest = window.highest().is_none_or(|highest| mark.counter > highest);
        window.mark(mark.counter);
        Verdict::Fresh { newest, nailed: false }
    }
}

#[cfg(test)]
mod tests;
