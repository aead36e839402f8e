//! Listener and connection over real sockets: what a good and a bad peer gets.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cipherwall_ipc::daemon::fake::FakeDaemon;
use cipherwall_ipc::daemon::{Connect, Reply, Request, State, Status};
use cipherwall_ipc::{BindError, ConnectError, Connection, Listener, ReceiveError, SendError};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("run").join("test.sock");
    (dir, path)
}

/// A listener and a plain socket to it, to send whatever one likes.
async fn with_raw_peer(path: &Path) -> (Listener, Connection, UnixStream) {
    let listener = Listener::bind(path).await.expect("bound");
    let raw = UnixStream::connect(path).expect("connected");
    let connection = listener.accept().await.expect("accepted");
    (listener, connection, raw)
}

fn framed(json: &str) -> Vec<u8> {
    let len = u32::try_from(json.len()).expect("short");
    [&len.to_be_bytes()[..], json.as_bytes()].concat()
}

#[tokio::test]
async fn request_and_reply_pass_both_ways() {
    let (_dir, path) = place();
    let listener = Listener::bind(&path).await.expect("bound");
    let mut front_end = Connection::connect(&path).await.expect("connected");
    let mut daemon = listener.accept().await.expect("accepted");
    assert_eq!(daemon.peer_uid(), rustix::process::geteuid().as_raw());

    // Two at once arrive as two.
    front_end.send(&Request::Status).await.expect("sent");
    front_end.send(&Request::Disconnect).await.expect("sent");
    assert_eq!(daemon.receive().await.expect("received"), Some(Request::Status));
    assert_eq!(daemon.receive().await.expect("received"), Some(Request::Disconnect));

    let status = Reply::Status(Status { state: State::Connected, ..Status::default() });
    daemon.send(&status).await.expect("sent");
    assert_eq!(front_end.receive().await.expect("received"), Some(status));

    drop(front_end);
    assert_eq!(daemon.receive::<Request>().await.expect("closed"), None);
}

#[tokio::test]
async fn members_of_a_group_that_is_there_may_open_the_socket() {
    let (_dir, path) = place();
    let listener = Listener::bind_for_group(&path, "no-such-group-here").await.expect("bound");
    assert_eq!(listener.group(), None);
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600, "for root alone");
    drop(listener);
    if !rustix::process::geteuid().is_root() {
        // nobody else can give a file to any group
        return;
    }
    let listener = Listener::bind_for_group(&path, "daemon").await.expect("bound");
    let group = listener.group().expect("every system has it");
    assert_eq!(mode(&path), 0o660);
    assert_eq!(
        std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&path).expect("there")),
        group
    );
}

#[tokio::test]
async fn the_fake_daemon_goes_through_the_states_as_the_real_one() {
    let (_dir, path) = place();
    let daemon = FakeDaemon::start(&path).await.expect("started");
    daemon.set_pace(Duration::from_millis(20));
    let mut watch = Connection::connect(&path).await.expect("connected");
    watch.send(&Request::Watch).await.expect("sent");
    let mut front_end = Connection::connect(&path).await.expect("connected");
    front_end.send(&Request::Connect(Connect::default())).await.expect("sent");
    let mut seen = Vec::new();
    while seen.last() != Some(&State::Connected) {
        match watch.receive().await.expect("received") {
            Some(Reply::Status(status)) => seen.push(status.state),
            other => panic!("{other:?}"),
        }
    }
    seen.dedup();
    assert_eq!(seen, [State::Disconnected, State::Connecting, State::Connected]);
    let mut progress = Vec::new();
    loop {
        match front_end.receive().await.expect("received") {
            Some(Reply::Status(status)) => progress.push(status.state),
            Some(Reply::Done) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(progress.contains(&State::Connecting), "{progress:?}");
    daemon.fail_next("no", 5);
    front_end.send(&Request::Lockdown { on: true }).await.expect("sent");
    let refused = Reply::Error { message: "no".into(), code: 5 };
    assert_eq!(front_end.receive().await.expect("received"), Some(refused));
    assert_eq!(daemon.requests().len(), 3);
    assert_eq!(daemon.status().profile.as_deref(), Some("home"));
}

#[tokio::test]
async fn a_receive_may_be_cancelled_within_a_message() {
    let (_dir, path) = place();
    let (_listener, mut connection, mut raw) = with_raw_peer(&path).await;
    let bytes = framed(r#"{"v":1,"m":"status"}"#);
    raw.write_all(&bytes[..7]).expect("written");
    let short = Duration::from_millis(50);
    assert!(tokio::time::timeout(short, connection.receive::<Request>()).await.is_err());
    raw.write_all(&bytes[7..]).expect("written");
    assert_eq!(connection.receive().await.expect("received"), Some(Request::Status));
}

#[tokio::test]
async fn the_socket_is_private_and_goes_away() {
    let (_dir, path) = place();
    let listener = Listener::bind(&path).await.expect("bound");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(listener);
    let left = std::fs::read_dir(path.parent().expect("a parent")).expect("listed").count();
    assert_eq!(left, 0, "socket and lock file are removed");
    let error = Connection::connect(&path).await.expect_err("nobody there");
    assert!(matches!(error, ConnectError::NotRunning(_)), "{error}");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
    let (_dir, path) = place();
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "what a killed process leaves");
    let error = Connection::connect(&path).await.expect_err("nobody there");
    assert!(matches!(error, ConnectError::NotRunning(_)), "{error}");

    let listener = Listener::bind(&path).await.expect("replaced");
    let error = Listener::bind(&path).await.expect_err("in use");
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    Connection::connect(&path).await.expect("the first one still serves");
    drop(listener);

    std::fs::write(&path, "precious").expect("written");
    assert!(matches!(Listener::bind(&path).await, Err(BindError::Io { .. })));
    assert_eq!(std::fs::read_to_string(&path).expect("there"), "precious");
}

#[tokio::test]
async fn other_versions_learn_on_both_sides_who_is_older() {
    let (_dir, path) = place();
    let (_listener, mut connection, mut raw) = with_raw_peer(&path).await;
    raw.write_all(&framed(r#"{"v":2,"m":{"anything":1}}"#)).expect("written");
    let error = connection.receive::<Request>().await.expect_err("newer");
    assert!(matches!(error, ReceiveError::Version(2)));
    assert!(error.to_string().contains("this program is older"), "{error}");
    let mut answer = [0; 11];
    raw.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer[4..], br#"{"v":1,"#);

    let (_dir, path) = place();
    let (_listener, mut connection, mut raw) = with_raw_peer(&path).await;
    raw.write_all(&framed(r#"{"v":0}"#)).expect("written");
    let error = connection.receive::<Request>().await.expect_err("older");
    assert!(error.to_string().contains("on the other side is older"), "{error}");
}

#[tokio::test]
async fn nonsense_ends_only_its_own_connection() {
    let (_dir, path) = place();
    let listener = Listener::bind(&path).await.expect("bound");
    let cases: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\n\r\n", "at most 65536"),
        (b"\xff\xff\xff\xff", "at most 65536"),
        (b"\x00\x00\x00\x02{}", "malformed"),
        (b"\x00\x00\x00\x14{\"v\":1,\"m\":\"fly\"}    ", "malformed"),
    ];
    for (bytes, expected) in cases {
        let mut raw = UnixStream::connect(&path).expect("connected");
        let mut connection = listener.accept().await.expect("accepted");
        raw.write_all(bytes).expect("written");
        let error = connection.receive::<Request>().await.expect_err("nonsense");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut raw = UnixStream::connect(&path).expect("connected");
    let mut connection = listener.accept().await.expect("accepted");
    raw.write_all(b"\x00\x00").expect("written");
    drop(raw);
    assert!(matches!(connection.receive::<Request>().await, Err(ReceiveError::Io(_))));

    let mut good = Connection::connect(&path).await.expect("connected");
    let mut connection = listener.accept().await.expect("accepted");
    good.send(&Request::Status).await.expect("sent");
    assert_eq!(connection.receive().await.expect("received"), Some(Request::Status));
}

#[tokio::test(start_paused = true)]
async fn a_message_must_end_in_time_but_may_begin_late() {
    let (_dir, path) = place();
    let (_listener, mut connection, mut raw) = with_raw_peer(&path).await;
    let hour = Duration::from_secs(3600);
    let idle = tokio::time::timeout(hour, connection.receive::<Request>()).await;
    assert!(idle.is_err(), "waiting for a message has no limit");
    raw.write_all(b"\x00\x00\x00\x14{").expect("written");
    let error = connection.receive::<Request>().await.expect_err("too slow");
    assert!(matches!(error, ReceiveError::TooSlow), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_does_not_hold_the_sender() {
    let (_dir, path) = place();
    let (_listener, mut connection, _raw) = with_raw_peer(&path).await;
    let message = "x".repeat(60_000);
    let mut result = Ok(());
    for _ in 0..1000 {
        result = connection.send(&message).await;
        if result.is_err() {
            break;
        }
    }
    assert!(matches!(result, Err(SendError::TooSlow)), "{result:?}");
}
