//! IP packets as the tunnel sees them: parsing, checksums and segmentation offload.
//!
//! Pure: bytes in, bytes or verdicts out, no I/O. Nothing here panics on any input, because the
//! packets come from peers. `tun` uses it to hand packets to the kernel, gateway and client to
//! judge what a peer sent.

pub mod checksum;
pub mod ip;
pub mod offload;
