//! What the administrator does, and what users notice of it.

use super::*;

#[tokio::test]
async fn a_disabled_user_is_out_until_enabled_and_then_the_same_as_before() {
    let fixture = Fixture::new().await;
    let invited = fixture.invite("ada").await;
    let grant = fixture.enrol(&invited, 1, NOW).await.unwrap();
    let (user, closed) = fixture.accounts.set_enabled("Ada", false, NOW).await.unwrap();
    assert_eq!((user.as_str(), closed), ("ada", vec![grant.session_id]));
    assert_eq!(fixture.standing(&grant).await, Standing::Revoked);
    assert_eq!(refusal(fixture.enrol(&invited, 1, NOW).await), Refusal::Rejected);
    fixture.accounts.set_enabled("ada", true, NOW).await.unwrap();
    let again = fixture.enrol(&invited, 1, NOW).await.unwrap();
    assert_eq!((again.device_id, again.inner_v4), (grant.device_id, grant.inner_v4));
}

#[tokio::test]
async fn a_revoked_session_s_device_may_come_again_a_removed_one_may_not() {
    let fixture = Fixture::new().await;
    fixture.accounts.add_user("ada", Some("right"), None, NOW).await.unwrap();
    let invited = fixture.invite("ada").await;
    let grant = fixture.enrol(&invited, 1, NOW).await.unwrap();
    let prefix = &hex(&grant.session_id)[..6];
    let revoked = fixture.accounts.revoke_session(prefix, NOW).await.unwrap();
    assert_eq!(revoked, ("ada".to_owned(), grant.session_id));
    let grant = fixture.enrol(&invited, 1, NOW).await.unwrap();

    let (user, closed) = fixture.accounts.remove_device(grant.device_id, NOW).await.unwrap();
    assert_eq!((user.as_str(), closed), ("ada", vec![grant.session_id]));
    assert_eq!(refusal(fixture.enrol(&invited, 1, NOW).await), Refusal::Rejected);
    assert_eq!(refusal(fixture.login("ada", "right", 1).await), Refusal::Rejected);
    assert!(fixture.accounts.list_devices(Some("ada")).await.unwrap().is_empty());
    assert_eq!(fixture.accounts.user("ada").await.unwrap().devices, 0);
    let error = fixture.accounts.remove_device(grant.device_id, NOW).await.unwrap_err();
    assert!(error.to_string().contains("device list"), "{error}");
    // its address is free
    let other = fixture.login("ada", "right", 2).await.unwrap();
    assert_eq!(other.inner_v4, grant.inner_v4);
}

#[tokio::test]
async fn session_ids_may_be_cut_short_as_long_as_they_are_unique() {
    let fixture = Fixture::new().await;
    for device in 1..=20 {
        let invited = fixture.invite("ada").await;
        fixture.enrol(&invited, device, NOW).await.unwrap();
    }
    let ids: Vec<_> = fixture.accounts.open_sessions(NOW).await.unwrap();
    let digit = |n: usize| hex(&ids[n].id)[..1].to_owned();
    // of twenty ids two begin with the same digit
    let twice = (0..20).map(digit).find(|d| (0..20).filter(|n| digit(*n) == *d).count() > 1);
    let error = fixture.accounts.revoke_session(&twice.unwrap(), NOW).await.unwrap_err();
    assert!(error.to_string().contains("give more digits"), "{error}");
    for wrong in ["", "xyz"] {
        let error = fixture.accounts.revoke_session(wrong, NOW).await.unwrap_err();
        assert!(error.to_string().contains("session list"), "{error}");
    }
    assert_eq!(fixture.accounts.open_sessions(NOW).await.unwrap().len(), 20);
    let (_, closed) = fixture.accounts.revoke_sessions_of("ada", NOW).await.unwrap();
    assert_eq!(closed.len(), 20);
}

#[tokio::test]
async fn a_removed_user_leaves_nothing_and_the_name_is_free() {
    let fixture = Fixture::new().await;
    let invited = fixture.invite("ada").await;
    let grant = fixture.enrol(&invited, 1, NOW).await.unwrap();
    let (_, closed) = fixture.accounts.remove_user("ada", NOW).await.unwrap();
    assert_eq!(closed, [grant.session_id]);
    for table in ["users", "devices", "invitations", "sessions"] {
        let sql: &'static str = format!("SELECT COUNT(*) FROM {table}").leak();
        assert_eq!(fixture.one(sql).await, 0, "{table}");
    }
    assert_eq!(fixture.standing(&grant).await, Standing::Revoked);
    assert_eq!(refusal(fixture.enrol(&invited, 1, NOW).await), Refusal::Rejected);
    let error = fixture.accounts.remove_user("ada", NOW).await.unwrap_err();
    assert!(error.to_string().contains("no user ada"), "{error}");
    fixture.accounts.add_user("ada", None, None, NOW).await.unwrap();
}

#[tokio::test]
async fn a_newer_session_of_a_device_supersedes_the_older() {
    let fixture = Fixture::new().await;
    let invited = fixture.invite("ada").await;
    let old = fixture.enrol(&invited, 1, NOW).await.unwrap();
    assert_eq!(fixture.standing(&old).await, Standing::Open);
    let new = fixture.enrol(&invited, 1, NOW).await.unwrap();
    assert_eq!(fixture.standing(&old).await, Standing::Superseded);
    assert_eq!(fixture.standing(&new).await, Standing::Open);
}

#[tokio::test]
async fn an_account_ends_by_the_gateway_s_clock_and_says_so_to_its_owner_only() {
    let fixture = Fixture::new().await;
    fixture.accounts.add_user("ada", Some("right"), Some(HOUR), NOW).await.unwrap();
    let invited = fixture.accounts.invite("ada", 9 * HOUR, NOW).await.unwrap();
    let grant = fixture.enrol(&invited, 1, NOW).await.unwrap();
    assert!(fixture.accounts.end_expired(NOW + HOUR - 1).await.unwrap().is_empty());
    assert_eq!(fixture.accounts.end_expired(NOW + HOUR).await.unwrap(), [grant.session_id]);
    assert!(fixture.accounts.end_expired(NOW + HOUR).await.unwrap().is_empty(), "once");

    assert_eq!(refusal(fixture.enrol(&invited, 1, NOW + HOUR).await), Refusal::Expired);
    for (password, refused) in [("right", Refusal::Expired), ("wrong", Refusal::Rejected)] {
        let prehash = fixture.prehash("ada", password);
        let tried = fixture.accounts.login("ada", &prehash, &[1; 32], HERE, NOW + HOUR).await;
        assert_eq!(refusal(tried), refused, "{password}");
    }
    fixture.accounts.set_lifetime("ada", None, NOW).await.unwrap();
    assert_eq!(fixture.accounts.user("ada").await.unwrap().expires, None);
    assert!(fixture.enrol(&invited, 1, NOW + 400 * DAY).await.is_ok());
}

#[tokio::test]
async fn a_new_password_replaces_the_old_one() {
    let fixture = Fixture::new().await;
    fixture.accounts.add_user("ada", Some("old"), None, NOW).await.unwrap();
    assert_eq!(fixture.accounts.set_password("ADA", "new").await.unwrap(), "ada");
    assert_eq!(refusal(fixture.login("ada", "old", 1).await), Refusal::Rejected);
    assert!(fixture.login("ada", "new", 1).await.is_ok());
    assert!(fixture.accounts.set_password("bob", "new").await.is_err());
}

#[tokio::test]
async fn invitations_are_listed_with_their_state_and_revoked_while_unused() {
    let fixture = Fixture::new().await;
    let [used, late, open] =
        [fixture.invite("ada").await, fixture.invite("bob").await, fixture.invite("eve").await];
    fixture.enrol(&used, 1, NOW + 1).await.unwrap();
    fixture.sql("UPDATE invitations SET expires = expires - 80000 WHERE id = 2").await;
    let states = async || {
        let list = fixture.accounts.list_invitations(NOW + 9 * HOUR).await.unwrap();
        list.iter().map(|i| (i.id, i.user.clone(), i.state)).collect::<Vec<_>>()
    };
    let (ada, bob, eve) = ("ada".to_owned(), "bob".to_owned(), "eve".to_owned());
    use InvitationState::{Expired, Open, Revoked, Used};
    assert_eq!(
        states().await,
        [(3, eve.clone(), Open), (2, bob.clone(), Expired), (1, ada.clone(), Used)]
    );
    assert_eq!(fixture.accounts.revoke_invitation(3).await.unwrap(), "eve");
    let error = fixture.accounts.revoke_invitation(1).await.unwrap_err();
    assert!(error.to_string().contains("device list ada"), "{error}");
    assert!(fixture.accounts.revoke_invitation(9).await.is_err());
    assert_eq!(states().await, [(3, eve, Revoked), (2, bob, Expired), (1, ada, Used)]);
    assert_eq!(refusal(fixture.enrol(&open, 3, NOW).await), Refusal::Revoked);
    assert_eq!(refusal(fixture.enrol(&late, 2, NOW + 9 * HOUR).await), Refusal::Expired);
    assert!(fixture.enrol(&used, 1, NOW).await.is_ok());
}
