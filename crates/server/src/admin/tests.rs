//! Commands against a gateway that runs, over a real socket.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use cipherwall_proto::frame::KickReason;

use super::*;
use crate::identity::{CertificateInfo, IdentityError};
use crate::pool::PoolConfig;

/// A gateway with one connected client.
struct Fake {
    connected: [u8; 16],
    kicked: Arc<Mutex<Vec<[u8; 16]>>>,
}

impl Live for Fake {
    fn status(&self) -> LiveStatus {
        LiveStatus {
            since: 1000,
            sessions: 1,
            rx_bytes: 5,
            tx_bytes: 6,
            drops: Drops::default(),
            ..LiveStatus::default()
        }
    }

    fn sessions(&self) -> HashMap<[u8; 16], LiveSession> {
        HashMap::from([(self.connected, live_session())])
    }

    fn kick(&self, session_ids: &[[u8; 16]], reason: KickReason) {
        assert_eq!(reason, KickReason::Revoked);
        self.kicked.lock().unwrap().extend(session_ids);
    }

    fn renew_certificate(&self) -> Result<CertificateInfo, IdentityError> {
        Err(IdentityError::Missing { path: "gateway.key".into() })
    }
}

fn live_session() -> LiveSession {
    LiveSession {
        peer: "192.0.2.9:40000".parse().unwrap(),
        transport: "tls".into(),
        cipher: "aes-256-gcm".into(),
        since: 1000,
        rx_bytes: 5,
        tx_bytes: 6,
        rekeys: 0,
    }
}

async fn accounts(dir: &Path) -> Accounts {
    let networks = ("10.8.0.0/16".parse().unwrap(), "fd12::/64".parse().unwrap());
    let pool = PoolConfig::new(networks.0, networks.1).unwrap();
    Accounts::open(&dir.join("server.db"), pool).await.unwrap()
}

/// Serves at a socket in `dir`, with the session of `connected` live.
async fn gateway(dir: &Path, accounts: &Accounts, connected: [u8; 16]) -> PathBuf {
    let fake = Fake { connected, kicked: Arc::default() };
    serve_fake(dir, accounts, fake).await
}

async fn serve_fake(dir: &Path, accounts: &Accounts, fake: Fake) -> PathBuf {
    let path = socket_path(dir);
    let listener = Listener::bind(&path).await.unwrap();
    tokio::spawn(serve(listener, accounts.clone(), Arc::new(fake)));
    path
}

async fn reply(path: &Path, request: AdminRequest) -> AdminReply {
    ask(Connection::connect(path).await.unwrap(), &request).await.unwrap()
}

#[tokio::test]
async fn a_running_gateway_adds_what_only_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = accounts(dir.path()).await;
    let now = unix_now();
    let mut grants = Vec::new();
    for (name, device) in [("ada", [1; 32]), ("bob", [2; 32])] {
        let invited = accounts.invite(name, 60, now).await.unwrap();
        let here = [192, 0, 2, 7].into();
        grants.push(accounts.enrol(&invited.enrol_secret, &device, None, here, now).await.unwrap());
    }
    let path = gateway(dir.path(), &accounts, grants[1].session_id).await;

    let AdminReply::Status(status) = reply(&path, AdminRequest::Status).await else { panic!() };
    assert!(status.running && status.live.is_some());
    assert_eq!((status.users, status.devices), (2, 2));
    let AdminReply::Sessions(sessions) = reply(&path, AdminRequest::SessionList).await else {
        panic!()
    };
    let facts: Vec<_> = sessions.iter().map(|s| (s.user.as_str(), s.live.clone())).collect();
    assert_eq!(facts, [("ada", None), ("bob", Some(live_session()))]);
    assert_eq!(sessions[1].inner_v6, Some(grants[1].inner_v6));

    let offline = execute(AdminRequest::SessionList, &accounts, None).await;
    let AdminReply::Sessions(sessions) = offline else { panic!() };
    assert!(sessions.iter().all(|session| session.live.is_none()));
}

#[tokio::test]
async fn a_failure_comes_back_with_its_reason_and_the_next_command_works() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = accounts(dir.path()).await;
    let path = gateway(dir.path(), &accounts, [0; 16]).await;
    let add =
        |name: &str| AdminRequest::UserAdd { name: name.into(), password: None, lifetime_s: None };
    assert!(matches!(reply(&path, add("ada")).await, AdminReply::Done { sessions: 0, .. }));
    let AdminReply::Failed { message } = reply(&path, add("ada")).await else { panic!() };
    assert_eq!(message, "user ada exists already");
    assert!(matches!(reply(&path, add("bob")).await, AdminReply::Done { sessions: 0, .. }));
}

#[tokio::test]
async fn whoever_may_no_longer_be_there_is_sent_away() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = accounts(dir.path()).await;
    let now = unix_now();
    let mut grants = Vec::new();
    for device in 1..=4 {
        let invited = accounts.invite("ada", 60, now).await.unwrap();
        let here = [192, 0, 2, 7].into();
        let granted = accounts.enrol(&invited.enrol_secret, &[device; 32], None, here, now).await;
        grants.push(granted.unwrap());
    }
    let kicked = Arc::default();
    let fake = Fake { connected: grants[0].session_id, kicked: Arc::clone(&kicked) };
    let path = serve_fake(dir.path(), &accounts, fake).await;
    let taken = || std::mem::take(&mut *kicked.lock().unwrap());
    let id = crate::accounts::hex(&grants[0].session_id)[..8].to_uppercase();
    let device = grants[1].device_id;
    for (request, ids) in [
        (AdminRequest::SessionRevoke { id }, vec![grants[0].session_id]),
        (AdminRequest::DeviceRemove { id: device }, vec![grants[1].session_id]),
        (
            AdminRequest::UserEnable { name: "ADA".into(), enabled: false },
            vec![grants[2].session_id, grants[3].session_id],
        ),
        (AdminRequest::UserEnable { name: "ada".into(), enabled: true }, vec![]),
        (AdminRequest::SessionRevokeAll { user: "ada".into() }, vec![]),
        (AdminRequest::UserRemove { name: "ada".into() }, vec![]),
    ] {
        let AdminReply::Done { user, sessions } = reply(&path, request).await else { panic!() };
        assert_eq!((user.as_str(), sessions), ("ada", ids.len() as u64));
        let mut gone = taken();
        gone.sort_unstable_by_key(|id| grants.iter().position(|grant| grant.session_id == *id));
        assert_eq!(gone, ids);
    }
}

#[tokio::test]
async fn lists_longer_than_a_message_arrive_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = accounts(dir.path()).await;
    for n in 0..2 * ROWS_PER_MESSAGE + 7 {
        // The longest names, in characters that JSON writes longest.
        let name = format!("{n:04}{}", "\u{7f8e}".repeat(20));
        accounts.add_user(&name, None, None, 1).await.unwrap();
    }
    let path = gateway(dir.path(), &accounts, [0; 16]).await;
    let AdminReply::Users(users) = reply(&path, AdminRequest::UserList).await else { panic!() };
    assert_eq!(users, accounts.list_users().await.unwrap());
    assert_eq!(users.len(), 2 * ROWS_PER_MESSAGE + 7);
}

#[test]
fn the_longest_row_lets_a_full_message_fit() {
    let row = SessionInfo {
        id: "f".repeat(32),
        // Control characters, which take six each in JSON, are no part of names.
        user: "\\".repeat(64),
        device_id: i64::MIN,
        device: "f".repeat(8),
        inner_v4: Some([255; 4].into()),
        inner_v6: Some([0xff; 16].into()),
        opened: u64::MAX,
        live: Some(LiveSession {
            peer: SocketAddr::new([0xff; 16].into(), u16::MAX),
            transport: "tls".into(),
            cipher: "aes-256-cfb-hmac-sha256".into(),
            since: u64::MAX,
            rx_bytes: u64::MAX,
            tx_bytes: u64::MAX,
            rekeys: 0,
        }),
    };
    let part = AdminReply::Part(Box::new(AdminReply::Sessions(vec![row; ROWS_PER_MESSAGE])));
    let size = serde_json::to_vec(&part).unwrap().len();
    assert!(size + 100 < cipherwall_ipc::MESSAGE_MAX, "{size}");
}

#[test]
fn what_is_not_known_is_absent_from_json_and_comes_back_so() {
    let mut session = SessionInfo {
        id: "00".into(),
        user: "ada".into(),
        device_id: 1,
        device: "01".into(),
        inner_v4: None,
        inner_v6: None,
        opened: 1,
        live: None,
    };
    let json = serde_json::to_string(&session).unwrap();
    assert!(!json.contains("peer"), "{json}");
    assert_eq!(serde_json::from_str::<SessionInfo>(&json).unwrap(), session);
    session.live = Some(live_session());
    let json = serde_json::to_string(&session).unwrap();
    assert_eq!(serde_json::from_str::<SessionInfo>(&json).unwrap(), session);
}
