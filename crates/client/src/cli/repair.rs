//! `cipherwall repair`: the way out after a crash, without network and without a daemon.

use std::time::Duration;

use cipherwall_cli::{print, print_error, require_root};
use cipherwall_ipc::Connection;
use cipherwall_ipc::daemon::{Reply, Request};

use super::{Place, coded, running};
use crate::daemon;
use crate::engine::{Protection, STAYS_LOCKED};
use crate::settings::Settings;

/// As `disconnect`.
const REPAIR_TIME: Duration = Duration::from_secs(60);

/// Undo what a killed or crashed process left in this computer's network settings, and open what it
/// blocked
///
/// Needs neither a daemon nor the gateway. A running daemon disconnects. Lockdown stays on.
#[derive(Debug, clap::Args)]
pub(super) struct Options {}

pub(super) async fn run(Options {}: Options, place: &Place) -> anyhow::Result<()> {
    if let Some(connection) = running::find(&place.paths).await? {
        match by_process(connection).await {
            // it has just died
            Err(_) if running::find(&place.paths).await?.is_none() => {}
            done => return done,
        }
    }
    require_root("repairing the network settings")?;
    // Held until the end, so that no connection begins meanwhile.
    let _only_one = running::become_the_only_one(&place.paths).await?;
    let opened = Protection::open(&place.paths.state_dir).await.map_err(coded)?;
    let (mut protection, mut report) = opened;
    let allow_lan = Settings::load(&place.paths.config_path).is_ok_and(|it| it.allow_lan);
    let opened = protection.release(allow_lan).await?;
    report.undone.extend(opened.undone);
    report.warnings.extend(opened.warnings);
    daemon::forget_target(&place.paths.state_dir);
    if protection.is_lockdown() {
        report.warnings.push(STAYS_LOCKED.to_owned());
    }
    show(&report.undone, &report.warnings)
}

async fn by_process(mut connection: Connection) -> anyhow::Result<()> {
    let reply = running::ask(&mut connection, &Request::Repair, REPAIR_TIME).await?;
    let Reply::Repaired { undone, warnings } = reply else { return Err(running::misfit()) };
    show(&undone, &warnings)
}

fn show(undone: &[String], warnings: &[String]) -> anyhow::Result<()> {
    for warning in warnings {
        print_error(format_args!("warning: {warning}"));
    }
    if undone.is_empty() {
        return print("nothing to undo");
    }
    undone.iter().try_for_each(|undone| print(format_args!("undone: {undone}")))
}
