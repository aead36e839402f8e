//! The CipherWall gateway: `cipherwall-server`.
//!
//! [`cli`] holds the commands. `run` starts [`gateway`]; the others act on the accounts by way of
//! [`admin`], or on files ([`config`], [`identity`]).

use std::process::ExitCode;

use clap::Parser;

pub mod accounts;
pub mod admin;
mod cli;
pub mod config;
mod datagrams;
pub mod dns;
pub mod gateway;
pub mod identity;
mod kcp;
pub mod limits;
pub mod listener;
pub mod lobby;
pub mod metrics;
pub mod origin;
pub mod places;
pub mod pool;
pub mod quiet;
#[cfg(test)]
#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;
pub mod router;
pub mod session;
pub mod sessions;
pub mod site;
pub mod static_mode;
pub mod store;
pub mod visitor;

/// Gives memory back to the system after a crowd of connections has gone; the C library's does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cipherwall_cli::finish(cli::Cli::parse().run())
}
