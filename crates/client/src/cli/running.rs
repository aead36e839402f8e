//! Talking to the process that keeps the tunnel up.

use std::time::Duration;

use anyhow::bail;
use cipherwall_cli::{Failure, Paths, exit};
use cipherwall_ipc::daemon::{GROUP, Profile, Reply, Request, Status, socket_path};
use cipherwall_ipc::{BindError, ConnectError, Connection, Listener, ReceiveError};

use super::failure::{WithCode, coded};

/// How long a living process may take to answer.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A connection to the running process; `None` if none is running.
pub(super) async fn find(paths: &Paths) -> anyhow::Result<Option<Connection>> {
    match Connection::connect(&socket_path(&paths.run_dir)).await {
        Ok(connection) => Ok(Some(connection)),
        Err(ConnectError::NotRunning(_)) => Ok(None),
        Err(error @ ConnectError::NotPermitted(_)) => {
            let code = error.code();
            let why = format!(
                "{error}, or let root add you to the group {GROUP}: adduser NAME {GROUP}, and log \
                 in anew"
            );
            Err(Failure::new(code, why).into())
        }
        Err(error @ ConnectError::Io { .. }) => Err(coded(error)),
    }
}

/// The process that has to be there for this.
pub(super) async fn found(paths: &Paths) -> anyhow::Result<Connection> {
    find(paths).await?.ok_or_else(|| {
        Failure::not_reachable(
            "no cipherwall process is running: start the daemon with systemctl start cipherwall",
        )
        .into()
    })
}

/// The socket of this instance, so that no second one runs beside it.
pub(super) async fn become_the_only_one(paths: &Paths) -> anyhow::Result<Listener> {
    let bound = Listener::bind_for_group(&socket_path(&paths.run_dir), GROUP).await;
    bound.map_err(|error| {
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
    let reply = ask(connection, &Request::Status, ANSWER_TIME).await?;
    if let Reply::Status(status) = reply { Ok(status) } else { Err(misfit()) }
}

/// All profiles.
pub(super) async fn profiles(connection: &mut Connection) -> anyhow::Result<Vec<Profile>> {
    let reply = ask(connection, &Request::Profiles, ANSWER_TIME).await?;
    if let Reply::Profiles(profiles) = reply { Ok(profiles) } else { Err(misfit()) }
}

/// Asks for something that is done when the answer comes.
pub(super) async fn have_done(
    connection: &mut Connection,
    request: &Request,
    time: Duration,
) -> anyhow::Result<()> {
    let reply = ask(connection, request, time).await?;
    if reply == Reply::Done { Ok(()) } else { Err(misfit()) }
}

/// Sends one request and waits at most `time` for its answer; one that says that it failed is an
/// error, with the exit code that it names.
pub(super) async fn ask(
    connection: &mut Connection,
    request: &Request,
    time: Duration,
) -> anyhow::Result<Reply> {
    let exchange = async {
        // A refused peer's message may already wait while its own can no longer be sent.
        let sent = connection.send(request).await;
        match next(connection).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => {
                sent.map_err(anyhow::Error::new)?;
                bail!("the running process ended without an answer")
            }
            Err(error) => Err(error),
        }
    };
    tokio::time::timeout(time, exchange).await.unwrap_or_else(|_| {
        let seconds = time.as_secs();
        let why = format!(
            "the running process does not answer within {seconds} s: end it and run cipherwall \
             repair"
        );
        Err(Failure::not_reachable(why).into())
    })
}

/// The next answer; `None` when the process has ended.
pub(super) async fn next(connection: &mut Connection) -> anyhow::Result<Option<Reply>> {
    match connection.receive::<Reply>().await {
        Ok(Some(Reply::Error { message, code })) => {
            Err(Failure::new(if code == 0 { exit::FAILED } else { code }, message).into())
        }
        Ok(reply) => Ok(reply),
        Err(ReceiveError::Refused(why)) => Err(Failure::not_permitted(why).into()),
        Err(error) => Err(error.into()),
    }
}

/// The answer is not one to what was asked.
pub(super) fn misfit() -> anyhow::Error {
    anyhow::anyhow!(
        "the running process gave an answer that does not fit: restart it, after an update above all"
    )
}

/// What a front end of a later version is told.
pub(crate) fn unknown_request() -> Reply {
    Reply::Error {
        message:
            "the running process does not know this request: restart it after an update, with \
                  systemctl restart cipherwall"
                .to_owned(),
        code: exit::FAILED,
    }
}

/// Prints answers until the process ends, or whoever reads them has had enough.
pub(super) async fn follow(
    connection: &mut Connection,
    request: &Request,
    mut show: impl FnMut(Reply) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    show(ask(connection, request, ANSWER_TIME).await?)?;
    while let Some(reply) = next(connection).await? {
        show(reply)?;
    }
    Ok(())
}
