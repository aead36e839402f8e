//! Static mode (B1, B2, B4, B7), what both programs have in common of it: the key file, the state
//! that outlives a process, and the packets between TUN device and socket.
//!
//! The protocol is `cipherwall_proto::datagram::static_mode`. The programs make the TUN device and
//! the socket, and have `netcfg` set the host up; [`Tunnel::start`] does the rest.

mod inward;
mod key_file;
mod network;
mod outward;
mod state_file;
mod tunnel;

pub use key_file::{KeyFileError, create_key_file, load_key_file};
pub use network::{Network, NetworkError};
pub use state_file::{StateFile, StateFileError};
pub use tunnel::{Live, Running, Tunnel};
