//! Whether a classifier can tell the gateway from nginx by the times and sizes of its answers.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Link, figure, full_or_short};

use crate::openings::random;
use crate::scene::Scene;
use crate::visitor::{Answer, End, Speech, visit};

/// Trees and their judgement, printed as two numbers: gateway against nginx, nginx against nginx.
const TREES: &str = include_str!("trees.py");
/// One way from the visitor to both.
const DELAY: Duration = Duration::from_millis(10);
/// How long a visitor waits for more.
const PATIENCE: Duration = Duration::from_millis(500);
const THREADS: usize = 8;

/// An answer in numbers: what was sent, what came back, when, and how it ended.
fn features(seed: u64, answer: &Answer) -> String {
    let opening = random(seed);
    let speech = match opening.speech {
        Speech::Plain => 0,
        Speech::Http1 => 1,
        Speech::Http2 => 2,
    };
    let end = match answer.end {
        End::Open => 0,
        End::Notified => 1,
        End::Closed => 2,
        End::Reset => 3,
    };
    let ms = |time: Option<Duration>| time.map_or(-1.0, |time| time.as_secs_f64() * 1e3);
    let record = |at: usize| answer.records.get(at).copied().unwrap_or_default();
    let sent: usize = opening.pieces.iter().map(Vec::len).sum();
    format!(
        "{speech},{},{sent},{end},{},{},{},{},{},{:.3},{:.3}",
        opening.pieces.len(),
        answer.bytes.len(),
        answer.records.len(),
        record(0),
        record(1),
        record(2),
        ms(answer.first_after),
        ms(answer.last_after),
    )
}

#[test]
fn trees_cannot_tell_the_gateway_from_nginx() -> Result<()> {
    let scene = Scene::with_folder()?;
    let link = Link { delay: DELAY, ..Link::default() };
    let _link = scene.lab.emulate(link, link)?;
    let count = full_or_short(2_000, 150);
    let targets = [scene.gateway(), scene.nginx(), scene.control()];
    let mut visits: Vec<(usize, u64)> =
        (0..count).flat_map(|seed| (0..targets.len()).map(move |label| (label, seed))).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut visits);
    let rows = all(&scene, targets, visits)?;

    let (data, script) = ("answers.csv", "trees.py");
    let dir = scene.lab.internet.dir();
    std::fs::write(dir.join(data), rows)?;
    std::fs::write(dir.join(script), TREES)?;
    let paths = [script, data].map(|name| dir.join(name).display().to_string());
    // Debian's, which has Debian's scikit-learn
    let words = ["/usr/bin/python3", &paths[0], &paths[1]];
    let printed = scene.lab.internet.run_with(&words, "", Duration::from_secs(600))?.ok()?;
    let (ours, control) = printed.trim().split_once(' ').context(printed.clone())?;
    let (ours, control): (f64, f64) = (ours.parse()?, control.parse()?);
    figure("openings for the trees, each", count as f64, "");
    figure("AUC, the gateway against nginx", ours * 100.0, "%");
    figure("AUC, nginx against nginx", control * 100.0, "%");
    // with few samples chance alone makes more of it
    let most = full_or_short(0.60, 0.80);
    ensure!(control <= most, "the control itself is told apart: {control}");
    ensure!(ours <= most, "the gateway is told from nginx: {ours}");
    Ok(())
}

/// Makes all visits, several at a time; a line each: label, features.
fn all(scene: &Scene, targets: [SocketAddr; 3], visits: Vec<(usize, u64)>) -> Result<String> {
    let queue = Mutex::new(VecDeque::from(visits));
    let work = || -> Result<String> {
        scene.lab.clients[0].enter_network()?;
        let mut rows = String::new();
        loop {
            let next = queue.lock().map_err(|_| anyhow::anyhow!("a visitor panicked"))?.pop_front();
            let Some((label, seed)) = next else { return Ok(rows) };
            let answer = visit(targets[label], &random(seed), PATIENCE)?;
            writeln!(rows, "{label},{}", features(seed, &answer))?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<String>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}
