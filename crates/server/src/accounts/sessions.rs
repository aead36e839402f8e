//! Sessions in the database: which are open, and what ends them.

use super::{Accounts, ManageError, SESSION_LIFETIME_S, seconds};
use crate::store::StoreError;
use crate::store::sessions::{self, Of, OpenSession};
use crate::store::users;

/// Whether a connection that was granted is still to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Open,
    /// A newer connection of the same device has replaced it.
    Superseded,
    /// The administrator has ended it.
    Revoked,
}

impl Accounts {
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
            let error = self.inner.store.explain(error);
            tracing::error!(%error, "cannot note in the database that sessions are in use");
        }
    }

    /// Closes a session because the client said so, unless it has gone on with a connection of a
    /// later generation. Its tokens are void from here on; the device keeps its address.
    pub async fn close_session(&self, session_id: &[u8; 16], generation: i64, now: u64) {
        let done = async {
            let mut tx = self.inner.store.begin().await?;
            sessions::close(&mut tx, session_id, generation, seconds(now)).await?;
            tx.commit().await
        };
        if let Err(error) = done.await {
            let error = self.inner.store.explain(error);
            tracing::error!(%error, "cannot close a session in the database");
        }
    }

    /// How a connection of this device and generation stands. To be asked once it can be found by
    /// who ends sessions: before that, a revocation may have missed it.
    ///
    /// A database that does not answer ends no session.
    pub async fn standing(&self, device_id: i64, generation: i64) -> Standing {
        let latest = async {
            let mut db = self.inner.store.connection().await?;
            sessions::generation(&mut db, device_id).await
        };
        match latest.await {
            Ok(Some(latest)) if latest == generation => Standing::Open,
            Ok(Some(_)) => Standing::Superseded,
            Ok(None) => Standing::Revoked,
            Err(error) => {
                let error = self.inner.store.explain(error);
                tracing::error!(%error, "cannot look a session up");
                Standing::Open
            }
        }
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

    /// Closes the sessions of users whose accounts have ended; returns their ids. To be called
    /// every few seconds.
    ///
    /// # Errors
    /// The database's.
    pub async fn end_expired(&self, now: u64) -> Result<Vec<[u8; 16]>, StoreError> {
        let end = async {
            let mut db = self.inner.store.connection().await?;
            if !sessions::any_expired(&mut db, seconds(now)).await? {
                return Ok(Vec::new());
            }
            drop(db);
            let mut tx = self.inner.store.begin().await?;
            let ended = sessions::close_all(&mut tx, Of::ExpiredUsers, seconds(now)).await?;
            tx.commit().await?;
            Ok(ended)
        };
        end.await.map_err(|error| self.inner.store.explain(error))
    }

    /// Closes the session whose id begins with these hexadecimal digits. Returns the user's name
    /// and the id.
    ///
    /// # Errors
    /// None or several begin so; the database's.
    pub async fn revoke_session(
        &self,
        prefix: &str,
        now: u64,
    ) -> Result<(String, [u8; 16]), ManageError> {
        let prefix = prefix.to_ascii_lowercase();
        let mut matching: Vec<_> = self.open_sessions(now).await?;
        matching.retain(|session| !prefix.is_empty() && hex(&session.id).starts_with(&prefix));
        let session = match matching.len() {
            0 => return Err(ManageError::NoSession(prefix)),
            1 => matching.remove(0),
            count => return Err(ManageError::ManySessions { prefix, count }),
        };
        let close = async {
            let mut tx = self.inner.store.begin().await?;
            sessions::close_all(&mut tx, Of::Session(&session.id), seconds(now)).await?;
            tx.commit().await
        };
        close.await.map_err(|error| self.inner.store.explain(error))?;
        Ok((session.user, session.id))
    }

    /// Closes all sessions of a user. Returns the normalised name and the ids.
    ///
    /// # Errors
    /// No such user; the database's.
    pub async fn revoke_sessions_of(
        &self,
        user: &str,
        now: u64,
    ) -> Result<(String, Vec<[u8; 16]>), ManageError> {
        self.change_user(user, async |db, user: &users::User| {
            sessions::close_all(db, Of::User(user.id), seconds(now)).await
        })
        .await
    }
}

/// As sessions are shown and named.
pub fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
