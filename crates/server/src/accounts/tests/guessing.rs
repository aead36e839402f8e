//! Log-ins that fail: all alike, and not too fast.

use std::time::{Duration, Instant};

use super::*;

fn elsewhere(n: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, n])
}

impl Fixture {
    async fn guess(&self, user: &str, from: IpAddr, now: u64) -> Refusal {
        refusal(self.accounts.login(user, &[9; 32], &[9; 32], from, now).await)
    }

    /// Guesses until it has to wait; returns for how long.
    async fn guess_on(&self, user: &str, from: IpAddr, now: u64) -> u32 {
        for _ in 0..=attempts::PER_GUESSER {
            if let Refusal::Busy { retry_after } = self.guess(user, from, now).await {
                return retry_after;
            }
        }
        panic!("{user} may guess for ever")
    }
}

#[tokio::test]
async fn guessing_is_limited_by_user_and_address_whether_there_is_such_a_user_or_not() {
    let fixture = Fixture::new().await;
    fixture.accounts.add_user("ada", Some("right"), None, NOW).await.unwrap();
    for user in ["ada", "nobody"] {
        assert_eq!(fixture.guess_on(user, elsewhere(1), NOW).await, 6, "{user}");
        assert_eq!(fixture.guess(user, elsewhere(2), NOW).await, Refusal::Rejected, "{user}");
    }
}

#[tokio::test]
async fn nobody_is_locked_out_by_others_who_guess() {
    let fixture = Fixture::new().await;
    fixture.accounts.add_user("ada", Some("right"), None, NOW).await.unwrap();
    // a device of ada's, behind the same address as whoever guesses
    let laptop = fixture.login("ada", "right", 1).await.unwrap();
    let invited = fixture.invite("ada").await;
    for n in 0..200_u64 {
        let _ = fixture.accounts.enrol(&[7; 16], &[9; 32], None, HERE, NOW).await;
        if n < 12 {
            fixture.guess("ada", HERE, NOW).await;
        }
    }
    assert!(matches!(fixture.guess("ada", HERE, NOW).await, Refusal::Busy { .. }));
    let again = fixture.login("ada", "right", 1).await.unwrap();
    assert_eq!(again.device_id, laptop.device_id);
    assert!(fixture.enrol(&invited, 2, NOW).await.is_ok(), "an invitation is good all the same");

    // and a new device with the right password waits, but not for good
    let prehash = fixture.prehash("ada", "right");
    let mut now = NOW;
    let granted = loop {
        match fixture.accounts.login("ada", &prehash, &[3; 32], HERE, now).await {
            Err(Refusal::Busy { retry_after }) => now += u64::from(retry_after),
            other => break other,
        }
    };
    assert!(granted.is_ok());
    assert!(now - NOW <= 60, "{} s", now - NOW);
}

#[tokio::test]
async fn a_wrong_enrolment_secret_counts_against_its_address() {
    let fixture = Fixture::new().await;
    let mut refusals = Vec::new();
    for n in 0..=attempts::PER_ADDRESS as u8 {
        let tried = fixture.accounts.enrol(&[n; 16], &[9; 32], None, elsewhere(1), NOW).await;
        refusals.push(refusal(tried));
    }
    assert!(matches!(refusals.pop(), Some(Refusal::Busy { .. })));
    assert!(refusals.iter().all(|refusal| *refusal == Refusal::Rejected));
}

/// Somebody who has an old one shall not keep the database busy.
#[tokio::test]
async fn an_invitation_that_was_used_counts_like_a_wrong_one() {
    let fixture = Fixture::new().await;
    let invited = fixture.invite("ada").await;
    fixture.enrol(&invited, 1, NOW).await.unwrap();
    let mut last = None;
    for _ in 0..=attempts::PER_ADDRESS {
        let refusal = refusal(fixture.enrol(&invited, 2, NOW).await);
        assert!(last.replace(refusal).is_none_or(|before| before == Refusal::Used));
    }
    assert!(matches!(last, Some(Refusal::Busy { .. })));
    fixture.enrol(&invited, 1, NOW).await.unwrap();
}

/// A3: how long a refusal takes tells nothing about who exists.
#[tokio::test]
async fn every_failed_log_in_takes_the_same_time() {
    const ROUNDS: u8 = 21;
    let fixture = Fixture::new().await;
    for user in ["ada", "bob"] {
        fixture.accounts.add_user(user, Some("right"), None, NOW).await.unwrap();
    }
    fixture.accounts.add_user("eve", None, None, NOW).await.unwrap();
    fixture.accounts.set_enabled("bob", false, NOW).await.unwrap();
    let ways = [("ada", "wrong"), ("bob", "right"), ("eve", "any"), ("nobody", "any"), ("", "any")];
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..ROUNDS {
        for ((user, password), times) in ways.iter().zip(&mut times) {
            let prehash = fixture.prehash(user, password);
            let (from, started) = (elsewhere(round), Instant::now());
            let refused = fixture.accounts.login(user, &prehash, &[9; 32], from, NOW).await;
            times.push(started.elapsed());
            assert_eq!(refusal(refused), Refusal::Rejected, "{user}");
        }
    }
    let medians: Vec<Duration> = times
        .into_iter()
        .map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        })
        .collect();
    let (least, most) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
    // Argon2 takes some 20 ms; who skipped it would be a hundred times faster
    assert!(most.as_secs_f64() < least.as_secs_f64() * 2.0, "{medians:?} for {ways:?}");
    assert!(*least > Duration::from_millis(3), "{medians:?}");
}
