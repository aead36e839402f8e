//! The speed test between a client and its gateway, through the tunnel (A28): bandwidth each way,
//! and how long a small message takes there and back, with nothing else going on and under load.
//!
//! [`Server`] is the gateway's end, which listens on its inside addresses only; [`run`] is the
//! client's. What they say to each other is in `docs/protocol.md`. This crate knows TCP and
//! nothing of the tunnel below.

mod client;
mod latency;
mod link;
mod places;
mod request;
mod server;

pub use client::{Options, Outcome, Phase, Progress, TestError, Transfer, run};
pub use latency::Latency;
pub use server::Server;

/// The gateway's port, unless it is configured otherwise.
pub const DEFAULT_PORT: u16 = 8474;
/// The longest transfer, seconds.
pub const MAX_SECONDS: u8 = 30;
/// The most connections that one transfer may be spread over.
pub const MAX_STREAMS: u8 = 8;

/// Silence of this length ends a connection, at both ends.
const STALL: std::time::Duration = std::time::Duration::from_secs(5);
/// Bytes that are written or read at once.
const CHUNK: usize = 64 * 1024;
/// What is sent. The tunnel does not compress, so the content does not matter.
static ZEROS: [u8; CHUNK] = [0; CHUNK];

#[cfg(test)]
mod tests;
