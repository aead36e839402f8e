//! Protocol bytes on real sockets.
//!
//! [`socket`] makes every socket that faces the outside. [`tls`] carries the opening of a
//! connection, record by record, and hands the TCP connection over once both ends have agreed on a
//! tunnel. [`tunnel`] moves packets over it from then on. [`udp`] moves datagrams, and [`datagram`]
//! the packets of a session in them.

pub mod datagram;
pub mod hardware;
pub mod socket;
pub mod tls;
pub mod tunnel;
pub mod udp;
