//! Talking to the process that keeps the tunnel up.

use std::time::Duration;

use anyhow::bail;
use cipherwall_cli::{Failure, Paths, exit};
use cipherwall_ipc::daemon::{Reply, Request, Status, socket_path};
use cipherwall_ipc::{BindError, ConnectError, Connection, Listener, ReceiveError};

use super::failure::{WithCode, coded};

/// How long a living process may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A connection to the running process; `None` if none is running.
pub(super) async fn find(paths: &Paths) -> anyhow::Result<Option<Connection>> {
    match Connection::connect(&socket_path(&paths.run_dir)).await {
        Ok(connection) => Ok(Some(connection)),
        Err(ConnectError::NotRunning(_)) => Ok(None),
        Err(error) => Err(coded(error)),
    }
}

/// The socket of this instance, so that no second one runs beside it.
pub(super) async fn become_the_only_one(paths: &Paths) -> anyhow::Result<Listener> {
    Listener::bind(&socket_path(&paths.run_dir)).await.map_err(|error| {
        let remedy = if matches!(error, BindError::InUse(_)) {
            "; end it first with: cipherwall disconnect"
        } else {
            ""
        };
        Failure::new(error.code(), format!("{:#}{remedy}", anyhow::Error::new(error))).into()
    })
}

/// How things are.
pub(super) async fn status(connection: &mut Connection) -> anyhow::Result<Status> {
    match ask(connection, &Request::Status, ANSWER_TIME).await? {
        Reply::Status(status) => Ok(status),
        Reply::Error { message } => bail!(message),
        Reply::Done => bail!("the running process gave an answer that does not fit"),
    }
}

/// Sends one request and waits at most `time` for its answer.
pub(super) async fn ask(
    connection: &mut Connection,
    request: &Request,
    time: Duration,
) -> anyhow::Result<Reply> {
    let exchange = async {
        // A refused peer's message may already wait while its own can no longer be sent.
        let sent = connection.send(request).await;
        match connection.receive::<Reply>().await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => {
                sent.map_err(anyhow::Error::new)?;
                bail!("the running process ended without an answer")
            }
            Err(ReceiveError::Refused(why)) => Err(Failure::not_permitted(why).into()),
            Err(error) => Err(error.into()),
        }
    };
    match tokio::time::timeout(time, exchange).await {
        Ok(answer) => answer,
        Err(_) => {
            let seconds = time.as_secs();
            Err(Failure::new(
                exit::NOT_REACHABLE,
                format!("the running process does not answer within {seconds} s: end it and run cipherwall repair"),
            )
            .into())
        }
    }
}
