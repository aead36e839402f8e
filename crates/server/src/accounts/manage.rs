//! What the administrator does with users.

use cipherwall_proto::credential::{self, UserNameError};
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use thiserror::Error;

use super::{Accounts, Refusal, seconds};
use crate::store::sessions::{self, Of};
use crate::store::{StoreError, users};

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
    /// When the account ends, by the gateway's clock; Unix s. None: never.
    pub expires: Option<u64>,
    /// When a device of the user was last seen; Unix s.
    pub last_seen: Option<u64>,
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
    /// Not there.
    #[error("there is no user {0}; `cipherwall-server user list` shows all")]
    NoUser(String),
    /// Not there.
    #[error("there is no device {0}; `cipherwall-server device list` shows all with their numbers")]
    NoDevice(i64),
    /// Not there.
    #[error(
        "no open session has an id that begins with {0:?}; `cipherwall-server session list` shows \
         all"
    )]
    NoSession(String),
    /// Too short to tell.
    #[error("the ids of {count} sessions begin with {prefix:?}; give more digits")]
    ManySessions {
        /// As given.
        prefix: String,
        /// How many.
        count: usize,
    },
    /// Not there.
    #[error("there is no invitation {0}; `cipherwall-server invite list` shows all")]
    NoInvitation(i64),
    /// Too late.
    #[error(
        "invitation {id} was used: to shut that device out, remove it (`cipherwall-server device \
         list {user}`, then `device remove`)"
    )]
    InvitationUsed {
        /// Its number.
        id: i64,
        /// Whom it was for.
        user: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Argon2 or the random number generator; the log says more.
    #[error("{0}")]
    Refused(Refusal),
}

impl Accounts {
    /// Adds a user, and returns the normalised name. `lifetime_s`: seconds until the account ends.
    ///
    /// # Errors
    /// A name that cannot be one or is taken; the database's.
    pub async fn add_user(
        &self,
        name: &str,
        password: Option<&str>,
        lifetime_s: Option<u64>,
        now: u64,
    ) -> Result<String, ManageError> {
        let name = credential::normalise_user(name)?;
        let hash = match password {
            Some(password) => Some(self.hash(&name, password).await?),
            None => None,
        };
        let expires = lifetime_s.map(|lifetime| seconds(now.saturating_add(lifetime)));
        let added = async {
            // In a transaction, because a statement that returns rows hides the failure to write
            // them, as on a full disk.
            let mut tx = self.inner.store.begin().await?;
            let id = users::add(&mut tx, &name, hash.as_deref(), seconds(now), expires).await?;
            tx.commit().await?;
            Ok(id)
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
        self.users(None).await
    }

    /// One user.
    ///
    /// # Errors
    /// No such user; the database's.
    pub async fn user(&self, name: &str) -> Result<UserInfo, ManageError> {
        let name = credential::normalise_user(name)?;
        self.users(Some(&name)).await?.pop().ok_or(ManageError::NoUser(name))
    }

    /// Gives a user a password, or another one. Sessions go on; returns the normalised name.
    ///
    /// # Errors
    /// No such user; the database's.
    pub async fn set_password(&self, name: &str, password: &str) -> Result<String, ManageError> {
        let name = self.user(name).await?.name;
        let hash = self.hash(&name, password).await?;
        let changed = self.change_user(&name, async |db, user: &users::User| {
            users::set_password(db, user.id, &hash).await
        });
        Ok(changed.await?.0)
    }

    /// Lets a user in, or no more. Returns the normalised name and the sessions that are closed
    /// by it.
    ///
    /// # Errors
    /// No such user; the database's.
    pub async fn set_enabled(
        &self,
        name: &str,
        enabled: bool,
        now: u64,
    ) -> Result<(String, Vec<[u8; 16]>), ManageError> {
        self.change_user(name, async |db, user: &users::User| {
            users::set_enabled(db, user.id, enabled).await?;
            if enabled {
                return Ok(Vec::new());
            }
            sessions::close_all(db, Of::User(user.id), seconds(now)).await
        })
        .await
    }

    /// Sets when an account ends: in so many seconds, or never. Returns the normalised name.
    ///
    /// # Errors
    /// No such user; the database's.
    pub async fn set_lifetime(
        &self,
        name: &str,
        lifetime_s: Option<u64>,
        now: u64,
    ) -> Result<String, ManageError> {
        let expires = lifetime_s.map(|lifetime| seconds(now.saturating_add(lifetime)));
        let changed = self.change_user(name, async |db, user: &users::User| {
            users::set_expires(db, user.id, expires).await
        });
        Ok(changed.await?.0)
    }

    /// Removes a user with all devices, invitations and sessions. Returns the normalised name and
    /// the sessions.
    ///
    /// # Errors
    /// No such user; the database's.
    pub async fn remove_user(
        &self,
        name: &str,
        now: u64,
    ) -> Result<(String, Vec<[u8; 16]>), ManageError> {
        self.change_user(name, async |db, user: &users::User| {
            let closed = sessions::close_all(db, Of::User(user.id), seconds(now)).await?;
            users::remove(db, user.id).await?;
            Ok(closed)
        })
        .await
    }

    /// Changes something about a user, in one transaction. Returns the normalised name too.
    pub(super) async fn change_user<T>(
        &self,
        name: &str,
        change: impl AsyncFnOnce(&mut AnyConnection, &users::User) -> sqlx::Result<T>,
    ) -> Result<(String, T), ManageError> {
        let name = credential::normalise_user(name)?;
        let changed = async {
            let mut tx = self.inner.store.begin().await?;
            let Some(user) = users::by_name(&mut tx, &name).await? else { return Ok(None) };
            let changed = change(&mut tx, &user).await?;
            tx.commit().await?;
            Ok(Some(changed))
        };
        let changed = changed.await.map_err(|error| self.inner.store.explain(error))?;
        let changed = changed.ok_or_else(|| ManageError::NoUser(name.clone()))?;
        Ok((name, changed))
    }

    async fn users(&self, name: Option<&str>) -> Result<Vec<UserInfo>, StoreError> {
        let list = async { users::list(&mut *self.inner.store.connection().await?, name).await };
        let rows = list.await.map_err(|error| self.inner.store.explain(error))?;
        let info = |users::Listed { user, devices, last_seen }| UserInfo {
            name: user.name,
            enabled: user.enabled,
            has_password: user.password_hash.is_some(),
            devices: devices.unsigned_abs(),
            created: user.created.unsigned_abs(),
            expires: user.expires.map(i64::unsigned_abs),
            last_seen: last_seen.map(i64::unsigned_abs),
        };
        Ok(rows.into_iter().map(info).collect())
    }

    async fn hash(&self, name: &str, password: &str) -> Result<String, ManageError> {
        let prehash = credential::prehash(password, &self.salt(name));
        self.inner.passwords.hash(&prehash).await.map_err(ManageError::Refused)
    }
}
