//! Asking the resolvers, one after the other.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Code, MAX_MESSAGE_LEN, Query, refusal};
use super::{read_message, write_message};

/// How long one upstream may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a question came, and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Udp,
    Tcp,
}

/// The answer of the first upstream that gives one, with the client's ID, otherwise "server
/// failure".
pub(super) async fn ask(upstreams: &[SocketAddr], query: &Query<'_>, carrier: Carrier) -> Vec<u8> {
    for upstream in upstreams {
        let error = match timeout(PATIENCE, ask_one(*upstream, query, carrier)).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        tracing::debug!(%upstream, %error, "DNS server does not answer");
    }
    refusal(query.message, Code::ServerFailure)
}

async fn ask_one(upstream: SocketAddr, query: &Query<'_>, carrier: Carrier) -> io::Result<Vec<u8>> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
    let mut message = query.message.to_vec();
    message[..2].copy_from_slice(&id);
    let mut answer = match carrier {
        Carrier::Udp => ask_by_udp(upstream, query, &message, id).await?,
        Carrier::Tcp => ask_by_tcp(upstream, query, &message, id).await?,
    };
    answer[..2].copy_from_slice(&query.id());
    Ok(answer)
}

/// Connected, the socket takes datagrams from the upstream only, and learns of its absence by
/// ICMP; bound to port 0, it has a random port.
async fn ask_by_udp(
    upstream: SocketAddr,
    query: &Query<'_>,
    message: &[u8],
    id: [u8; 2],
) -> io::Result<Vec<u8>> {
    let local: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(upstream).await?;
    socket.send(message).await?;
    loop {
        // That nobody listens there is an error condition only, which `readable` sleeps through.
        socket.ready(Interest::READABLE | Interest::ERROR).await?;
        for received in [socket.try_io(Interest::ERROR, || pending(&socket)), receive(&socket)] {
            match received {
                // Something else may be forged: the answer is still awaited.
                Ok(answer) if query.is_answered_by(&answer, id) => return Ok(answer),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// The socket's pending error.
fn pending(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    Err(socket.take_error()?.unwrap_or(io::ErrorKind::WouldBlock.into()))
}

/// Apart, so that the buffer is not part of each waiting question.
fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let len = socket.try_recv(&mut buf)?;
    Ok(buf[..len].to_vec())
}

async fn ask_by_tcp(
    upstream: SocketAddr,
    query: &Query<'_>,
    message: &[u8],
    id: [u8; 2],
) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_message(&mut stream, message).await?;
    let answer = read_message(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if query.is_answered_by(&answer, id) {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
    }
}
