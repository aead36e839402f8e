//! Replays the corpus of this crate's fuzz target (docs/fuzzing.md).

#[path = "../../../fuzz/bodies/host_text.rs"]
mod host_text;
#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;

#[test]
fn host_texts() {
    replay::replay("host_text", host_text::run);
}
