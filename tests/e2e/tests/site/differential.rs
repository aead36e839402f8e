//! The same bytes to the gateway and to Debian's nginx, and the same answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{figure, full_or_short};

use crate::openings::{in_http1, in_http2, in_plain, random};
use crate::scene::Scene;
use crate::visitor::{Answer, End, Opening, Speech, visit};

/// Visits at a time. They mostly wait.
const THREADS: u64 = 16;

/// How long a connection is watched.
fn patience() -> Duration {
    Duration::from_millis(full_or_short(700, 350))
}

/// Requests in HTTP/2 whose answers are small and have nothing beside them.
const FETCHED_IN_ONE: [&str; 12] = [
    "nothing",
    "no preface",
    "settings alone",
    "GET",
    "GET nothing",
    "GET compressed",
    "GET known",
    "GET by a wrong date",
    "GET with cookies",
    "HEAD",
    "TRACE",
    "unknown frames",
];

/// What is compared of an answer: bytes without times and counters, records, end.
#[derive(Debug, PartialEq, Eq)]
struct Essence {
    text: String,
    records: Vec<usize>,
    end: End,
}

fn essence(answer: &Answer, speech: Speech) -> Essence {
    let bytes = match speech {
        Speech::Plain | Speech::Http1 => without_http1_times(&answer.bytes),
        Speech::Http2 => without_http2_times(&answer.bytes),
    };
    // the records of HTTP/2 also depend on when what came, and plain TCP has none
    let records = if speech == Speech::Http1 { answer.records.clone() } else { Vec::new() };
    Essence { text: bytes.escape_ascii().to_string(), records, end: answer.end }
}

fn without_http1_times(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut out = Vec::new();
    while let Some(at) = find(rest, b"\r\nDate: ") {
        let from = at + 8;
        out.extend_from_slice(&rest[..from]);
        rest = &rest[(from + 29).min(rest.len())..];
    }
    out.extend_from_slice(rest);
    // nginx counts the boundaries of its multipart answers
    for mark in [&b"boundary="[..], b"\r\n--"] {
        let mut from = 0;
        while let Some(at) = find(&out[from..], mark) {
            from += at + mark.len();
            let digits = out[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            out.drain(from..from + digits);
        }
    }
    out
}

/// Takes the value of `date` out of header blocks: index 33, then a string.
fn without_http2_times(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut out = Vec::new();
    while let Some(&[a, b, c, kind, ..]) = rest.first_chunk::<9>() {
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let end = (9 + length).min(rest.len());
        let mut frame = rest[..end].to_vec();
        if kind == 1
            && let Some(at) = find(&frame, b"\x63\x55\xe7\x61").map(|at| at + 4)
        {
            let string = usize::from(frame.get(at).unwrap_or(&0) & 0x7f) + 1;
            frame.drain(at..(at + string).min(frame.len()));
            // and with it the length of the frame, which depends on the time
            frame.drain(..3);
        }
        out.extend_from_slice(&frame);
        rest = &rest[end..];
    }
    out.extend_from_slice(rest);
    out
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// What tells the two apart at this opening, if anything does, in three attempts: what depends on
/// the moment is no difference.
fn difference(scene: &Scene, opening: &Opening) -> Result<Option<String>> {
    let mut last = None;
    for _ in 0..3 {
        let see = |to| -> Result<Essence> {
            let mut seen = essence(&visit(to, opening, patience())?, opening.speech);
            if scene.is_fetched {
                seen.records.clear();
            }
            Ok(seen)
        };
        let [ours, nginx] = [scene.gateway(), scene.nginx()].map(see);
        let (ours, nginx) = (ours?, nginx?);
        if ours == nginx {
            return Ok(None);
        }
        last = Some(format!("the gateway: {ours:?}\n      nginx: {nginx:?}"));
    }
    Ok(last)
}

/// Compares at all of these, several at a time; says where the two differ.
fn compare(
    scene: &Scene,
    count: u64,
    opening: impl Fn(u64) -> (String, Opening) + Sync,
) -> Result<Vec<String>> {
    let next = AtomicU64::new(0);
    let work = || -> Result<Vec<String>> {
        scene.lab.internet.enter_network()?;
        let mut differences = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(differences);
            }
            let (name, opening) = opening(at);
            if let Some(difference) = difference(scene, &opening)? {
                let sent = opening.pieces.concat();
                let sent = sent[..sent.len().min(200)].escape_ascii();
                differences.push(format!("{name} ({:?}) \"{sent}\"\n{difference}", opening.speech));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<String>>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let found: Result<Vec<_>> = threads.into_iter().map(join).collect();
        Ok(found?.concat())
    })
}

/// Compares at all known openings.
fn compare_known(scene: &Scene) -> Result<()> {
    let mut cases: Vec<(String, Opening)> = Vec::new();
    let mut add = |name: &str, speech, bytes: Vec<u8>| {
        let half = bytes.len() / 2;
        let (first, second) = (bytes[..half].to_vec(), bytes[half..].to_vec());
        cases.push((name.to_owned(), Opening { speech, pieces: vec![bytes] }));
        cases.push((format!("{name}, in two"), Opening { speech, pieces: vec![first, second] }));
    };
    // more fields than are handed on
    let is_known = |name: &str| !scene.is_fetched || !name.contains("many fields");
    let known = in_http1().into_iter().filter(|(name, _)| is_known(name));
    known.for_each(|(name, bytes)| add(&name, Speech::Http1, bytes));
    // an answer that has to be fetched may come before or after the next frame is read, and in other
    // pieces; what carries it in one piece is compared all the same
    let is_fetched = scene.is_fetched;
    let is_sure = |name: &str| !is_fetched || FETCHED_IN_ONE.contains(&name);
    let sure = in_http2().into_iter().filter(|(name, _)| is_sure(name));
    sure.for_each(|(name, bytes)| add(name, Speech::Http2, bytes));
    in_plain().into_iter().for_each(|(name, bytes)| add(name, Speech::Plain, bytes));
    let at = |at: u64| cases[usize::try_from(at).unwrap_or_default()].clone();
    let differences = compare(scene, cases.len() as u64, at)?;
    figure("openings compared", cases.len() as f64, "");
    ensure!(differences.is_empty(), "{}", differences.join("\n\n"));
    Ok(())
}

#[test]
fn a_folder_is_served_as_by_nginx() -> Result<()> {
    compare_known(&Scene::with_folder()?)
}

#[test]
fn the_built_in_page_is_served_as_by_nginx() -> Result<()> {
    compare_known(&Scene::with_welcome()?)
}

#[test]
fn another_site_is_shown_as_by_nginx() -> Result<()> {
    compare_known(&Scene::with_proxy()?)
}

#[test]
fn random_openings_are_answered_as_by_nginx() -> Result<()> {
    let scene = Scene::with_folder()?;
    let count = full_or_short(10_000, 200);
    let differences = compare(&scene, count, |seed| (format!("seed {seed}"), random(seed)))?;
    figure("random openings compared", count as f64, "");
    ensure!(differences.is_empty(), "{}", differences.join("\n\n"));
    Ok(())
}
