//! Protocol bytes on real sockets.
//!
//! [`socket`] makes every socket that faces the outside, and [`resolver`] finds addresses with
//! them. [`tls`] carries the opening of a connection, record by record, and hands the TCP connection
//! over once both ends have agreed on a tunnel. [`tunnel`] moves packets over it from then on.
//! [`udp`] moves datagrams, and [`datagram`] the packets of a session in them. [`echo`] asks whether
//! a machine is there at all.

pub mod datagram;
pub mod echo;
pub mod hardware;
pub mod resolver;
pub mod socket;
pub mod tls;
pub mod tunnel;
pub mod udp;
