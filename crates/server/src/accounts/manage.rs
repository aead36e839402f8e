//! What the administrator does with users, invitations and sessions.

use cipherwall_proto::credential::{self, UserNameError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{Accounts, Refusal, Stop, random, seconds};
use crate::store::sessions::{self, OpenSession};
use crate::store::{StoreError, invitations, users};

/// A user, as the administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// Normalised name.
    pub name: String,
    /// Whether the user is let in.
    pub enabled: bool,
    /// Whether the user can log in by password.
    pub has_password: bool,
    /// Number of devices.
    pub devices: u64,
    /// Unix s.
    pub created: u64,
    /// When a device of the user was last seen; Unix s.
    pub last_seen: Option<u64>,
}

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

/// Why something could not be done.
#[derive(Debug, Error)]
pub enum ManageError {
    /// No name for a user.
    #[error(transparent)]
    UserName(#[from] UserNameError),
    /// There already.
    #[error("user {0} exists already")]
    UserExists(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Argon2 or the random number generator; the log says more.
    #[error("{0}")]
    Refused(Refusal),
}

impl Accounts {
    /// Adds a user, and returns the normalised name.
    ///
    /// # Errors
    /// A name that cannot be one or is taken; the database's.
    pub async fn add_user(
        &self,
        name: &str,
        password: Option<&str>,
        now: u64,
    ) -> Result<String, ManageError> {
        let name = credential::normalise_user(name)?;
        let hash = match password {
            Some(password) => {
                let prehash = credential::prehash(password, &self.salt(&name));
                Some(self.inner.passwords.hash(&prehash).await.map_err(ManageError::Refused)?)
            }
            None => None,
        };
        let added = async {
            let mut db = self.inner.store.connection().await?;
            users::add(&mut db, &name, hash.as_deref(), seconds(now)).await
        };
        match added.await.map_err(|error| self.inner.store.explain(error))? {
            Some(_) => Ok(name),
            None => Err(ManageError::UserExists(name)),
        }
    }

    /// All users by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn list_users(&self) -> Result<Vec<UserInfo>, StoreError> {
        let rows = async { users::list(&mut *self.inner.store.connection().await?).await };
        let rows = rows.await.map_err(|error| self.inner.store.explain(error))?;
        let info = |(user, devices, last_seen): (users::User, i64, Option<i64>)| UserInfo {
            name: user.name,
            enabled: user.enabled,
            has_password: user.password_hash.is_some(),
            devices: devices.unsigned_abs(),
            created: user.created.unsigned_abs(),
            last_seen: last_seen.map(i64::unsigned_abs),
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// Makes an invitation for a user, and the user if there is none of that name (C1).
    ///
    /// # Errors
    /// A name that cannot be one; the database's.
    pub async fn invite(
        &self,
        name: &str,
        lifetime_s: u64,
        now: u64,
    ) -> Result<Invited, ManageError> {
        let user = credential::normalise_user(name)?;
        let enrol_secret =
            random().map_err(|stop| ManageError::Refused(Stop::into_refusal(stop)))?;
        let expires = now.saturating_add(lifetime_s);
        let added = self.add_invitation(&user, &enrol_secret, now, expires).await;
        let new_user = added.map_err(|error| self.inner.store.explain(error))?;
        let (salt, door_key) = (self.salt(&user), self.door_keys().current);
        Ok(Invited { user, new_user, salt, door_key, enrol_secret, expires })
    }

    /// Sessions neither closed nor expired, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_sessions(&self, now: u64) -> Result<Vec<OpenSession>, StoreError> {
        let list = async {
            sessions::list_open(&mut *self.inner.store.connection().await?, seconds(now)).await
        };
        list.await.map_err(|error| self.inner.store.explain(error))
    }

    /// Returns whether the user is new.
    async fn add_invitation(
        &self,
        user: &str,
        enrol_secret: &[u8; 16],
        now: u64,
        expires: u64,
    ) -> sqlx::Result<bool> {
        let mut tx = self.inner.store.begin().await?;
        let added = users::add(&mut tx, user, None, seconds(now)).await?;
        let user_id = match added {
            Some(id) => id,
            None => users::by_name(&mut tx, user).await?.ok_or(sqlx::Error::RowNotFound)?.id,
        };
        let enrol_hash = Sha256::digest(enrol_secret).into();
        let (now, expires) = (seconds(now), seconds(expires));
        invitations::add(&mut tx, user_id, &enrol_hash, now, expires).await?;
        tx.commit().await?;
        Ok(added.is_some())
    }
}
