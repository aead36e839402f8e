use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{config::HostPort, site::request::Version};

/// A site that answers one request by `answer` and hands back what it was asked.
async fn site(answer: &'static str) -> (Arc<Proxy>, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind(("localhost", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let at = HostPort { host: "localhost".into(), port };
    let proxy = Proxy::new(&Target { tls: false, at }).unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    });
    (Arc::new(proxy), asked)
}

fn request(fields: &[(&str, &str)]) -> Request {
    let mut request = Request::new();
    request.version = Version::Http11;
    request.method = b"GET".to_vec();
    request.set_target(b"/").unwrap();
    for (name, value) in fields {
        request.add_field(name.as_bytes(), value.as_bytes()).unwrap();
    }
    request
}

const FILE: &str = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nETag: \"a\"\r\n\
    Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nAccept-Ranges: bytes\r\n\r\nhi";

#[tokio::test]
async fn conditions_are_the_other_site_s_business() {
    for (name, value) in [
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("If-Modified-Since", "yesterday"),
        ("If-None-Match", "*"),
        ("If-Match", "\"b\""),
        ("If-Unmodified-Since", "Sun, 06 Nov 1988 08:49:37 GMT"),
        ("Range", "bytes=0-0"),
    ] {
        let (proxy, asked) = site(FILE).await;
        let mut answer = proxy.answer(&request(&[(name, value)]), BodyLength::None, &[]).await;
        assert_eq!(answer.status, 200, "{name}: {value}");
        assert_eq!(answer.body.next().await.unwrap(), Some(Bytes::from_static(b"hi")));
        assert!(asked.await.unwrap().contains(&format!("{name}: {value}\r\n")));
    }
}

#[tokio::test]
async fn an_empty_body_is_announced_if_the_visitor_announced_one() {
    for (length, is_said) in [(BodyLength::None, false), (BodyLength::Known(0), true)] {
        let (proxy, asked) = site(FILE).await;
        assert_eq!(proxy.answer(&request(&[]), length, &[]).await.status, 200);
        let asked = asked.await.unwrap();
        let start = "GET / HTTP/1.0\r\nHost: localhost:";
        assert!(asked.starts_with(start), "{asked}");
        assert_eq!(
            asked.contains("Connection: close\r\nContent-Length: 0\r\n"),
            is_said,
            "{asked}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_handed_on_whole_is_refused() {
    let (proxy, asked) = site(FILE).await;
    let mut request = request(&[]);
    for _ in 0..1_000 {
        request.add_field(b"x", b"").unwrap();
    }
    assert_eq!(proxy.answer(&request, BodyLength::None, &[]).await.status, 400);
    asked.abort();
}

#[tokio::test]
async fn too_many_wait_for_their_turn() {
    let (proxy, _asked) = site(FILE).await;
    let all = ASKED.acquire_many(ASKED_MAX as u32).await.unwrap();
    let request = request(&[]);
    let mut answer = Box::pin(proxy.answer(&request, BodyLength::None, &[]));
    assert!(timeout(Duration::from_millis(200), &mut answer).await.is_err());
    drop(all);
    let answer = answer.await;
    assert_eq!(answer.status, 200);
    // as long as the connection is there
    assert!(ASKED.available_permits() < ASKED_MAX);
    drop(answer);
}
