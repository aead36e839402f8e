//! `cipherwall disconnect`: back to the network as it was.

use std::time::Duration;

use cipherwall_cli::{Failure, print};
use cipherwall_ipc::daemon::Request;

use super::{Place, running};
use crate::{engine, progress};

/// Undoing all changes takes well under a second; a stuck name service may take longer.
const DISCONNECT_TIME: Duration = Duration::from_secs(60);

/// Disconnect and put this computer's network settings back
///
/// Returns when that is done. In lockdown, traffic stays blocked. Exit code 4 if nothing is running.
#[derive(Debug, clap::Args)]
pub(super) struct Options {}

pub(super) async fn run(Options {}: Options, place: &Place) -> anyhow::Result<()> {
    let Some(mut connection) = running::find(&place.paths).await? else {
        return Err(Failure::not_reachable(
            "not connected: no cipherwall process is running; if traffic is blocked, open it with: \
             cipherwall repair",
        )
        .into());
    };
    let locked = running::status(&mut connection).await?.lockdown;
    let disconnect = running::have_done(&mut connection, &Request::Disconnect, DISCONNECT_TIME);
    progress::tell("disconnecting and putting the network settings back", disconnect).await?;
    print("disconnected")?;
    if locked {
        print(engine::STAYS_LOCKED)?;
    }
    Ok(())
}
