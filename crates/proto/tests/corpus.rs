//! Replays the corpora of this crate's fuzz targets (docs/fuzzing.md).

#[path = "../../../fuzz/bodies/datagram.rs"]
mod datagram;
#[path = "../../../fuzz/bodies/frame.rs"]
mod frame;
#[path = "../../../fuzz/bodies/invitation.rs"]
mod invitation;
#[path = "../../../fuzz/bodies/kcp.rs"]
mod kcp;
#[path = "../../../fuzz/bodies/message.rs"]
mod message;
#[path = "../../../fuzz/bodies/opener.rs"]
mod opener;
#[path = "../../../fuzz/bodies/record.rs"]
mod record;
#[path = "../../../fuzz/bodies/rekey.rs"]
mod rekey;
#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../fuzz/bodies/static_datagram.rs"]
mod static_datagram;

use replay::replay;

#[test]
fn datagrams() {
    replay("datagram", datagram::run);
}

#[test]
fn frames() {
    replay("frame", frame::run);
}

#[test]
fn invitations() {
    replay("invitation", invitation::run);
}

#[test]
fn kcp_datagrams() {
    replay("kcp", kcp::run);
}

#[test]
fn messages() {
    replay("message", message::run);
}

#[test]
fn openers() {
    replay("opener", opener::run);
}

#[test]
fn records() {
    replay("record", record::run);
}

#[test]
fn rekeys() {
    replay("rekey", rekey::run);
}

#[test]
fn static_datagrams() {
    replay("static_datagram", static_datagram::run);
}
