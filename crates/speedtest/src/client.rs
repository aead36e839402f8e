//! The client's end: what is measured when, and what comes of it.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::time::sleep;

use crate::{
    MAX_SECONDS, MAX_STREAMS, STALL,
    latency::Latency,
    link::{self, Echo, Streams},
    request::Request,
};

/// Round trips that are enough without load, and how long they may take together.
const IDLE_SAMPLES: usize = 30;
const IDLE_TIME: Duration = Duration::from_secs(10);
/// How long a test of this client that is just ending is waited for.
const LAST_TEST_ENDS: Duration = Duration::from_secs(2);
/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);
/// The first part of a transfer is not measured, so that connections come up to speed: a fifth of
/// the time, at most this.
const LONGEST_START: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Length of each of the two transfers: 1 to [`MAX_SECONDS`].
    pub seconds: u8,
    /// Connections of each: 1 to [`MAX_STREAMS`].
    pub streams: u8,
}

/// What is being measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Round trips, without load.
    Idle,
    /// From the gateway.
    Download,
    /// To the gateway.
    Upload,
}

/// How far it is, for people who watch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// What is going on.
    pub phase: Phase,
    /// How much of it is done: 0 to 1.
    pub done: f64,
    /// The rate so far, in a transfer.
    pub bits_per_s: Option<f64>,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Outcome {
    /// Round trips without load; none if not one was completed.
    pub idle: Option<Latency>,
    /// From the gateway.
    pub download: Transfer,
    /// To the gateway.
    pub upload: Transfer,
}

/// A transfer in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Transfer {
    /// Bits of payload that arrived in a second.
    pub bits_per_s: f64,
    /// Bytes that arrived, in the time measured.
    pub bytes: u64,
    /// The time measured, seconds: without the start.
    pub seconds: f64,
    /// Round trips meanwhile; none if not one was completed.
    pub latency: Option<Latency>,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// There is no answer at the gateway's port.
    #[error(
        "the gateway offers no speed test at {gateway}: its owner may have switched it off \
         (`speedtest` in server.yaml), or moved it to another port, which --port names"
    )]
    NotOffered {
        /// Where it was looked for.
        gateway: SocketAddr,
        /// What happened.
        source: io::Error,
    },
    /// Others are testing.
    #[error("the gateway is busy with speed tests of others; try again in a minute")]
    Busy,
    /// This computer is.
    #[error("a speed test of this computer is running already; wait for its end")]
    AlreadyTesting,
    /// The gateway did not understand, or has ended the test.
    #[error("the gateway refused the test; it may be of another version: update both programs")]
    Refused,
    /// It broke off.
    #[error(
        "the connection to the gateway broke off during the test; look at `cipherwall status`, \
         and try again"
    )]
    Lost(#[source] io::Error),
}

/// Measures, and tells every now and then how far it is. Dropping the future ends the test.
///
/// # Errors
/// [`TestError`]
pub async fn run(
    gateway: SocketAddr,
    options: Options,
    mut progress: impl FnMut(Progress),
) -> Result<Outcome, TestError> {
    let options = Options {
        seconds: options.seconds.clamp(1, MAX_SECONDS),
        streams: options.streams.clamp(1, MAX_STREAMS),
    };
    let echo = Echo::start(open_test(gateway).await?).map_err(TestError::Lost)?;
    let idle = Latency::of(&idle(&echo, &mut progress).await?);

    let request = Request::Download(options.seconds);
    let streams = Streams::download(open(gateway, request, options).await?);
    let streams = streams.map_err(TestError::Lost)?;
    let download = transfer(Phase::Download, streams, &echo, options, &mut progress).await?;

    let request = Request::Upload(options.seconds);
    let streams = Streams::upload(open(gateway, request, options).await?);
    let streams = streams.map_err(TestError::Lost)?;
    let upload = transfer(Phase::Upload, streams, &echo, options, &mut progress).await?;
    Ok(Outcome { idle, download, upload })
}

/// Begins a test. The end of the last one may still be on its way to the gateway.
async fn open_test(gateway: SocketAddr) -> Result<TcpStream, TestError> {
    let begin = Instant::now();
    loop {
        match link::open(gateway, Request::Echo).await {
            Err(TestError::AlreadyTesting) if begin.elapsed() < LAST_TEST_ENDS => {}
            done => return done,
        }
        sleep(TICK).await;
    }
}

async fn open(
    gateway: SocketAddr,
    request: Request,
    options: Options,
) -> Result<Vec<TcpStream>, TestError> {
    let mut streams = Vec::new();
    for _ in 0..options.streams {
        streams.push(link::open(gateway, request).await?);
    }
    Ok(streams)
}

#[expect(clippy::cast_precision_loss, reason = "they are few")]
async fn idle(
    echo: &Echo,
    progress: &mut impl FnMut(Progress),
) -> Result<Vec<Duration>, TestError> {
    let begin = Instant::now();
    loop {
        let round_trips = echo.since(begin)?;
        let done = round_trips.len() as f64 / IDLE_SAMPLES as f64;
        if done >= 1.0 || begin.elapsed() >= IDLE_TIME {
            return Ok(round_trips);
        }
        progress(Progress { phase: Phase::Idle, done, bits_per_s: None });
        sleep(TICK).await;
    }
}

async fn transfer(
    phase: Phase,
    streams: Streams,
    echo: &Echo,
    options: Options,
    progress: &mut impl FnMut(Progress),
) -> Result<Transfer, TestError> {
    let whole = Duration::from_secs(options.seconds.into());
    let begin = Instant::now();
    let start = LONGEST_START.min(whole / 5);
    let mut since = Mark { at: begin, arrived: 0 };
    let mut moved = since;
    let mut started = false;
    loop {
        let to = if started { whole } else { start };
        sleep(TICK.min(to.saturating_sub(begin.elapsed()))).await;
        let now = Mark { at: Instant::now(), arrived: streams.arrived()? };
        let elapsed = now.at - begin;
        if !started && elapsed >= start {
            (since, started) = (now, true);
        }
        if now.arrived > moved.arrived {
            moved = now;
        }
        if now.at - moved.at >= STALL {
            return Err(TestError::Lost(io::ErrorKind::TimedOut.into()));
        }
        if elapsed >= whole {
            drop(streams);
            let latency = Latency::of(&echo.since(since.at)?);
            return Ok(since.until(now, latency));
        }
        let done = elapsed.as_secs_f64() / whole.as_secs_f64();
        let bits_per_s = Some(since.until(now, None).bits_per_s);
        progress(Progress { phase, done, bits_per_s });
    }
}

/// How much had arrived when.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    arrived: u64,
}

impl Mark {
    #[expect(clippy::cast_precision_loss, reason = "nobody counts single bytes at such rates")]
    fn until(self, end: Mark, latency: Option<Latency>) -> Transfer {
        let bytes = end.arrived.saturating_sub(self.arrived);
        let seconds = (end.at - self.at).as_secs_f64();
        let bits_per_s = if seconds > 0.0 { bytes as f64 * 8.0 / seconds } else { 0.0 };
        Transfer { bits_per_s, bytes, seconds, latency }
    }
}
