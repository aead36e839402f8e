//! Argon2id over pre-hashes (A3), behind a short queue: it is meant to be slow, and everybody who
//! holds an invitation can make the gateway run it. It runs on blocking threads of the caller's
//! runtime; those of the gateway's lobby are of low priority.

use std::sync::Arc;

use super::Refusal;
use super::queue::{Queue, Suspicion};
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher, PasswordVerifier};

/// So many at a time, each with 19 MiB of memory.
const AT_A_TIME: usize = 2;
/// So many more may wait.
const WAITING: usize = 32;
/// When to come back if the queue is full, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// Checks and makes password hashes.
pub(super) struct Passwords {
    queue: Arc<Queue>,
    /// Checked in place of the hash of a user who has none.
    dummy: String,
}

impl Passwords {
    pub(super) fn new() -> Passwords {
        // No pre-hash is known that matches it. Same parameters, hence the same work.
        let (m, t, p) = (Params::DEFAULT_M_COST, Params::DEFAULT_T_COST, Params::DEFAULT_P_COST);
        let dummy =
            format!("$argon2id$v=19$m={m},t={t},p={p}${}${}", "A".repeat(22), "A".repeat(43));
        Passwords { queue: Queue::new(AT_A_TIME, WAITING), dummy }
    }

    /// Whether the pre-hash is that of `hash`. Without a hash: the same work, and no.
    pub(super) async fn verify(
        &self,
        hash: Option<String>,
        prehash: &[u8; 32],
        suspicion: Suspicion,
    ) -> Result<bool, Refusal> {
        let (known, hash) = (hash.is_some(), hash.unwrap_or_else(|| self.dummy.clone()));
        let prehash = *prehash;
        let verified = self.work(suspicion, move || {
            let hash = PasswordHash::new(&hash)?;
            Ok(match Argon2::default().verify_password(&prehash, &hash) {
                Ok(()) => true,
                Err(argon2::password_hash::Error::PasswordInvalid) => false,
                Err(error) => return Err(error),
            })
        });
        Ok(verified.await? && known)
    }

    /// The hash to store for the pre-hash of somebody who may set it, in PHC format.
    pub(super) async fn hash(&self, prehash: &[u8; 32]) -> Result<String, Refusal> {
        let prehash = *prehash;
        let hash = move || Argon2::default().hash_password(&prehash).map(|hash| hash.to_string());
        self.work(Suspicion::NONE, hash).await
    }

    async fn work<T: Send + 'static>(
        &self,
        suspicion: Suspicion,
        work: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        let busy = Refusal::Busy { retry_after: RETRY_AFTER_S };
        let turn = self.queue.turn(suspicion).await.ok_or(busy)?;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_verifies_its_own_prehash_only() {
        let passwords = Passwords::new();
        let hash = passwords.hash(&[7; 32]).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_eq!(passwords.verify(Some(hash.clone()), &[7; 32], Suspicion::NONE).await, Ok(true));
        assert_eq!(passwords.verify(Some(hash), &[8; 32], Suspicion::NONE).await, Ok(false));
        assert_eq!(passwords.verify(None, &[7; 32], Suspicion::NONE).await, Ok(false));
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
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..AT_A_TIME + WAITING + 6 {
            let passwords = passwords.clone();
            crowd.spawn(async move { passwords.verify(None, &[0; 32], Suspicion::of(1)).await });
        }
        let answers = crowd.join_all().await;
        let busy = Err(Refusal::Busy { retry_after: RETRY_AFTER_S });
        assert_eq!(answers.iter().filter(|answer| **answer == busy).count(), 6);
        assert_eq!(answers.iter().filter(|answer| **answer == Ok(false)).count(), 34);
        assert_eq!(passwords.verify(None, &[0; 32], Suspicion::of(1)).await, Ok(false));
    }

    #[tokio::test]
    async fn a_caller_who_left_gives_his_turn_back_when_the_work_is_done() {
        let passwords = Passwords::new();
        for _ in 0..8 {
            let cancelled = passwords.verify(None, &[0; 32], Suspicion::of(1));
            let _ = tokio::time::timeout(std::time::Duration::from_millis(1), cancelled).await;
        }
        // those who were cancelled are still being worked for
        assert_eq!(passwords.verify(None, &[0; 32], Suspicion::of(9)).await, Ok(false));
    }
}
