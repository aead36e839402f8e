//! A visitor's connection, and the watch for clients that looks at its first bytes.

use std::{
    future::poll_fn,
    io,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use cipherwall_proto::knock::{Verdict, Watch};
use cipherwall_transport::{Carrier, tls::TlsStream};
use tokio::{
    io::AsyncWrite,
    time::{Instant, timeout, timeout_at},
};

/// How long a visitor may take nothing of an answer, as with nginx.
const SEND_TIME: Duration = Duration::from_secs(60);
/// How long a connection that is closed waits for what the visitor still sends: between two
/// pieces, and in all, as with nginx.
const LINGER_TIME: Duration = Duration::from_secs(5);
const LINGER_TIME_MAX: Duration = Duration::from_secs(30);
/// What leaves in one TLS record, in bytes, as with nginx.
const RECORD: usize = 16 * 1024;

/// Why reading or writing went no further.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It was a client: see [`Conn::into_knocked`].
    Knocked,
    /// The visitor has closed.
    Closed,
    /// Nothing more in time.
    TimedOut,
    /// The connection has failed.
    Failed,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Stop::Failed
    }
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Said in TLS, then closed.
    Close,
    /// The same, and what still comes is read for a while, lest the last answer be lost.
    Linger,
    /// Said in TLS, then reset, for something was not read.
    Reset,
    /// Without a word.
    Silent,
}

enum Stream {
    Tls(TlsStream),
    /// Plain HTTP where TLS is expected.
    Plain(Carrier),
}

/// A visitor's connection.
pub(super) struct Conn {
    stream: Stream,
    /// None once it is decided what the connection is.
    watch: Option<Watch>,
    /// What came behind a valid opener.
    knocked: Option<Vec<u8>>,
    /// What has been read and not been dealt with.
    pub(super) input: Vec<u8>,
}

impl Conn {
    pub(super) fn tls(stream: TlsStream, watch: Watch) -> Self {
        Self { stream: Stream::Tls(stream), watch: Some(watch), knocked: None, input: Vec::new() }
    }

    pub(super) fn plain(carrier: Carrier) -> Self {
        Self { stream: Stream::Plain(carrier), watch: None, knocked: None, input: Vec::new() }
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.stream, Stream::Plain(_))
    }

    /// Which of the gateway's addresses the visitor came to.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tls(stream) => local_address(stream.carrier()),
            Stream::Plain(carrier) => local_address(carrier),
        }
    }

    /// Waits for more input.
    pub(super) async fn read(&mut self, until: Instant) -> Result<(), Stop> {
        timeout_at(until, poll_fn(|cx| self.poll_input(cx))).await.map_err(|_| Stop::TimedOut)?
    }

    /// Takes what has come already; whether it was anything.
    pub(super) async fn try_read(&mut self) -> Result<bool, Stop> {
        match poll_fn(|cx| Poll::Ready(self.poll_input(cx))).await {
            Poll::Ready(read) => read.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// More input, and what turns out to be a client's is not the site's.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let bytes = match &mut self.stream {
            Stream::Tls(stream) => {
                ready!(stream.poll_record(cx)).map_err(|_| Stop::Failed)?.unwrap_or_default()
            }
            Stream::Plain(carrier) => {
                let mut space = [0; 4_096];
                let count = ready!(carrier.poll_read(cx, &mut space))?;
                space[..count].to_vec()
            }
        };
        if bytes.is_empty() {
            return Poll::Ready(Err(Stop::Closed));
        }
        match self.watch.as_mut().map(|watch| watch.push(&bytes)) {
            Some(Verdict::Opened { consumed }) => {
                self.knocked = Some(bytes[consumed..].to_vec());
                return Poll::Ready(Err(Stop::Knocked));
            }
            Some(Verdict::Visitor) => self.watch = None,
            Some(Verdict::Undecided) | None => {}
        }
        if self.input.is_empty() {
            self.input = bytes;
        } else {
            self.input.extend_from_slice(&bytes);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends all of it, in records as large as they may be.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        for piece in bytes.chunks(RECORD) {
            let sent = timeout(SEND_TIME, self.send(piece)).await;
            sent.map_err(|_| Stop::TimedOut)??;
        }
        Ok(())
    }

    async fn send(&mut self, mut piece: &[u8]) -> Result<(), Stop> {
        match &mut self.stream {
            Stream::Tls(stream) => stream.send(piece).await.map_err(|_| Stop::Failed),
            Stream::Plain(carrier) => {
                while !piece.is_empty() {
                    let count = poll_fn(|cx| carrier.poll_write(cx, piece)).await?;
                    piece = &piece[count..];
                }
                Ok(())
            }
        }
    }

    /// Ends the connection.
    pub(super) async fn end(mut self, ending: Ending) {
        if ending == Ending::Silent {
            return;
        }
        let said = match &mut self.stream {
            Stream::Tls(_) if ending == Ending::Reset => return self.reset().await,
            Stream::Tls(stream) => {
                let shutdown = poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx));
                timeout(SEND_TIME, shutdown).await.map_err(io::Error::from).flatten()
            }
            Stream::Plain(carrier) => carrier.shutdown(Shutdown::Write),
        };
        if said.is_ok() && ending == Ending::Linger {
            let carrier = match self.stream {
                Stream::Tls(stream) => stream.into_parts().0,
                Stream::Plain(carrier) => carrier,
            };
            linger(&carrier).await;
        }
    }

    async fn reset(self) {
        if let Stream::Tls(stream) = self.stream {
            let _ = timeout(SEND_TIME, stream.reset()).await;
        }
    }

    /// The stream and what came behind a valid opener; all of it back for a visitor.
    pub(super) fn into_knocked(self) -> Result<(TlsStream, Vec<u8>), Box<Self>> {
        match (self.stream, self.knocked) {
            (Stream::Tls(stream), Some(rest)) => Ok((stream, rest)),
            (stream, knocked) => {
                Err(Box::new(Self { stream, knocked, watch: None, input: self.input }))
            }
        }
    }
}

fn local_address(carrier: &Carrier) -> Option<SocketAddr> {
    let address = match carrier {
        Carrier::Tcp(tcp) => tcp.local_addr().ok()?,
        Carrier::Kcp(_) => return None,
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Reads and drops until the visitor has closed.
async fn linger(carrier: &Carrier) {
    let end = Instant::now() + LINGER_TIME_MAX;
    let mut dropped = [0; 4_096];
    loop {
        let until = end.min(Instant::now() + LINGER_TIME);
        match timeout_at(until, poll_fn(|cx| carrier.poll_read(cx, &mut dropped))).await {
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) | Err(_) => return,
        }
    }
}
