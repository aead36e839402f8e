//! `cipherwall-server run`: the gateway itself.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context;
use cipherwall_cli::{LogFormat, LogLevel, LogOptions, require_root};
use cipherwall_ipc::{BindError, Listener};

use super::Place;
use super::failure::coded;
use crate::gateway::Ended;
use crate::{admin, config, gateway};

/// Run the gateway in the foreground
///
/// Prints the line `ready` once it accepts clients. Ends on SIGTERM or SIGINT, and undoes what it
/// changed on this host. On SIGHUP it starts anew, with the configuration and the program as they are
/// then; clients come back at once, and their connections survive.
#[derive(Debug, clap::Args)]
pub(super) struct Options {}

pub(super) async fn run(Options {}: Options, place: Place, log: LogOptions) -> anyhow::Result<()> {
    let config = place.config()?;
    let _log = with_configured(log, &config.log).start(level(config.log.level))?;
    require_root("running the gateway")?;
    let socket_path = admin::socket_path(&place.paths.run_dir);
    let admin = match Listener::bind(&socket_path).await {
        Ok(listener) => listener,
        Err(error @ BindError::InUse(_)) => {
            return Err(coded(error)).context("end that gateway first, or use another --state-dir");
        }
        Err(error @ (BindError::NotPermitted(_) | BindError::Io { .. })) => {
            return Err(coded(error));
        }
    };
    let identity = place.identity(&config)?;
    let accounts = place.accounts(&config).await?;
    let ended = gateway::run(config, place.paths, identity, accounts.clone(), admin).await;
    accounts.close().await;
    match ended? {
        Ended::Stopped => Ok(()),
        Ended::Reload => start_anew(),
    }
}

/// Becomes a new process of the same command line.
fn start_anew() -> anyhow::Result<()> {
    let mut words = std::env::args_os();
    // by its name, so that it is the new program after an update
    let program = words.next().context("this program does not know its own name")?;
    let error = Command::new(&program).args(words).exec();
    Err(error).with_context(|| format!("cannot start {} anew", program.display()))
}

/// The command line's options come before the configuration's.
fn with_configured(mut options: LogOptions, log: &config::Log) -> LogOptions {
    options.log_format.get_or_insert(match log.format {
        config::LogFormat::Text => LogFormat::Text,
        config::LogFormat::Json => LogFormat::Json,
    });
    options.log_file = options.log_file.or_else(|| log.file.clone());
    options
}

fn level(level: config::LogLevel) -> LogLevel {
    match level {
        config::LogLevel::Off => LogLevel::Off,
        config::LogLevel::Error => LogLevel::Error,
        config::LogLevel::Warn => LogLevel::Warn,
        config::LogLevel::Info => LogLevel::Info,
        config::LogLevel::Debug => LogLevel::Debug,
        config::LogLevel::Trace => LogLevel::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_comes_before_the_configuration() {
        let json = config::Log { format: config::LogFormat::Json, ..config::Log::default() };
        let format = |given| {
            let options = LogOptions { log_format: given, ..LogOptions::default() };
            with_configured(options, &json).log_format
        };
        assert_eq!(format(Some(LogFormat::Text)), Some(LogFormat::Text));
        assert_eq!(format(None), Some(LogFormat::Json));
    }
}
