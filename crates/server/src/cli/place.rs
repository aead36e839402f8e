//! Where a command finds things, and how it reaches the accounts: through the running gateway,
//! else in the database itself.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use cipherwall_cli::{Failure, Paths};
use cipherwall_ipc::{ConnectError, Connection};

use super::failure::coded;
use crate::accounts::Accounts;
use crate::admin::{self, AdminReply, AdminRequest};
use crate::config::Config;
use crate::identity::Identity;

/// How long a living gateway may take to answer; Argon2 may have a queue.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Where a command finds things.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) paths: Paths,
}

impl Place {
    pub(super) fn new(paths: Paths) -> Place {
        Place { paths }
    }

    pub(super) fn database_path(&self) -> PathBuf {
        self.paths.state_dir.join("server.db")
    }

    /// The configuration; an error says what to run if there is none yet.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        Config::load(&self.paths.config_path).map_err(coded)
    }

    pub(super) fn identity(&self, config: &Config) -> anyhow::Result<Identity> {
        let identity = Identity::load(&self.paths.state_dir, &config.endpoint.host);
        let with_files = |identity: Identity| identity.with_files(config.certificate.as_ref());
        identity.and_then(with_files).map_err(coded)
    }

    /// The accounts in a database that is there already: an empty new one in place of a lost one
    /// would shut everybody out without a word.
    pub(super) async fn accounts(&self, config: &Config) -> anyhow::Result<Accounts> {
        let path = self.database_path();
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "{} is missing; restore it from a backup, or run `cipherwall-server init \
                 --endpoint {}` for an empty one (clients then need new invitations)",
                path.display(),
                config.endpoint,
            ),
            Ok(_) | Err(_) => Accounts::open(&path, config.networks.0).await.map_err(coded),
        }
    }

    /// Has a change made; returns the user's normalised name and how many sessions ended by it.
    pub(super) async fn change(&self, request: AdminRequest) -> anyhow::Result<(String, u64)> {
        let AdminReply::Done { user, sessions } = self.ask(request).await? else {
            return unexpected();
        };
        Ok((user, sessions))
    }

    /// Has a request carried out, wherever that is possible at the moment.
    pub(super) async fn ask(&self, request: AdminRequest) -> anyhow::Result<AdminReply> {
        let config = self.config()?;
        let reply = match self.running().await? {
            Some(gateway) => ask_gateway(gateway, &request).await?,
            None => {
                let accounts = self.accounts(&config).await?;
                let reply = admin::execute(request, &accounts, None).await;
                accounts.close().await;
                reply
            }
        };
        match reply {
            AdminReply::Failed { message } => bail!(message),
            reply @ (AdminReply::Done { .. }
            | AdminReply::Users(_)
            | AdminReply::Devices(_)
            | AdminReply::Invitations(_)
            | AdminReply::Invited(_)
            | AdminReply::Certificate(_)
            | AdminReply::Sessions(_)
            | AdminReply::Status(_)
            | AdminReply::Part(_)) => Ok(reply),
        }
    }

    /// The running gateway; `None` if none runs here.
    pub(super) async fn running(&self) -> anyhow::Result<Option<Connection>> {
        match Connection::connect(&admin::socket_path(&self.paths.run_dir)).await {
            Ok(connection) => Ok(Some(connection)),
            Err(ConnectError::NotRunning(_)) => Ok(None),
            Err(error) => Err(coded(error)),
        }
    }
}

/// For an answer that belongs to another question.
pub(super) fn unexpected<T>() -> anyhow::Result<T> {
    bail!("the running gateway gave an answer that does not fit; restart it after an upgrade")
}

pub(super) async fn ask_gateway(
    gateway: Connection,
    request: &AdminRequest,
) -> anyhow::Result<AdminReply> {
    match tokio::time::timeout(ANSWER_TIME, admin::ask(gateway, request)).await {
        Ok(reply) => reply,
        Err(_) => Err(Failure::not_reachable(format!(
            "the running gateway does not answer within {} s; restart it",
            ANSWER_TIME.as_secs()
        ))
        .into()),
    }
}
