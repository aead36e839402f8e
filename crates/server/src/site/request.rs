//! What a visitor asks for, whatever the version of HTTP, and whether nginx would answer it.

use super::uri::{self, Target};

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
    has_host_field: bool,
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
            has_host_field: false,
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
        if name.eq_ignore_ascii_case(b"host") {
            if std::mem::replace(&mut self.has_host_field, true) {
                return Err(400);
            }
            self.set_host(value)?;
        }
        let is_this = |unique: &&str| name.eq_ignore_ascii_case(unique.as_bytes());
        if let Some(name) = UNIQUE.iter().find(|unique| is_this(unique))
            && self.field(name).is_some()
        {
            return Err(400);
        }
        self.fields.push((name.to_vec(), value.to_vec()));
        Ok(())
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
        let mut value = self
            .fields
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"))
            .filter_map(|(_, value)| {
                let value = value.to_ascii_lowercase();
                let has = |part: &[u8]| value.windows(part.len()).any(|window| window == part);
                has(b"close").then_some(false).or_else(|| has(b"keep-alive").then_some(true))
            });
        value.next_back()
    }
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
}
