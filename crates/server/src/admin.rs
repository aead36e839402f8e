//! What the administrator's commands ask, and the one place that does it: [`execute()`]. With a
//! running gateway the commands reach it over a root-only socket ([`ask`] to [`serve`]), so that
//! the answer holds what only the gateway knows; without one they open the database themselves.

mod execute;
mod messages;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use cipherwall_ipc::{Connection, Listener};

use crate::accounts::Accounts;

pub use execute::{Live, execute};
pub use messages::{
    AdminReply, AdminRequest, Drops, LiveSession, LiveStatus, SessionInfo, StatusInfo, Strangers,
};

/// So many rows go into one message, which the socket bounds at 64 KiB.
const ROWS_PER_MESSAGE: usize = 64;

/// The administration socket of the gateway that runs with this run directory.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("server.sock")
}

/// Answers the administrator's commands until the gateway ends. A task of the gateway's.
pub async fn serve(listener: Listener, accounts: Accounts, live: Arc<dyn Live>) {
    loop {
        match listener.accept().await {
            Ok(connection) => {
                let (accounts, live) = (accounts.clone(), Arc::clone(&live));
                tokio::spawn(async move {
                    if let Err(error) = answer(connection, &accounts, &*live).await {
                        tracing::warn!("administration socket: {error:#}");
                    }
                });
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!("administration socket: {error:#}");
                // Too many open files, most likely; they do not go away at once.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Asks a running gateway.
///
/// # Errors
/// The connection breaks.
pub async fn ask(mut connection: Connection, request: &AdminRequest) -> anyhow::Result<AdminReply> {
    connection.send(request).await.context("cannot ask the running gateway")?;
    let mut parts = Vec::new();
    loop {
        let reply: Option<AdminReply> =
            connection.receive().await.context("no answer from the running gateway")?;
        let reply = reply.context("the gateway ended before it answered; see its log")?;
        let AdminReply::Part(part) = reply else {
            return Ok(parts.into_iter().rev().fold(reply, join));
        };
        parts.push(*part);
    }
}

/// Unix seconds of the system's clock.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn answer(
    mut connection: Connection,
    accounts: &Accounts,
    live: &dyn Live,
) -> anyhow::Result<()> {
    while let Some(request) = connection.receive().await? {
        for message in split(execute(request, accounts, Some(live)).await) {
            connection.send(&message).await?;
        }
    }
    Ok(())
}

/// A reply as messages short enough for the socket.
fn split(reply: AdminReply) -> Vec<AdminReply> {
    fn parts<T: Clone>(rows: &[T], reply: impl Fn(Vec<T>) -> AdminReply) -> Vec<AdminReply> {
        let mut chunks: Vec<_> =
            rows.chunks(ROWS_PER_MESSAGE).map(|chunk| reply(chunk.to_vec())).collect();
        let last = chunks.pop().unwrap_or_else(|| reply(Vec::new()));
        let part = |reply| AdminReply::Part(Box::new(reply));
        chunks.into_iter().map(part).chain([last]).collect()
    }
    match reply {
        AdminReply::Users(users) => parts(&users, AdminReply::Users),
        AdminReply::Devices(devices) => parts(&devices, AdminReply::Devices),
        AdminReply::Invitations(invitations) => parts(&invitations, AdminReply::Invitations),
        AdminReply::Sessions(sessions) => parts(&sessions, AdminReply::Sessions),
        AdminReply::Done { .. }
        | AdminReply::Invited(_)
        | AdminReply::Certificate(_)
        | AdminReply::Status(_)
        | AdminReply::Failed { .. }
        | AdminReply::Part(_) => vec![reply],
    }
}

/// Undoes [`split`]: puts an earlier part in front. A failure after a part is a failure.
fn join(later: AdminReply, earlier: AdminReply) -> AdminReply {
    fn joined<T>(mut earlier: Vec<T>, later: Vec<T>) -> Vec<T> {
        earlier.extend(later);
        earlier
    }
    match (later, earlier) {
        (AdminReply::Users(b), AdminReply::Users(a)) => AdminReply::Users(joined(a, b)),
        (AdminReply::Devices(b), AdminReply::Devices(a)) => AdminReply::Devices(joined(a, b)),
        (AdminReply::Invitations(b), AdminReply::Invitations(a)) => {
            AdminReply::Invitations(joined(a, b))
        }
        (AdminReply::Sessions(b), AdminReply::Sessions(a)) => AdminReply::Sessions(joined(a, b)),
        (later, _) => later,
    }
}

#[cfg(test)]
mod tests;
