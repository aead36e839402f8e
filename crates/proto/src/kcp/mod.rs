//! KCP over UDP: what carries TLS and the tunnel where TCP does not get through (A20;
//! docs/protocol.md, "KCP").
//!
//! ```text
//!  head (16) | time (4) | KCP segments | tag (16)       all but the tag encrypted, from the first byte
//! ```
//!
//! - [`Door`] reads the heads of datagrams: whose each one is. Only who knows the door key can.
//! - [`Register`] says which datagrams may begin a conversation.
//! - [`Conversation`] is one end of one: it opens and seals datagrams, follows the other end's
//!   address, and holds the stream of bytes with its congestion control.
//!
//! Everything that is not valid is dropped: no error, no answer, no state.

mod arrivals;
mod control;
mod conversation;
mod gate;
mod outbox;
mod path;
mod register;
mod repeats;
mod samples;
mod stream;
mod wrap;

pub use conversation::{Conversation, Transmit};
pub use register::Register;
pub use wrap::{Door, Head, OVERHEAD};

/// Length of the longest datagrams, bytes: they get through wherever IPv6 does, without a search for
/// the path's MTU.
pub const DATAGRAM_MAX: usize = 1_232;
/// Length of a segment's header in KCP, bytes.
const SEGMENT_HEADER: usize = 24;
/// Bytes of the stream in the longest datagram.
const SEGMENT_MAX: usize = DATAGRAM_MAX - OVERHEAD - SEGMENT_HEADER;
