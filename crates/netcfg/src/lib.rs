//! The host settings of client and gateway: addresses, routes, rules, DNS, packet filter, NAT,
//! forwarding.
//!
//! This is the only crate that changes the host. Its users (`cipherwall` and `cipherwall-server`)
//! say what they want as a whole ([`Wanted`]) and call [`Host::apply`], which may be called again
//! at any time; [`Host::reset`] undoes everything, and [`Host::recover`], called at every start and
//! by the `repair` commands, undoes what a process left behind that was killed. Each change is
//! written to a journal and synced to disk *before* it is made (requirements A10, A14, C2).
//!
//! `docs/network-changes.md` lists every change.

mod error;
mod journal;
mod policy;
mod report;
mod wanted;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(all(target_os = "linux", feature = "fuzz"))]
pub use linux::fuzz;

pub use error::Error;
#[cfg(target_os = "linux")]
pub use linux::{Guard, Host, NetworkPath, NetworkWatch, has_ipv6_uplink};
pub use policy::{Kept, Opening, Policy, Protocol};
pub use report::Report;
pub use wanted::{
    CONNECTIONS_EACH_DEFAULT, ClientNetwork, GatewayNetwork, MARK_DEFAULT, Role, TABLE_DEFAULT,
    Wanted, default_routes,
};
