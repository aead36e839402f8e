//! The readers of HTTP/2.

#[path = "../../../bodies/http2.rs"]
pub(crate) mod body;
#[path = "../../../../crates/server/src/site/http2/code.rs"]
mod code;
#[path = "../../../../crates/server/src/site/http2/frames.rs"]
mod frames;
#[path = "../../../../crates/server/src/site/http2/head.rs"]
mod head;
#[path = "../../../../crates/server/src/site/http2/hpack/mod.rs"]
mod hpack;
