//! `cipherwall`: the command line of the client, and the process that keeps the tunnel up (`daemon`,
//! or `connect --foreground`).

mod cli;
mod daemon;
mod dial;
mod doctor;
mod engine;
mod files;
mod keyring;
mod profile;
mod progress;
mod secret;
mod settings;
mod split;
mod state;
mod static_mode;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cipherwall_cli::finish(cli::Cli::parse().run())
}
