//! Argon2id over pre-hashes (A3), behind a short queue: it is meant to be slow, and everybody who
//! holds an invitation can make the gateway run it.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher, PasswordVerifier};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refusal;

/// So many at a time, each with 19 MiB of memory.
const AT_A_TIME: usize = 2;
/// So many more may wait.
const WAITING: usize = 32;
/// When to come back if the queue is full, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// Checks and makes password hashes.
pub(super) struct Passwords {
    places: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    /// Checked in place of the hash of a user who has none.
    dummy: String,
}

impl Passwords {
    pub(super) fn new() -> Passwords {
        // No pre-hash is known that matches it. Same parameters, hence the same work.
        let (m, t, p) = (Params::DEFAULT_M_COST, Params::DEFAULT_T_COST, Params::DEFAULT_P_COST);
        let dummy =
            format!("$argon2id$v=19$m={m},t={t},p={p}${}${}", "A".repeat(22), "A".repeat(43));
        Passwords {
            places: Arc::new(Semaphore::new(AT_A_TIME + WAITING)),
            workers: Arc::new(Semaphore::new(AT_A_TIME)),
            dummy,
        }
    }

    /// Whether the pre-hash is that of `hash`. Without a hash: the same work, and no.
    pub(super) async fn verify(
        &self,
        hash: Option<String>,
        prehash: &[u8; 32],
    ) -> Result<bool, Refusal> {
        let (known, hash) = (hash.is_some(), hash.unwrap_or_else(|| self.dummy.clone()));
        let prehash = *prehash;
        let verified = self.work(move || {
            let hash = PasswordHash::new(&hash)?;
            Ok(match Argon2::default().verify_password(&prehash, &hash) {
                Ok(()) => true,
                Err(argon2::password_hash::Error::PasswordInvalid) => false,
                Err(error) => return Err(error),
            })
        });
        Ok(verified.await? && known)
    }

    /// The hash to store for a pre-hash, in PHC format.
    pub(super) async fn hash(&self, prehash: &[u8; 32]) -> Result<String, Refusal> {
        let prehash = *prehash;
        self.work(move || Argon2::default().hash_password(&prehash).map(|hash| hash.to_string()))
            .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = self.turn().await?;
        // The turn ends with the work, not with the caller, who may be cancelled.
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        done.await
            .map_err(|error| error.to_string())
            .and_then(|r| r.map_err(|e| e.to_string()))
            .map_err(|error| {
                tracing::error!(%error, "cannot run Argon2");
                Refusal::Internal
            })
    }

    async fn turn(&self) -> Result<[OwnedSemaphorePermit; 2], Refusal> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Refusal::Busy { retry_after: RETRY_AFTER_S })?;
        // Never closed.
        let worker = Arc::clone(&self.workers).acquire_owned().await;
        Ok([place, worker.map_err(|_| Refusal::Internal)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_verifies_its_own_prehash_only() {
        let passwords = Passwords::new();
        let hash = passwords.hash(&[7; 32]).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_eq!(passwords.verify(Some(hash.clone()), &[7; 32]).await, Ok(true));
        assert_eq!(passwords.verify(Some(hash), &[8; 32]).await, Ok(false));
        assert_eq!(passwords.verify(None, &[7; 32]).await, Ok(false));
    }

    #[tokio::test]
    async fn the_dummy_costs_what_a_hash_of_today_costs() {
        let passwords = Passwords::new();
        let real = passwords.hash(&[7; 32]).await.unwrap();
        let params = |hash: &str| {
            let hash = PasswordHash::new(hash).unwrap();
            (hash.algorithm.to_string(), hash.version, hash.params.to_string())
        };
        assert_eq!(params(&passwords.dummy), params(&real));
    }

    #[tokio::test]
    async fn a_full_queue_says_busy_and_recovers() {
        let passwords = Arc::new(Passwords::new());
        let all = Arc::clone(&passwords.places).acquire_many_owned(34).await.unwrap();
        let busy = passwords.verify(None, &[0; 32]).await;
        assert_eq!(busy, Err(Refusal::Busy { retry_after: RETRY_AFTER_S }));
        drop(all);
        assert_eq!(passwords.verify(None, &[0; 32]).await, Ok(false));
    }

    #[tokio::test]
    async fn a_caller_who_left_gives_his_turn_back_when_the_work_is_done() {
        let passwords = Passwords::new();
        for _ in 0..8 {
            let cancelled = passwords.verify(None, &[0; 32]);
            let _ = tokio::time::timeout(std::time::Duration::from_millis(1), cancelled).await;
        }
        assert_eq!(passwords.verify(None, &[0; 32]).await, Ok(false));
        // those who were cancelled are still being worked for
        let all = passwords.places.acquire_many(34);
        assert!(tokio::time::timeout(std::time::Duration::from_secs(30), all).await.is_ok());
    }
}
