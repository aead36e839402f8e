//! The CipherWall protocol: everything that both ends must agree on, and nothing that touches the
//! world. No sockets, no clock, no randomness of its own: bytes, time and random values come in as
//! parameters, bytes and events go out. `docs/protocol.md` is the specification.
//!
//! The modules follow a connection from its first byte:
//!
//! 1. [`invitation`], [`credential`], [`device`]: what the two ends know of each other beforehand.
//! 2. [`keys`]: every key, derived from the TLS exporter.
//! 3. [`knock`]: the first bytes inside TLS, which tell a client from a visitor of the web site;
//!    [`hint`]: what may come even before, as early data.
//! 4. [`message`] with [`client`] and [`gateway`]: log-in, enrolment and the answer.
//! 5. [`record`], [`frame`]: the tunnel on the same connection.
//! 6. [`tunnel`], [`rekey`], [`liveness`], [`backoff`]: new keys, keeping it alive, coming back.
//! 7. [`ladder`]: which of several ways to a gateway to take.
//! 8. [`datagram`]: packets over UDP, of a session beside its stream or in static mode.

pub mod backoff;
pub mod cipher;
pub mod client;
pub mod credential;
pub mod datagram;
pub mod device;
pub mod frame;
pub mod gateway;
pub mod hint;
pub mod invitation;
mod jitter;
pub mod kcp;
pub mod keys;
pub mod knock;
pub mod ladder;
pub mod liveness;
pub mod message;
pub mod queue;
pub mod record;
pub mod rekey;
pub mod tunnel;

/// The protocol version that this program speaks (A35). The only one so far.
pub const VERSION: u8 = 1;
