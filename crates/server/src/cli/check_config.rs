//! `cipherwall-server check-config`: whether the gateway would take its configuration (A25).

use std::path::PathBuf;

use cipherwall_cli::print;

use super::Place;
use super::failure::coded;
use crate::config::Config;

/// Check the configuration file: prints `ok`, or what is wrong with file, line and key
///
/// A running gateway is not touched: it takes a changed file when it is restarted.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Another file than the gateway's
    file: Option<PathBuf>,
}

pub(super) fn run(options: &Options, place: &Place) -> anyhow::Result<()> {
    let path = options.file.as_ref().unwrap_or(&place.paths.config_path);
    Config::load(path).map_err(coded)?;
    print("ok")
}
