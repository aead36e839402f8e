//! `cipherwall repair`: the way out after a crash, without network and without a daemon.

use cipherwall_cli::{print, print_error, require_root};
use cipherwall_netcfg::{Host, Role};

use super::failure::coded;
use super::{Place, running};

/// Undo what a killed or crashed process left in this computer's network settings
///
/// Needs neither a daemon nor the gateway. Refused while a process is running.
#[derive(Debug, clap::Args)]
pub(super) struct Options {}

pub(super) async fn run(Options {}: Options, place: &Place) -> anyhow::Result<()> {
    require_root("repairing the network settings")?;
    // Held until the end, so that no connection begins meanwhile.
    let _only_one = running::become_the_only_one(&place.paths).await?;
    let mut host = Host::open(&place.paths.state_dir, Role::Client).await.map_err(coded)?;
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
