//! `cipherwall daemon`: the service that connects as front ends ask.

use cipherwall_cli::require_root;

use super::{Place, process};
use crate::daemon;

/// Run the service that keeps the tunnel up, for `connect` and the other commands to talk to
///
/// Prints the line `ready` once it does. Root and members of the group `cipherwall` may command it.
/// If it is killed or stopped while connected, traffic outside of the tunnel stays blocked; it
/// connects again by itself when it is started again.
#[derive(Debug, clap::Args)]
pub(super) struct Options {}

pub(super) async fn run(Options {}: Options, place: Place) -> anyhow::Result<()> {
    require_root("the daemon")?;
    let process = process::start(&place, false).await?;
    let ended = daemon::run(process.service, &place.paths.state_dir).await;
    process.front_ends.close(|| ()).await;
    ended
}
