//! Protocol bytes on real sockets.
//!
//! [`socket`] makes every socket that faces the outside. [`tls`] carries the opening of a
//! connection, record by record, and hands the TCP connection over once both ends have agreed on a
//! tunnel. [`tunnel`] moves packets over it from then on.

pub mod hardware;
pub mod socket;
pub mod tls;
pub mod tunnel;
