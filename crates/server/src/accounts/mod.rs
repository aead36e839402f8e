//! Who may come in, and as whom: log-in, enrolment, sessions and inside addresses, on top of the
//! database ([`crate::store`]), the address pool ([`crate::pool`]) and Argon2 ([`password`]).
//!
//! The gateway asks [`Accounts::login`] and [`Accounts::enrol`] for each client that knocked; the
//! administrator's operations are in [`manage`].

mod attempts;
mod manage;
mod password;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use cipherwall_proto::credential;
use sha2::{Digest, Sha256};
use sqlx::AnyConnection;
use thiserror::Error;

use crate::pool::{Full, PoolConfig};
use crate::store::devices::{self, Device};
use crate::store::invitations::{self, Invitation};
use crate::store::secrets::{self, Secrets};
use crate::store::users::{self, User};
use crate::store::{Store, StoreError, sessions};
use attempts::Attempts;
use password::Passwords;

pub use manage::{Invited, ManageError, UserInfo};

/// How long a session's token is good without being used (A4), in seconds.
const SESSION_LIFETIME_S: u64 = 24 * 3600;
/// Addresses of devices unseen for this long may be given to others when the pool is full.
const UNUSED_AFTER_S: u64 = 30 * 24 * 3600;
/// Wrong passwords for one user name before the next try has to wait (A3) ...
const TRIES_PER_USER: u32 = 10;
/// ... for the rest of this time, in seconds.
const TRIES_WINDOW_S: u64 = 600;

/// The accounts of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    pool: PoolConfig,
    secrets: Secrets,
    passwords: Passwords,
    tries: Attempts,
}

/// The keys that a client's knock may be made with.
#[derive(Clone)]
pub struct DoorKeys {
    /// In all invitations from now on.
    pub current: [u8; 32],
    /// Still good.
    pub previous: Option<[u8; 32]>,
}

/// What a client gets that may come in.
#[derive(Clone)]
pub struct Grant {
    /// Random; part of the key derivation.
    pub session_id: [u8; 16],
    /// The session token, a UUID v4. Only its hash is kept.
    pub token: [u8; 16],
    /// Normalised name.
    pub user: String,
    /// The device's row number; a device has at most one session.
    pub device_id: i64,
    /// Inside address.
    pub inner_v4: Ipv4Addr,
    /// Inside IPv6 address.
    pub inner_v6: Ipv6Addr,
}

/// Why a client may not come in. The first four and the last-but-two go to the client as they are
/// (design 3.3).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Unknown, disabled or wrong: not told apart.
    #[error("rejected")]
    Rejected,
    /// The invitation was not used in time.
    #[error("the invitation has expired")]
    Expired,
    /// The administrator withdrew the invitation.
    #[error("the invitation was revoked")]
    Revoked,
    /// Another device has used the invitation.
    #[error("the invitation was used by another device")]
    Used,
    /// No inside address is left.
    #[error("no address is left in {pool} ({size} clients)")]
    Full {
        /// The network.
        pool: String,
        /// How many clients it holds.
        size: u64,
    },
    /// Too many log-ins at once, or too many wrong ones.
    #[error("busy, to be tried again after {retry_after} s")]
    Busy {
        /// Seconds.
        retry_after: u32,
    },
    /// The gateway's own fault; it is in the log.
    #[error("internal error")]
    Internal,
}

impl Accounts {
    /// Opens the database and makes it if it is missing.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open(database_path: &Path, pool: PoolConfig) -> Result<Accounts, StoreError> {
        let store = Store::open(database_path).await?;
        let secrets = async { secrets::load_or_make(&mut *store.connection().await?).await };
        let secrets = secrets.await.map_err(|error| store.explain(error))?;
        let passwords = Passwords::new();
        let tries = Attempts::new(TRIES_PER_USER, TRIES_WINDOW_S);
        Ok(Accounts { inner: Arc::new(Inner { store, pool, secrets, passwords, tries }) })
    }

    /// Closes the database; without it the next start replays the write-ahead log.
    pub async fn close(&self) {
        self.inner.store.close().await;
    }

    /// The keys that a knock may be made with.
    pub fn door_keys(&self) -> DoorKeys {
        let Secrets { door_key, previous_door_key, .. } = &self.inner.secrets;
        DoorKeys { current: *door_key, previous: *previous_door_key }
    }

    /// The inside networks.
    pub fn pool(&self) -> &PoolConfig {
        &self.inner.pool
    }

    /// The salt of a user, known or not.
    pub fn salt(&self, user: &str) -> [u8; 16] {
        // A name that cannot be a user's gets a salt as well, so that the answer says nothing.
        let name = credential::normalise_user(user).unwrap_or_else(|_| user.to_owned());
        credential::salt(&self.inner.secrets.salt_key, &name)
    }

    /// Logs a user in by the pre-hash of his password (A3). A device key seen for the first time
    /// becomes a new device of his.
    ///
    /// # Errors
    /// [`Refusal`]; unknown user, disabled user, user without a password and wrong password take
    /// the same time and give the same one.
    pub async fn login(
        &self,
        user: &str,
        prehash: &[u8; 32],
        device_key: &[u8; 32],
        now: u64,
    ) -> Result<Grant, Refusal> {
        self.try_login(user, prehash, device_key, now).await.map_err(Stop::into_refusal)
    }

    /// Lets a device in by an invitation: for the first time while the invitation is good, and
    /// the same device at any later time, since for a device that enrolled, the secret and its
    /// key are its log-in. `prehash` sets the user's password if he has none.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn enrol(
        &self,
        secret: &[u8; 16],
        device_key: &[u8; 32],
        prehash: Option<&[u8; 32]>,
        now: u64,
    ) -> Result<Grant, Refusal> {
        self.try_enrol(secret, device_key, prehash, now).await.map_err(Stop::into_refusal)
    }

    /// Notes that sessions are still in use: another 24 hours for their tokens (A4), and their
    /// devices keep their addresses. To be called now and then, at least daily.
    pub async fn extend_sessions(&self, session_ids: &[[u8; 16]], now: u64) {
        let (now, expires) = (seconds(now), seconds(now + SESSION_LIFETIME_S));
        let done = async {
            let mut tx = self.inner.store.begin().await?;
            for id in session_ids {
                sessions::extend(&mut tx, id, now, expires).await?;
            }
            tx.commit().await
        };
        if let Err(error) = done.await {
            tracing::error!(%error, "cannot note in the database that sessions are in use");
        }
    }

    /// Closes a session: the client said so, or it was sent away. Its token is void from here on;
    /// the device keeps its address.
    pub async fn close_session(&self, session_id: &[u8; 16], now: u64) {
        let done = async {
            let mut tx = self.inner.store.begin().await?;
            sessions::close(&mut tx, session_id, seconds(now)).await?;
            tx.commit().await
        };
        if let Err(error) = done.await {
            tracing::error!(%error, "cannot close a session in the database");
        }
    }

    async fn try_login(
        &self,
        name: &str,
        prehash: &[u8; 32],
        device_key: &[u8; 32],
        now: u64,
    ) -> Result<Grant, Stop> {
        let Inner { store, passwords, tries, .. } = &*self.inner;
        // No user has an empty name, so a name that cannot be one takes the same path.
        let name = credential::normalise_user(name).unwrap_or_default();
        tries.begin(&name, now).map_err(|retry_after| Refusal::Busy { retry_after })?;
        let user = users::by_name(&mut *store.connection().await?, &name).await?;
        let hash = user.as_ref().filter(|user| user.enabled).and_then(|u| u.password_hash.clone());
        if !passwords.verify(hash, prehash).await? {
            return Err(Refusal::Rejected.into());
        }
        tries.succeeded(&name);

        let mut tx = store.begin().await?;
        // Read again: Argon2 takes long enough for an administrator to disable somebody.
        let user = users::by_name(&mut tx, &name).await?.filter(|user| user.enabled);
        let user = user.ok_or(Refusal::Rejected)?;
        let device = match devices::by_key(&mut tx, user.id, device_key).await? {
            Some(device) => device,
            None => add_device(&mut tx, &user, device_key, now).await?,
        };
        let grant = self.open_session(&mut tx, user, device, now).await?;
        tx.commit().await?;
        Ok(grant)
    }

    async fn try_enrol(
        &self,
        secret: &[u8; 16],
        device_key: &[u8; 32],
        prehash: Option<&[u8; 32]>,
        now: u64,
    ) -> Result<Grant, Stop> {
        let enrol_hash: [u8; 32] = Sha256::digest(secret).into();
        let first_password = match prehash {
            Some(prehash) => self.first_password(&enrol_hash, device_key, prehash, now).await?,
            None => None,
        };

        let mut tx = self.inner.store.begin().await?;
        let first_time = invitations::claim(&mut tx, &enrol_hash, device_key, seconds(now)).await?;
        let invitation = invitations::by_hash(&mut tx, &enrol_hash).await?;
        let invitation = invitation.ok_or(Refusal::Rejected)?;
        admits(&invitation, device_key, now)?;
        let user = users::by_id(&mut tx, invitation.user_id).await?.filter(|user| user.enabled);
        let user = user.ok_or(Refusal::Rejected)?;
        if let Some(hash) = &first_password {
            users::set_first_password(&mut tx, user.id, hash).await?;
        }
        let device = match devices::by_key(&mut tx, user.id, device_key).await? {
            Some(device) => device,
            None if first_time => add_device(&mut tx, &user, device_key, now).await?,
            // It enrolled once, and the administrator removed it since.
            None => return Err(Refusal::Rejected.into()),
        };
        let grant = self.open_session(&mut tx, user, device, now).await?;
        tx.commit().await?;
        Ok(grant)
    }

    /// The hash of the password that an enrolment sets, unless the user has one. Argon2 runs
    /// outside the transaction, and only for those whose invitation is good.
    async fn first_password(
        &self,
        enrol_hash: &[u8; 32],
        device_key: &[u8; 32],
        prehash: &[u8; 32],
        now: u64,
    ) -> Result<Option<String>, Stop> {
        let mut db = self.inner.store.connection().await?;
        let invitation = invitations::by_hash(&mut db, enrol_hash).await?;
        let invitation = invitation.ok_or(Refusal::Rejected)?;
        admits(&invitation, device_key, now)?;
        let user = users::by_id(&mut db, invitation.user_id).await?;
        drop(db);
        match user {
            Some(User { password_hash: None, enabled: true, .. }) => {
                Ok(Some(self.inner.passwords.hash(prehash).await?))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Gives the device its address and a session in place of any it had.
    async fn open_session(
        &self,
        db: &mut AnyConnection,
        user: User,
        device: Device,
        now: u64,
    ) -> Result<Grant, Stop> {
        let inner_v4 = self.address_for(db, &device, now).await?;
        devices::assign(db, device.id, inner_v4, seconds(now)).await?;
        let session_id = random()?;
        let token = uuid::Builder::from_random_bytes(random()?).into_uuid().into_bytes();
        let token_hash = Sha256::digest(token).into();
        let expires = seconds(now + SESSION_LIFETIME_S);
        sessions::open(db, &session_id, device.id, &token_hash, seconds(now), expires).await?;
        let inner_v6 = self.inner.pool.mirror(inner_v4);
        Ok(Grant { session_id, token, user: user.name, device_id: device.id, inner_v4, inner_v6 })
    }

    async fn address_for(
        &self,
        db: &mut AnyConnection,
        device: &Device,
        now: u64,
    ) -> Result<Ipv4Addr, Stop> {
        let pool = &self.inner.pool;
        let taken = devices::addresses_of_others(db, device.id).await?.into_iter().collect();
        if let Ok(address) = pool.allocate(device.inner_v4, &taken, []) {
            return Ok(address);
        }
        let long_ago = seconds(now.saturating_sub(UNUSED_AFTER_S));
        let unused = devices::addresses_unused(db, long_ago, seconds(now)).await?;
        pool.allocate(device.inner_v4, &taken, unused).map_err(|full| {
            tracing::error!("{full}");
            let Full { pool, size } = full;
            Refusal::Full { pool, size }.into()
        })
    }
}

/// Whether an invitation lets this device in, be it for the first time or again.
fn admits(invitation: &Invitation, device_key: &[u8; 32], now: u64) -> Result<(), Refusal> {
    match &invitation.used_by {
        _ if invitation.revoked => Err(Refusal::Revoked),
        Some(key) if key == device_key => Ok(()),
        Some(_) => Err(Refusal::Used),
        None if invitation.expires <= seconds(now) => Err(Refusal::Expired),
        None => Ok(()),
    }
}

async fn add_device(
    db: &mut AnyConnection,
    user: &User,
    device_key: &[u8; 32],
    now: u64,
) -> sqlx::Result<Device> {
    // Until its owner names it, a device goes by the beginning of its key.
    let name: String = device_key[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    devices::add(db, user.id, device_key, &name, seconds(now)).await
}

fn random() -> Result<[u8; 16], Stop> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::from).map_err(sqlx::Error::Io)?;
    Ok(bytes)
}

/// Unix seconds as the database takes them.
fn seconds(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

/// What ends a log-in early.
enum Stop {
    Refused(Refusal),
    Database(sqlx::Error),
}

impl Stop {
    fn into_refusal(self) -> Refusal {
        match self {
            Stop::Refused(refusal) => refusal,
            Stop::Database(error) => {
                tracing::error!(%error, "cannot let a client in: the database fails");
                Refusal::Internal
            }
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Stop {
        Stop::Database(error)
    }
}

#[cfg(test)]
mod tests;
