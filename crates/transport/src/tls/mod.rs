//! TLS 1.3 for the opening of a connection (A1, C9; docs/protocol.md, "TLS").
//!
//! The byte stream is cut into TLS records here, and the TLS library is given one whole record at
//! a time, so that it never swallows bytes behind the switch to the tunnel.

mod config;
mod pin;
mod stream;

pub use config::{Agreed, ClientConfig, ServerConfig};
pub use pin::{Pin, spki_pin};
pub use stream::{TlsError, TlsStream};
