//! KCP conversations on UDP sockets (A20; docs/protocol.md, "KCP").
//!
//! A client [`connect`]s; a gateway has a [`Gate`], which knows its conversations and begins new ones.
//! Either gets a [`KcpStream`] to put TLS on. Each conversation has a task of its own for what time
//! asks for; what comes and what is written is dealt with by whoever brings it.

mod client;
mod driver;
mod gate;
mod stream;

pub use client::connect;
pub use gate::Gate;
pub use stream::KcpStream;
