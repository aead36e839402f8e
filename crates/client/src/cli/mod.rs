//! The command line: one file per command, options defined there; here is what all share.

mod connect;
mod daemon;
mod disconnect;
mod doctor;
mod failure;
mod fixed;
mod generate;
mod import;
mod keygen;
mod keyring;
mod lockdown;
mod login;
mod logs;
mod portal;
mod process;
mod profile;
mod repair;
mod running;
mod settings;
mod speedtest;
mod ssh;
mod status;

use std::path::PathBuf;

use anyhow::Context;
use cipherwall_cli::{LogGuard, LogLevel, LogOptions, Paths, RecentLog};
use clap::{Parser, Subcommand};

use crate::profile::Profiles;

pub(crate) use failure::coded;
pub(crate) use running::unknown_request;

/// The CipherWall client
#[derive(Debug, Parser)]
#[command(name = "cipherwall", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not permitted, \
                          4 nothing running, 5 rejected by the gateway";

/// The options that every command takes, before or behind its name.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Common {
    /// Keep profiles, socket and settings in this directory instead of the system's
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Settings file [default: /etc/cipherwall/client.json]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    log: LogOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(import::Options),
    Connect(connect::Options),
    Disconnect(disconnect::Options),
    Status(status::Options),
    #[command(subcommand)]
    Lockdown(lockdown::Command),
    Portal(portal::Options),
    Doctor(doctor::Options),
    Speedtest(speedtest::Options),
    Login(login::Options),
    #[command(subcommand)]
    Profile(profile::Command),
    #[command(subcommand)]
    Settings(settings::Command),
    Logs(logs::Options),
    Daemon(daemon::Options),
    Static(fixed::Options),
    Keygen(keygen::Options),
    #[command(subcommand, hide = true)]
    Keyring(keyring::Command),
    Repair(repair::Options),
    Completions(generate::CompletionOptions),
    #[command(hide = true)]
    Man(generate::ManOptions),
}

/// A line of what is shown of one thing.
fn line(label: &str, value: &str) -> String {
    format!("{:12}{value}", format!("{label}:"))
}

/// Where a command finds things.
#[derive(Debug)]
struct Place {
    paths: Paths,
    profiles: Profiles,
    /// The last lines of this process's own log.
    log: RecentLog,
}

impl Cli {
    /// Carries out the command.
    ///
    /// # Errors
    /// For `cipherwall_cli::finish`, which shows them and picks the exit code.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let log = process::recent_log();
        let _log = self.start_log(&log)?;
        let Common { state_dir, config, log: _ } = &self.common;
        let paths = Paths::client(state_dir.as_deref(), config.as_deref());
        let place = Place { profiles: Profiles::new(&paths.state_dir), paths, log };
        // one thread: both directions together do not fill it before the network is full, and
        // waking a second one costs more than it brings
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the program")?;
        match self.command {
            Command::Import(options) => runtime.block_on(import::run(options, &place)),
            Command::Connect(options) => runtime.block_on(connect::run(options, place)),
            Command::Disconnect(options) => runtime.block_on(disconnect::run(options, &place)),
            Command::Status(options) => runtime.block_on(status::run(options, &place)),
            Command::Lockdown(command) => runtime.block_on(lockdown::run(command, &place)),
            Command::Portal(options) => runtime.block_on(portal::run(options, &place)),
            Command::Settings(command) => runtime.block_on(settings::run(command, &place)),
            Command::Logs(options) => runtime.block_on(logs::run(options, &place)),
            Command::Daemon(options) => runtime.block_on(daemon::run(options, place)),
            Command::Doctor(options) => runtime.block_on(doctor::run(options, &place)),
            Command::Speedtest(options) => runtime.block_on(speedtest::run(options, &place)),
            Command::Login(options) => runtime.block_on(login::run(options, &place)),
            Command::Profile(command) => runtime.block_on(profile::run(command, &place)),
            Command::Repair(options) => runtime.block_on(repair::run(options, &place)),
            Command::Static(options) => runtime.block_on(fixed::run(options, place)),
            Command::Keygen(options) => keygen::run(&options),
            Command::Keyring(command) => runtime.block_on(keyring::run(command)),
            Command::Completions(options) => generate::completions(&options),
            Command::Man(options) => generate::man(&options),
        }
    }

    fn start_log(&self, recent: &RecentLog) -> anyhow::Result<LogGuard> {
        let stays = matches!(&self.command, Command::Connect(options) if options.foreground)
            || matches!(self.command, Command::Static(_) | Command::Daemon(_));
        let level = if stays { LogLevel::Info } else { LogLevel::Warn };
        self.common.log.start_keeping(level, stays.then(|| recent.clone()))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_and_behind_the_command() {
        for line in [
            ["cipherwall", "--state-dir", "/a", "status", "--json"],
            ["cipherwall", "status", "--json", "--state-dir", "/a"],
        ] {
            let cli = Cli::try_parse_from(line).expect("good");
            assert_eq!(cli.common.state_dir, Some("/a".into()));
        }
    }
}
