//! Replays the corpus of this crate's fuzz target (docs/fuzzing.md).

#[path = "../../../fuzz/bodies/dns_answer.rs"]
mod dns_answer;
#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;

#[test]
fn dns_answers() {
    replay::replay("dns_answer", dns_answer::run);
}
