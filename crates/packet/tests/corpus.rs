//! Replays the corpus of this crate's fuzz target (docs/fuzzing.md).

#[path = "../../../fuzz/bodies/ip_packet.rs"]
mod ip_packet;
#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;

#[test]
fn packets() {
    replay::replay("ip_packet", ip_packet::run);
}
