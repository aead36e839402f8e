//! Limits how often a secret can be guessed (A3), without ever locking anybody out: who goes too
//! fast is told how long to wait, and after that wait the next try counts again.
//!
//! Tries are counted by who makes them ([`Guesser`]), never by whom they are for alone: otherwise
//! a stranger could keep a user out by guessing at the user's password. In memory, in tables of a
//! fixed size: a restart forgives.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::queue::Suspicion;

/// Tries a minute by one address for one user, or by one device ...
pub(super) const PER_GUESSER: u32 = 10;
/// ... and by one address for all users.
pub(super) const PER_ADDRESS: u32 = 100;
/// The first wait, in seconds; each further one is twice as long ...
const FIRST_WAIT_S: u64 = 6;
/// ... up to this.
const LONGEST_WAIT_S: u64 = 60;
/// Who has not tried for so long begins anew.
const FORGOTTEN_AFTER_S: u64 = 600;
/// So many are watched at most in each table; beyond that the one idle longest is forgotten.
const CAPACITY: usize = 4096;

/// Who is trying.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Guesser {
    /// A device that is the user's, proven by its key. Nobody else can use up its tries, whatever
    /// address they share with it.
    Device(i64),
    /// Somebody at this address (/64) who says to be this user.
    Stranger(String, IpAddr),
}

/// Counts tries.
#[derive(Default)]
pub(super) struct Attempts {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    guessers: Table<Guesser>,
    addresses: Table<IpAddr>,
}

impl Attempts {
    /// Counts a try before it is made, so that many at the same moment do not slip through. Says how
    /// suspicious it is: by the tries from that address, whoever they were for.
    ///
    /// # Errors
    /// The seconds to wait. A try that is refused is not counted: who goes on trying does not
    /// have to wait the longer for it.
    pub(super) fn begin(&self, guesser: &Guesser, now: u64) -> Result<Suspicion, u32> {
        let tables = &mut *self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.guessers.check(guesser, PER_GUESSER, now)?;
        let suspicion = match guesser {
            Guesser::Device(_) => Suspicion::NONE,
            Guesser::Stranger(_, address) => {
                tables.addresses.check(address, PER_ADDRESS, now)?;
                Suspicion::of(tables.addresses.count(address, PER_ADDRESS, now))
            }
        };
        tables.guessers.count(guesser, PER_GUESSER, now);
        Ok(suspicion)
    }

    /// The secret was right. Nothing is held against the guesser any more, and this try not
    /// against the address; the others are, for they may be guesses at other users' secrets.
    pub(super) fn succeeded(&self, guesser: &Guesser) {
        let tables = &mut *self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.guessers.entries.remove(guesser);
        if let Guesser::Stranger(_, address) = guesser {
            tables.addresses.take_back(address);
        }
    }

    /// Counts a wrong secret that says by itself whose it is: an invitation's.
    ///
    /// # Errors
    /// The seconds to wait.
    pub(super) fn wrong(&self, address: IpAddr, now: u64) -> Result<(), u32> {
        let tables = &mut *self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.addresses.check(&address, PER_ADDRESS, now)?;
        tables.addresses.count(&address, PER_ADDRESS, now);
        Ok(())
    }
}

/// Tries of many, each a bucket that leaks.
struct Table<K> {
    entries: HashMap<K, Tries>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Table { entries: HashMap::new() }
    }
}

/// All in seconds of the gateway's clock.
#[derive(Clone, Copy)]
struct Tries {
    /// Tries made and not yet leaked, in sixtieths.
    level: u64,
    /// When that was so.
    at: u64,
    /// No try before this.
    free_at: u64,
    /// How often the bucket ran full.
    waits: u32,
}

/// One try, in the unit of [`Tries::level`].
const TRY: u64 = 60;

impl<K: Clone + Eq + Hash> Table<K> {
    fn check(&mut self, key: &K, limit: u32, now: u64) -> Result<(), u32> {
        let Some(tries) = self.entries.get_mut(key) else { return Ok(()) };
        let Some(elapsed) = now.checked_sub(tries.at).filter(|idle| *idle < FORGOTTEN_AFTER_S)
        else {
            // long ago, or the clock was set back
            self.entries.remove(key);
            return Ok(());
        };
        if let Some(wait) = tries.free_at.checked_sub(now).filter(|wait| *wait > 0) {
            return Err(u32::try_from(wait).unwrap_or(u32::MAX));
        }
        tries.level = tries.level.saturating_sub(elapsed * u64::from(limit));
        tries.at = now;
        Ok(())
    }

    /// Returns how many there are lately.
    fn count(&mut self, key: &K, limit: u32, now: u64) -> u32 {
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(key) {
            let idle = self.entries.iter().min_by_key(|(_, tries)| tries.at);
            if let Some(idle) = idle.map(|(key, _)| key.clone()) {
                self.entries.remove(&idle);
            }
        }
        let fresh = Tries { level: 0, at: now, free_at: 0, waits: 0 };
        let tries = self.entries.entry(key.clone()).or_insert(fresh);
        tries.level += TRY;
        if tries.level + TRY > u64::from(limit) * TRY {
            let wait = (FIRST_WAIT_S << tries.waits.min(16)).min(LONGEST_WAIT_S);
            tries.free_at = now + wait;
            tries.waits += 1;
        }
        u32::try_from(tries.level.div_ceil(TRY)).unwrap_or(u32::MAX)
    }

    fn take_back(&mut self, key: &K) {
        if let Some(tries) = self.entries.get_mut(key) {
            tries.level = tries.level.saturating_sub(TRY);
            if tries.free_at > tries.at {
                tries.free_at = 0;
                tries.waits = tries.waits.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn stranger(user: &str, address: u8) -> Guesser {
        Guesser::Stranger(user.to_owned(), IpAddr::from([192, 0, 2, address]))
    }

    /// Tries as often as it is let for so long; returns how often that was.
    fn hammer(attempts: &Attempts, guesser: &Guesser, from: u64, seconds: u64) -> u32 {
        (from..from + seconds)
            .map(|now| (0..3).filter(|_| attempts.begin(guesser, now).is_ok()).count() as u32)
            .sum()
    }

    #[test]
    fn ten_tries_then_waits_that_grow_and_end() {
        let attempts = Attempts::default();
        let ada = stranger("ada", 1);
        for _ in 0..PER_GUESSER {
            assert!(attempts.begin(&ada, NOW).is_ok());
        }
        let mut now = NOW;
        let mut waits = Vec::new();
        while waits.len() < 6 {
            match attempts.begin(&ada, now) {
                Ok(_) => {}
                Err(wait) => {
                    waits.push(wait);
                    now += u64::from(wait);
                }
            }
        }
        assert_eq!(waits, [6, 12, 24, 48, 60, 60]);
        assert!(attempts.begin(&ada, now).is_ok(), "after the wait it counts again");
    }

    #[test]
    fn who_hammers_gets_ten_a_minute_and_does_not_lengthen_the_wait() {
        let attempts = Attempts::default();
        let count = hammer(&attempts, &stranger("ada", 1), NOW, 3600);
        assert!((500..=620).contains(&count), "{count} in an hour");
    }

    #[test]
    fn neither_another_address_nor_a_device_of_the_user_s_suffers() {
        let attempts = Attempts::default();
        hammer(&attempts, &stranger("ada", 1), NOW, 4);
        assert!(attempts.begin(&stranger("ada", 1), NOW + 3).is_err());
        assert!(attempts.begin(&stranger("ada", 2), NOW + 3).is_ok());
        assert!(attempts.begin(&stranger("bob", 1), NOW + 3).is_ok());
        assert!(attempts.begin(&Guesser::Device(7), NOW + 3).is_ok());
    }

    #[test]
    fn one_address_is_limited_for_all_users_together_but_not_its_devices() {
        let attempts = Attempts::default();
        let tried =
            (0..200).filter(|n| attempts.begin(&stranger(&format!("u{n}"), 1), NOW).is_ok());
        assert_eq!(tried.count() as u32, PER_ADDRESS);
        assert!(attempts.wrong(IpAddr::from([192, 0, 2, 1]), NOW).is_err());
        assert_eq!(attempts.wrong(IpAddr::from([192, 0, 2, 2]), NOW), Ok(()));
        assert!(attempts.begin(&Guesser::Device(7), NOW).is_ok());
    }

    #[test]
    fn the_more_an_address_tries_the_more_suspicious_it_is_for_some_time() {
        let attempts = Attempts::default();
        let mut last = Suspicion::NONE;
        for n in 0..PER_ADDRESS - 1 {
            let suspicion = attempts.begin(&stranger(&format!("u{n}"), 1), NOW).unwrap();
            assert!(suspicion > last, "{n}");
            last = suspicion;
        }
        let fresh = attempts.begin(&stranger("ada", 2), NOW).unwrap();
        assert!(Suspicion::NONE < fresh && fresh < last);
        assert_eq!(attempts.begin(&Guesser::Device(7), NOW), Ok(Suspicion::NONE));
        assert_eq!(attempts.begin(&stranger("eve", 1), NOW + 120), Ok(fresh), "it fades");
    }

    #[test]
    fn nobody_waits_longer_than_a_minute_whatever_was_done() {
        let attempts = Attempts::default();
        let mut longest = 0;
        for now in NOW..NOW + 7_200 {
            for n in 0..20 {
                for guesser in [stranger(&format!("u{n}"), 1), Guesser::Device(n)] {
                    longest = longest.max(attempts.begin(&guesser, now).err().unwrap_or(0));
                }
            }
        }
        assert_eq!(u64::from(longest), LONGEST_WAIT_S);
        // and fifteen minutes later nothing is left of it
        let later = NOW + 7_200 + 900;
        for _ in 1..PER_GUESSER {
            assert!(attempts.begin(&stranger("u1", 1), later).is_ok());
        }
        assert_eq!(attempts.begin(&stranger("v", 1), later), Ok(Suspicion::of(PER_GUESSER)));
    }

    #[test]
    fn success_forgives_the_guesser_and_costs_the_address_nothing() {
        let attempts = Attempts::default();
        for n in 0..1000 {
            let user = stranger(&format!("u{}", n % 3), 1);
            assert!(attempts.begin(&user, NOW).is_ok(), "{n}");
            attempts.succeeded(&user);
        }
        // one's own right password buys no guesses at others'
        let mut guesses = 0;
        for n in 0..1000 {
            guesses += u32::from(attempts.begin(&stranger(&format!("v{n}"), 1), NOW).is_ok());
            if attempts.begin(&stranger("u0", 1), NOW).is_ok() {
                attempts.succeeded(&stranger("u0", 1));
            }
        }
        assert!(guesses <= PER_ADDRESS, "{guesses}");
    }

    #[test]
    fn a_clock_set_back_forgives_and_one_set_forward_too() {
        let attempts = Attempts::default();
        let ada = stranger("ada", 1);
        for now in [NOW, NOW - 365 * 86_400, NOW + 365 * 86_400] {
            assert_eq!(hammer(&attempts, &ada, now, 1), 3);
            while attempts.begin(&ada, now).is_ok() {}
        }
    }

    #[test]
    fn memory_is_bounded_and_the_latest_stay_limited() {
        let attempts = Attempts::default();
        for n in 0..3 * CAPACITY as u32 {
            let user = Guesser::Stranger("ada".into(), std::net::Ipv4Addr::from(n).into());
            assert!(attempts.begin(&user, NOW + u64::from(n) / 100).is_ok());
        }
        let tables = attempts.tables.lock().unwrap();
        assert_eq!(tables.guessers.entries.len(), CAPACITY);
        assert_eq!(tables.addresses.entries.len(), CAPACITY);
    }
}
