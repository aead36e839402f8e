//! `cipherwall-server check-config`: whether the gateway would take its configuration (A25).

use std::path::PathBuf;

use cipherwall_cli::{print, print_error};

use super::Place;
use super::failure::coded;
use crate::config::Config;
use crate::limits;

/// Check the configuration file: prints `ok`, or what is wrong with file, line and key
///
/// Settings of this host's kernel that make the gateway easy to keep busy are hinted at on standard
/// error.
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
    for hint in limits::kernel_hints() {
        print_error(format!("hint: {hint}"));
    }
    print("ok")
}
