//! `cipherwall disconnect`: back to the network as it was.

use std::time::Duration;

use anyhow::bail;
use cipherwall_cli::{Failure, print, print_error};
use cipherwall_ipc::daemon::{Reply, Request};

use super::{Place, running};

/// Undoing all changes takes well under a second; a stuck name service may take longer.
const DISCONNECT_TIME: Duration = Duration::from_secs(60);

/// After this the person is told that something is going on.
const PATIENCE: Duration = Duration::from_secs(1);

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
    let mut reply = std::pin::pin!(reply);
    let reply = match tokio::time::timeout(PATIENCE, reply.as_mut()).await {
        Ok(reply) => reply,
        Err(_) => {
            print_error("disconnecting and putting the network settings back ...");
            reply.await
        }
    };
    match reply? {
        Reply::Done => print("disconnected"),
        Reply::Error { message } => bail!(message),
        Reply::Status(_) => bail!("the running process gave an answer that does not fit"),
    }
}
