//! The one place that does what the administrator's commands want.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::Context;
use cipherwall_proto::frame::KickReason;

use super::{AdminReply, AdminRequest, LiveSession, LiveStatus, SessionInfo, StatusInfo, unix_now};
use crate::accounts::{Accounts, hex};
use crate::identity::{CertificateInfo, IdentityError};
use crate::store::sessions::OpenSession;

/// A running gateway. Implemented by it alone; where there is none, `None` stands in its place.
pub trait Live: Send + Sync {
    /// Counters and the like.
    fn status(&self) -> LiveStatus;
    /// Connected sessions by session id.
    fn sessions(&self) -> HashMap<[u8; 16], LiveSession>;
    /// Ends the connections of these sessions, as far as they are connected.
    fn kick(&self, session_ids: &[[u8; 16]], reason: KickReason);
    /// Makes a new certificate with the same key, for all handshakes from now on.
    ///
    /// # Errors
    /// It cannot be made or kept; the old one stays.
    fn renew_certificate(&self) -> Result<CertificateInfo, IdentityError>;
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

async fn try_execute(
    request: AdminRequest,
    accounts: &Accounts,
    live: Option<&dyn Live>,
    now: u64,
) -> anyhow::Result<AdminReply> {
    // Closed in the database first: a client that comes back in between is refused or found here.
    let ended = |(user, ids): (String, Vec<[u8; 16]>)| {
        if let Some(live) = live {
            live.kick(&ids, KickReason::Revoked);
        }
        AdminReply::Done { user, sessions: ids.len() as u64 }
    };
    let done = |user| AdminReply::Done { user, sessions: 0 };
    Ok(match request {
        AdminRequest::UserAdd { name, password, lifetime_s } => {
            let password = password.as_ref().map(|password| password.as_str());
            done(accounts.add_user(&name, password, lifetime_s, now).await?)
        }
        AdminRequest::UserList => AdminReply::Users(accounts.list_users().await?),
        AdminRequest::UserShow { name } => AdminReply::Users(vec![accounts.user(&name).await?]),
        AdminRequest::UserPassword { name, password } => {
            done(accounts.set_password(&name, &password).await?)
        }
        AdminRequest::UserLifetime { name, lifetime_s } => {
            done(accounts.set_lifetime(&name, lifetime_s, now).await?)
        }
        AdminRequest::UserEnable { name, enabled } => {
            ended(accounts.set_enabled(&name, enabled, now).await?)
        }
        AdminRequest::UserRemove { name } => ended(accounts.remove_user(&name, now).await?),
        AdminRequest::DeviceList { user } => {
            AdminReply::Devices(accounts.list_devices(user.as_deref()).await?)
        }
        AdminRequest::DeviceRemove { id } => ended(accounts.remove_device(id, now).await?),
        AdminRequest::InviteCreate { name, lifetime_s } => {
            AdminReply::Invited(accounts.invite(&name, lifetime_s, now).await?)
        }
        AdminRequest::InviteList => AdminReply::Invitations(accounts.list_invitations(now).await?),
        AdminRequest::InviteRevoke { id } => done(accounts.revoke_invitation(id).await?),
        AdminRequest::SessionList => AdminReply::Sessions(sessions(accounts, live, now).await?),
        AdminRequest::SessionRevoke { id } => {
            let (user, id) = accounts.revoke_session(&id, now).await?;
            ended((user, vec![id]))
        }
        AdminRequest::SessionRevokeAll { user } => {
            ended(accounts.revoke_sessions_of(&user, now).await?)
        }
        AdminRequest::CertRenew => {
            let live = live.context("no gateway runs here")?;
            AdminReply::Certificate(live.renew_certificate()?)
        }
        AdminRequest::Status => AdminReply::Status(status(accounts, live).await?),
    })
}

async fn sessions(
    accounts: &Accounts,
    live: Option<&dyn Live>,
    now: u64,
) -> anyhow::Result<Vec<SessionInfo>> {
    let connected = live.map(Live::sessions).unwrap_or_default();
    let pool = accounts.pool();
    let info = |session: OpenSession| SessionInfo {
        id: hex(&session.id),
        user: session.user,
        device_id: session.device_id,
        device: session.device,
        inner_v4: session.inner_v4,
        inner_v6: session.inner_v4.map(|v4| pool.mirror(v4)),
        opened: session.opened.unsigned_abs(),
        live: connected.get(&session.id).cloned(),
    };
    Ok(accounts.open_sessions(now).await?.into_iter().map(info).collect())
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
