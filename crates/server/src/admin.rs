//! What the administrator's commands ask, and the one place that does it: [`execute`]. With a
//! running gateway the commands reach it over a root-only socket ([`ask`] to [`serve`]), so that
//! the answer holds what only the gateway knows; without one they open the database themselves.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use cipherwall_ipc::{Connection, Listener};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::accounts::{Accounts, Invited, UserInfo};
use crate::store::sessions::OpenSession;

/// So many rows go into one message, which the socket bounds at 64 KiB.
const ROWS_PER_MESSAGE: usize = 64;

/// The administration socket of the gateway that runs with this run directory.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("server.sock")
}

/// What a command wants.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminRequest {
    /// A new user.
    UserAdd {
        /// As typed.
        name: String,
        /// None: enters by invitation only.
        password: Option<Zeroizing<String>>,
    },
    /// All users.
    UserList,
    /// An invitation for a user, who is made if missing.
    InviteCreate {
        /// As typed.
        name: String,
        /// How long it can be used first, in seconds.
        lifetime_s: u64,
    },
    /// All open sessions.
    SessionList,
    /// How the gateway is.
    Status,
}

/// The answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminReply {
    /// To [`AdminRequest::UserAdd`].
    UserAdded {
        /// Normalised.
        name: String,
    },
    /// To [`AdminRequest::UserList`].
    Users(Vec<UserInfo>),
    /// To [`AdminRequest::InviteCreate`].
    Invited(Invited),
    /// To [`AdminRequest::SessionList`].
    Sessions(Vec<SessionInfo>),
    /// To [`AdminRequest::Status`].
    Status(StatusInfo),
    /// It could not be done.
    Failed {
        /// Why, and what to do about it.
        message: String,
    },
    /// The rows of the list so far, with more to come. Only on the socket.
    Part(Box<AdminReply>),
}

/// A session, as the administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// 32 hexadecimal digits.
    pub id: String,
    /// User name.
    pub user: String,
    /// Device name.
    pub device: String,
    /// Inside address.
    pub inner_v4: Option<Ipv4Addr>,
    /// Inside IPv6 address.
    pub inner_v6: Option<Ipv6Addr>,
    /// Unix s.
    pub opened: u64,
    /// What only a running gateway knows; none: the client is away, and may come back.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveSession>,
}

/// The state of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusInfo {
    /// Whether a gateway runs here.
    pub running: bool,
    /// Of the program that answers.
    pub version: String,
    /// Number of users.
    pub users: u64,
    /// Number of devices of all users.
    pub devices: u64,
    /// Inside networks, with the gateway's address.
    pub networks: Vec<ipnet::IpNet>,
    /// How many clients they hold.
    pub pool_size: u64,
    /// What only a running gateway knows.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveStatus>,
}

/// What the gateway knows of itself since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveStatus {
    /// Start, Unix s.
    pub since: u64,
    /// Connected clients.
    pub sessions: u64,
    /// Inner bytes from clients.
    pub rx_bytes: u64,
    /// Inner bytes to clients.
    pub tx_bytes: u64,
    /// Inner packets that were not passed on.
    pub drops: Drops,
}

/// Dropped inner packets by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// From a client, but not from the address that it was given.
    pub spoofed_source: u64,
    /// From one client to another.
    pub client_to_client: u64,
    /// No IP packet, or an offload header that does not fit it.
    pub malformed: u64,
    /// To an inside address that nobody has at the moment.
    pub no_session: u64,
    /// To a client whose connection is slower than what arrives for it.
    pub congested: u64,
}

/// What the gateway knows of a connected session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSession {
    /// Where the client comes from.
    pub peer: SocketAddr,
    /// What carries the session.
    pub transport: String,
    /// What encrypts it.
    pub cipher: String,
    /// Start of this connection, Unix s.
    pub since: u64,
    /// Inner bytes from the client.
    pub rx_bytes: u64,
    /// Inner bytes to the client.
    pub tx_bytes: u64,
}

/// A running gateway. Implemented by it alone; where there is none, `None` stands in its place.
pub trait Live: Send + Sync {
    /// Counters and the like.
    fn status(&self) -> LiveStatus;
    /// Connected sessions by session id.
    fn sessions(&self) -> HashMap<[u8; 16], LiveSession>;
}

/// Does what a command wants.
pub async fn execute(
    request: AdminRequest,
    accounts: &Accounts,
    live: Option<&dyn Live>,
) -> AdminReply {
    try_execute(request, accounts, live, unix_now())
        .await
        .unwrap_or_else(|error| AdminReply::Failed { message: format!("{error:#}") })
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

async fn try_execute(
    request: AdminRequest,
    accounts: &Accounts,
    live: Option<&dyn Live>,
    now: u64,
) -> anyhow::Result<AdminReply> {
    Ok(match request {
        AdminRequest::UserAdd { name, password } => {
            let password = password.as_ref().map(|password| password.as_str());
            AdminReply::UserAdded { name: accounts.add_user(&name, password, now).await? }
        }
        AdminRequest::UserList => AdminReply::Users(accounts.list_users().await?),
        AdminRequest::InviteCreate { name, lifetime_s } => {
            AdminReply::Invited(accounts.invite(&name, lifetime_s, now).await?)
        }
        AdminRequest::SessionList => {
            let connected = live.map(Live::sessions).unwrap_or_default();
            let known = accounts.open_sessions(now).await?;
            let pool = accounts.pool();
            let info = |session: OpenSession| SessionInfo {
                id: session.id.iter().map(|byte| format!("{byte:02x}")).collect(),
                user: session.user,
                device: session.device,
                inner_v4: session.inner_v4,
                inner_v6: session.inner_v4.map(|v4| pool.mirror(v4)),
                opened: session.opened.unsigned_abs(),
                live: connected.get(&session.id).cloned(),
            };
            AdminReply::Sessions(known.into_iter().map(info).collect())
        }
        AdminRequest::Status => AdminReply::Status(status(accounts, live).await?),
    })
}

async fn status(accounts: &Accounts, live: Option<&dyn Live>) -> anyhow::Result<StatusInfo> {
    let users = accounts.list_users().await?;
    let pool = accounts.pool();
    let network = |address: IpAddr, bits| ipnet::IpNet::new(address, bits);
    Ok(StatusInfo {
        running: live.is_some(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        users: users.len() as u64,
        devices: users.iter().map(|user| user.devices).sum(),
        networks: vec![
            network(pool.gateway_v4().into(), pool.v4().prefix_len())?,
            network(pool.gateway_v6().into(), pool.v6().prefix_len())?,
        ],
        pool_size: pool.size(),
        live: live.map(Live::status),
    })
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
        AdminReply::Sessions(sessions) => parts(&sessions, AdminReply::Sessions),
        AdminReply::UserAdded { .. }
        | AdminReply::Invited(_)
        | AdminReply::Status(_)
        | AdminReply::Failed { .. }
        | AdminReply::Part(_) => vec![reply],
    }
}

/// Undoes [`split`]: puts an earlier part in front. A failure after a part is a failure.
fn join(later: AdminReply, earlier: AdminReply) -> AdminReply {
    match (later, earlier) {
        (AdminReply::Users(later), AdminReply::Users(mut users)) => {
            users.extend(later);
            AdminReply::Users(users)
        }
        (AdminReply::Sessions(later), AdminReply::Sessions(mut sessions)) => {
            sessions.extend(later);
            AdminReply::Sessions(sessions)
        }
        (later, _) => later,
    }
}

#[cfg(test)]
mod tests;
