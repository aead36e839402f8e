//! `cipherwall disconnect`: back to the network as it was.

use std::time::Duration;

use anyhow::bail;
use cipherwall_cli::{Failure, print};
use cipherwall_ipc::daemon::{Reply, Request};

use super::{Place, running};
use crate::progress;

/// Undoing all changes takes well under a second; a stuck name service may take longer.
const DISCONNECT_TIME: Duration = Duration::from_secs(60);

/// Disconnect and put this computer's network settings back
///
/// Returns when that is done. Exit code 4 if nothing is running.
#[derive(Debug, clap::Args)]
pub(super) struct Options {}

pub(super) async fn run(Options {}: Options, place: &Place) -> anyhow::Result<()> {
    let Some(mut connection) = running::find(&place.paths).await? else {
        return Err(
            Failure::not_reachable("not connected: no cipherwall process is running").into()
        );
    };
    let reply = running::ask(&mut connection, &Request::Disconnect, DISCONNECT_TIME);
    match progress::tell("disconnecting and putting the network settings back", reply).await? {
        Reply::Done => print("disconnected"),
        Reply::Error { message } => bail!(message),
        Reply::Status(_) => bail!("the running process gave an answer that does not fit"),
    }
}
