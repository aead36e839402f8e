//! The client's connections to the gateway. Each has a thread of its own once it is open: what
//! waits for its turn behind a transfer would measure that wait instead of the network's.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    CHUNK, STALL, TestError, ZEROS,
    request::{Answer, Request},
};

/// From one small message to the next.
const ECHO_EVERY: Duration = Duration::from_millis(50);
const ECHO_LEN: usize = 8;

/// Opens a connection for this purpose.
pub(crate) async fn open(gateway: SocketAddr, request: Request) -> Result<TcpStream, TestError> {
    let no_answer = |source| TestError::NotOffered { gateway, source };
    let conversation = async {
        let mut stream = tokio::net::TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&request.encode()).await?;
        let answer = stream.read_u8().await?;
        Ok((stream, answer))
    };
    let (stream, answer) =
        timeout(STALL, conversation).await.map_err(io::Error::from).flatten().map_err(no_answer)?;
    match Answer::parse(answer) {
        Some(Answer::Go) => blocking(stream).map_err(TestError::Lost),
        Some(Answer::Busy) => Err(TestError::Busy),
        Some(Answer::AlreadyTesting) => Err(TestError::AlreadyTesting),
        Some(Answer::Refused) | None => Err(TestError::Refused),
    }
}

fn blocking(stream: tokio::net::TcpStream) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    // what an upload has not sent when its time is over is not sent afterwards
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream)
}

/// Small messages to the gateway and back, one after the other, until it is dropped.
#[derive(Debug)]
pub(crate) struct Echo {
    stream: TcpStream,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    /// When each was sent, and how long it took.
    round_trips: Vec<(Instant, Duration)>,
    failed: Option<io::Error>,
}

impl Echo {
    pub(crate) fn start(stream: TcpStream) -> io::Result<Echo> {
        let echo = Echo { stream: stream.try_clone()?, heard: Arc::default() };
        let heard = Arc::clone(&echo.heard);
        thread::Builder::new().name("echo".to_owned()).spawn(move || {
            let Err(error) = keep_asking(stream, &heard);
            locked(&heard).failed = Some(error);
        })?;
        Ok(echo)
    }

    /// The round trips of what was sent from this moment on.
    ///
    /// # Errors
    /// The connection has failed.
    pub(crate) fn since(&self, begin: Instant) -> Result<Vec<Duration>, TestError> {
        let mut heard = locked(&self.heard);
        if let Some(error) = heard.failed.take() {
            return Err(TestError::Lost(error));
        }
        let later = heard.round_trips.iter().filter(|(sent, _)| *sent >= begin);
        Ok(later.map(|(_, took)| *took).collect())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn keep_asking(
    mut stream: TcpStream,
    heard: &Mutex<Heard>,
) -> io::Result<std::convert::Infallible> {
    for number in 0_u64.. {
        let sent = Instant::now();
        let message = number.to_be_bytes();
        stream.write_all(&message)?;
        let mut reply = [0; ECHO_LEN];
        stream.read_exact(&mut reply)?;
        if reply != message {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message came back changed"));
        }
        let took = sent.elapsed();
        locked(heard).round_trips.push((sent, took));
        thread::sleep(ECHO_EVERY.saturating_sub(took));
    }
    Err(io::ErrorKind::Other.into())
}

/// A transfer over some connections, until it is dropped.
#[derive(Debug)]
pub(crate) struct Streams {
    streams: Vec<TcpStream>,
    progress: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    /// Bytes that have arrived at the other end of each connection.
    arrived: Vec<AtomicU64>,
    failed: Mutex<Option<io::Error>>,
}

impl Streams {
    pub(crate) fn download(streams: Vec<TcpStream>) -> io::Result<Streams> {
        Streams::start(streams, |counts, number, stream| {
            let counts = Arc::clone(counts);
            spawn(counts, move |counts| receive(stream, &counts.arrived[number]))
        })
    }

    pub(crate) fn upload(streams: Vec<TcpStream>) -> io::Result<Streams> {
        Streams::start(streams, |counts, number, stream| {
            let reports = stream.try_clone()?;
            spawn(Arc::clone(counts), |_| send(stream))?;
            spawn(Arc::clone(counts), move |counts| hear(reports, &counts.arrived[number]))
        })
    }

    fn start(
        streams: Vec<TcpStream>,
        start: impl Fn(&Arc<Counts>, usize, TcpStream) -> io::Result<()>,
    ) -> io::Result<Streams> {
        let arrived = streams.iter().map(|_| AtomicU64::new(0)).collect();
        let counts = Arc::new(Counts { arrived, failed: Mutex::default() });
        let all = Streams { streams, progress: counts };
        for (number, stream) in all.streams.iter().enumerate() {
            start(&all.progress, number, stream.try_clone()?)?;
        }
        Ok(all)
    }

    /// Bytes that have arrived so far.
    ///
    /// # Errors
    /// A connection has failed.
    pub(crate) fn arrived(&self) -> Result<u64, TestError> {
        match locked(&self.progress.failed).take() {
            Some(error) => Err(TestError::Lost(error)),
            None => {
                Ok(self.progress.arrived.iter().map(|count| count.load(Ordering::Relaxed)).sum())
            }
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for stream in &self.streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Does one connection's work in a thread.
fn spawn(
    counts: Arc<Counts>,
    work: impl FnOnce(&Counts) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let thread = move || {
        if let Err(error) = work(&counts) {
            locked(&counts.failed).get_or_insert(error);
        }
    };
    thread::Builder::new().name("transfer".to_owned()).spawn(thread).map(drop)
}

fn receive(mut stream: TcpStream, arrived: &AtomicU64) -> io::Result<()> {
    let mut buf = vec![0; CHUNK];
    loop {
        let read = stream.read(&mut buf)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        arrived.fetch_add(read as u64, Ordering::Relaxed);
    }
}

fn send(mut stream: TcpStream) -> io::Result<()> {
    loop {
        stream.write_all(&ZEROS)?;
    }
}

/// The gateway's reports of how much has arrived.
fn hear(mut reports: TcpStream, arrived: &AtomicU64) -> io::Result<()> {
    loop {
        let mut report = [0; 8];
        reports.read_exact(&mut report)?;
        arrived.store(u64::from_be_bytes(report), Ordering::Relaxed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
