//! HTTP/2 as nginx speaks it.
//!
//! ```text
//!  frames    bytes in, frames out of them, as much as is there
//!  inbound   what each frame does; head: a request's fields
//!  outbound  answers, cut into frames and held back by windows
//!  session   the connection: what waits for what
//! ```

mod code;
mod frames;
mod head;
mod hpack;
mod inbound;
mod outbound;
mod session;

pub(super) use session::serve;

#[cfg(test)]
#[path = "../../../../../fuzz/bodies/http2.rs"]
mod body;

#[cfg(test)]
mod tests;
