//! The site as a reverse proxy: somebody else's pages, as nginx's `proxy_pass` shows them.

mod names;

use std::{borrow::Cow, io, pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use self::names::Names;
use super::{
    answer::{Answer, reason},
    body::Body,
    filter,
    request::{BodyLength, HEADER_TOO_LARGE, Request},
};
use crate::config::Upstream as Target;

/// How long the other site may take to accept, to take a request, and between two pieces of an
/// answer, as with nginx.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest header of an answer, in bytes, as with nginx.
const HEAD_MAX: usize = 4_096;
/// How much is read at a time, and held, in bytes.
const READ: usize = 4_096;
const PIECE_MAX: usize = 32 * 1_024;
const FIELDS_MAX: usize = 100;
/// Connections to the other site at a time, for all visitors.
pub const ASKED_MAX: usize = 256;
static ASKED: Semaphore = Semaphore::const_new(ASKED_MAX);
/// Certificates that this host trusts.
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Fields of a request that are between two hosts only.
const NOT_FORWARDED: [&str; 9] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "keep-alive",
    "expect",
    "upgrade",
    "http2-settings",
];
/// Fields of an answer that this end writes itself.
const NOT_SHOWN: [&str; 9] = [
    "server",
    "date",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "content-type",
    "x-pad",
    "upgrade",
];

/// The other site.
pub(super) struct Proxy {
    target: Target,
    names: Names,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// The body of its answer.
pub(super) struct Upstream {
    stream: Pin<Box<dyn Stream>>,
    buffer: BytesMut,
    framing: Framing,
    _permit: SemaphorePermit<'static>,
}

/// An answer whose head has come: what is there of its body, and where the rest comes from.
struct Coming {
    head: Head,
    stream: Pin<Box<dyn Stream>>,
    buffer: BytesMut,
    permit: SemaphorePermit<'static>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes.
    Left(u64),
    /// In chunks, of the current one so many bytes are left; between two of them none.
    Chunk(u64),
    /// To the end of the connection.
    Open,
    Over,
}

/// What went wrong with the other site.
enum Trouble {
    /// It does not answer in time.
    Late,
    Broken,
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Trouble::Broken
    }
}

impl Proxy {
    /// To this site.
    ///
    /// # Errors
    /// It is an `https` one, and this host trusts nobody.
    pub(super) fn new(target: &Target) -> io::Result<Self> {
        let tls = if target.tls { Some(tls(&target.at.host)?) } else { None };
        Ok(Self { target: target.clone(), names: Names::new(&target.at), tls })
    }

    /// Its answer, or nginx's page for that there is none.
    pub(super) async fn answer(
        &self,
        request: &Request,
        length: BodyLength,
        body: &[u8],
    ) -> Answer {
        if request.is_cut {
            return Answer::page(HEADER_TOO_LARGE, request);
        }
        // a body without bytes is a body
        let body = Some(body).filter(|_| length != BodyLength::None);
        match self.ask(request, body).await {
            Ok(answer) => filter::finish_fetched(answer, request),
            Err(Trouble::Late) => Answer::page(504, request),
            Err(Trouble::Broken) => Answer::page(502, request),
        }
    }

    async fn ask(&self, request: &Request, body: Option<&[u8]>) -> Result<Answer, Trouble> {
        // as if it were slow
        let permit = in_time(async { ASKED.acquire().await.map_err(io::Error::other) }).await?;
        let mut stream = in_time(self.connect()).await?;
        let asked = self.form(request, body);
        in_time(async {
            stream.write_all(&asked).await?;
            stream.flush().await
        })
        .await?;
        let mut buffer = BytesMut::new();
        loop {
            if let Some((head, length)) = parse(&buffer)? {
                buffer.advance(length);
                return Ok(self.form_answer(Coming { head, stream, buffer, permit }, request));
            }
            if buffer.len() >= HEAD_MAX {
                return Err(Trouble::Broken);
            }
            buffer.reserve(READ);
            if in_time(stream.read_buf(&mut buffer)).await? == 0 {
                return Err(Trouble::Broken);
            }
        }
    }

    async fn connect(&self) -> io::Result<Pin<Box<dyn Stream>>> {
        let tcp = TcpStream::connect(&*self.names.addresses().await?).await?;
        tcp.set_nodelay(true)?;
        Ok(match &self.tls {
            Some((tls, name)) => Box::pin(tls.connect(name.clone(), tcp).await?),
            None => Box::pin(tcp),
        })
    }

    /// The request as nginx sends it on.
    fn form(&self, request: &Request, body: Option<&[u8]>) -> Vec<u8> {
        let mut asked = request.method.clone();
        asked.push(b' ');
        asked.extend_from_slice(&request.raw);
        let authority = self.target.authority();
        asked.extend_from_slice(
            format!(" HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n").as_bytes(),
        );
        if let Some(body) = body {
            asked.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        for (name, value) in &request.fields {
            if !is_among(&NOT_FORWARDED, name) {
                asked.extend_from_slice(&[name, b": ".as_slice(), value, b"\r\n"].concat());
            }
        }
        asked.extend_from_slice(b"\r\n");
        asked.extend_from_slice(body.unwrap_or_default());
        asked
    }

    fn form_answer(&self, coming: Coming, request: &Request) -> Answer {
        let Coming { head, stream, buffer, permit } = coming;
        let field =
            |name: &str| head.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        let text = |name| field(name).map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        let length = text("content-length").and_then(|length| length.trim().parse().ok());
        let is_chunked =
            text("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let framing = match length {
            _ if request.is_head() || matches!(head.status, 204 | 304) => Framing::Over,
            _ if is_chunked => Framing::Chunk(0),
            Some(length) => Framing::Left(length),
            None => Framing::Open,
        };
        let body = Body::Upstream(Box::new(Upstream { stream, buffer, framing, _permit: permit }));
        let kind = text("content-type").map(Cow::Owned);
        let mut answer = Answer { kind, ..Answer::ok("", 0, body) };
        answer.length = length.filter(|_| !is_chunked);
        answer.status = head.status;
        let is_usual = head.reason == reason(head.status);
        answer.reason = Some(head.reason).filter(|reason| !is_usual && !reason.is_empty());
        for (name, value) in head.fields {
            if name.eq_ignore_ascii_case("location") {
                let value = self.own_location(value);
                if value.first() == Some(&b'/') {
                    answer.location = Some(value);
                    continue;
                }
                answer.fields.push((name.into(), value));
                continue;
            }
            if !is_among(&NOT_SHOWN, name.as_bytes()) && !name.starts_with("X-Accel-") {
                answer.fields.push((name.into(), value));
            }
        }
        answer
    }

    /// A redirect within the other site is one within this one.
    fn own_location(&self, value: Vec<u8>) -> Vec<u8> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let own = format!("{scheme}://{}/", self.target.authority());
        match value.strip_prefix(own.as_bytes()) {
            Some(rest) => [b"/", rest].concat(),
            None => value,
        }
    }
}

fn is_among(names: &[&str], name: &[u8]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> Result<T, Trouble> {
    Ok(timeout(PATIENCE, step).await.map_err(|_| Trouble::Late)??)
}

fn tls(host: &str) -> io::Result<(TlsConnector, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::pem_file_iter(TRUSTED).map_err(io::Error::other)?;
    roots.add_parsable_certificates(trusted.flatten());
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(io::Error::other)?
    .with_root_certificates(roots)
    .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// The header of an answer.
struct Head {
    status: u16,
    reason: String,
    fields: Vec<(String, Vec<u8>)>,
}

/// The header at the beginning of these bytes and its length, once it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Trouble> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(|_| Trouble::Broken)? else {
        return Ok(None);
    };
    let status = head.code.unwrap_or_default();
    let reason = head.reason.unwrap_or_default().to_owned();
    let fields = head.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec()));
    Ok(Some((Head { status, reason, fields: fields.collect() }, length)))
}

impl Upstream {
    /// The next piece; an error if it ends too early or comes too late.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.framing {
                Framing::Over | Framing::Left(0) => return Ok(None),
                Framing::Chunk(0) => {
                    if !self.begin_chunk()? && !self.fill().await? {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Framing::Left(left) | Framing::Chunk(left) if !self.buffer.is_empty() => {
                    let count = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - count as u64;
                    let is_chunk = matches!(self.framing, Framing::Chunk(_));
                    self.framing =
                        if is_chunk { Framing::Chunk(left) } else { Framing::Left(left) };
                    return Ok(Some(self.buffer.split_to(count).freeze()));
                }
                Framing::Open if !self.buffer.is_empty() => {
                    return Ok(Some(self.buffer.split().freeze()));
                }
                Framing::Left(_) | Framing::Chunk(_) | Framing::Open => {
                    if !self.fill().await? {
                        let is_open = self.framing == Framing::Open;
                        self.framing = Framing::Over;
                        return if is_open {
                            Ok(None)
                        } else {
                            Err(io::ErrorKind::UnexpectedEof.into())
                        };
                    }
                }
            }
        }
    }

    /// Reads the line in front of a chunk, with the end of the one before; whether it was there.
    fn begin_chunk(&mut self) -> io::Result<bool> {
        while matches!(self.buffer.first(), Some(b'\r' | b'\n')) {
            self.buffer.advance(1);
        }
        match httparse::parse_chunk_size(&self.buffer) {
            Ok(httparse::Status::Complete((length, size))) => {
                self.buffer.advance(length);
                self.framing = if size == 0 { Framing::Over } else { Framing::Chunk(size) };
                Ok(true)
            }
            Ok(httparse::Status::Partial) if self.buffer.len() < HEAD_MAX => Ok(false),
            Ok(httparse::Status::Partial) | Err(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Waits for more, and takes all that is there.
    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ);
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        let mut count = read.map_err(|_| io::ErrorKind::TimedOut)??;
        let is_more = count > 0;
        while count > 0 && self.buffer.len() < PIECE_MAX {
            self.buffer.reserve(READ);
            let read = self.stream.read_buf(&mut self.buffer);
            match timeout(Duration::ZERO, read).await {
                Ok(read) => count = read?,
                Err(_) => break,
            }
        }
        Ok(is_more)
    }
}

#[cfg(test)]
mod tests;
