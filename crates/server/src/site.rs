//! The web site that everybody sees who is no client (A19).
//!
//! The web server reads a connection from its first byte. On the way to it the bytes pass a
//! [`Watch`]; once that sees a valid opener, the connection is taken away from the web server,
//! which never learns what came behind it. Whatever is no valid opener is a visit, with the same
//! answers and time-outs as any other.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use cipherwall_proto::knock::{Alpn, Verdict, Watch};
use cipherwall_transport::tls::TlsStream;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue, SERVER},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// How long a request's header may take, as with nginx.
const HEADER_TIME: Duration = Duration::from_secs(60);
/// The most of a request's header that is held, in bytes; the web server's own bounds are generous.
const BUFFER_MAX: usize = 16 * 1024;
/// What a visitor may send in HTTP/2 before it is read, in bytes: the least allowed (RFC 9113, 6.9.2).
const WINDOW: u32 = 65_535;
/// How long a visitor may send nothing, as with nginx.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const PAGE: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Welcome</title>\
    </head>\n<body>\n<h1>Welcome</h1>\n<p>This site is being set up. Please come back later.</p>\n\
    </body>\n</html>\n";
const NOT_FOUND: &str = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n\
    <center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";

/// A connection that turned out to be a client's.
pub struct Knocked {
    /// The connection, taken away from the web server.
    pub stream: TlsStream,
    /// What came behind the opener in the same TLS record.
    pub rest: Vec<u8>,
}

/// Serves the web site on this connection until it ends (`None`) or knocks rightly.
pub async fn serve(stream: TlsStream, watch: Watch, alpn: Alpn) -> Option<Knocked> {
    let shared = Arc::new(Mutex::new(Shared {
        stream,
        watch: Some(watch),
        knocked: None,
        plaintext: Vec::new(),
        taken: 0,
        last_read: Instant::now(),
    }));
    let io = TokioIo::new(Tap(shared.clone()));
    match alpn {
        Alpn::Http1 => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(BUFFER_MAX)
                .serve_connection(io, service_fn(answer));
            until_decided(&shared, connection).await;
        }
        Alpn::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(128)
                .max_header_list_size(BUFFER_MAX as u32)
                .initial_connection_window_size(WINDOW)
                .initial_stream_window_size(WINDOW)
                .max_send_buf_size(BUFFER_MAX)
                .serve_connection(io, service_fn(answer));
            until_decided(&shared, connection).await;
        }
    }
    let shared = Arc::into_inner(shared)?.into_inner().unwrap_or_else(PoisonError::into_inner);
    shared.knocked.map(|rest| Knocked { stream: shared.stream, rest })
}

/// Runs the web server's connection until it ends, the client has knocked, or nothing has come for
/// too long, and drops it.
async fn until_decided(
    shared: &Mutex<Shared>,
    connection: impl Future<Output = hyper::Result<()>>,
) {
    let mut connection = pin!(connection);
    let decided = std::future::poll_fn(|cx| {
        let ended = connection.as_mut().poll(cx).is_ready();
        let knocked = lock(shared).knocked.is_some();
        if ended || knocked { Poll::Ready(()) } else { Poll::Pending }
    });
    // the web server watches the time for HTTP/1 only
    let silent = async {
        loop {
            let until = lock(shared).last_read + SILENCE_MAX;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    };
    tokio::select! {
        () = decided => {}
        () = silent => {}
    }
}

/// One page, and "not found" for the rest.
#[allow(clippy::unused_async)] // the web server wants a future
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let (status, body) = match request.uri().path() {
        _ if !reads => (StatusCode::METHOD_NOT_ALLOWED, NOT_FOUND),
        "/" | "/index.html" => (StatusCode::OK, PAGE),
        _ => (StatusCode::NOT_FOUND, NOT_FOUND),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("nginx"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    Ok(response)
}

/// What the web server and we share of a connection.
struct Shared {
    stream: TlsStream,
    /// None once it is decided what the connection is.
    watch: Option<Watch>,
    /// What came behind a valid opener.
    knocked: Option<Vec<u8>>,
    /// Plaintext for the web server, from `taken` on.
    plaintext: Vec<u8>,
    taken: usize,
    /// When plaintext came last.
    last_read: Instant,
}

/// The web server's end of the connection.
struct Tap(Arc<Mutex<Shared>>);

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The next plaintext for the web server; empty at the end. Pending for good once the client
    /// has knocked.
    fn poll_plaintext(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.knocked.is_some() {
            return Poll::Pending;
        }
        let plaintext = ready!(self.stream.poll_record(cx))?.unwrap_or_default();
        match self.watch.as_mut().map(|watch| watch.push(&plaintext)) {
            Some(Verdict::Opened { consumed }) => {
                self.knocked = Some(plaintext[consumed..].to_vec());
                return Poll::Pending;
            }
            Some(Verdict::Visitor) => self.watch = None,
            Some(Verdict::Undecided) | None => {}
        }
        self.plaintext = plaintext;
        self.taken = 0;
        self.last_read = Instant::now();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        if shared.taken == shared.plaintext.len() {
            ready!(shared.poll_plaintext(cx))?;
        }
        let rest = &shared.plaintext[shared.taken..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        shared.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut lock(&self.0).stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_shutdown(cx)
    }
}
