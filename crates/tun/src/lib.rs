//! TUN devices: whole IP packets in and out of the kernel, with segmentation offload.
//!
//! Used by client and gateway on the inside of the tunnel. A device lives as long as its
//! [`Device`]; addresses, MTU and routes are `netcfg`'s business.

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod platform;

pub use platform::{Device, OpenError};

/// Longest packet that a device reads or writes, in bytes. Buffers for reading need
/// `cipherwall_packet::offload::HEADER_LEN` more.
pub const MAX_PACKET_LEN: usize = 65_535;

/// What the kernel's side of a device does by itself, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums and TCP segmentation over IPv4 and IPv6.
    pub tcp: bool,
    /// UDP segmentation (Linux 6.2 and later).
    pub udp: bool,
}
