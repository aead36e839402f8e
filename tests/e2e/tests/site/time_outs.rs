//! How long both wait, and how they end what they waited for.

use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{figure, full_or_short};

use crate::openings::{frame, headers, http2, request};
use crate::scene::Scene;
use crate::visitor::{Answer, End, Opening, Speech, visit};

/// How far apart the same thing may happen.
const TOLERANCE: Duration = Duration::from_millis(2_500);

fn openings() -> Vec<(&'static str, Speech, Vec<u8>)> {
    let stuck = [frame(4, 0, 0, b"\0\x04\0\0\0\0"), headers(1, 5, "/", &[])];
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello".to_vec();
    vec![
        ("nothing at all", Speech::Plain, Vec::new()),
        ("half a hello", Speech::Plain, b"\x16\x03\x01\x02\x00\x01".to_vec()),
        ("half a plain request", Speech::Plain, b"GET / HT".to_vec()),
        ("a handshake alone", Speech::Http1, Vec::new()),
        ("half a request", Speech::Http1, b"GET / HT".to_vec()),
        ("an opener of another", Speech::Http1, b"IRVP /AXLbtzPwWBzDcKR29wUGECKYhvsq".to_vec()),
        ("a request", Speech::Http1, request("GET /", "")),
        ("a request and a half", Speech::Http1, [request("GET /", ""), b"GET".to_vec()].concat()),
        ("a body that does not come", Speech::Http1, post),
        (
            "a large body that does not come",
            Speech::Http1,
            request("GET /", "Content-Length: 1\r\n"),
        ),
        ("a wrong request", Speech::Http1, b"wrong\r\n".to_vec()),
        ("a handshake for HTTP/2 alone", Speech::Http2, Vec::new()),
        ("half a preface", Speech::Http2, b"PRI".to_vec()),
        ("settings", Speech::Http2, http2(&[])),
        ("a request in HTTP/2", Speech::Http2, http2(&[headers(1, 5, "/", &[])])),
        ("half a frame", Speech::Http2, http2(&[b"\0\0\x08\x06\0\0\0\0\x00123".to_vec()])),
        ("an answer that nobody takes", Speech::Http2, http2(&stuck)),
    ]
}

/// Everything that comes to an end within the patience does so at the same time, in the same way. In
/// the short form these are bodies (5 s); in the full one heads (60 s) and pauses (75 s) as well.
#[test]
fn both_wait_equally_long() -> Result<()> {
    let scene = Scene::with_folder()?;
    let patience = Duration::from_secs(full_or_short(82, 8));
    let watch = |to: SocketAddr, speech, bytes: Vec<u8>| -> Result<Answer> {
        scene.lab.internet.enter_network()?;
        Ok(visit(to, &Opening { speech, pieces: vec![bytes] }, patience)?)
    };
    std::thread::scope(|scope| -> Result<()> {
        let start = |(name, speech, bytes): (&'static str, Speech, Vec<u8>)| {
            let both = [scene.gateway(), scene.nginx()].map(|to| {
                let bytes = bytes.clone();
                scope.spawn(move || watch(to, speech, bytes))
            });
            (name, both)
        };
        let visits: Vec<_> = openings().into_iter().map(start).collect();
        let mut ended = 0;
        for (name, both) in visits {
            let [ours, nginx] = both.map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            let (ours, nginx) = (ours?, nginx?);
            ensure!(ours.end == nginx.end, "{name}\n{ours:?}\n{nginx:?}");
            let last = |answer: &Answer| answer.last_after.unwrap_or_default();
            let apart = last(&ours).abs_diff(last(&nginx));
            ensure!(apart < TOLERANCE, "{name}: {apart:?} apart\n{ours:?}\n{nginx:?}");
            ended += i32::from(ours.end != End::Open);
        }
        figure("time-outs compared", ended.into(), "");
        Ok(())
    })
}

/// Both leave a connection half open for a while when they end it, so that their last answer is read.
#[test]
fn a_last_answer_is_not_lost_to_a_visitor_who_goes_on_sending() -> Result<()> {
    use std::io::{Read, Write};
    let scene = Scene::with_folder()?;
    for to in [scene.gateway(), scene.nginx()] {
        scene.on_the_internet(|| {
            let mut stream = std::net::TcpStream::connect(to)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"wrong\r\n")?;
            let start = Instant::now();
            // what comes after the answer would be answered by a reset if the socket were closed
            while start.elapsed() < Duration::from_secs(1) {
                stream.write_all(&[b'x'; 1_000]).context("the connection was reset")?;
                std::thread::sleep(Duration::from_millis(50));
            }
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer.starts_with("HTTP/1.1 400 Bad Request"), "{answer}");
            Ok(())
        })?;
    }
    Ok(())
}
