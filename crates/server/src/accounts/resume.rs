//! Sessions that go on: tokens instead of passwords (A4, A9; docs/protocol.md, "Tokens").
//!
//! Each resume gives the client a new token. The one it showed stays good until the client says that
//! it has stored the new one, so that an answer that is lost on the way locks nobody out; after that,
//! whoever shows it has an old copy.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::{
    Accounts, Device, Grant, Refusal, SESSION_LIFETIME_S, Stop, admitted, new_token, seconds,
};
use crate::origin;
use crate::store::tokens::{self, Shown};
use crate::store::{devices, sessions, users};

/// A session that is being looked up before its client has asked for it. Dropped, it is forgotten.
pub struct Foreseen {
    token_hash: [u8; 32],
    lookup: JoinSet<Option<Shown>>,
}

impl Foreseen {
    /// What was found, if it is this token's.
    pub(super) async fn shown(mut self, token_hash: &[u8; 32]) -> Option<Shown> {
        if self.token_hash != *token_hash {
            return None;
        }
        self.lookup.join_next().await?.ok()?
    }
}

impl Accounts {
    /// Begins to look up what the token with this hash stands for. It is a read and changes nothing,
    /// so that whoever asks for it may be anybody.
    pub fn foresee(&self, token_hash: [u8; 32]) -> Foreseen {
        let store = self.inner.store.clone();
        let mut lookup = JoinSet::new();
        lookup.spawn(async move {
            let mut db = store.connection().await.ok()?;
            // who resumes asks again, and then it is said what is wrong
            tokens::find(&mut db, &token_hash).await.ok().flatten()
        });
        Foreseen { token_hash, lookup }
    }

    /// Lets a session go on for whom has its token and, so `is_signed_by` says, its device's key.
    /// `from` is where the client comes from; `foreseen` saves a look-up if it is of this token.
    ///
    /// # Errors
    /// [`Refusal`]; an unknown token and one without the key are not told apart, and are refused
    /// at once.
    pub async fn resume(
        &self,
        token: &[u8; 16],
        is_signed_by: impl Fn(&[u8; 32]) -> bool,
        from: IpAddr,
        now: u64,
        foreseen: Option<Foreseen>,
    ) -> Result<Grant, Refusal> {
        let granted = self.try_resume(token, is_signed_by, from, now, foreseen).await;
        granted.map_err(|stop| self.refusal(stop))
    }

    /// The client has stored the token that the connection of this generation gave it: earlier ones
    /// are void.
    pub async fn token_stored(&self, session_id: &[u8; 16], generation: i64) {
        let done = async {
            let mut tx = self.inner.store.begin().await?;
            tokens::retire_before(&mut tx, session_id, generation).await?;
            tx.commit().await
        };
        if let Err(error) = done.await {
            let error = self.inner.store.explain(error);
            tracing::error!(%error, "cannot retire a session's earlier tokens");
        }
    }

    async fn try_resume(
        &self,
        token: &[u8; 16],
        is_signed_by: impl Fn(&[u8; 32]) -> bool,
        from: IpAddr,
        now: u64,
        foreseen: Option<Foreseen>,
    ) -> Result<Grant, Stop> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        // Guesses do not get so far as to take the write lock, and who has the right token and key
        // is never kept waiting by others at the same address.
        let shown = self.look_up(&hash, foreseen).await?;
        let shown = shown.filter(|shown| is_signed_by(&shown.device_key));
        let is_good =
            |shown: &Shown| !shown.retired && !shown.closed && shown.expires > seconds(now);
        if !shown.as_ref().is_some_and(is_good) {
            let counted = self.inner.tries.wrong(origin::network(from), now);
            counted.map_err(|retry_after| Refusal::Busy { retry_after })?;
        }
        if shown.is_none() {
            return Err(Refusal::Rejected.into());
        }

        let mut tx = self.inner.store.begin().await?;
        // Read again, with the lock: of two resumes at the same moment one is the later.
        let shown = tokens::find(&mut tx, &hash).await?.ok_or(Refusal::Rejected)?;
        let Shown { session_id, device_id, .. } = shown;
        let user = admitted(users::by_id(&mut tx, shown.user_id).await?, now)?;
        let device = devices::by_key(&mut tx, shown.user_id, &shown.device_key).await?;
        let device: Device = device.filter(|d| !d.removed).ok_or(Refusal::Rejected)?;
        if shown.retired {
            return Err(Refusal::Superseded.into());
        }
        if shown.closed {
            let later = sessions::any_later(&mut tx, device_id, shown.generation).await?;
            return Err(if later { Refusal::Superseded } else { Refusal::Revoked }.into());
        }
        if shown.expires <= seconds(now) {
            return Err(Refusal::Expired.into());
        }

        let generation = shown.generation + 1;
        let expires = seconds(now + SESSION_LIFETIME_S);
        sessions::resume(&mut tx, &session_id, generation, expires).await?;
        tokens::prune(&mut tx, &session_id, &hash, generation).await?;
        let token = new_token(&mut tx, &session_id, generation).await?;
        // the same one, unless the gateway's network was changed
        let inner_v4 = self.address_for(&mut tx, &device, now).await?;
        devices::assign(&mut tx, device_id, inner_v4, seconds(now)).await?;
        tx.commit().await?;
        Ok(Grant {
            session_id,
            token,
            user: user.name,
            device_id,
            generation,
            resumed: true,
            inner_v4,
            inner_v6: self.inner.pool.mirror(inner_v4),
        })
    }

    /// Reads without a lock; not at all if it was foreseen.
    async fn look_up(
        &self,
        token_hash: &[u8; 32],
        foreseen: Option<Foreseen>,
    ) -> sqlx::Result<Option<Shown>> {
        if let Some(foreseen) = foreseen
            && let Some(shown) = foreseen.shown(token_hash).await
        {
            return Ok(Some(shown));
        }
        let mut db = self.inner.store.connection().await?;
        tokens::find(&mut db, token_hash).await
    }
}
