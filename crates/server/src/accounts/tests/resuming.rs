//! Sessions that go on with their tokens.

use std::time::Duration;

use super::*;

impl Fixture {
    /// With the device's own signature.
    async fn resume_at(&self, token: &[u8; 16], device: u8, now: u64) -> Result<Grant, Refusal> {
        self.accounts.resume(token, |key| *key == [device; 32], HERE, now, None).await
    }

    async fn resume(&self, token: &[u8; 16]) -> Result<Grant, Refusal> {
        self.resume_at(token, 1, NOW).await
    }

    async fn stored(&self, grant: &Grant) {
        self.accounts.token_stored(&grant.session_id, grant.generation).await;
    }

    async fn ada(&self) -> Grant {
        self.enrol(&self.invite("ada").await, 1, NOW).await.unwrap()
    }
}

#[tokio::test]
async fn each_resume_gives_a_new_token_to_the_same_session_and_address() {
    let fixture = Fixture::new().await;
    let first = fixture.ada().await;
    let mut last = first.clone();
    for _ in 0..100 {
        let next = fixture.resume(&last.token).await.unwrap();
        assert!(next.resumed && next.generation > last.generation);
        assert_eq!((next.session_id, next.device_id), (first.session_id, first.device_id));
        assert_eq!((next.inner_v4, next.inner_v6), (first.inner_v4, first.inner_v6));
        assert_ne!(next.token, last.token);
        assert_eq!(uuid::Uuid::from_bytes(next.token).get_version_num(), 4);
        assert_eq!(fixture.standing(&last).await, Standing::Superseded);
        assert_eq!(fixture.standing(&next).await, Standing::Open);
        fixture.stored(&next).await;
        last = next;
    }
    let kept = fixture.one("SELECT COUNT(*) FROM tokens").await;
    assert!(kept < 40, "{kept} tokens are kept");
}

#[tokio::test]
async fn however_many_answers_are_lost_the_token_stays_good() {
    let fixture = Fixture::new().await;
    let first = fixture.ada().await;
    for _ in 0..50 {
        fixture.resume(&first.token).await.unwrap();
    }
    let kept = fixture.one("SELECT COUNT(*) FROM tokens").await;
    assert!(kept < 20, "{kept} tokens are kept");
    let next = fixture.resume(&first.token).await.unwrap();
    fixture.stored(&next).await;
    assert_eq!(refusal(fixture.resume(&first.token).await), Refusal::Superseded);
    assert!(fixture.resume(&next.token).await.is_ok());
}

#[tokio::test]
async fn a_retired_token_is_recognised_and_takes_nothing_from_the_good_one() {
    let fixture = Fixture::new().await;
    let first = fixture.ada().await;
    let second = fixture.resume(&first.token).await.unwrap();
    fixture.stored(&second).await;
    fixture.stored(&second).await;
    for _ in 0..3 {
        assert_eq!(refusal(fixture.resume(&first.token).await), Refusal::Superseded);
    }
    assert_eq!(fixture.standing(&second).await, Standing::Open);
    let third = fixture.resume(&second.token).await.unwrap();
    fixture.stored(&third).await;
    for token in [first.token, second.token] {
        assert_eq!(refusal(fixture.resume(&token).await), Refusal::Superseded);
    }
}

#[tokio::test]
async fn of_two_resumes_in_flight_the_later_wins_and_both_tokens_are_good_until_one_is_stored() {
    let fixture = Fixture::new().await;
    let first = fixture.ada().await;
    let (a, b) = tokio::join!(fixture.resume(&first.token), fixture.resume(&first.token));
    let (a, b) = (a.unwrap(), b.unwrap());
    let (earlier, later) = if a.generation < b.generation { (a, b) } else { (b, a) };
    assert_eq!(fixture.standing(&earlier).await, Standing::Superseded);
    assert_eq!(fixture.standing(&later).await, Standing::Open);

    // the client keeps the earlier one's token: its connection is the one that answered first
    fixture.stored(&earlier).await;
    assert_eq!(refusal(fixture.resume(&first.token).await), Refusal::Superseded);
    let again = fixture.resume(&earlier.token).await.unwrap();
    assert!(again.generation > later.generation);
    fixture.stored(&again).await;
    for old in [earlier, later] {
        assert_eq!(refusal(fixture.resume(&old.token).await), Refusal::Superseded);
    }
}

#[tokio::test]
async fn a_token_without_its_device_s_key_is_like_an_unknown_one_whatever_became_of_it() {
    let fixture = Fixture::new().await;
    let good = fixture.ada().await;
    let next = fixture.resume(&good.token).await.unwrap();
    fixture.stored(&next).await;
    for token in [[9; 16], good.token, next.token] {
        assert_eq!(refusal(fixture.resume_at(&token, 2, NOW).await), Refusal::Rejected);
    }
    fixture.sql("UPDATE sessions SET closed = 1").await;
    assert_eq!(refusal(fixture.resume_at(&next.token, 2, NOW).await), Refusal::Rejected);
}

#[tokio::test]
async fn expired_revoked_replaced_disabled_and_removed_are_told_apart_as_designed() {
    let fixture = Fixture::new().await;
    let grant = fixture.ada().await;
    assert_eq!(refusal(fixture.resume_at(&grant.token, 1, NOW + DAY).await), Refusal::Expired);
    let used = fixture.resume_at(&grant.token, 1, NOW + DAY - 1).await.unwrap();
    assert!(fixture.resume_at(&used.token, 1, NOW + 2 * DAY - 2).await.is_ok(), "extended by use");
    fixture.accounts.extend_sessions(&[grant.session_id], NOW + 9 * DAY).await;
    assert!(
        fixture.resume_at(&used.token, 1, NOW + 10 * DAY - 1).await.is_ok(),
        "and while in use"
    );

    fixture.accounts.set_enabled("ada", false, NOW).await.unwrap();
    assert_eq!(refusal(fixture.resume(&used.token).await), Refusal::Rejected);
    fixture.accounts.set_enabled("ada", true, NOW).await.unwrap();
    assert_eq!(refusal(fixture.resume(&used.token).await), Refusal::Revoked);

    let bob = fixture.enrol(&fixture.invite("bob").await, 1, NOW).await.unwrap();
    fixture.accounts.revoke_sessions_of("bob", NOW).await.unwrap();
    assert_eq!(refusal(fixture.resume(&bob.token).await), Refusal::Revoked);
    fixture.accounts.set_lifetime("bob", Some(HOUR), NOW).await.unwrap();
    assert_eq!(refusal(fixture.resume_at(&bob.token, 1, NOW + HOUR).await), Refusal::Expired);

    let invited = fixture.invite("carol").await;
    let old = fixture.enrol(&invited, 1, NOW).await.unwrap();
    let new = fixture.enrol(&invited, 1, NOW).await.unwrap();
    assert_eq!(refusal(fixture.resume(&old.token).await), Refusal::Superseded);
    assert!(fixture.resume(&new.token).await.is_ok());
    fixture.accounts.remove_device(new.device_id, NOW).await.unwrap();
    assert_eq!(refusal(fixture.resume(&new.token).await), Refusal::Rejected);
}

#[tokio::test]
async fn a_farewell_ends_the_session_unless_a_later_connection_goes_on_with_it() {
    let fixture = Fixture::new().await;
    let first = fixture.ada().await;
    let second = fixture.resume(&first.token).await.unwrap();
    fixture.accounts.close_session(&first.session_id, first.generation, NOW).await;
    assert_eq!(fixture.standing(&second).await, Standing::Open);
    fixture.accounts.close_session(&second.session_id, second.generation, NOW).await;
    for token in [first.token, second.token] {
        assert_eq!(refusal(fixture.resume(&token).await), Refusal::Revoked);
    }
}

#[tokio::test]
async fn sessions_and_their_retired_tokens_outlive_the_gateway_s_process() {
    let fixture = Fixture::new().await;
    let first = fixture.ada().await;
    let second = fixture.resume(&first.token).await.unwrap();
    fixture.stored(&second).await;
    fixture.accounts.close().await;
    let path = fixture._dir.path().join("cipherwall.db");
    let accounts = Accounts::open(&path, *fixture.accounts.pool()).await.unwrap();
    let fixture = Fixture { accounts, ..fixture };
    assert_eq!(refusal(fixture.resume(&first.token).await), Refusal::Superseded);
    let third = fixture.resume(&second.token).await.unwrap();
    assert_eq!((third.session_id, third.inner_v4), (first.session_id, first.inner_v4));
}

#[tokio::test]
async fn guesses_are_bounded_and_reconnecting_every_second_is_not() {
    let fixture = Fixture::new().await;
    let mut grant = fixture.ada().await;
    let mut waits = 0;
    for n in 0..1000_u32 {
        let mut guess = [0; 16];
        guess[..4].copy_from_slice(&n.to_be_bytes());
        let refusal = refusal(fixture.resume(&guess).await);
        if matches!(refusal, Refusal::Busy { .. }) {
            waits += 1;
        } else {
            assert!(matches!(refusal, Refusal::Rejected), "{refusal:?}");
        }
    }
    assert!(waits >= 900, "{waits}");
    for second in 0..120 {
        grant = fixture.resume_at(&grant.token, 1, NOW + second).await.unwrap();
        fixture.stored(&grant).await;
    }
}

#[tokio::test]
async fn a_token_of_a_session_that_is_over_counts_like_a_wrong_one() {
    let fixture = Fixture::new().await;
    let grant = fixture.ada().await;
    fixture.accounts.remove_device(grant.device_id, NOW).await.unwrap();
    let mut waits = 0;
    for _ in 0..1_000 {
        let refusal = refusal(fixture.resume(&grant.token).await);
        waits += u32::from(matches!(refusal, Refusal::Busy { .. }));
    }
    assert!(waits >= 900, "{waits}");
}

#[tokio::test]
async fn an_address_of_another_network_is_replaced_at_a_resume_too() {
    let fixture = Fixture::new().await;
    let grant = fixture.ada().await;
    fixture.accounts.close().await;
    let pool = PoolConfig::new("10.9.0.0/24".parse().unwrap(), "fd13::/64".parse().unwrap());
    let path = fixture._dir.path().join("cipherwall.db");
    let accounts = Accounts::open(&path, pool.unwrap()).await.unwrap();
    let fixture = Fixture { accounts, ..fixture };
    let resumed = fixture.resume(&grant.token).await.unwrap();
    assert_eq!(resumed.inner_v4, Ipv4Addr::new(10, 9, 0, 2));
    assert_eq!(resumed.inner_v6, "fd13::2".parse::<Ipv6Addr>().unwrap());
}

fn hash(token: &[u8; 16]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// With what a hint has led to.
async fn resume_foreseen(
    fixture: &Fixture,
    token: &[u8; 16],
    device: u8,
    foreseen: Foreseen,
) -> Result<Grant, Refusal> {
    let is_signed_by = |key: &[u8; 32]| *key == [device; 32];
    fixture.accounts.resume(token, is_signed_by, HERE, NOW, Some(foreseen)).await
}

#[tokio::test]
async fn a_session_foreseen_changes_no_answer_to_its_resume() {
    let fixture = Fixture::new().await;
    let first = fixture.ada().await;
    let other = fixture.enrol(&fixture.invite("bob").await, 2, NOW).await.unwrap();
    for hinted in [first.token, other.token, [9; 16]] {
        let foreseen = fixture.accounts.foresee(hash(&hinted));
        let refused = resume_foreseen(&fixture, &first.token, 2, foreseen).await;
        assert_eq!(refusal(refused), Refusal::Rejected, "the signature of another device");
        let foreseen = fixture.accounts.foresee(hash(&hinted));
        let next = resume_foreseen(&fixture, &first.token, 1, foreseen).await.unwrap();
        assert_eq!((next.session_id, next.inner_v4), (first.session_id, first.inner_v4));
    }
    let foreseen = fixture.accounts.foresee(hash(&first.token));
    let unknown = resume_foreseen(&fixture, &[9; 16], 1, foreseen).await;
    assert_eq!(refusal(unknown), Refusal::Rejected);
}

#[tokio::test]
async fn what_was_foreseen_and_has_changed_since_is_asked_again() {
    let fixture = Fixture::new().await;
    let first = fixture.ada().await;
    let late = fixture.accounts.foresee(hash(&first.token));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let next = fixture.resume(&first.token).await.unwrap();
    fixture.stored(&next).await;
    let refused = resume_foreseen(&fixture, &first.token, 1, late).await;
    assert_eq!(refusal(refused), Refusal::Superseded, "retired since");
}

#[tokio::test]
async fn a_hint_writes_nothing() {
    let fixture = Fixture::new().await;
    let first = fixture.ada().await;
    let changes = "SELECT SUM(generation) + SUM(retired) + COUNT(*) FROM tokens";
    let (before, expires) =
        (fixture.one(changes).await, fixture.one("SELECT SUM(expires) FROM sessions").await);
    for (hash, is_known) in [(hash(&first.token), true), (hash(&[9; 16]), false)] {
        let shown = fixture.accounts.foresee(hash).shown(&hash).await;
        assert_eq!(shown.is_some(), is_known);
    }
    assert_eq!(fixture.one(changes).await, before);
    assert_eq!(fixture.one("SELECT SUM(expires) FROM sessions").await, expires);
    assert_eq!(fixture.standing(&first).await, Standing::Open);
}
