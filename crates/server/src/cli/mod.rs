//! The command line: one file per command, options defined there; here is what all share.

mod cert;
mod check_config;
mod device;
mod failure;
mod fixed;
mod generate;
mod init;
mod invite;
mod keygen;
mod password;
mod place;
mod repair;
mod run;
mod session;
mod status;
mod table;
mod user;

use std::num::NonZero;
use std::path::PathBuf;

use anyhow::Context;
use cipherwall_cli::{LogLevel, LogOptions, Paths};
use clap::{Parser, Subcommand};

use place::Place;

/// The CipherWall gateway
#[derive(Debug, Parser)]
#[command(name = "cipherwall-server", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not permitted, \
                          4 gateway does not answer";

/// The options that every command takes, before or behind its name.
#[derive(Debug, clap::Args)]
struct Common {
    /// Keep configuration, keys, database and socket in this directory instead of the system's
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Configuration file [default: /etc/cipherwall/server.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    log: LogOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Options),
    Run(run::Options),
    #[command(subcommand)]
    User(user::Command),
    #[command(subcommand)]
    Device(device::Command),
    #[command(subcommand)]
    Invite(invite::Command),
    #[command(subcommand)]
    Session(session::Command),
    Status(status::Options),
    #[command(subcommand)]
    Cert(cert::Command),
    CheckConfig(check_config::Options),
    Static(fixed::Options),
    Keygen(keygen::Options),
    Repair(repair::Options),
    #[command(subcommand, hide = true)]
    Completions(generate::Shell),
    #[command(hide = true)]
    Man(generate::ManOptions),
}

impl Cli {
    /// Carries out the command.
    ///
    /// # Errors
    /// For `cipherwall_cli::finish`, which shows them and picks the exit code.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Common { state_dir, config, log } = self.common;
        let place = Place::new(Paths::server(state_dir.as_deref(), config.as_deref()));
        // Its configuration says how it logs.
        if let Command::Run(options) = self.command {
            return runtime()?.block_on(run::run(options, place, log));
        }
        let stays = matches!(self.command, Command::Static(_));
        let _log = log.start(if stays { LogLevel::Info } else { LogLevel::Warn })?;
        match self.command {
            Command::Init(options) => runtime()?.block_on(init::run(options, &place)),
            Command::User(command) => runtime()?.block_on(user::run(command, &place)),
            Command::Device(command) => runtime()?.block_on(device::run(command, &place)),
            Command::Invite(command) => runtime()?.block_on(invite::run(command, &place)),
            Command::Session(command) => runtime()?.block_on(session::run(command, &place)),
            Command::Status(options) => runtime()?.block_on(status::run(options, &place)),
            Command::Repair(options) => runtime()?.block_on(repair::run(options, &place)),
            Command::Cert(command) => runtime()?.block_on(cert::run(command, &place)),
            Command::Static(options) => runtime()?.block_on(fixed::run(options, &place)),
            Command::Keygen(options) => keygen::run(&options),
            Command::CheckConfig(options) => check_config::run(&options, &place),
            Command::Completions(shell) => generate::completions(shell),
            Command::Man(options) => generate::man(&options),
            Command::Run(_) => Ok(()),
        }
    }
}

/// Half of the processors for our own half of the work: the kernel's half, packets on their way
/// between devices and sockets, needs the others (docs/benchmarks.md).
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((processors / 2).max(1))
        .enable_all()
        .build()
        .context("cannot start the program")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
