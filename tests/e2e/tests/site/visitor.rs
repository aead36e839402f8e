//! Somebody who opens a connection, sends bytes and notes what comes back, record by record.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::anybody::tls_config;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Speech {
    /// Bytes as they are.
    Plain,
    /// TLS without ALPN, or with `http/1.1`.
    Http1,
    /// TLS with `h2`.
    Http2,
}

/// What is sent: pieces, with a pause between two.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) speech: Speech,
    pub(crate) pieces: Vec<Vec<u8>>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Not within the visitor's patience.
    Open,
    /// Said in TLS, then closed.
    Notified,
    Closed,
    Reset,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// All of it.
    pub(crate) bytes: Vec<u8>,
    /// Sizes of the TLS records that carried it, or of the pieces in which it was read.
    pub(crate) records: Vec<usize>,
    pub(crate) end: End,
    /// From the last byte sent to the first of the answer.
    pub(crate) first_after: Option<Duration>,
    /// From the last byte sent to the last thing that happened.
    pub(crate) last_after: Option<Duration>,
}

/// Opens a connection, from the thread's network.
pub(crate) fn visit(to: SocketAddr, opening: &Opening, patience: Duration) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut tls = match opening.speech {
        Speech::Plain => None,
        Speech::Http1 => Some(handshake(&mut stream, &[b"http/1.1"])?),
        Speech::Http2 => Some(handshake(&mut stream, &[b"h2", b"http/1.1"])?),
    };
    let mut answer = Answer {
        bytes: Vec::new(),
        records: Vec::new(),
        end: End::Open,
        first_after: None,
        last_after: None,
    };
    for (at, piece) in opening.pieces.iter().enumerate() {
        if at > 0 {
            std::thread::sleep(Duration::from_millis(60));
        }
        // it may have been closed by now, which the answer shows
        let _ = match &mut tls {
            Some(tls) => tls.writer().write_all(piece).and_then(|()| write(tls, &mut stream)),
            None => stream.write_all(piece),
        };
    }
    receive(&mut stream, tls, patience, &mut answer);
    Ok(answer)
}

fn write(tls: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(stream)?;
    }
    Ok(())
}

fn receive(
    stream: &mut TcpStream,
    mut tls: Option<ClientConnection>,
    patience: Duration,
    answer: &mut Answer,
) {
    let sent = Instant::now();
    let mut raw = Vec::new();
    let mut is_notified = false;
    let mut space = [0; 65_536];
    loop {
        let left = patience.saturating_sub(sent.elapsed());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        let count = match stream.read(&mut space) {
            Ok(0) => {
                answer.end = if is_notified { End::Notified } else { End::Closed };
                answer.last_after = Some(sent.elapsed());
                return;
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => {
                answer.end = End::Reset;
                answer.last_after = Some(sent.elapsed());
                return;
            }
        };
        let before = answer.bytes.len();
        match &mut tls {
            None => {
                answer.bytes.extend_from_slice(&space[..count]);
                answer.records.push(count);
            }
            Some(tls) => {
                raw.extend_from_slice(&space[..count]);
                is_notified |= open_records(tls, &mut raw, answer);
            }
        }
        if answer.bytes.len() > before {
            answer.first_after.get_or_insert(sent.elapsed());
            answer.last_after = Some(sent.elapsed());
        }
    }
}

/// Opens whole records; whether the other end has said that it ends. What carries nothing of the
/// answer, such as tickets, is TLS's own.
fn open_records(tls: &mut ClientConnection, raw: &mut Vec<u8>, answer: &mut Answer) -> bool {
    let mut is_notified = false;
    while let Some(header) = raw.first_chunk::<5>() {
        let length = 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if raw.len() < length {
            break;
        }
        let record: Vec<u8> = raw.drain(..length).collect();
        let mut rest = record.as_slice();
        while !rest.is_empty() && tls.read_tls(&mut rest).is_ok() {}
        let Ok(state) = tls.process_new_packets() else { break };
        is_notified |= state.peer_has_closed();
        let before = answer.bytes.len();
        // there may be no more for now, which is no end
        let _ = tls.reader().read_to_end(&mut answer.bytes);
        if answer.bytes.len() > before {
            answer.records.push(answer.bytes.len() - before);
        }
    }
    is_notified
}

fn handshake(stream: &mut TcpStream, protocols: &[&[u8]]) -> io::Result<ClientConnection> {
    let mut config = ClientConfig::clone(&tls_config(protocols));
    config.resumption = Resumption::disabled();
    let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(stream)?;
    }
    Ok(tls)
}
