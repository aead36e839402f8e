//! Answers front ends: the command line, later the desktop client.

use std::time::Duration;

use cipherwall_ipc::{
    Connection, Listener,
    daemon::{Reply, Request},
};
use tokio::{sync::mpsc, task::JoinSet};

use super::Live;

/// Pause after a failing accept: too many open files, most likely.
const PAUSE: Duration = Duration::from_millis(200);

/// A front end that has asked to disconnect and waits for the end of it.
pub(crate) struct Asked(Connection);

impl Asked {
    /// Tells it how it went.
    pub(crate) async fn answer(mut self, ended: &anyhow::Result<()>) {
        let reply = match ended {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Error { message: format!("{error:#}") },
        };
        if let Err(error) = self.0.send(&reply).await {
            tracing::debug!(%error, "a front end did not wait for the end");
        }
    }
}

/// Accepts front ends until aborted, which gives the socket up.
pub(crate) async fn serve(listener: Listener, live: Live, disconnect: mpsc::Sender<Asked>) {
    // dropped with this task, and all front ends with it
    let mut front_ends = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok(connection) => {
                front_ends.spawn(converse(connection, live.clone(), disconnect.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a front end");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while front_ends.try_join_next().is_some() {}
    }
}

async fn converse(mut connection: Connection, live: Live, disconnect: mpsc::Sender<Asked>) {
    loop {
        let sent = match connection.receive().await {
            Ok(Some(Request::Status)) => connection.send(&Reply::Status(live.status())).await,
            Ok(Some(Request::Disconnect)) => {
                // answered by the engine, once all is undone
                let _ = disconnect.send(Asked(connection)).await;
                return;
            }
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "a front end was cut off"),
        };
        if let Err(error) = sent {
            return tracing::debug!(%error, "a front end was cut off");
        }
    }
}
