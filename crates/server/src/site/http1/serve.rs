//! One connection, request by request.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    chunks::{Invalid, Rest},
    reader::{FIRST, LARGE, Reader, Step},
};
use crate::site::{
    BODY_KEPT_MAX, HEADER_TIME, KEEP_TIME, REQUESTS_MAX, TIME_MAX,
    answer::{Answer, PLAIN_HTTP, reason},
    conn::{Conn, Ending, Stop},
    content::Content,
    date,
    request::{BodyLength, HEADER_TOO_LARGE, Request, Version},
};

/// How long a visitor may take with the next piece of a body that nobody reads, and with all of it.
const DISCARD_TIME: Duration = Duration::from_secs(5);
const DISCARD_TIME_MAX: Duration = Duration::from_secs(30);

/// What OpenSSL reads from a connection at once, in bytes.
const OPENSSL_READ: usize = 16_704;
/// The most that a TLS record holds, and what it adds to that, in bytes.
const TLS_RECORD: usize = 16_384;
const TLS_RECORD_EXTRA: usize = 22;
/// Behind a line that is too long, this much is as good as more, in bytes.
const LONG_LINE_MAX: usize = 2 * OPENSSL_READ;
/// What nginx reads into its second buffer for a head.
const SECOND: usize = LARGE - FIRST;

/// Serves a connection that was accepted at `since` until it is to be ended.
pub(in crate::site) async fn serve(
    conn: &mut Conn,
    content: &Arc<Content>,
    since: Instant,
) -> Result<Ending, Stop> {
    // the handshake is within the first request's time
    let mut until = since + HEADER_TIME;
    for count in 1_u32.. {
        let mut reader = Reader::new();
        let step = match read_head(conn, &mut reader, until, count > 1).await {
            Ok(step) => step,
            Err(Stop::TimedOut | Stop::Closed) if !reader.has_begun() => return Ok(Ending::Close),
            Err(Stop::TimedOut | Stop::Closed) => return Ok(Ending::Silent),
            Err(stop) => return Err(stop),
        };
        let visit = Visit {
            is_plain: conn.is_plain(),
            may_stay: count < REQUESTS_MAX && since.elapsed() <= TIME_MAX,
            before_pause: reader.before_pause,
        };
        if let Some(ending) = visit.answer(conn, content, reader.request, step).await? {
            return Ok(ending);
        }
        until = Instant::now() + KEEP_TIME;
    }
    Ok(Ending::Close)
}

/// Reads up to the end of a head. Behind an earlier request it has all the time for a head from its
/// first byte on.
async fn read_head(
    conn: &mut Conn,
    reader: &mut Reader,
    mut until: Instant,
    is_later: bool,
) -> Result<Step, Stop> {
    loop {
        for (at, byte) in conn.input.iter().enumerate() {
            let step = reader.push(*byte);
            if step != Step::More {
                // what is not understood stays, as a reason to linger
                let taken = if step == Step::Done || *byte == b'\n' { at + 1 } else { at };
                conn.input.drain(..taken);
                return Ok(step);
            }
        }
        if is_later && !conn.input.is_empty() {
            until = until.min(Instant::now() + HEADER_TIME);
        }
        conn.input.clear();
        if !conn.try_read().await? {
            reader.pause();
            conn.read(until).await?;
        }
    }
}

/// What is known of a connection that a request is answered on.
struct Visit {
    is_plain: bool,
    /// Whether there may be another request behind this one.
    may_stay: bool,
    /// How much of the first line came before the last pause.
    before_pause: usize,
}

impl Visit {
    /// Answers; how the connection ends, if it does.
    async fn answer(
        &self,
        conn: &mut Conn,
        content: &Arc<Content>,
        request: Request,
        step: Step,
    ) -> Result<Option<Ending>, Stop> {
        let (length, refusal) = match (step, request.version) {
            (Step::Refused(status), _) => (BodyLength::None, Some(status)),
            (_, Version::Http09) => (BodyLength::None, None),
            (Step::More | Step::Done, _) => match request.check() {
                Ok(length) => (length, None),
                Err((status, length)) => (length, Some(status)),
            },
        };
        let refusal = refusal.or(self.is_plain.then_some(PLAIN_HTTP));
        let mut rest = Rest::new(length);
        if let Some(status) = refusal {
            return self.refuse(conn, &request, status, &mut rest).await.map(Some);
        }
        let mut answer = if content.takes_bodies() && !Content::is_too_large(length) {
            let body = read_body(conn, &request, &mut rest).await?;
            content.answer_with_body(&request, length, body).await
        } else {
            content.answer(&request, length).await
        };
        let taken = rest.take(&mut conn.input, |_| ());
        if taken == Err(Invalid) && answer.is_file {
            answer = Answer::page(400, &request);
        } else if answer.is_file && expects_more(&request) {
            conn.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let wanted = request.wants_keep_alive().unwrap_or(request.version > Version::Http10);
        let is_fatal = matches!(answer.status, 400 | 413 | 414 | 500 | 501);
        let stays = self.may_stay && wanted && !is_fatal && taken.is_ok();
        let breaks = answer.breaks;
        let stays = send(conn, &request, answer, stays).await? && stays;
        if breaks {
            return Ok(Some(Ending::Close));
        }
        if taken.is_err() {
            return Ok(Some(Ending::Linger));
        }
        let was_over = rest.is_over();
        if let Some(ending) = discard(conn, &mut rest).await? {
            return Ok(Some(ending));
        }
        if stays {
            return Ok(None);
        }
        let lingers = length.is_some() && was_over && !is_fatal || has_more(conn).await?;
        Ok(Some(if lingers { Ending::Linger } else { Ending::Close }))
    }

    /// Answers with a page of this status; how the connection ends.
    async fn refuse(
        &self,
        conn: &mut Conn,
        request: &Request,
        status: u16,
        rest: &mut Rest,
    ) -> Result<Ending, Stop> {
        let taken = rest.take(&mut conn.input, |_| ());
        send(conn, request, Answer::page(status, request), false).await?;
        if taken.is_ok()
            && let Some(ending) = discard(conn, rest).await?
        {
            return Ok(ending);
        }
        if status == 414 && !self.is_plain {
            return Ok(after_long_line(conn, self.before_pause).await);
        }
        let is_long = matches!(status, 414 | HEADER_TOO_LARGE);
        let lingers = is_long || taken.is_err() || has_more(conn).await?;
        Ok(if lingers { Ending::Linger } else { Ending::Close })
    }
}

/// Whether the visitor has sent more than was answered.
async fn has_more(conn: &mut Conn) -> Result<bool, Stop> {
    Ok(!conn.input.is_empty() || conn.try_read().await.unwrap_or_default())
}

/// How a connection in TLS ends behind a line that is too long: nginx has read what OpenSSL reads at
/// once, and knows of the rest only if one read fills its buffer, or if it is more than a buffer's.
async fn after_long_line(conn: &mut Conn, before_pause: usize) -> Ending {
    if before_pause >= FIRST {
        return Ending::Linger;
    }
    while conn.input.len() < LONG_LINE_MAX && conn.try_read().await.unwrap_or_default() {}
    let sent = LARGE - before_pause + conn.input.len();
    let sealed = sent + TLS_RECORD_EXTRA * sent.div_ceil(TLS_RECORD);
    match sealed.saturating_sub(OPENSSL_READ) {
        0 => Ending::Close,
        1..SECOND => Ending::Reset,
        _ => Ending::Linger,
    }
}

fn expects_more(request: &Request) -> bool {
    let expects = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
    request.version >= Version::Http11 && request.field("expect").is_some_and(expects)
}

/// A body that somebody reads, as far as it is kept.
async fn read_body(conn: &mut Conn, request: &Request, rest: &mut Rest) -> Result<Body, Stop> {
    let mut body = Vec::new();
    if !rest.is_over() && conn.input.is_empty() && expects_more(request) {
        conn.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    loop {
        let taken = rest.take(&mut conn.input, |data| body.extend_from_slice(data));
        if taken == Err(Invalid) {
            return Ok(Err(400));
        }
        if rest.is_over() {
            return Ok(Ok(body));
        }
        if body.len() > BODY_KEPT_MAX {
            return Ok(Err(413));
        }
        conn.read(Instant::now() + HEADER_TIME).await?;
    }
}

/// A body, or the status of the answer instead.
type Body = Result<Vec<u8>, u16>;

/// Passes over what is left of a body that nobody reads; how the connection ends, if it does.
async fn discard(conn: &mut Conn, rest: &mut Rest) -> Result<Option<Ending>, Stop> {
    let end = Instant::now() + DISCARD_TIME_MAX;
    while !rest.is_over() {
        match conn.read(end.min(Instant::now() + DISCARD_TIME)).await {
            Ok(()) => {}
            Err(Stop::Closed) => return Ok(Some(Ending::Close)),
            Err(Stop::TimedOut) => return Ok(Some(Ending::Silent)),
            Err(stop) => return Err(stop),
        }
        if rest.take(&mut conn.input, |_| ()) == Err(Invalid) {
            return Ok(Some(Ending::Silent));
        }
    }
    Ok(None)
}

/// Sends an answer. Whether the connection may stay: not if only its end tells where the body ends.
async fn send(
    conn: &mut Conn,
    request: &Request,
    mut answer: Answer,
    stays: bool,
) -> Result<bool, Stop> {
    let is_header_only = answer.is_header_only(request);
    let is_open = answer.length.is_none() && !matches!(answer.status, 204 | 304);
    let is_chunked = is_open && !is_header_only && request.version >= Version::Http11;
    let stays = stays && (!is_open || is_chunked || is_header_only);
    let mut out = match request.version {
        Version::Http09 => Vec::new(),
        Version::Http10 | Version::Http11 | Version::Http2 => {
            head(conn, request, &answer, is_chunked, stays)
        }
    };
    if !is_header_only {
        let is_live = matches!(answer.body, crate::site::body::Body::Upstream(_));
        // what cannot be read ends the connection: the visitor must not take it for whole
        while let Some(piece) = answer.body.next().await? {
            if is_chunked {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            }
            out.extend_from_slice(&piece);
            if is_chunked {
                out.extend_from_slice(b"\r\n");
            }
            let whole = if is_live { out.len() } else { out.len() / RECORD * RECORD };
            conn.write(&out[..whole]).await?;
            out.drain(..whole);
        }
        if is_chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
    conn.write(&out).await?;
    Ok(stays)
}

/// What leaves at once, in bytes.
const RECORD: usize = 16 * 1024;

/// Status line and fields, in nginx's order.
fn head(conn: &Conn, request: &Request, answer: &Answer, is_chunked: bool, stays: bool) -> Vec<u8> {
    let status = answer.status;
    let reason = answer.reason.as_deref().unwrap_or(reason(status));
    let mut head =
        format!("HTTP/1.1 {status} {reason}\r\nServer: nginx\r\nDate: {}\r\n", date::now());
    if let Some(kind) = &answer.kind {
        head += &format!("Content-Type: {kind}\r\n");
    }
    if let Some(length) = answer.length {
        head += &format!("Content-Length: {length}\r\n");
    }
    if let Some(modified) = answer.modified {
        head += &format!("Last-Modified: {}\r\n", date::format(modified));
    }
    let mut head = head.into_bytes();
    if let Some(location) = answer.absolute_location(request, conn.local_address()) {
        head.extend_from_slice(&[b"Location: ", location.as_slice(), b"\r\n"].concat());
    }
    if is_chunked {
        head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    let connection = if stays { "keep-alive" } else { "close" };
    head.extend_from_slice(format!("Connection: {connection}\r\n").as_bytes());
    for (name, value) in &answer.fields {
        head.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    head
}
