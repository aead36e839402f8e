//! Replays the corpus of this crate's fuzz target (docs/fuzzing.md).

#[path = "../../../fuzz/bodies/ipc.rs"]
mod ipc;
#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;

#[test]
fn messages() {
    replay::replay("ipc", ipc::run);
}
