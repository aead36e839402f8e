//! A blocked or bad transport is never the end (C6, A20, A23): whatever the network lets through, the
//! client finds a way, traffic goes on over it, and it comes back to the best way when it can.

mod faults;
mod gateways;
mod quiet;
mod scene;
