//! Log-in, enrolment and addresses against a real database file.

mod guessing;
mod managing;
mod resuming;

use tempfile::TempDir;

use super::*;

/// Where clients come from.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

struct Fixture {
    accounts: Accounts,
    _dir: TempDir,
}

impl Fixture {
    async fn new() -> Fixture {
        Fixture::with_pool("10.8.0.0/24").await
    }

    async fn with_pool(v4: &str) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let pool = PoolConfig::new(v4.parse().unwrap(), "fd12::/64".parse().unwrap()).unwrap();
        let accounts = Accounts::open(&dir.path().join("cipherwall.db"), pool).await.unwrap();
        Fixture { accounts, _dir: dir }
    }

    async fn invite(&self, user: &str) -> Invited {
        self.accounts.invite(user, DAY, NOW).await.unwrap()
    }

    async fn enrol(&self, invited: &Invited, device: u8, now: u64) -> Result<Grant, Refusal> {
        self.accounts.enrol(&invited.enrol_secret, &[device; 32], None, HERE, now).await
    }

    fn prehash(&self, user: &str, password: &str) -> [u8; 32] {
        credential::prehash(password, &self.accounts.salt(user))
    }

    async fn login(&self, user: &str, password: &str, device: u8) -> Result<Grant, Refusal> {
        let prehash = self.prehash(user, password);
        self.accounts.login(user, &prehash, &[device; 32], HERE, NOW).await
    }

    async fn standing(&self, grant: &Grant) -> Standing {
        self.accounts.standing(grant.device_id, grant.generation).await
    }

    /// What an administrator's later commands do.
    async fn sql(&self, sql: &'static str) {
        let mut db = self.accounts.inner.store.connection().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut *db).await.unwrap();
    }

    async fn one(&self, sql: &'static str) -> i64 {
        let mut db = self.accounts.inner.store.connection().await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut *db).await.unwrap()
    }
}

fn refusal(result: Result<Grant, Refusal>) -> Refusal {
    result.err().expect("it must be refused")
}

#[tokio::test]
async fn a_password_logs_in_and_two_devices_have_two_sticky_addresses() {
    let fixture = Fixture::new().await;
    fixture.accounts.add_user("Ada", Some("correct horse"), None, NOW).await.unwrap();
    let laptop = fixture.login("ada", "correct horse", 1).await.unwrap();
    let phone = fixture.login("ADA", "correct horse", 2).await.unwrap();
    assert_eq!(laptop.user, "ada");
    assert_eq!(laptop.inner_v4, Ipv4Addr::new(10, 8, 0, 2));
    assert_eq!(laptop.inner_v6, "fd12::2".parse::<Ipv6Addr>().unwrap());
    assert_eq!(phone.inner_v4, Ipv4Addr::new(10, 8, 0, 3));
    assert_ne!(laptop.device_id, phone.device_id);

    let again = fixture.login("ada", "correct horse", 1).await.unwrap();
    assert_eq!((again.inner_v4, again.device_id), (laptop.inner_v4, laptop.device_id));
    assert_ne!(again.token, laptop.token);
    assert_ne!(again.session_id, laptop.session_id);
    assert_eq!(uuid::Uuid::from_bytes(again.token).get_version_num(), 4);
}

#[tokio::test]
async fn unknown_disabled_passwordless_and_wrong_are_the_same_refusal() {
    let fixture = Fixture::new().await;
    fixture.accounts.add_user("ada", Some("right"), None, NOW).await.unwrap();
    fixture.accounts.add_user("bob", Some("right"), None, NOW).await.unwrap();
    fixture.accounts.add_user("eve", None, None, NOW).await.unwrap();
    fixture.sql("UPDATE users SET enabled = 0 WHERE name = 'bob'").await;
    for (user, password) in
        [("ada", "wrong"), ("bob", "right"), ("eve", ""), ("nobody", "x"), ("", "x"), ("a b", "x")]
    {
        assert_eq!(refusal(fixture.login(user, password, 1).await), Refusal::Rejected, "{user}");
    }
    assert_eq!(fixture.one("SELECT COUNT(*) FROM devices").await, 0);
}

#[tokio::test]
async fn an_invitation_lets_one_device_in_and_that_one_again_at_any_time() {
    let fixture = Fixture::new().await;
    let invited = fixture.invite("ada").await;
    let first = fixture.enrol(&invited, 1, NOW + HOUR).await.unwrap();
    assert_eq!(refusal(fixture.enrol(&invited, 2, NOW + HOUR).await), Refusal::Used);
    let much_later = fixture.enrol(&invited, 1, NOW + 400 * DAY).await.unwrap();
    assert_eq!(
        (much_later.inner_v4, much_later.device_id, &*much_later.user),
        (first.inner_v4, first.device_id, "ada")
    );
}

#[tokio::test]
async fn expired_revoked_unknown_disabled_and_removed_are_told_apart_as_designed() {
    let fixture = Fixture::new().await;
    let late = fixture.invite("ada").await;
    assert_eq!(refusal(fixture.enrol(&late, 1, NOW + DAY).await), Refusal::Expired);
    assert!(fixture.enrol(&late, 1, NOW + DAY - 1).await.is_ok());

    fixture.sql("UPDATE invitations SET revoked = 1").await;
    assert_eq!(refusal(fixture.enrol(&late, 1, NOW).await), Refusal::Revoked);
    assert_eq!(refusal(fixture.enrol(&late, 2, NOW).await), Refusal::Revoked);

    let unknown = fixture.accounts.enrol(&[0; 16], &[1; 32], Some(&[0; 32]), HERE, NOW).await;
    assert_eq!(refusal(unknown), Refusal::Rejected);

    let bob = fixture.invite("bob").await;
    fixture.sql("UPDATE users SET enabled = 0 WHERE name = 'bob'").await;
    assert_eq!(refusal(fixture.enrol(&bob, 3, NOW).await), Refusal::Rejected);
    fixture.sql("UPDATE users SET enabled = 1 WHERE name = 'bob'").await;
    assert!(fixture.enrol(&bob, 3, NOW).await.is_ok(), "a refusal does not use it up");

    fixture.sql("DELETE FROM devices").await;
    assert_eq!(refusal(fixture.enrol(&bob, 3, NOW).await), Refusal::Rejected);
}

#[tokio::test]
async fn of_many_devices_with_one_link_exactly_one_gets_in() {
    let fixture = Fixture::new().await;
    let invited = fixture.invite("ada").await;
    let mut tries = tokio::task::JoinSet::new();
    for device in 1..=8 {
        let (accounts, secret) = (fixture.accounts.clone(), invited.enrol_secret);
        tries.spawn(
            async move { accounts.enrol(&secret, &[device; 32], None, HERE, NOW).await.err() },
        );
    }
    let results = tries.join_all().await;
    assert_eq!(results.iter().filter(|r| r.is_none()).count(), 1, "{results:?}");
    assert_eq!(results.iter().filter(|r| **r == Some(Refusal::Used)).count(), 7, "{results:?}");
}

#[tokio::test]
async fn enrolment_sets_a_first_password_and_never_replaces_one() {
    let fixture = Fixture::new().await;
    let invited = fixture.invite("ada").await;
    for password in ["first", "second"] {
        let prehash = fixture.prehash("ada", password);
        let secret = &invited.enrol_secret;
        fixture.accounts.enrol(secret, &[1; 32], Some(&prehash), HERE, NOW).await.unwrap();
    }
    assert!(fixture.login("ada", "first", 2).await.is_ok());
    assert_eq!(refusal(fixture.login("ada", "second", 2).await), Refusal::Rejected);
}

#[tokio::test]
async fn a_session_replaces_the_device_s_old_one_and_closing_ends_it() {
    let fixture = Fixture::new().await;
    let (ada, bob) = (fixture.invite("ada").await, fixture.invite("bob").await);
    let old = fixture.enrol(&ada, 1, NOW).await.unwrap();
    let other = fixture.enrol(&bob, 2, NOW).await.unwrap();
    let new = fixture.enrol(&ada, 1, NOW + 1).await.unwrap();
    let open = fixture.accounts.open_sessions(NOW + 2).await.unwrap();
    let ids: Vec<_> = open.iter().map(|session| session.id).collect();
    assert_eq!(ids, [other.session_id, new.session_id]);
    assert!(!ids.contains(&old.session_id));
    assert_eq!(open[1].user, "ada");
    assert_eq!(open[1].inner_v4, Some(new.inner_v4));

    fixture.accounts.close_session(&new.session_id, new.generation, NOW + 3).await;
    assert_eq!(fixture.accounts.open_sessions(NOW + 3).await.unwrap().len(), 1);
    assert!(fixture.accounts.open_sessions(NOW + DAY).await.unwrap().is_empty(), "24 h");
}

#[tokio::test]
async fn only_hashes_of_secrets_are_stored() {
    let fixture = Fixture::new().await;
    let invited = fixture.invite("ada").await;
    let prehash = fixture.prehash("ada", "password");
    let secret = &invited.enrol_secret;
    let grant = fixture.accounts.enrol(secret, &[1; 32], Some(&prehash), HERE, NOW).await.unwrap();
    fixture.accounts.close().await;
    let file = std::fs::read(fixture._dir.path().join("cipherwall.db")).unwrap();
    let holds = |needle: &[u8]| file.windows(needle.len()).any(|window| window == needle);
    assert!(holds(&Sha256::digest(grant.token)), "the hash is there");
    assert!(!holds(&grant.token) && !holds(&invited.enrol_secret) && !holds(&prehash));
}

#[tokio::test]
async fn a_full_pool_says_so_and_takes_only_addresses_long_unused() {
    let fixture = Fixture::with_pool("10.8.0.0/30").await;
    let (ada, bob) = (fixture.invite("ada").await, fixture.invite("bob").await);
    let first = fixture.enrol(&ada, 1, NOW).await.unwrap();
    let full = refusal(fixture.enrol(&bob, 2, NOW + HOUR).await);
    assert_eq!(full, Refusal::Full { pool: "10.8.0.0/30".into(), size: 1 });

    let later = fixture.accounts.invite("bob", 99 * DAY, NOW).await.unwrap();
    fixture.accounts.extend_sessions(&[first.session_id], NOW + 31 * DAY).await;
    let in_use = refusal(fixture.enrol(&later, 2, NOW + 31 * DAY).await);
    assert!(matches!(in_use, Refusal::Full { .. }), "the first device is still connected");

    fixture.accounts.close_session(&first.session_id, first.generation, NOW + 31 * DAY).await;
    let taken = fixture.enrol(&later, 2, NOW + 62 * DAY).await.unwrap();
    assert_eq!(taken.inner_v4, first.inner_v4);
    let back = refusal(fixture.enrol(&ada, 1, NOW + 62 * DAY).await);
    assert!(matches!(back, Refusal::Full { .. }), "an address is never held twice");
}

#[tokio::test]
async fn another_network_in_the_configuration_gives_new_addresses() {
    let fixture = Fixture::new().await;
    let invited = fixture.invite("ada").await;
    fixture.enrol(&invited, 1, NOW).await.unwrap();
    let path = fixture._dir.path().join("cipherwall.db");
    let pool = PoolConfig::new("10.9.0.0/16".parse().unwrap(), "fd99::/64".parse().unwrap());
    let accounts = Accounts::open(&path, pool.unwrap()).await.unwrap();
    let moved = accounts.enrol(&invited.enrol_secret, &[1; 32], None, HERE, NOW).await.unwrap();
    assert_eq!(moved.inner_v4, Ipv4Addr::new(10, 9, 0, 2));
    assert_eq!(moved.inner_v6, "fd99::2".parse::<Ipv6Addr>().unwrap());
}

#[tokio::test]
async fn secrets_stay_the_same_and_salts_say_nothing_about_who_exists() {
    let fixture = Fixture::new().await;
    fixture.accounts.add_user("ada", None, None, NOW).await.unwrap();
    let path = fixture._dir.path().join("cipherwall.db");
    let again = Accounts::open(&path, fixture.accounts.inner.pool).await.unwrap();
    assert_eq!(again.door_keys().current, fixture.accounts.door_keys().current);
    for user in ["ada", "nobody", "", "no name"] {
        assert_eq!(again.salt(user), fixture.accounts.salt(user));
    }
    assert_eq!(again.salt("ADA"), again.salt("ada"));
    assert_ne!(again.salt("ada"), again.salt("nobody"));
}

#[tokio::test]
async fn a_name_is_taken_once_and_an_invitation_makes_the_user() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.accounts.add_user(" Ada ", None, None, NOW).await.unwrap(), "ada");
    let taken = fixture.accounts.add_user("ADA", None, None, NOW).await.unwrap_err();
    assert_eq!(taken.to_string(), "user ada exists already");
    assert!(!fixture.invite("ada").await.new_user);
    let invited = fixture.invite("Bob").await;
    assert!(invited.new_user && invited.user == "bob" && invited.expires == NOW + DAY);
    fixture.enrol(&invited, 1, NOW).await.unwrap();
    let users = fixture.accounts.list_users().await.unwrap();
    let names: Vec<_> = users.iter().map(|u| (&*u.name, u.devices, u.last_seen)).collect();
    assert_eq!(names, [("ada", 0, None), ("bob", 1, Some(NOW))]);
}
