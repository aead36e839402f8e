//! A TLS connection that reads one record at a time and can be taken apart.

use std::{
    future::poll_fn,
    io::{self, Read, Write},
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Carrier;

const HEADER_LEN: usize = 5;
/// The most that TLS 1.3 allows in a record (RFC 8446, 5.2).
const BODY_MAX: usize = 16_384 + 256;
/// Encrypted bytes waiting for the socket beyond which a writer has to wait.
const OUTGOING_MAX: usize = 64 * 1024;

/// Why a TLS connection failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The TLS library refused; a wrong pin is among it: see [`TlsError::is_wrong_pin`].
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The socket failed.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The connection ended within the handshake.
    #[error("the connection was closed within the TLS handshake")]
    Closed,
    /// A record longer than TLS allows.
    #[error("a TLS record of {0} bytes")]
    RecordLength(usize),
    /// A name that cannot stand in a TLS hello.
    #[error("{0:?} is neither a DNS name nor an address")]
    Name(String),
}

impl TlsError {
    /// Whether the other end holds a key that is not pinned.
    pub fn is_wrong_pin(&self) -> bool {
        let wrong = rustls::CertificateError::ApplicationVerificationFailure;
        matches!(self, TlsError::Tls(rustls::Error::InvalidCertificate(e)) if *e == wrong)
    }

    /// Whether the other end has said that it did not like what it got.
    pub fn is_alert(&self) -> bool {
        matches!(self, TlsError::Tls(rustls::Error::AlertReceived(_)))
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Io(error) => error,
            TlsError::Tls(_) | TlsError::Closed | TlsError::RecordLength(_) | TlsError::Name(_) => {
                io::Error::new(io::ErrorKind::InvalidData, error)
            }
        }
    }
}

/// A TLS connection.
pub struct TlsStream {
    /// Shared with the tunnel, whose records may go out before the gateway's answer is read.
    carrier: Carrier,
    /// In a box, because it is large and the stream is handed on several times.
    tls: Box<rustls::Connection>,
    /// Bytes from the socket that the TLS library has not been given.
    incoming: Vec<u8>,
    /// Encrypted bytes for the socket, from `written` on.
    outgoing: Vec<u8>,
    written: usize,
    /// Early data, which nobody has read yet.
    early: Vec<u8>,
    /// Plaintext that an [`AsyncRead`] user has not taken yet.
    plaintext: Vec<u8>,
    taken: usize,
}

impl TlsStream {
    pub(super) fn new(carrier: Carrier, tls: rustls::Connection) -> Self {
        Self {
            carrier,
            tls: Box::new(tls),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            early: Vec::new(),
            plaintext: Vec::new(),
            taken: 0,
        }
    }

    pub(super) fn tls(&self) -> &rustls::Connection {
        &self.tls
    }

    /// What is underneath.
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// Runs the handshake to its end: the client has sent its Finished, the gateway has seen it.
    /// `on_early` is given the early data whenever there is more, and says how much of it to drop;
    /// the rest is the first record to be read.
    pub(super) async fn handshake(
        &mut self,
        mut on_early: impl FnMut(&[u8]) -> usize,
    ) -> Result<(), TlsError> {
        loop {
            let flushed = poll_fn(|cx| self.poll_outgoing(cx)).await;
            if !self.tls.is_handshaking() {
                return Ok(flushed?);
            }
            flushed?;
            if !poll_fn(|cx| self.poll_one_record(cx)).await? {
                return Err(TlsError::Closed);
            }
            if self.take_early_data()? {
                let dropped = on_early(&self.early).min(self.early.len());
                self.early.drain(..dropped);
            }
        }
    }

    /// Whether there is more early data now. The TLS library bounds it.
    fn take_early_data(&mut self) -> io::Result<bool> {
        let rustls::Connection::Server(tls) = &mut *self.tls else { return Ok(false) };
        let Some(mut early) = tls.early_data() else { return Ok(false) };
        Ok(early.read_to_end(&mut self.early)? > 0)
    }

    /// The plaintext of the next record that has any; `None` once the other end has closed.
    pub async fn read_record(&mut self) -> Result<Option<Vec<u8>>, TlsError> {
        poll_fn(|cx| self.poll_record(cx)).await
    }

    /// The same, for who polls.
    pub fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>, TlsError>> {
        if !self.early.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.early))));
        }
        loop {
            let more = ready!(self.poll_one_record(cx))?;
            let mut plaintext = Vec::new();
            // an end of the plaintext is an end of the connection; no data yet is an error here
            match self.tls.reader().read_to_end(&mut plaintext) {
                Ok(_) => return Poll::Ready(Ok((!plaintext.is_empty()).then_some(plaintext))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(None));
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
            if !plaintext.is_empty() {
                return Poll::Ready(Ok(Some(plaintext)));
            }
            if !more {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Sends all of `plaintext`; what one call sends ends a TLS record.
    pub async fn send(&mut self, plaintext: &[u8]) -> Result<(), TlsError> {
        poll_fn(|cx| self.poll_outgoing(cx)).await?;
        self.tls.writer().write_all(plaintext)?;
        self.encrypt()?;
        Ok(poll_fn(|cx| self.poll_outgoing(cx)).await?)
    }

    /// What is underneath, and the bytes that have already been read behind the last TLS record:
    /// the beginning of the tunnel.
    pub fn into_parts(self) -> (Carrier, Vec<u8>) {
        (self.carrier, self.incoming)
    }

    /// Ends the connection while the other end may be sending: says so, then reads and drops until
    /// that end has closed too, at most `drop_max` bytes. Closing at once would send a reset, which
    /// may overtake what was sent last. The caller sets a time limit.
    pub async fn finish(mut self, drop_max: usize) -> io::Result<()> {
        self.tls.send_close_notify();
        poll_fn(|cx| self.poll_outgoing(cx)).await?;
        self.carrier.shutdown(Shutdown::Write)?;
        let mut left = drop_max.saturating_sub(self.incoming.len());
        let mut dropped = [0; 4_096];
        while left > 0 {
            match poll_fn(|cx| self.carrier.poll_read(cx, &mut dropped)).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok(())
    }

    /// Ends the connection as somebody does who has left unread what the other end sent: says so, then
    /// resets it.
    pub async fn reset(mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        poll_fn(|cx| self.poll_outgoing(cx)).await?;
        self.carrier.reset_when_closed()
    }

    /// Gives the TLS library one whole record; `false` at the end of the connection.
    fn poll_one_record(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, TlsError>> {
        loop {
            if let Some(length) = self.record_len()? {
                let mut record = &self.incoming[..length];
                while !record.is_empty() {
                    self.tls.read_tls(&mut record)?;
                }
                self.incoming = self.incoming.split_off(length);
                let processed = self.tls.process_new_packets();
                // answers and alerts: what the socket does not take now goes with the next write
                self.encrypt()?;
                let _ = self.poll_outgoing(cx)?;
                processed?;
                return Poll::Ready(Ok(true));
            }
            let mut space = [0; 4_096];
            let count = ready!(self.carrier.poll_read(cx, &mut space))?;
            if count == 0 {
                return Poll::Ready(Ok(false));
            }
            self.incoming.extend_from_slice(&space[..count]);
        }
    }

    /// The length of the first whole record in `incoming`.
    fn record_len(&self) -> Result<Option<usize>, TlsError> {
        let Some((header, body)) = self.incoming.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length > BODY_MAX {
            return Err(TlsError::RecordLength(length));
        }
        Ok((body.len() >= length).then_some(HEADER_LEN + length))
    }

    /// Moves what the TLS library wants to send to `outgoing`.
    fn encrypt(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.outgoing)?;
        }
        Ok(())
    }

    /// Sends `outgoing`.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.encrypt()?;
        while self.written < self.outgoing.len() {
            let rest = &self.outgoing[self.written..];
            let count = ready!(self.carrier.poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        // a gateway may have thousands of these that do nothing
        self.outgoing = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.taken == self.plaintext.len() {
            self.plaintext = ready!(self.poll_record(cx))?.unwrap_or_default();
            self.taken = 0;
        }
        let rest = &self.plaintext[self.taken..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.outgoing.len() - self.written > OUTGOING_MAX {
            ready!(self.poll_outgoing(cx))?;
        }
        let count = self.tls.writer().write(bytes)?;
        self.encrypt()?;
        let _ = self.poll_outgoing(cx)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_outgoing(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.send_close_notify();
        ready!(self.poll_outgoing(cx))?;
        Poll::Ready(self.carrier.shutdown(Shutdown::Write))
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("carrier", &self.carrier).finish_non_exhaustive()
    }
}
