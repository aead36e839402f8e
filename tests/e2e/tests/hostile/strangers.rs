//! Everybody on the internet who is no client and comes to the gateway's port all the same.
//!
//! Each kind has a thread of its own in the laboratory's internet and repeats one act.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Lab, Node, address};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::anybody::tls_config;

/// Where strangers come from: 131,072 addresses.
const NETWORK: &str = "198.18.0.0/15";
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// How many of them are in use.
const ADDRESSES: u32 = 512;
/// How long a stranger waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many there are.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    /// Connections that never speak, held open.
    pub(crate) silent: usize,
    /// Connections that fall silent after the TLS handshake, held open.
    pub(crate) silent_visitors: usize,
}

/// What one kind of stranger did.
pub(crate) struct Deeds {
    pub(crate) name: &'static str,
    /// Acts that came as far as the gateway's limits allow.
    pub(crate) done: usize,
    /// Acts that it cut short.
    pub(crate) cut_short: usize,
}

/// Lets all strangers in at once; they leave at `end`.
pub(crate) fn come(lab: &Lab, numbers: Numbers, end: Instant) -> Result<Vec<Deeds>> {
    raise_descriptors(numbers.silent + numbers.silent_visitors + 1_000)?;
    move_in(lab)?;
    std::thread::scope(|scope| {
        let work = |kind: Kind| {
            lab.internet.enter_network()?;
            Ok(kind.work(end))
        };
        let kinds = kinds(numbers);
        let threads: Vec<_> =
            kinds.into_iter().map(|kind| scope.spawn(move || work(kind))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Makes the strangers' addresses those of the laboratory's internet.
pub(crate) fn move_in(lab: &Lab) -> Result<()> {
    lab.internet.ip(&["route", "add", "local", NETWORK, "dev", "lo"]).map(drop)
}

/// So many of these addresses.
pub(crate) fn some_addresses(count: u32) -> Vec<Ipv4Addr> {
    (0..count).map(|host| Ipv4Addr::from(u32::from(FIRST) + host)).collect()
}

/// Visits the web site again and again from one address of `node`, and holds the newest visits without
/// a word, until told to stop. Returns how many there were.
pub(crate) fn visit_from(node: &Node, from: Ipv4Addr, stop: &AtomicBool) -> Result<usize> {
    node.enter_network()?;
    let (config, mut held, mut visits) = (tls_config(&[]), Held::new(1_000), 0);
    while !stop.load(Ordering::Relaxed) {
        if let Ok(visitor) = visit_as(&config, from) {
            held.push(visitor);
            visits += 1;
        }
    }
    Ok(visits)
}

/// Sends what somebody else once sent, from an address of their own; returns all of the answer.
pub(crate) fn replay(lab: &Lab, sent: &[u8]) -> Result<Vec<u8>> {
    let replay = || -> Result<Vec<u8>> {
        lab.internet.enter_network()?;
        let mut stream = dial(Ipv4Addr::new(203, 0, 113, 1))?;
        stream.write_all(sent)?;
        let mut answer = Vec::new();
        // however it ends
        let _ = stream.read_to_end(&mut answer);
        Ok(answer)
    };
    std::thread::scope(|scope| scope.spawn(replay).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Strangers who do the same.
struct Kind {
    name: &'static str,
    /// Between two acts. All share two processors with the gateway they attack.
    pause: Duration,
    act: Act,
}

type Act = Box<dyn FnMut() -> io::Result<()> + Send>;

impl Kind {
    fn work(mut self, end: Instant) -> Deeds {
        let mut deeds = Deeds { name: self.name, done: 0, cut_short: 0 };
        while Instant::now() < end {
            match (self.act)() {
                Ok(()) => deeds.done += 1,
                Err(_) => deeds.cut_short += 1,
            }
            std::thread::sleep(self.pause);
        }
        deeds
    }
}

fn kinds(numbers: Numbers) -> Vec<Kind> {
    let config = tls_config(&[]);
    let h2_config = tls_config(&[b"h2"]);
    let kind = |name, pause_ms, act| Kind { name, pause: Duration::from_millis(pause_ms), act };
    vec![
        kind("noise", 10, Box::new(noise)),
        kind("half handshakes", 10, half_handshakes(config.clone())),
        kind("silence", 0, silence(numbers.silent)),
        kind("silence from one address", 20, silence_from_one_address()),
        kind(
            "silence after the handshake",
            1,
            silent_visitors(config.clone(), numbers.silent_visitors),
        ),
        kind("nonsense to the web site", 20, nonsense(config.clone())),
        kind("nonsense in HTTP/2", 20, h2_nonsense(h2_config.clone())),
        kind("floods in HTTP/2", 20, h2_floods(h2_config)),
        kind("oversized openers", 50, oversized_opener(config.clone())),
        kind("unfinished openers", 20, unfinished_openers(config.clone())),
        kind("slow openers", 50, slow_openers(config)),
    ]
}

/// Bytes that are no TLS.
fn noise() -> io::Result<()> {
    let mut stream = dial(next_address())?;
    let length = usize::from(u16::from_be_bytes(random()));
    stream.write_all(&random_bytes(length))?;
    read_some(&mut stream).map(drop)
}

/// A good ClientHello that ends too early, is followed by noise, or by nothing at all.
fn half_handshakes(config: Arc<ClientConfig>) -> Act {
    let mut held = Held::new(200);
    Box::new(move || {
        let mut hello = Vec::new();
        client(&config)?.write_tls(&mut hello)?;
        let mut stream = dial(next_address())?;
        let [choice, cut] = random();
        match choice % 3 {
            0 => stream.write_all(&hello[..hello.len() * usize::from(cut) / 256])?,
            1 => stream.write_all(&[hello, random_bytes(500)].concat())?,
            _ => {
                stream.write_all(&hello)?;
                read_some(&mut stream)?;
            }
        }
        held.push(stream);
        Ok(())
    })
}

/// Connects and says nothing, `count` times; then again and again in place of the oldest.
fn silence(count: usize) -> Act {
    let mut held = Held::new(count);
    Box::new(move || {
        if held.is_full() {
            std::thread::sleep(Duration::from_millis(5));
        }
        held.push(dial(next_address())?);
        Ok(())
    })
}

/// More connections than one address may have.
fn silence_from_one_address() -> Act {
    let mut held = Held::new(200);
    Box::new(move || {
        held.push(dial(Ipv4Addr::new(198, 19, 255, 1))?);
        Ok(())
    })
}

/// Visitors of the web site that ask for nothing.
fn silent_visitors(config: Arc<ClientConfig>, count: usize) -> Act {
    let mut held = Held::new(count);
    Box::new(move || {
        let visitor = visit(&config)?;
        if held.is_full() {
            std::thread::sleep(Duration::from_millis(50));
        }
        held.push(visitor);
        Ok(())
    })
}

/// Over good TLS: wrong openers, noise, wrong requests.
fn nonsense(config: Arc<ClientConfig>) -> Act {
    let mut turn = 0;
    Box::new(move || {
        turn += 1;
        let mut visitor = visit(&config)?;
        let said = match turn % 5 {
            0 => [b"IRVP /".to_vec(), letters(28), b"\r\n\r\n".to_vec()].concat(),
            1 => {
                [b"IRVP /".to_vec(), letters(28), b" HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()].concat()
            }
            2 => [b"IRVP \0\0\x40\0".to_vec(), random_bytes(16_384)].concat(),
            3 => [random_bytes(3_000), b"\r\n\r\n".to_vec()].concat(),
            _ => b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
        };
        visitor.write_all(&said)?;
        let answer = read_some(&mut visitor)?;
        if answer.starts_with(b"HTTP/1.1 ") {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    })
}

/// Frames that HTTP/2 does not know or must not have, and openers that are none.
fn h2_nonsense(config: Arc<ClientConfig>) -> Act {
    const OPENER: u8 = 0x49;
    let mut turn = 0;
    Box::new(move || {
        turn += 1;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        let said = match turn % 5 {
            0 => [preface, h2_frame(OPENER, &random_bytes(21))].concat(),
            1 => [preface, h2_frame(OPENER, &random_bytes(16_384))].concat(),
            2 => [preface, h2_frame(OPENER, &random_bytes(100_000))].concat(),
            3 => [preface, random_bytes(3_000)].concat(),
            _ => [preface, h2_frame(OPENER, &[]).repeat(1_000)].concat(),
        };
        let mut visitor = visit(&config)?;
        visitor.write_all(&said)?;
        // the web server's SETTINGS at least
        let answer = read_some(&mut visitor)?;
        if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    })
}

/// Much work for few bytes, by visitors who stay and do not read what they have asked for.
fn h2_floods(config: Arc<ClientConfig>) -> Act {
    const LAST: u8 = 0x5;
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const CONTINUATION: u8 = 9;
    // GET https://a/, by the static table (RFC 7541, appendix A)
    const GET: &[u8] = b"\x82\x84\x87\x41\x01a";
    let mut held = Held::new(200);
    let mut turn = 0;
    Box::new(move || {
        turn += 1;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        let streams = (1..2_000).step_by(2);
        let get = |stream| h2_frame_on(stream, HEADERS, LAST, GET);
        let flood = match turn % 5 {
            // CVE-2023-44487
            0 => streams
                .flat_map(|it| [get(it), h2_frame_on(it, RESET, 0, &[0, 0, 0, 8])].concat())
                .collect(),
            // nothing may be sent of the answers
            1 => {
                let no_window = h2_frame(SETTINGS, &[0, 4, 0, 0, 0, 0]);
                no_window.into_iter().chain(streams.flat_map(get)).collect()
            }
            // CVE-2024-27316
            2 => {
                let endless = h2_frame_on(1, CONTINUATION, 0, &letters(16_384)).repeat(64);
                [h2_frame_on(1, HEADERS, 0, GET), endless].concat()
            }
            // CVE-2019-9515 and -9512
            3 => h2_frame(SETTINGS, &[]).repeat(20_000),
            _ => h2_frame(PING, &[7; 8]).repeat(20_000),
        };
        let mut visitor = visit(&config)?;
        visitor.write_all(&preface)?;
        let answer = read_some(&mut visitor)?;
        // the web server may have had enough before
        let _ = visitor.write_all(&flood);
        held.push(visitor);
        if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    })
}

fn h2_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    h2_frame_on(0, kind, 0, payload)
}

fn h2_frame_on(stream: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An opener that goes on for a megabyte, or for as long as it is listened to.
fn oversized_opener(config: Arc<ClientConfig>) -> Act {
    Box::new(move || {
        let mut visitor = visit(&config)?;
        visitor.write_all(b"IRVP /")?;
        let _ = (0..64).try_for_each(|_| visitor.write_all(&letters(16_384)));
        Ok(())
    })
}

/// Openers without an end, by visitors who stay.
fn unfinished_openers(config: Arc<ClientConfig>) -> Act {
    let mut held = Held::new(200);
    let mut lengths = [30_000, 300_000].into_iter().cycle();
    Box::new(move || {
        let mut visitor = visit(&config)?;
        visitor.write_all(b"IRVP /")?;
        // the web server may have had enough before
        let _ = visitor.write_all(&letters(lengths.next().unwrap_or_default()));
        held.push(visitor);
        Ok(())
    })
}

/// Handshakes and openers of one byte at a time, many at once.
fn slow_openers(config: Arc<ClientConfig>) -> Act {
    let mut slow_hellos = VecDeque::new();
    let mut slow_openers = VecDeque::new();
    Box::new(move || {
        if slow_openers.len() < 50 {
            slow_openers.push_back(visit(&config)?);
            let mut hello = Vec::new();
            client(&config)?.write_tls(&mut hello)?;
            slow_hellos.push_back((dial(next_address())?, hello.into_iter()));
        }
        // who is refused is replaced
        slow_openers.retain_mut(|visitor| visitor.write_all(b"I").is_ok());
        slow_hellos.retain_mut(|(stream, hello)| {
            hello.next().is_some_and(|byte| stream.write_all(&[byte]).is_ok())
        });
        Ok(())
    })
}

/// The newest connections, held open.
struct Held<T> {
    limit: usize,
    open: VecDeque<T>,
}

impl<T> Held<T> {
    fn new(limit: usize) -> Held<T> {
        Held { limit, open: VecDeque::with_capacity(limit) }
    }

    fn is_full(&self) -> bool {
        self.open.len() >= self.limit
    }

    fn push(&mut self, connection: T) {
        if self.is_full() {
            self.open.pop_front();
        }
        self.open.push_back(connection);
    }
}

type Visitor = StreamOwned<ClientConnection, TcpStream>;

/// A completed TLS handshake.
fn visit(config: &Arc<ClientConfig>) -> io::Result<Visitor> {
    visit_as(config, next_address())
}

fn visit_as(config: &Arc<ClientConfig>, from: Ipv4Addr) -> io::Result<Visitor> {
    let mut visitor = StreamOwned::new(client(config)?, dial(from)?);
    visitor.conn.complete_io(&mut visitor.sock)?;
    Ok(visitor)
}

fn client(config: &Arc<ClientConfig>) -> io::Result<ClientConnection> {
    let name = ServerName::try_from("www.lab.test").map_err(io::Error::other)?;
    ClientConnection::new(config.clone(), name).map_err(io::Error::other)
}

/// A connection to the gateway's port from this address.
fn dial(from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&SocketAddr::from((address::GATEWAY, 8443)).into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// All strangers take turns with the addresses.
fn next_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let host = NEXT.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
    Ipv4Addr::from(u32::from(FIRST) + host)
}

fn read_some(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1_024];
    let count = stream.read(&mut buffer)?;
    buffer.truncate(count);
    Ok(buffer)
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // zeros would do as well
    let _ = getrandom::fill(&mut bytes);
    bytes
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let _ = getrandom::fill(&mut bytes);
    bytes
}

/// Of the alphabet of openers.
fn letters(length: usize) -> Vec<u8> {
    random_bytes(length).into_iter().map(|byte| b'a' + byte % 26).collect()
}

/// So many files may be open in this process.
fn raise_descriptors(count: usize) -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    ensure!(
        maximum.is_none_or(|maximum| maximum >= count as u64),
        "the strangers take {count} open files: raise the limit (`ulimit -Hn`)"
    );
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("open files")
}
