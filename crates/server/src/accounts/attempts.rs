//! Limits how often passwords can be guessed for one user name (A3). In memory: a restart forgives.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// So many names are watched at most; beyond that the one watched longest is forgotten.
const CAPACITY: usize = 4096;

/// Counts tries by name, in windows that begin with the first try.
pub(super) struct Attempts {
    limit: u32,
    window_s: u64,
    by_name: Mutex<HashMap<String, Tries>>,
}

struct Tries {
    since: u64,
    count: u32,
}

impl Attempts {
    /// At most `limit` tries in `window_s` seconds.
    pub(super) fn new(limit: u32, window_s: u64) -> Attempts {
        Attempts { limit, window_s, by_name: Mutex::default() }
    }

    /// Counts a try before it is made, so that many at the same moment do not slip through.
    ///
    /// # Errors
    /// The seconds to wait.
    pub(super) fn begin(&self, name: &str, now: u64) -> Result<(), u32> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if by_name.len() >= CAPACITY && !by_name.contains_key(name) {
            self.make_room(&mut by_name, now);
        }
        let tries = by_name.entry(name.to_owned()).or_insert(Tries { since: now, count: 0 });
        // A clock that was set back begins a new window too.
        if now < tries.since || now - tries.since >= self.window_s {
            *tries = Tries { since: now, count: 0 };
        }
        if tries.count >= self.limit {
            let wait = tries.since + self.window_s - now;
            return Err(u32::try_from(wait).unwrap_or(u32::MAX));
        }
        tries.count += 1;
        Ok(())
    }

    /// The password was right: nothing is held against the name any more.
    pub(super) fn succeeded(&self, name: &str) {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn make_room(&self, by_name: &mut HashMap<String, Tries>, now: u64) {
        by_name.retain(|_, tries| now.saturating_sub(tries.since) < self.window_s);
        if by_name.len() < CAPACITY {
            return;
        }
        let oldest = by_name.iter().min_by_key(|(_, tries)| tries.since);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            by_name.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_for_the_window_and_for_that_name_only() {
        let attempts = Attempts::new(3, 600);
        for _ in 0..3 {
            assert_eq!(attempts.begin("ada", 1000), Ok(()));
        }
        assert_eq!(attempts.begin("ada", 1010), Err(590));
        assert_eq!(attempts.begin("bob", 1010), Ok(()));
        assert_eq!(attempts.begin("ada", 1600), Ok(()));
    }

    #[test]
    fn success_forgives() {
        let attempts = Attempts::new(2, 600);
        for _ in 0..9 {
            assert_eq!(attempts.begin("ada", 1000), Ok(()));
            attempts.succeeded("ada");
        }
    }

    #[test]
    fn memory_is_bounded_and_the_latest_names_stay_limited() {
        let attempts = Attempts::new(1, 600);
        for n in 0..2 * CAPACITY as u64 {
            assert_eq!(attempts.begin(&format!("user{n}"), n / 100), Ok(()));
        }
        assert_eq!(attempts.by_name.lock().unwrap().len(), CAPACITY);
        assert!(attempts.begin(&format!("user{}", 2 * CAPACITY - 1), 90).is_err());
    }
}
