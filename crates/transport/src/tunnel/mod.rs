//! Packets over the connection of a tunnel.
//!
//! A [`Sender`] takes packets from anywhere and sends them in batches; a [`Link`] receives, keeps
//! the path alive and finishes what a sender could not send at once. Buffers belong to a
//! connection only while it has something in them (`pool`).

mod beside;
mod link;
mod pace;
mod pool;
mod sender;

pub use link::{Link, LinkError, Start};
pub use sender::{Flushed, SendError, Sender, Taken};
