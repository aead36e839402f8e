//! Protocol bytes on real sockets.
//!
//! [`socket`] makes every socket that faces the outside, and [`resolver`] finds addresses with
//! them. A connection is a [`Carrier`]: [`tls`] carries its opening, record by record, and hands the
//! carrier over once both ends have agreed on a tunnel. [`tunnel`] moves packets over it from then on.
//! [`udp`] moves datagrams, [`datagram`] the packets of a session in them, and [`kcp`] what carries a
//! connection where TCP does not get through. [`echo`] asks whether
//! a machine is there at all.

mod carrier;

pub mod datagram;
pub mod echo;
pub mod hardware;
pub mod kcp;
pub mod resolver;
pub mod socket;
pub mod tls;
pub mod tunnel;
pub mod udp;

pub use carrier::Carrier;
