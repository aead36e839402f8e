//! The order of a race.

use std::cmp::Reverse;

use super::{Candidate, Choice, Worked};

/// By how much a connection is worse than one over the first choice.
const OTHER_TRANSPORT: u8 = 1;
/// Its public address is another one, which breaks connections inside the tunnel.
const OTHER_GATEWAY: u8 = 2;
/// It is likely to be cut off again.
const STRUCK: u8 = 3;

/// All candidates, each once: what worked first, struck ones last, and between them always what
/// differs most from what was chosen, or struck, before.
pub(super) fn order(
    candidates: &[Candidate],
    worked: Option<Worked>,
    is_struck: impl Fn(usize) -> bool,
) -> Vec<Choice> {
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    left.sort_by_key(|at| preference(&candidates[*at], worked));
    let (struck, mut left): (Vec<_>, Vec<_>) =
        left.into_iter().partition(|at| is_struck(candidates[*at].rung));
    let mut tried: Vec<Candidate> = struck.iter().map(|at| candidates[*at]).collect();
    let mut chosen = Vec::new();
    while !left.is_empty() {
        let is_known = chosen.is_empty() && worked.is_some_and(|it| candidates[left[0]].is(it));
        let next = if is_known || tried.is_empty() {
            0
        } else {
            most_different(&tried, &left, candidates)
        };
        let at = left.remove(next);
        tried.push(candidates[at]);
        chosen.push(at);
    }
    chosen.extend(&struck);
    let Some(first) = chosen.first().map(|at| candidates[*at]) else { return Vec::new() };
    let choice = |at| {
        let candidate = &candidates[at];
        let reluctance = if struck.contains(&at) { STRUCK } else { reluctance(candidate, &first) };
        Choice { at, reluctance }
    };
    chosen.into_iter().map(choice).collect()
}

impl Candidate {
    fn is(&self, worked: Worked) -> bool {
        self.rung == worked.rung
    }
}

/// The address that worked, its rung, and then as the profile has it.
fn preference(candidate: &Candidate, worked: Option<Worked>) -> impl Ord + use<> {
    let same_rung = worked.is_some_and(|it| candidate.is(it));
    let same_address = worked.is_some_and(|it| it.address == Some(candidate.address));
    (Reverse(same_rung && same_address), Reverse(same_rung), candidate.rung)
}

/// The index in `left` of what has the most important trait that none of `tried` has; the first
/// one of them, or of all if nothing is new any more.
fn most_different(tried: &[Candidate], left: &[usize], candidates: &[Candidate]) -> usize {
    let traits: [fn(&Candidate, &Candidate) -> bool; 4] = [
        |one, other| one.transport == other.transport,
        |one, other| one.gateway == other.gateway,
        |one, other| one.address.port() == other.address.port(),
        |one, other| one.address.is_ipv4() == other.address.is_ipv4(),
    ];
    let with_new = |same: fn(&Candidate, &Candidate) -> bool| {
        left.iter().position(|at| !tried.iter().any(|it| same(it, &candidates[*at])))
    };
    traits.into_iter().find_map(with_new).unwrap_or(0)
}

fn reluctance(candidate: &Candidate, first: &Candidate) -> u8 {
    if candidate.gateway != first.gateway {
        OTHER_GATEWAY
    } else if candidate.transport != first.transport && candidate.rung > first.rung {
        OTHER_TRANSPORT
    } else {
        0
    }
}
