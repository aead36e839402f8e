//! Local messages between a privileged process and its front ends, over a Unix socket.
//!
//! The privileged process listens, front ends connect; both programs use it: the client's daemon
//! (messages in [`daemon`]) and the gateway's administration socket (messages of its own). A
//! message is any serde type; see [`Connection`] for the form and the bounds.
//!
//! A peer can do no harm beyond its own connection: messages are at most [`MESSAGE_MAX`] bytes,
//! must arrive whole within [`MESSAGE_TIME`] once begun, and peers that are neither root nor, where
//! the listener has one, in its group are refused before a byte of theirs is read.

mod connection;
pub mod daemon;
mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod listener;
mod lock;
mod peer;

pub use connection::{ConnectError, Connection, ReceiveError, SendError};
pub use frame::{EncodeError, MESSAGE_MAX, VERSION};
pub use listener::{AcceptError, BindError, Listener};

/// How long a message may take from its first byte to its last, and to be taken by the peer.
pub const MESSAGE_TIME: std::time::Duration = std::time::Duration::from_secs(10);
