//! What the administrator does with invitations (C1).

use cipherwall_proto::credential;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Accounts, ManageError, Refusal, random, seconds};
use crate::store::StoreError;
use crate::store::{invitations, users};

/// What an invitation adds to the endpoints.
#[derive(Clone, Serialize, Deserialize)]
pub struct Invited {
    /// Normalised name.
    pub user: String,
    /// Whether the user was made for it.
    pub new_user: bool,
    /// The user's salt.
    pub salt: [u8; 16],
    /// The door key.
    pub door_key: [u8; 32],
    /// Known to nobody else: the database has its hash.
    pub enrol_secret: [u8; 16],
    /// Unix s.
    pub expires: u64,
}

/// An invitation, as the administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationInfo {
    /// What `invite revoke` takes.
    pub id: i64,
    /// User name.
    pub user: String,
    /// What it is good for.
    pub state: InvitationState,
    /// Unix s.
    pub created: u64,
    /// Unix s.
    pub expires: u64,
    /// When a device enrolled by it; Unix s.
    pub used: Option<u64>,
}

/// What an invitation is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvitationState {
    /// For one device.
    Open,
    /// Only for the device that has used it.
    Used,
    /// For nothing: it was not used in time.
    Expired,
    /// For nothing: it was withdrawn.
    Revoked,
}

impl Accounts {
    /// Makes an invitation for a user, and the user if there is none of that name (C1).
    ///
    /// # Errors
    /// A name that cannot be one, an account that could not use it; the database's.
    pub async fn invite(
        &self,
        name: &str,
        lifetime_s: u64,
        now: u64,
    ) -> Result<Invited, ManageError> {
        let user = credential::normalise_user(name)?;
        let enrol_secret = random().map_err(|error| {
            tracing::error!(%error, "no random numbers to be had");
            ManageError::Refused(Refusal::Internal)
        })?;
        let expires = now.saturating_add(lifetime_s);
        let new_user = self.add_invitation(&user, &enrol_secret, now, expires).await?;
        let (salt, door_key) = (self.salt(&user), self.door_keys().current);
        Ok(Invited { user, new_user, salt, door_key, enrol_secret, expires })
    }

    /// All invitations, newest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn list_invitations(&self, now: u64) -> Result<Vec<InvitationInfo>, StoreError> {
        let list = async { invitations::list(&mut *self.inner.store.connection().await?).await };
        let rows = list.await.map_err(|error| self.inner.store.explain(error))?;
        let info = |row: invitations::Listed| InvitationInfo {
            id: row.id,
            state: match row.used_at {
                _ if row.revoked => InvitationState::Revoked,
                Some(_) => InvitationState::Used,
                None if row.expires <= seconds(now) => InvitationState::Expired,
                None => InvitationState::Open,
            },
            user: row.user,
            created: row.created.unsigned_abs(),
            expires: row.expires.unsigned_abs(),
            used: row.used_at.map(i64::unsigned_abs),
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// Withdraws an invitation; returns whom it was for.
    ///
    /// # Errors
    /// No such invitation, or a device has used it; the database's.
    pub async fn revoke_invitation(&self, id: i64) -> Result<String, ManageError> {
        let revoke = async {
            let mut tx = self.inner.store.begin().await?;
            let before = invitations::revoke(&mut tx, id).await?;
            tx.commit().await?;
            Ok(before)
        };
        let before = revoke.await.map_err(|error| self.inner.store.explain(error))?;
        match before.ok_or(ManageError::NoInvitation(id))? {
            invitations::Listed { used_at: Some(_), user, .. } => {
                Err(ManageError::InvitationUsed { id, user })
            }
            invitations::Listed { user, .. } => Ok(user),
        }
    }

    /// Returns whether the user is new.
    async fn add_invitation(
        &self,
        user: &str,
        enrol_secret: &[u8; 16],
        now: u64,
        expires: u64,
    ) -> Result<bool, ManageError> {
        let explain = |error| self.inner.store.explain(error);
        let mut tx = self.inner.store.begin().await.map_err(explain)?;
        let added = users::add(&mut tx, user, None, seconds(now), None).await.map_err(explain)?;
        let user_id = match added {
            Some(id) => id,
            None => {
                let there = users::by_name(&mut tx, user).await.map_err(explain)?;
                there.ok_or_else(|| ManageError::NoUser(user.to_owned()))?.id
            }
        };
        let enrol_hash = Sha256::digest(enrol_secret).into();
        let (now, expires) = (seconds(now), seconds(expires));
        invitations::add(&mut tx, user_id, &enrol_hash, now, expires).await.map_err(explain)?;
        tx.commit().await.map_err(explain)?;
        Ok(added.is_some())
    }
}
