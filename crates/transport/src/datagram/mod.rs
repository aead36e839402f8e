//! Packets of a session in datagrams, beside its stream (design 3.8).
//!
//! A [`Channel`] belongs to one connection. Whoever has packets for the other end gives them to the
//! [`Sender`](crate::tunnel::Sender) of the connection, or, while datagrams get through
//! ([`Sender::datagrams`](crate::tunnel::Sender::datagrams)), to its channel; packets that may not
//! go by datagram the channel hands back to the sender. The [`Link`](crate::tunnel::Link) runs the
//! channel's timers and gives it new keys. Whoever receives from a UDP socket gives what has come to
//! [`Channel::receive`].

mod channel;
mod homes;
mod incoming;
mod outgoing;
pub(crate) mod pool;

pub use channel::{Channel, Filler, Start};
pub use incoming::Arrival;
pub use pool::{give_back_received, take_received};
