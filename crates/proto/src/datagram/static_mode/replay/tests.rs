use super::*;
use crate::datagram::static_mode::Role;

const FRESH: Verdict = Verdict::Fresh { newest: true, nailed: false };
const LATE: Verdict = Verdict::Fresh { newest: false, nailed: false };
const NAILED: Verdict = Verdict::Fresh { newest: true, nailed: true };

fn mark(run: u64, counter: u64) -> Option<Mark> {
    Some(Mark { role: Role::Client, run, counter })
}

fn auto() -> Replay {
    Replay::new(Policy::Auto, None, false)
}

/// With different HMACs, as different packets have.
fn hmac(run: u64, counter: u64) -> u64 {
    run << 32 | counter
}

fn judge(replay: &mut Replay, run: u64, counter: u64) -> Verdict {
    replay.judge(hmac(run, counter), mark(run, counter))
}

#[test]
fn the_fourth_packet_of_a_run_nails_the_counter_down() {
    let mut replay = auto();
    assert_eq!(replay.judge(1, None), FRESH, "a random IV");
    for counter in 0..3 {
        assert_eq!(judge(&mut replay, 7, counter), FRESH);
        assert_eq!(replay.progress(), None);
    }
    assert_eq!(replay.judge(2, None), FRESH, "not nailed down yet");
    assert_eq!(judge(&mut replay, 7, 3), NAILED);
    assert_eq!(replay.judge(3, None), Verdict::NoCounter);
    assert!(replay.is_nailed());
    assert_eq!(replay.progress(), Some(Progress { run: 7, counter: 3 }));
    for counter in 0..4 {
        assert_eq!(judge(&mut replay, 7, counter), Verdict::Replayed, "{counter}");
    }
    assert_eq!(judge(&mut replay, 7, 9), FRESH);
    assert_eq!(judge(&mut replay, 7, 8), LATE);
}

#[test]
fn packets_of_different_runs_prove_nothing_together() {
    let mut replay = auto();
    for run in 0..100 {
        assert_eq!(judge(&mut replay, run, 0), FRESH);
    }
    assert!(!replay.is_nailed());
}

/// Somebody who has recorded packets of earlier runs sends one after each of ours.
#[test]
fn old_packets_in_between_neither_prevent_it_nor_hide_what_came() {
    let mut replay = auto();
    for counter in 0..3 {
        judge(&mut replay, 50, counter);
        judge(&mut replay, 40 + counter, 0);
    }
    assert_eq!(judge(&mut replay, 50, 3), NAILED);
    for counter in 0..4 {
        assert_eq!(judge(&mut replay, 50, counter), Verdict::Replayed);
    }
    assert_eq!(judge(&mut replay, 42, 1), Verdict::OldRun);
}

/// Recorded packets of an old run come first, as to a receiver that knows nothing yet.
#[test]
fn a_higher_run_takes_over_with_what_it_has_shown_before() {
    let mut replay = auto();
    judge(&mut replay, 50, 0);
    for counter in 0..4 {
        judge(&mut replay, 40, counter);
    }
    assert!(replay.is_nailed());
    assert_eq!(judge(&mut replay, 50, 1), FRESH);
    assert_eq!(judge(&mut replay, 50, 0), Verdict::Replayed, "came before it was nailed down");
    assert_eq!(judge(&mut replay, 40, 9), Verdict::OldRun);
}

#[test]
fn before_it_is_nailed_down_nothing_comes_twice() {
    let mut replay = auto();
    assert_eq!(judge(&mut replay, 7, 0), FRESH);
    assert_eq!(judge(&mut replay, 7, 0), Verdict::Replayed);
    assert_eq!(replay.judge(5, None), FRESH);
    assert_eq!(replay.judge(5, None), Verdict::Replayed);
}

#[test]
fn what_was_stored_is_not_taken_again() {
    let stored = Some(Progress { run: 7, counter: 100 });
    for (policy, nailed) in [(Policy::Auto, true), (Policy::Counter, false)] {
        let mut replay = Replay::new(policy, stored, nailed);
        assert_eq!(judge(&mut replay, 7, 100), Verdict::Replayed);
        assert_eq!(judge(&mut replay, 7, 3), Verdict::Replayed);
        assert_eq!(judge(&mut replay, 6, 500), Verdict::OldRun);
        assert_eq!(replay.judge(1, None), Verdict::NoCounter);
        assert_eq!(judge(&mut replay, 7, 101), FRESH);
        assert_eq!(judge(&mut replay, 8, 0), FRESH);
        assert_eq!(judge(&mut replay, 7, 102), Verdict::OldRun);
        assert_eq!(replay.progress(), Some(Progress { run: 8, counter: 0 }));
    }
}

#[test]
fn the_other_policies_do_what_their_names_say() {
    let mut counter = Replay::new(Policy::Counter, None, false);
    assert_eq!(counter.judge(1, None), Verdict::NoCounter);
    assert_eq!(judge(&mut counter, 3, 0), FRESH);
    let mut seen = Replay::new(Policy::Seen, Some(Progress { run: 9, counter: 9 }), true);
    for run in [3, 2, 1] {
        assert_eq!(judge(&mut seen, run, 0), FRESH);
        assert_eq!(judge(&mut seen, run, 0), Verdict::Replayed);
    }
    assert!(seen.is_nailed(), "for the day when the policy is auto again");
    let mut off = Replay::new(Policy::Off, None, false);
    for _ in 0..10 {
        assert_eq!(judge(&mut off, 3, 0), FRESH);
    }
}
