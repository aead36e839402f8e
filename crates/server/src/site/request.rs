//! What a visitor asks for, whatever the version of HTTP, and whether nginx would answer it.

use super::uri::{self, Target};

/// nginx's own name for a header that is too large; answered as 400.
pub(super) const HEADER_TOO_LARGE: u16 = 494;

/// The version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// A line without a version. The answer is a body alone.
    Http09,
    Http10,
    /// And whatever else begins with `1.`.
    Http11,
    Http2,
}

/// A request without its body.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Vec<u8>,
    /// Path and arguments as they were sent.
    pub(super) raw: Vec<u8>,
    pub(super) target: Target,
    pub(super) version: Version,
    /// The host that it names, lower case and without port.
    pub(super) host: Option<Vec<u8>>,
    /// Names as they were sent, values.
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// There were more of them than are kept.
    pub(super) is_cut: bool,
    count: u32,
    has_host_field: bool,
    wants_keep_alive: Option<bool>,
}

/// The body that follows a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// Not said.
    None,
    /// Bytes.
    Known(u64),
    /// In chunks (RFC 9112, 7.1), or in HTTP/2 without a length.
    Chunked,
}

impl BodyLength {
    /// Whether anything follows.
    pub(super) fn is_some(self) -> bool {
        !matches!(self, BodyLength::None | BodyLength::Known(0))
    }
}

/// Fields that nginx takes once only.
const UNIQUE: [&str; 10] = [
    "if-modified-since",
    "if-unmodified-since",
    "if-match",
    "if-none-match",
    "content-length",
    "content-range",
    "if-range",
    "transfer-encoding",
    "expect",
    "authorization",
];

/// Fields of which the first one decides about the answer, besides those.
const READ: [&str; 4] = ["range", "accept-encoding", "via", "user-agent"];
/// How many fields there may be, as with Debian's nginx (its `max_headers`).
const COUNT_MAX: u32 = 1_000;
/// How many of them are kept. Of further ones those that decide about the answer are.
const FIELDS_MAX: usize = 256;
/// What a field takes besides its bytes, in bytes.
const FIELD_COST: usize = 112;

/// An answer without a site, by its status.
pub(super) type Refusal = u16;

impl Request {
    /// One of which nothing is known yet.
    pub(super) fn new() -> Self {
        Self {
            method: Vec::new(),
            raw: Vec::new(),
            target: Target { path: b"/".to_vec(), args: Vec::new() },
            version: Version::Http10,
            host: None,
            fields: Vec::new(),
            is_cut: false,
            count: 0,
            has_host_field: false,
            wants_keep_alive: None,
        }
    }

    /// Sets what it is for.
    pub(super) fn set_target(&mut self, raw: &[u8]) -> Result<(), Refusal> {
        // an absolute address may have no path
        let with_slash = [b"/".as_slice(), raw].concat();
        let path = if raw.first() == Some(&b'/') { raw } else { &with_slash };
        self.target = uri::decode(path).ok_or(400_u16)?;
        self.raw = path.to_vec();
        Ok(())
    }

    /// Takes the host of an absolute address or of `:authority`, which come before the field.
    pub(super) fn set_host(&mut self, host: &[u8]) -> Result<(), Refusal> {
        let host = valid_host(host).ok_or(400_u16)?;
        self.host.get_or_insert(host);
        Ok(())
    }

    /// Adds a field.
    pub(super) fn add_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        self.count += 1;
        if self.count > COUNT_MAX {
            return Err(HEADER_TOO_LARGE);
        }
        self.add_uncounted(name, value)
    }

    /// The same for what nginx does not count: `:authority`, `cookie` in HTTP/2.
    pub(super) fn add_uncounted(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        if name.eq_ignore_ascii_case(b"host") {
            if std::mem::replace(&mut self.has_host_field, true) {
                return Err(400);
            }
            self.set_host(value)?;
        }
        let is_this = |known: &&&str| name.eq_ignore_ascii_case(known.as_bytes());
        let unique = UNIQUE.iter().find(is_this);
        if unique.is_some_and(|name| self.field(name).is_some()) {
            return Err(400);
        }
        if name.eq_ignore_ascii_case(b"connection") {
            self.wants_keep_alive = keeps_alive(value).or(self.wants_keep_alive);
        }
        let is_read = || READ.iter().find(is_this).is_some_and(|name| self.field(name).is_none());
        if self.fields.len() < FIELDS_MAX || unique.is_some() || is_read() {
            self.fields.push((name.to_vec(), value.to_vec()));
        } else {
            self.is_cut = true;
        }
        Ok(())
    }

    /// The memory that it takes, in bytes, more or less.
    pub(super) fn size(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| FIELD_COST + name.len() + value.len());
        let target = self.raw.len() + self.target.path.len() + self.target.args.len();
        fields.sum::<usize>() + target
    }

    /// The first value of this name.
    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        let is_this = |field: &&(Vec<u8>, Vec<u8>)| field.0.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().find(is_this).map(|(_, value)| value.as_slice())
    }

    /// What follows, once all fields are there; an error if nginx would not look any further, with
    /// what it takes to follow all the same.
    pub(super) fn check(&self) -> Result<BodyLength, (Refusal, BodyLength)> {
        let none = BodyLength::None;
        if !self.has_host_field && self.version > Version::Http10 {
            return Err((400, none));
        }
        let mut length = match self.field("content-length") {
            Some(value) => BodyLength::Known(decimal(value).ok_or((400_u16, none))?),
            None => none,
        };
        if let Some(coding) = self.field("transfer-encoding") {
            if self.version < Version::Http11 {
                return Err((400, length));
            }
            if !coding.eq_ignore_ascii_case(b"chunked") {
                return Err((501, length));
            }
            if length != BodyLength::None {
                return Err((400, length));
            }
            length = BodyLength::Chunked;
        }
        match self.method.as_slice() {
            b"CONNECT" | b"TRACE" => Err((405, length)),
            _ => Ok(length),
        }
    }

    /// Whether nginx makes its error pages longer for this browser.
    pub(super) fn wants_padding(&self) -> bool {
        let Some(agent) = self.field("user-agent") else { return false };
        let has = |part: &[u8]| agent.windows(part.len()).any(|window| window == part);
        let is_msie = agent.windows(5).position(|window| window == b"MSIE ");
        let is_msie = is_msie.is_some_and(|at| at + 7 < agent.len());
        self.version > Version::Http09
            && !has(b"Opera")
            && (is_msie || !has(b"Gecko/") && has(b"Chrome/"))
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == b"HEAD"
    }

    /// Whether it asks for the connection to be kept or closed, if it says anything.
    pub(super) fn wants_keep_alive(&self) -> Option<bool> {
        self.wants_keep_alive
    }
}

/// What a `Connection` says of that, if anything.
fn keeps_alive(value: &[u8]) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let has = |part: &[u8]| value.windows(part.len()).any(|window| window == part);
    has(b"close").then_some(false).or_else(|| has(b"keep-alive").then_some(true))
}

/// The host without port and last dot, lower case; `None` for what nginx takes for none.
fn valid_host(host: &[u8]) -> Option<Vec<u8>> {
    let bad = |byte: u8| byte == b'/' || byte <= b' ' || byte == 0x7f;
    if host.iter().any(|byte| bad(*byte)) || host.windows(2).any(|pair| pair == b"..") {
        return None;
    }
    let end = if host.first() == Some(&b'[') {
        host.iter().position(|byte| *byte == b']').map(|at| at + 1)
    } else {
        host.iter().position(|byte| *byte == b':')
    };
    let mut host = &host[..end.unwrap_or(host.len())];
    host = host.strip_suffix(b".").unwrap_or(host);
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// A decimal number of at most 63 bits.
fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    text.parse().ok().filter(|number| i64::try_from(*number).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_checked_as_by_nginx() {
        for (host, valid) in [
            ("WWW.Example.net", Some("www.example.net")),
            ("a:8443", Some("a")),
            ("a.", Some("a")),
            ("[::1]:99", Some("[::1]")),
            ("", None),
            (":80", None),
            (".", None),
            ("a..b", None),
            ("a/b", None),
            ("a b", None),
        ] {
            let found = valid_host(host.as_bytes());
            assert_eq!(found.as_deref(), valid.map(str::as_bytes), "{host}");
        }
    }

    fn request(fields: &[(&str, &str)]) -> Result<BodyLength, Refusal> {
        let mut request = Request { version: Version::Http11, ..Request::new() };
        for (name, value) in fields {
            request.add_field(name.as_bytes(), value.as_bytes())?;
        }
        request.check().map_err(|(status, _)| status)
    }

    #[test]
    fn lengths_and_codings_that_contradict_each_other_are_refused() {
        let host = ("Host", "a");
        assert_eq!(request(&[host]), Ok(BodyLength::None));
        assert_eq!(request(&[host, ("Content-Length", "12")]), Ok(BodyLength::Known(12)));
        assert_eq!(request(&[host, ("transfer-encoding", "Chunked")]), Ok(BodyLength::Chunked));
        assert_eq!(request(&[host, ("Transfer-Encoding", "gzip")]), Err(501));
        for wrong in ["", "-1", "+1", "a", "99999999999999999999"] {
            assert_eq!(request(&[host, ("Content-Length", wrong)]), Err(400), "{wrong}");
        }
        let length = ("Content-Length", "1");
        assert_eq!(request(&[host, length, length]), Err(400));
        assert_eq!(request(&[host, length, ("Transfer-Encoding", "chunked")]), Err(400));
        assert_eq!(request(&[]), Err(400));
        assert_eq!(request(&[host, host]), Err(400));
    }

    #[test]
    fn a_great_many_fields_take_little_and_those_that_matter_are_found() {
        let mut request = Request { version: Version::Http11, ..Request::new() };
        let mut add =
            |name: &str, value: &str| request.add_field(name.as_bytes(), value.as_bytes());
        for _ in 0..980 {
            add("x", "").unwrap();
        }
        for (name, value) in [("Host", "a"), ("Content-Length", "12"), ("Range", "bytes=0-1")] {
            add(name, value).unwrap();
        }
        for connection in ["close", "keep-alive", "x"] {
            add("Connection", connection).unwrap();
            add("Range", "bytes=5-6").unwrap();
        }
        assert_eq!(add("content-length", "12"), Err(400));
        assert_eq!(add("host", "a"), Err(400));
        for count in 992..1_010 {
            let expected = if count > COUNT_MAX { Err(HEADER_TOO_LARGE) } else { Ok(()) };
            assert_eq!(add("x", ""), expected, "{count}");
        }
        assert!(request.is_cut);
        assert!(request.size() < 32 * 1_024, "{}", request.size());
        assert_eq!(request.check(), Ok(BodyLength::Known(12)));
        assert_eq!(request.field("range"), Some(&b"bytes=0-1"[..]));
        assert_eq!(request.wants_keep_alive(), Some(true));
    }
}
