//! `cipherwall`: the command line of the client, and the process that keeps the tunnel up
//! (`connect --foreground`).

mod cli;
mod dial;
mod engine;
mod files;
mod profile;
mod progress;
mod secret;
mod settings;
mod state;
mod static_mode;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cipherwall_cli::finish(cli::Cli::parse().run())
}
