//! What nginx does to an answer on its way out: conditions, compression, ranges.

use std::{
    borrow::Cow,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

use super::{
    answer::Answer,
    body::{Body, Gzip},
    date,
    request::{Request, Version},
};

/// Bodies below this are not compressed.
const GZIP_MIN: u64 = 20;

/// An answer as it leaves.
pub(super) fn finish(answer: Answer, request: &Request) -> Answer {
    let answer = answer.unless_known(request);
    in_ranges(compressed(answer, request), request)
}

/// The same for an answer of another site's, which has decided about conditions and ranges itself.
pub(super) fn finish_fetched(answer: Answer, request: &Request) -> Answer {
    compressed(answer, request)
}

/// Through gzip, where nginx would: pages of text only, for those who accept it.
fn compressed(mut answer: Answer, request: &Request) -> Answer {
    let is_page = answer.kind.as_deref().is_some_and(|kind| {
        kind.split(';').next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"))
    });
    let fits = is_page
        && matches!(answer.status, 200 | 403 | 404)
        && answer.length.is_none_or(|length| length >= GZIP_MIN)
        && answer.field("content-encoding").is_none();
    if !fits
        || request.version < Version::Http11
        || request.field("via").is_some()
        || !request.field("accept-encoding").is_some_and(accepts_gzip)
    {
        return answer;
    }
    let Some(permit) = Gzip::permit() else { return answer };
    answer.add("Content-Encoding", "gzip");
    let length = answer.length.take();
    answer.in_ranges = false;
    answer.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("accept-ranges"));
    for (name, value) in &mut answer.fields {
        if name.eq_ignore_ascii_case("etag") && value.starts_with(b"\"") {
            value.splice(0..0, *b"W/");
        }
    }
    let source = std::mem::replace(&mut answer.body, Body::Empty);
    answer.body = Body::Gzip(Box::new(Gzip::new(source, length, permit)));
    answer
}

/// As nginx reads `Accept-Encoding`: the word gzip, without a quality of zero.
fn accepts_gzip(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    let starts = (0..lower.len()).find(|at| {
        lower[*at..].starts_with(b"gzip") && (*at == 0 || matches!(lower[at - 1], b',' | b' '))
    });
    let Some(start) = starts else { return false };
    let rest = lower[start + 4..].trim_ascii_start();
    let Some((first, rest)) = rest.split_first() else { return true };
    match first {
        b',' => true,
        b';' => match rest.trim_ascii_start() {
            [] => true,
            [b'q', b'=', quality @ ..] => is_above_zero(quality),
            _ => false,
        },
        _ => false,
    }
}

/// A quality: `1`, or a fraction of up to three digits that is not zero.
fn is_above_zero(quality: &[u8]) -> bool {
    let quality = quality.split(|byte| matches!(byte, b',' | b' ')).next().unwrap_or_default();
    match quality {
        [b'1', ..] => true,
        [b'0', b'.', digits @ ..] => {
            digits.len() <= 3
                && digits.iter().all(u8::is_ascii_digit)
                && digits.iter().any(|digit| *digit != b'0')
        }
        _ => false,
    }
}

/// A range of bytes: from the first to before the last.
type Range = (u64, u64);

enum Ranges {
    /// The whole is sent.
    Ignored,
    Wrong,
    These(Vec<Range>),
}

/// The parts that were asked for.
fn in_ranges(mut answer: Answer, request: &Request) -> Answer {
    let Some(length) = answer.length.filter(|_| answer.in_ranges && answer.status == 200) else {
        return answer;
    };
    if request.version < Version::Http10 {
        return answer;
    }
    let asked = request.field("range").filter(|range| {
        range.len() >= 7
            && range[..6].eq_ignore_ascii_case(b"bytes=")
            && is_current(&answer, request)
    });
    let asked = asked.map(|range| &range[6..]).unwrap_or_default();
    let ranges = if asked.is_empty() { Ranges::Ignored } else { parse_ranges(asked, length) };
    match ranges {
        Ranges::Ignored => answer.add("Accept-Ranges", "bytes"),
        Ranges::Wrong => {
            answer = Answer { is_file: true, ..Answer::page(416, request) };
            answer.add("Content-Range", format!("bytes */{length}"));
        }
        Ranges::These(ranges) => {
            answer.status = 206;
            match *ranges.as_slice() {
                [(from, to)] => {
                    answer.add("Content-Range", format!("bytes {from}-{}/{length}", to - 1));
                    answer.body = answer.body.part(from, to - from);
                    answer.length = Some(to - from);
                }
                _ => multipart(&mut answer, asked, &ranges, length),
            }
        }
    }
    answer
}

/// `If-Range`: whether the visitor's part is of this very file.
fn is_current(answer: &Answer, request: &Request) -> bool {
    match request.field("if-range") {
        None => true,
        Some(tag) if tag.len() >= 2 && tag.ends_with(b"\"") => answer.field("etag") == Some(tag),
        Some(time) => date::parse(time).is_some_and(|time| answer.modified == Some(time)),
    }
}

fn parse_ranges(list: &[u8], length: u64) -> Ranges {
    let mut ranges = Vec::new();
    for range in list.split(|byte| *byte == b',') {
        let Some((from, to)) = parse_range(range, length) else { return Ranges::Wrong };
        if from < to {
            ranges.push((from, to));
        } else if from == 0 {
            return Ranges::Ignored;
        }
    }
    if ranges.is_empty() {
        return Ranges::Wrong;
    }
    let size: u64 = ranges.iter().map(|(from, to)| to - from).fold(0, u64::saturating_add);
    if size > length { Ranges::Ignored } else { Ranges::These(ranges) }
}

/// `from-to`, `from-` or `-count`; empty if it is behind the end.
fn parse_range(range: &[u8], length: u64) -> Option<Range> {
    let text = std::str::from_utf8(range).ok()?;
    let (from, to) = text.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| is_number && i64::try_from(*number).is_ok())
    };
    let (from, to) = (from.trim_matches(' '), to.trim_matches(' '));
    Some(match (from, to) {
        ("", count) => (length.saturating_sub(number(count)?), length),
        (from, "") => (number(from)?, length),
        (from, to) => (number(from)?, number(to)?.saturating_add(1).min(length)),
    })
}

/// Several parts of a body. They are formed one by one: a visitor may ask for thousands.
pub(super) struct Multipart {
    whole: Body,
    length: u64,
    kind: Cow<'static, str>,
    boundary: String,
    /// The ranges of them that have not been begun, as they were asked for.
    list: Vec<u8>,
    at: usize,
    /// The one under way.
    part: Body,
    is_over: bool,
}

impl Multipart {
    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(piece) = self.part.next().await? {
            return Ok(Some(piece));
        }
        while self.at <= self.list.len() {
            let rest = &self.list[self.at..];
            let range = rest.split(|byte| *byte == b',').next().unwrap_or_default();
            self.at += range.len() + 1;
            let range = parse_range(range, self.length);
            if let Some((from, to)) = range.filter(|(from, to)| from < to) {
                self.part = self.whole.part(from, to - from);
                return Ok(Some(self.head((from, to)).into()));
            }
        }
        let is_over = std::mem::replace(&mut self.is_over, true);
        Ok((!is_over).then(|| self.tail().into()))
    }

    fn head(&self, (from, to): Range) -> String {
        let Self { boundary, kind, length, .. } = self;
        let last = to - 1;
        format!(
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {from}-{last}/{length}\r\n\
             \r\n"
        )
    }

    fn tail(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}

/// Several parts, with nginx's kind of boundary.
fn multipart(answer: &mut Answer, list: &[u8], ranges: &[Range], length: u64) {
    static BOUNDARY: AtomicU64 = AtomicU64::new(1);
    let boundary = format!("{:020}", BOUNDARY.fetch_add(1, Ordering::Relaxed));
    let parts = Multipart {
        whole: std::mem::replace(&mut answer.body, Body::Empty),
        length,
        kind: answer.kind.take().unwrap_or_default(),
        boundary,
        list: list.to_vec(),
        at: 0,
        part: Body::Empty,
        is_over: false,
    };
    answer.kind = Some(format!("multipart/byteranges; boundary={}", parts.boundary).into());
    let sizes = ranges.iter().map(|range| parts.head(*range).len() as u64 + range.1 - range.0);
    answer.length = Some(sizes.sum::<u64>() + parts.tail().len() as u64);
    answer.body = Body::Multipart(Box::new(parts));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_accepted_as_by_nginx() {
        for (value, accepts) in [
            ("gzip", true),
            ("gzip, deflate", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=1", true),
            ("gzip ; q=0.001", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("xgzip", false),
            ("br", false),
            ("gzipped", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(value.as_bytes()), accepts, "{value}");
        }
    }

    #[test]
    fn ranges_are_read_as_by_nginx() {
        let read = |list: &str| match parse_ranges(list.as_bytes(), 100) {
            Ranges::Ignored => "all".to_owned(),
            Ranges::Wrong => "wrong".to_owned(),
            Ranges::These(ranges) => format!("{ranges:?}"),
        };
        for (list, expected) in [
            ("0-9", "[(0, 10)]"),
            ("90-", "[(90, 100)]"),
            ("-5", "[(95, 100)]"),
            ("-500", "[(0, 100)]"),
            ("0-9, 20-29", "[(0, 10), (20, 30)]"),
            ("0-,0-", "all"),
            ("100-", "wrong"),
            ("0-9,200-", "[(0, 10)]"),
            ("x", "wrong"),
            ("5", "wrong"),
            ("1-x", "wrong"),
            ("", "wrong"),
        ] {
            assert_eq!(read(list), expected, "{list}");
        }
    }

    #[tokio::test]
    async fn many_parts_are_as_long_as_announced() {
        let mut request = Request::new();
        request.version = Version::Http11;
        let list = format!("bytes={}500-,7-8", "1-1,".repeat(90));
        request.add_field(b"Range", list.as_bytes()).unwrap();
        let body = Body::Bytes(Bytes::from(vec![b'a'; 100]));
        let answer = Answer { in_ranges: true, ..Answer::ok("text/plain", 100, body) };
        let mut answer = finish(answer, &request);
        assert_eq!(answer.status, 206);
        let (mut sent, mut parts) = (Vec::new(), 0);
        while let Some(piece) = answer.body.next().await.unwrap() {
            parts += usize::from(piece.starts_with(b"\r\n--"));
            sent.extend_from_slice(&piece);
        }
        assert_eq!(answer.length, Some(sent.len() as u64));
        assert_eq!(parts, 92, "91 and the end");
        let text = String::from_utf8(sent).unwrap();
        assert!(text.contains("Content-Range: bytes 7-8/100\r\n\r\naa\r\n--"), "{text}");
        assert!(text.ends_with("--\r\n"));
        let Body::Multipart(_) = answer.body else { panic!("all parts at once") };
    }
}
