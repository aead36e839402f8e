//! Datagrams on real sockets, many with each system call.
//!
//! [`UdpSocket`] hands the kernel up to 64 datagrams of one length at once (GSO), which it cuts as
//! late as it can, and takes them in the same way (GRO, `recvmmsg`). An [`OutBatch`] is where
//! datagrams are laid out for that and sealed; [`Received`] holds what came, to be opened in place.

mod batch;
mod received;
mod socket;

#[cfg(test)]
mod tests;

pub use batch::OutBatch;
pub use received::{Datagram, Received};
pub use socket::{UdpSocket, is_too_long};
