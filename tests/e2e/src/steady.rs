//! Steady traffic through an outage, and how soon after it the traffic flows again.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{Node, tools};

const BEAT: Duration = Duration::from_millis(20);
/// A pause in the arrivals from which on the traffic does not count as flowing.
const GAP: Duration = Duration::from_millis(200);
/// A pause that begins later than this after the end of the outage has nothing to do with it.
const AFTERMATH: Duration = Duration::from_secs(2);
const ECHO_PORT: u16 = 7_007;

/// When something arrived.
#[derive(Clone, Debug, Default)]
struct Arrivals(Arc<Mutex<Vec<Instant>>>);

impl Arrivals {
    fn note(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    /// How long after `back` it flows without a pause again. `None` while nothing has arrived since.
    fn flow_after(&self, back: Instant) -> Option<Duration> {
        let arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.last().filter(|last| **last >= back)?;
        let mut pauses = arrivals
            .windows(2)
            .filter(|two| two[1] >= back && two[1] - two[0] > GAP && two[0] < back + AFTERMATH);
        Some(pauses.next_back().map_or(Duration::ZERO, |two| two[1] - back))
    }

    fn longest_pause(&self) -> Option<Duration> {
        let arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.windows(2).map(|two| two[1] - two[0]).max()
    }
}

/// Datagrams that are sent every 20 ms and echoed.
#[derive(Debug)]
pub struct Beat {
    arrivals: Arrivals,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Beat {
    /// Sends from `node` to `server`, whose address is given, until dropped.
    pub fn start(node: &Node, server: &Node, address: Ipv4Addr) -> Result<Beat> {
        let (arrivals, stop) = (Arrivals::default(), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        let (there, ends) = (server.clone(), stop.clone());
        threads.push(thread::spawn(move || {
            there.enter_network()?;
            echo(address, &ends)
        }));
        let (here, ends, arrived) = (node.clone(), stop.clone(), arrivals.clone());
        threads.push(thread::spawn(move || {
            here.enter_network()?;
            beat((address, ECHO_PORT).into(), &ends, &arrived)
        }));
        let beat = Beat { arrivals, stop, threads };
        let start = Instant::now();
        tools::until("the first datagram to be echoed", Duration::from_secs(10), || {
            Ok(beat.flow_after(start))
        })?;
        Ok(beat)
    }

    /// How long after `back` datagrams flow without a pause again; `None` if they do not yet.
    pub fn flow_after(&self, back: Instant) -> Option<Duration> {
        self.arrivals.flow_after(back)
    }

    /// The longest time in which none came back.
    pub fn longest_pause(&self) -> Option<Duration> {
        self.arrivals.longest_pause()
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn echo(address: Ipv4Addr, stop: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind((address, ECHO_PORT)).context("the echo port")?;
    socket.set_read_timeout(Some(BEAT))?;
    let mut datagram = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((size, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..size], from);
        }
    }
    Ok(())
}

/// Failures are what an outage brings.
fn beat(server: SocketAddr, stop: &AtomicBool, arrivals: &Arrivals) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let receiver = socket.try_clone()?;
    receiver.set_read_timeout(Some(BEAT))?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut datagram = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if receiver.recv(&mut datagram).is_ok() {
                    arrivals.note();
                }
            }
        });
        while !stop.load(Ordering::Relaxed) {
            let _ = socket.send_to(b"beat", server);
            thread::sleep(BEAT);
        }
    });
    Ok(())
}

/// A file that is being downloaded from a web server, over one connection.
#[derive(Debug)]
pub struct Download {
    arrivals: Arrivals,
    node: Node,
    path: String,
    thread: JoinHandle<Result<()>>,
}

impl Download {
    /// Fetches `/NAME` from port 80 of `server`.
    pub fn start(node: &Node, server: Ipv4Addr, name: &str) -> Result<Download> {
        let arrivals = Arrivals::default();
        let path = node.dir().join("steady");
        let file = File::create(&path)?;
        let path = path.to_str().context("path is not UTF-8")?.to_owned();
        let request = format!("GET /{name} HTTP/1.0\r\n\r\n");
        let (here, arrived) = (node.clone(), arrivals.clone());
        let thread = thread::spawn(move || {
            here.enter_network()?;
            fetch((server, 80).into(), &request, file, &arrived)
        });
        Ok(Download { arrivals, node: node.clone(), path, thread })
    }

    /// How long after `back` bytes arrive without a pause again; `None` if they do not yet.
    pub fn flow_after(&self, back: Instant) -> Option<Duration> {
        self.arrivals.flow_after(back)
    }

    /// Waits for the end; returns the SHA-256 of what has arrived.
    pub fn finish(self, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() {
            ensure!(Instant::now() < deadline, "the download is not done after {patience:?}");
            thread::sleep(BEAT);
        }
        match self.thread.join() {
            Ok(fetched) => fetched.context("the download broke off")?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        tools::sha256(&self.node, &self.path)
    }
}

fn fetch(server: SocketAddr, request: &str, mut file: File, arrivals: &Arrivals) -> Result<()> {
    let mut tcp = TcpStream::connect(server)?;
    tcp.set_read_timeout(Some(Duration::from_secs(180)))?;
    tcp.write_all(request.as_bytes())?;
    let mut chunk = vec![0; 65_536];
    let mut head: Option<Vec<u8>> = Some(Vec::new());
    loop {
        let size = match tcp.read(&mut chunk) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        arrivals.note();
        let Some(seen) = &mut head else {
            file.write_all(&chunk[..size])?;
            continue;
        };
        seen.extend_from_slice(&chunk[..size]);
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            ensure!(seen.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(seen));
            file.write_all(&seen[end + 4..])?;
            head = None;
        } else if seen.len() > 16_384 {
            bail!("that is no web server");
        }
    }
    Ok(())
}
