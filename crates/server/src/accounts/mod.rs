//! Who may come in, and as whom: log-in, enrolment, sessions and inside addresses, on top of the
//! database ([`crate::store`]), the address pool ([`crate::pool`]) and Argon2 ([`password`]).
//!
//! The gateway asks [`Accounts::login`], [`Accounts::enrol`] and [`Accounts::resume`] for each client
//! that knocked, and keeps [`sessions`] up to date; the administrator's operations are in [`manage`] (users),
//! [`devices`], [`invitations`] and [`sessions`].

mod attempts;
mod devices;
mod invitations;
mod manage;
mod password;
mod queue;
mod resume;
mod sessions;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use cipherwall_proto::credential;
use sha2::{Digest, Sha256};
use sqlx::AnyConnection;
use thiserror::Error;

use crate::origin;
use crate::pool::{Full, PoolConfig};
use crate::store::devices as device_rows;
use crate::store::devices::Device;
use crate::store::invitations as invitation_rows;
use crate::store::invitations::Invitation;
use crate::store::secrets::{self, Secrets};
use crate::store::sessions as session_rows;
use crate::store::users::{self, User};
use crate::store::{Store, StoreError, tokens};
use attempts::{Attempts, Guesser};
use password::Passwords;

pub use devices::DeviceInfo;
pub use invitations::{InvitationInfo, InvitationState, Invited};
pub use manage::{ManageError, UserInfo};
pub use resume::Foreseen;
pub use sessions::{Standing, hex};

/// How long a session's token is good without being used (A4), in seconds.
const SESSION_LIFETIME_S: u64 = 24 * 3600;
/// Addresses of devices unseen for this long may be given to others when the pool is full.
const UNUSED_AFTER_S: u64 = 30 * 24 * 3600;

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
    /// Counts the connections of the device: the highest one owns its session and addresses.
    pub generation: i64,
    /// Whether a session goes on that was there before.
    pub resumed: bool,
    /// Inside address.
    pub inner_v4: Ipv4Addr,
    /// Inside IPv6 address.
    pub inner_v6: Ipv6Addr,
}

/// Why a client may not come in. All but the last go to the client as they are
/// (design 3.3).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Unknown, disabled or wrong: not told apart.
    #[error("rejected")]
    Rejected,
    /// The invitation or session was not used in time, or the account has ended.
    #[error("the invitation, account or session has expired")]
    Expired,
    /// The administrator withdrew the invitation, or the session is over.
    #[error("the invitation or session was revoked")]
    Revoked,
    /// The token was replaced by a later one, or its session by a later one of the same device.
    #[error("the session went on elsewhere")]
    Superseded,
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
    /// Too many log-ins at once, or too many wrong ones: never for good.
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
        let tries = Attempts::default();
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
    /// becomes a new device of his. `from` is where the client comes from.
    ///
    /// # Errors
    /// [`Refusal`]; unknown user, disabled user, user without a password and wrong password take
    /// the same time and give the same one, and so does a removed device.
    pub async fn login(
        &self,
        user: &str,
        prehash: &[u8; 32],
        device_key: &[u8; 32],
        from: IpAddr,
        now: u64,
    ) -> Result<Grant, Refusal> {
        let granted = self.try_login(user, prehash, device_key, from, now).await;
        granted.map_err(|stop| self.refusal(stop))
    }

    /// Lets a device in by an invitation: for the first time while the invitation is good, and
    /// the same device at any later time, since for a device that enrolled, the secret and its
    /// key are its log-in. `prehash` sets the user's password if he has none. `from` is where the
    /// client comes from.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn enrol(
        &self,
        secret: &[u8; 16],
        device_key: &[u8; 32],
        prehash: Option<&[u8; 32]>,
        from: IpAddr,
        now: u64,
    ) -> Result<Grant, Refusal> {
        let granted = self.try_enrol(secret, device_key, prehash, from, now).await;
        granted.map_err(|stop| self.refusal(stop))
    }

    async fn try_login(
        &self,
        name: &str,
        prehash: &[u8; 32],
        device_key: &[u8; 32],
        from: IpAddr,
        now: u64,
    ) -> Result<Grant, Stop> {
        let Inner { store, passwords, tries, .. } = &*self.inner;
        // No user has an empty name, so a name that cannot be one takes the same path.
        let name = credential::normalise_user(name).unwrap_or_default();
        let mut db = store.connection().await?;
        let guesser = match device_rows::enrolled(&mut db, &name, device_key).await? {
            Some(id) => Guesser::Device(id),
            None => Guesser::Stranger(name.clone(), origin::network(from)),
        };
        let suspicion = tries.begin(&guesser, now);
        let suspicion = suspicion.map_err(|retry_after| Refusal::Busy { retry_after })?;
        let user = users::by_name(&mut db, &name).await?;
        drop(db);
        let hash = user.as_ref().filter(|user| user.enabled).and_then(|u| u.password_hash.clone());
        if !passwords.verify(hash, prehash, suspicion).await? {
            return Err(Refusal::Rejected.into());
        }
        tries.succeeded(&guesser);

        let mut tx = store.begin().await?;
        // Read again: Argon2 takes long enough for an administrator to disable somebody.
        let user = users::by_name(&mut tx, &name).await?;
        let user = admitted(user, now)?;
        let device = match device_rows::by_key(&mut tx, user.id, device_key).await? {
            Some(device) if device.removed => return Err(Refusal::Rejected.into()),
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
        from: IpAddr,
        now: u64,
    ) -> Result<Grant, Stop> {
        let enrol_hash: [u8; 32] = Sha256::digest(secret).into();
        // Who has a right secret is never kept waiting by others at the same address.
        let mut db = self.inner.store.connection().await?;
        let invitation = invitation_rows::by_hash(&mut db, &enrol_hash).await?;
        let shown = invitation.ok_or(Refusal::Rejected);
        if let Err(refusal) = shown.and_then(|shown| admits(&shown, device_key, now)) {
            let counted = self.inner.tries.wrong(origin::network(from), now);
            counted.map_err(|retry_after| Refusal::Busy { retry_after })?;
            return Err(refusal.into());
        }
        drop(db);
        let first_password = match prehash {
            Some(prehash) => self.first_password(&enrol_hash, device_key, prehash, now).await?,
            None => None,
        };

        let mut tx = self.inner.store.begin().await?;
        let first_time =
            invitation_rows::claim(&mut tx, &enrol_hash, device_key, seconds(now)).await?;
        let invitation = invitation_rows::by_hash(&mut tx, &enrol_hash).await?;
        let invitation = invitation.ok_or(Refusal::Rejected)?;
        admits(&invitation, device_key, now)?;
        let user = admitted(users::by_id(&mut tx, invitation.user_id).await?, now)?;
        if let Some(hash) = &first_password {
            users::set_first_password(&mut tx, user.id, hash).await?;
        }
        let device = match device_rows::by_key(&mut tx, user.id, device_key).await? {
            Some(device) if device.removed => return Err(Refusal::Rejected.into()),
            Some(device) => device,
            None if first_time => add_device(&mut tx, &user, device_key, now).await?,
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
        let invitation = invitation_rows::by_hash(&mut db, enrol_hash).await?;
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

    fn refusal(&self, stop: Stop) -> Refusal {
        match stop {
            Stop::Refused(refusal) => refusal,
            Stop::Database(error) => {
                let error = self.inner.store.explain(error);
                tracing::error!(%error, "cannot let a client in");
                Refusal::Internal
            }
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
        device_rows::assign(db, device.id, inner_v4, seconds(now)).await?;
        let session_id = random()?;
        let expires = seconds(now + SESSION_LIFETIME_S);
        let generation =
            session_rows::open(db, &session_id, device.id, seconds(now), expires).await?;
        Ok(Grant {
            session_id,
            token: new_token(db, &session_id, generation).await?,
            user: user.name,
            device_id: device.id,
            generation,
            resumed: false,
            inner_v4,
            inner_v6: self.inner.pool.mirror(inner_v4),
        })
    }

    async fn address_for(
        &self,
        db: &mut AnyConnection,
        device: &Device,
        now: u64,
    ) -> Result<Ipv4Addr, Stop> {
        let pool = &self.inner.pool;
        let taken = device_rows::addresses_of_others(db, device.id).await?.into_iter().collect();
        if let Ok(address) = pool.allocate(device.inner_v4, &taken, []) {
            return Ok(address);
        }
        let long_ago = seconds(now.saturating_sub(UNUSED_AFTER_S));
        let unused = device_rows::addresses_unused(db, long_ago, seconds(now)).await?;
        pool.allocate(device.inner_v4, &taken, unused).map_err(|full| {
            tracing::error!("{full}");
            let Full { pool, size } = full;
            Refusal::Full { pool, size }.into()
        })
    }
}

/// The user, if there is one whose account is in force.
fn admitted(user: Option<User>, now: u64) -> Result<User, Refusal> {
    match user {
        Some(user) if !user.enabled => Err(Refusal::Rejected),
        // Only who has proven to be the user comes so far as to learn it.
        Some(user) if user.expires.is_some_and(|end| end <= seconds(now)) => Err(Refusal::Expired),
        Some(user) => Ok(user),
        None => Err(Refusal::Rejected),
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
    device_rows::add(db, user.id, device_key, &name, seconds(now)).await
}

/// Gives a session one more token.
async fn new_token(
    db: &mut AnyConnection,
    session_id: &[u8; 16],
    generation: i64,
) -> Result<[u8; 16], Stop> {
    let token = uuid::Builder::from_random_bytes(random()?).into_uuid().into_bytes();
    tokens::add(db, &Sha256::digest(token).into(), session_id, generation).await?;
    Ok(token)
}

fn random() -> std::io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
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

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Stop {
        Stop::Database(error.into())
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Stop {
        Stop::Database(error)
    }
}

#[cfg(test)]
mod tests;
