//! Both ends together, over the loopback interface.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    Options, Phase, Server, TestError,
    places::{MAX_CONNECTIONS_EACH, MAX_TESTS},
    request::{Answer, Request},
    run,
};

const SHORT: Options = Options { seconds: 1, streams: 2 };

/// A server on a free port. Clients come from 127.0.0.N.
async fn server() -> (Server, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (Server::serve(vec![listener], |ip| ip), address)
}

async fn connect(server: SocketAddr, client: u8) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::from([127, 0, 0, client]), 0).into()).unwrap();
    socket.connect(server).await.unwrap()
}

async fn ask(server: SocketAddr, client: u8, request: Request) -> (TcpStream, Option<Answer>) {
    let mut stream = connect(server, client).await;
    stream.write_all(&request.encode()).await.unwrap();
    let answer = stream.read_u8().await.unwrap();
    (stream, Answer::parse(answer))
}

/// How long the server keeps the connection.
async fn time_to_close(mut stream: TcpStream) -> Duration {
    let begin = Instant::now();
    let mut buf = vec![0; 1 << 20];
    while stream.read(&mut buf).await.is_ok_and(|read| read > 0) {}
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_measures_both_ways_and_round_trips() {
    let (_server, address) = server().await;
    let mut phases = Vec::new();
    let outcome = run(address, SHORT, |progress| {
        assert!((0.0..1.0).contains(&progress.done), "{progress:?}");
        phases.push(progress.phase);
    });
    let outcome = outcome.await.unwrap();
    let idle = outcome.idle.unwrap();
    assert!(idle.samples >= 30 && idle.median_ms > 0.0 && idle.median_ms < 1e3, "{idle:?}");
    for transfer in [outcome.download, outcome.upload] {
        assert!(transfer.bits_per_s > 1e7, "{transfer:?}");
        assert!((0.5..3.0).contains(&transfer.seconds), "{transfer:?}");
        let rate = transfer.bytes as f64 * 8.0 / transfer.seconds;
        assert!((rate / transfer.bits_per_s - 1.0).abs() < 1e-9, "{transfer:?}");
        assert!(transfer.latency.unwrap().samples > 3, "{transfer:?}");
    }
    phases.dedup();
    assert_eq!(phases, [Phase::Idle, Phase::Download, Phase::Upload]);
    // nothing is left of it
    run(address, SHORT, |_| {}).await.unwrap();
}

#[tokio::test]
async fn few_are_served_at_a_time_and_each_client_once() {
    let (_server, address) = server().await;
    let mut tests = Vec::new();
    for client in 1..=u8::try_from(MAX_TESTS).unwrap() {
        let (stream, answer) = ask(address, client, Request::Echo).await;
        assert_eq!(answer, Some(Answer::Go));
        tests.push(stream);
    }
    let (_, answer) = ask(address, 99, Request::Echo).await;
    assert_eq!(answer, Some(Answer::Busy));
    // this client is 127.0.0.1
    let error = run(address, SHORT, |_| {}).await.unwrap_err();
    assert!(matches!(error, TestError::AlreadyTesting), "{error:?}");
    drop(tests.swap_remove(0));
    run(address, SHORT, |_| {}).await.unwrap();
}

#[tokio::test]
async fn a_transfer_belongs_to_a_test_and_ends_with_it() {
    let (_server, address) = server().await;
    for request in [Request::Download(30), Request::Upload(30)] {
        let (_, answer) = ask(address, 1, request).await;
        assert_eq!(answer, Some(Answer::Refused), "there is no test");
        let (test, _) = ask(address, 1, Request::Echo).await;
        let (stream, answer) = ask(address, 1, request).await;
        assert_eq!(answer, Some(Answer::Go));
        drop(test);
        assert!(time_to_close(stream).await < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn who_says_nothing_or_nonsense_is_cut_off() {
    let (_server, address) = server().await;
    let silent = connect(address, 1).await;
    assert!(time_to_close(silent).await < Duration::from_secs(4), "without a request");
    let mut nonsense = connect(address, 1).await;
    nonsense.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(nonsense.read_u8().await.unwrap(), Answer::Refused as u8);
    assert!(time_to_close(nonsense).await < Duration::from_secs(1));
    let (test, _) = ask(address, 1, Request::Echo).await;
    assert!(time_to_close(test).await < Duration::from_secs(7), "in a test");
}

#[tokio::test]
async fn connections_of_one_client_are_bounded() {
    let (_server, address) = server().await;
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS_EACH {
        open.push(connect(address, 1).await);
    }
    let more = connect(address, 1).await;
    assert!(time_to_close(more).await < Duration::from_secs(1));
    let (_, answer) = ask(address, 2, Request::Echo).await;
    assert_eq!(answer, Some(Answer::Go), "others are served");
}

#[tokio::test]
async fn a_port_without_a_service_is_named() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = run(address, SHORT, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
