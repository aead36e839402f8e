//! The DNS forwarder on the gateway's inner addresses (A12): clients ask it, it asks the
//! configured resolvers, by default the host's own.
//!
//! Messages pass unchanged apart from their ID: each question goes out with a fresh random ID from
//! a socket of its own, against forged answers. Over TCP the messages have a length prefix both
//! ways; an answer cut short over UDP is passed on as it is, and the client comes again by TCP.
//! No name that anyone asks for is logged.

pub(crate) mod message;
mod resolv_conf;
mod share;
mod upstream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use message::{MAX_MESSAGE_LEN, Query, Unfit};
pub use resolv_conf::host_resolvers;
use share::{Share, Shares};
use upstream::Carrier;

const DNS_PORT: u16 = 53;

/// Questions in flight; more are dropped over UDP and wait over TCP.
const MAX_QUESTIONS: usize = 1_024;
/// Questions of one client in flight over UDP; more are dropped.
const MAX_QUESTIONS_EACH: usize = 128;
/// Open TCP connections; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// Open TCP connections of one client; more are closed at once.
const MAX_CONNECTIONS_EACH: usize = 8;
/// How long a TCP client may take for its next question, or to take an answer.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a failing system call, which might fail for long (out of descriptors).
const PAUSE: Duration = Duration::from_millis(100);

/// The running forwarder; dropping it stops it.
#[derive(Debug)]
pub struct Forwarder {
    /// Aborts its tasks when dropped, and they those of their questions and connections.
    _listeners: JoinSet<()>,
}

impl Forwarder {
    /// Listens on port 53 of each address in `listen`, over UDP and TCP, and forwards to
    /// `upstreams`, tried in this order for each question. Those among `listen` itself are left
    /// out. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// No upstream, or an address cannot be listened on; the message names it and says what to do.
    pub fn start(listen: Vec<IpAddr>, upstreams: Vec<SocketAddr>) -> io::Result<Forwarder> {
        let listen: Vec<_> = listen.into_iter().map(|ip| SocketAddr::new(ip, DNS_PORT)).collect();
        Forwarder::start_on(&listen, upstreams)
    }

    fn start_on(listen: &[SocketAddr], mut upstreams: Vec<SocketAddr>) -> io::Result<Forwarder> {
        upstreams.retain(|upstream| !listen.contains(upstream));
        if upstreams.is_empty() {
            let message = "no DNS server to forward to; name at least one in the configuration, or \
                           a `nameserver` in /etc/resolv.conf";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let shared = Arc::new(Shared {
            upstreams,
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            questions_each: Shares::new(MAX_QUESTIONS_EACH),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            connections_each: Shares::new(MAX_CONNECTIONS_EACH),
        });
        let mut listeners = JoinSet::new();
        for address in listen {
            let (udp, tcp) = bind(*address).map_err(|error| bind_error(*address, &error))?;
            listeners.spawn(serve_udp(Arc::new(udp), Arc::clone(&shared)));
            listeners.spawn(serve_tcp(tcp, Arc::clone(&shared)));
        }
        Ok(Forwarder { _listeners: listeners })
    }
}

struct Shared {
    upstreams: Vec<SocketAddr>,
    questions: Arc<Semaphore>,
    questions_each: Arc<Shares>,
    connections: Arc<Semaphore>,
    connections_each: Arc<Shares>,
}

impl Shared {
    /// The answer to a client's message; `None`: it deserves none.
    async fn answer(&self, message: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
        match Query::parse(message) {
            Ok(query) => Some(upstream::ask(&self.upstreams, &query, carrier).await),
            Err(Unfit::Refuse(code)) => Some(message::refusal(message, code)),
            Err(Unfit::Ignore) => None,
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = std::net::UdpSocket::bind(address)?;
    let tcp = std::net::TcpListener::bind(address)?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
}

fn bind_error(address: SocketAddr, error: &io::Error) -> io::Error {
    let remedy = if error.kind() == io::ErrorKind::AddrInUse {
        "; a DNS server is listening there already: stop it, or confine it to other addresses"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "; run as root or with CAP_NET_BIND_SERVICE"
    } else {
        ""
    };
    io::Error::new(error.kind(), format!("cannot listen for DNS on {address}: {error}{remedy}"))
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buf = vec![0; MAX_MESSAGE_LEN];
    let mut questions = JoinSet::new();
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buf) => match received {
                Ok((len, client)) => {
                    let Some(share) = shared.questions_each.take(client.ip()) else { continue };
                    let Ok(permit) = Arc::clone(&shared.questions).try_acquire_owned() else {
                        continue;
                    };
                    let message = buf[..len].to_vec();
                    let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
                    questions.spawn(async move {
                        let _places = (permit, share);
                        if let Some(answer) = shared.answer(&message, Carrier::Udp).await
                            && let Err(error) = socket.send_to(&answer, client).await
                        {
                            tracing::debug!(%error, "DNS answer not sent");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "DNS socket");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = questions.join_next() => {}
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept(&listener, &shared) => match accepted {
                Ok((places, stream)) => {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        let _places = places;
                        if let Err(error) = converse(stream, &shared).await {
                            tracing::debug!(%error, "DNS connection");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "DNS listener");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The next connection of a client that does not have its share already.
async fn accept(
    listener: &TcpListener,
    shared: &Shared,
) -> io::Result<((OwnedSemaphorePermit, Share), TcpStream)> {
    let permit = Arc::clone(&shared.connections).acquire_owned().await.map_err(io::Error::other)?;
    loop {
        let (stream, client) = listener.accept().await?;
        if let Some(share) = shared.connections_each.take(client.ip()) {
            return Ok(((permit, share), stream));
        }
    }
}

/// Answers one question after the other until the client closes or is idle.
async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let Some(message) = timeout(IDLE, read_message(&mut stream)).await?? else {
            return Ok(());
        };
        let _permit = shared.questions.acquire().await.map_err(io::Error::other)?;
        let Some(answer) = shared.answer(&message, Carrier::Tcp).await else {
            return Ok(());
        };
        timeout(IDLE, write_message(&mut stream, &answer)).await??;
    }
}

/// `None`: the peer closed the connection between two messages.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let len = match stream.read_u16().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    };
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// The message is at most 65,535 bytes long.
async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    // In one piece: some servers take a prefix alone for a whole question.
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await
}

#[cfg(test)]
mod tests;
