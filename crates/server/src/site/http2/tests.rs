use std::{net::SocketAddr, sync::Arc, time::Duration};

use cipherwall_transport::Carrier;
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use super::{
    code::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM},
    hpack,
    session::Session,
};
use crate::{
    config,
    site::{conn::Conn, content::Content, proxy::Proxy},
};

#[test]
fn the_corpus_of_the_fuzz_target() {
    crate::replay::replay("http2", super::body::run);
}

/// A connection whose buffers hold little, and who has it.
async fn connection() -> (Conn, TcpStream) {
    let listener = TcpSocket::new_v4().unwrap();
    listener.set_send_buffer_size(4_096).unwrap();
    listener.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = listener.listen(1).unwrap();
    let visitor = TcpSocket::new_v4().unwrap();
    visitor.set_recv_buffer_size(4_096).unwrap();
    let visitor = visitor.connect(listener.local_addr().unwrap()).await.unwrap();
    (Conn::plain(Carrier::from(listener.accept().await.unwrap().0)), visitor)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length, &[kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// Preface and requests, each with a field of this value.
fn requests(count: u32, flags: u8, method: &str, path: &str, value: &[u8]) -> Vec<u8> {
    let mut block = vec![0x87];
    hpack::write_known(&mut block, 2, method.as_bytes());
    hpack::write_known_raw(&mut block, 4, path);
    hpack::write_known_raw(&mut block, 1, "a");
    hpack::write(&mut block, "x", value);
    let requests = (0..count).map(|at| frame(HEADERS, flags | END_HEADERS, 2 * at + 1, &block));
    let requests: Vec<Vec<u8>> = requests.collect();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), requests.concat()].concat()
}

#[tokio::test]
async fn what_is_queued_leaves_before_more_is_done() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    let content = Arc::new(Content::folder(dir.path()).unwrap());
    let (mut conn, _visitor) = connection().await;
    let path = format!("/sub?{}", "~".repeat(4_000));
    conn.input = requests(100, END_STREAM, "HEAD", &path, b"");
    let mut session = Session::new(&mut conn, &content, Instant::now());
    let taken = timeout(Duration::from_secs(1), session.take_input()).await;
    assert!(taken.is_err(), "nobody reads the answers");
    let left = session.conn.input.len();
    assert!(left > 200_000, "only {left} bytes of requests were left alone");
}

#[tokio::test]
async fn heads_that_wait_for_bodies_are_bounded() {
    let at = config::HostPort { host: "127.0.0.1".into(), port: 1 };
    let target = config::Upstream { tls: false, at };
    let content = Arc::new(Content::Proxy(Proxy::new(&target).unwrap()));
    let (mut conn, mut visitor) = connection().await;
    conn.input = requests(100, 0, "POST", "/", &[0xff; 8_000]);
    let reading = async {
        let mut sent = Vec::new();
        let _ = timeout(Duration::from_secs(1), visitor.read_to_end(&mut sent)).await;
        sent
    };
    let mut session = Session::new(&mut conn, &content, Instant::now());
    assert!(session.take_input().await.is_ok());
    assert!((1..10).contains(&session.incoming.len()), "{}", session.incoming.len());
    session.flush().await.unwrap();
    let sent = reading.await;
    let refused = sent.windows(4).filter(|window| *window == [4, RST_STREAM, 0, 0]).count();
    assert!(refused > 90, "{refused}");
}
