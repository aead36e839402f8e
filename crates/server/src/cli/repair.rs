//! `cipherwall-server repair`: the way out after a crash.

use cipherwall_cli::{print, print_error, require_root};
use cipherwall_netcfg::{Host, Role};

use super::Place;
use super::failure::coded;

/// Undo what a killed or crashed gateway left in this host's network settings
///
/// Needs neither configuration nor database. Refused while the gateway runs. `run` does the same
/// when it starts.
#[derive(Debug, clap::Args)]
pub(super) struct Options {}

pub(super) async fn run(Options {}: Options, place: &Place) -> anyhow::Result<()> {
    require_root("repairing the network settings")?;
    let mut host = Host::open(&place.paths.state_dir, Role::Gateway).await.map_err(coded)?;
    let report = host.recover().await.map_err(coded)?;
    for warning in &report.warnings {
        print_error(format_args!("warning: {warning}"));
    }
    if report.undone.is_empty() {
        return print("nothing to undo");
    }
    for undone in &report.undone {
        print(format_args!("undone: {undone}"))?;
    }
    Ok(())
}
