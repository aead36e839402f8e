//! The first line of a request, byte by byte, with nginx's idea of what is one.

use crate::site::request::{Refusal, Request, Version};

/// Where in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Method,
    BeforeUri,
    Scheme,
    SchemeSlash,
    SchemeSlashSlash,
    HostStart,
    Host,
    HostEnd,
    HostLiteral,
    Port,
    Uri,
    BeforeVersion,
    /// Within `HTTP/`, after so many bytes.
    Name(usize),
    FirstMajor,
    Major,
    FirstMinor,
    Minor,
    AfterVersion,
    AlmostDone,
}

/// What a byte led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    Done,
    Refused(Refusal),
}

/// A first line.
pub(super) struct Line {
    at: At,
    method: Vec<u8>,
    uri: Vec<u8>,
    host: Vec<u8>,
    major: u32,
    minor: u32,
    /// Bytes from the method on.
    pub(super) length: usize,
}

const NAME: &[u8; 5] = b"HTTP/";

impl Line {
    pub(super) fn new() -> Self {
        Self {
            at: At::Start,
            method: Vec::new(),
            uri: Vec::new(),
            host: Vec::new(),
            major: 0,
            minor: 0,
            length: 0,
        }
    }

    /// Whether nothing but empty lines came so far.
    pub(super) fn is_blank(&self) -> bool {
        self.at == At::Start
    }

    /// Takes the next byte. When done, `request` has it all.
    pub(super) fn push(&mut self, byte: u8, request: &mut Request) -> Step {
        if self.is_blank() && matches!(byte, b'\r' | b'\n') {
            return Step::More;
        }
        self.length += 1;
        let next = match self.at {
            At::Start | At::Method => self.method(byte, request),
            At::BeforeUri => self.before_uri(byte),
            At::Scheme | At::SchemeSlash | At::SchemeSlashSlash => self.scheme(byte),
            At::HostStart | At::Host | At::HostEnd | At::HostLiteral | At::Port => self.host(byte),
            At::Uri => self.uri(byte),
            At::BeforeVersion | At::Name(_) => self.version_name(byte),
            At::FirstMajor | At::Major | At::FirstMinor | At::Minor | At::AfterVersion => {
                return self.version(byte, request);
            }
            At::AlmostDone if byte == b'\n' => return self.done(request),
            At::AlmostDone => None,
        };
        match next {
            Some(At::AlmostDone) if byte == b'\n' => self.done(request),
            Some(next) => {
                self.at = next;
                Step::More
            }
            None => Step::Refused(400),
        }
    }

    fn method(&mut self, byte: u8, request: &mut Request) -> Option<At> {
        match byte {
            b' ' if self.at == At::Method => {
                // already known if the rest is refused
                request.method = std::mem::take(&mut self.method);
                Some(At::BeforeUri)
            }
            b'A'..=b'Z' | b'_' | b'-' => {
                self.method.push(byte);
                Some(At::Method)
            }
            _ => None,
        }
    }

    fn before_uri(&mut self, byte: u8) -> Option<At> {
        match byte {
            b' ' => Some(At::BeforeUri),
            b'/' => {
                self.uri.push(byte);
                Some(At::Uri)
            }
            _ if byte.is_ascii_alphabetic() => Some(At::Scheme),
            _ => None,
        }
    }

    fn scheme(&mut self, byte: u8) -> Option<At> {
        match (self.at, byte) {
            (At::Scheme, b':') => Some(At::SchemeSlash),
            (At::Scheme, b'+' | b'-' | b'.') => Some(At::Scheme),
            (At::Scheme, _) if byte.is_ascii_alphanumeric() => Some(At::Scheme),
            (At::SchemeSlash, b'/') => Some(At::SchemeSlashSlash),
            (At::SchemeSlashSlash, b'/') => Some(At::HostStart),
            _ => None,
        }
    }

    fn host(&mut self, byte: u8) -> Option<At> {
        let next = match (self.at, byte) {
            (At::HostStart, b'[') => At::HostLiteral,
            (At::HostStart | At::Host, b'.' | b'-') => At::Host,
            (At::HostStart | At::Host, _) if byte.is_ascii_alphanumeric() => At::Host,
            (At::HostLiteral, b']') => At::HostEnd,
            (At::HostLiteral, _) if byte.is_ascii_alphanumeric() => At::HostLiteral,
            (At::HostLiteral, _) if b":-._~!$&'()*+,;=".contains(&byte) => At::HostLiteral,
            (At::HostLiteral, _) => return None,
            (At::Port, b'0'..=b'9') => At::Port,
            (At::Port, b':') => return None,
            (_, b':') => At::Port,
            (_, b'/' | b'?') => {
                self.uri.push(byte);
                At::Uri
            }
            (_, b' ') => {
                self.uri.push(b'/');
                At::BeforeVersion
            }
            _ => return None,
        };
        if matches!(next, At::Host | At::HostLiteral | At::HostEnd) {
            self.host.push(byte);
        }
        Some(next)
    }

    fn uri(&mut self, byte: u8) -> Option<At> {
        match byte {
            b' ' => Some(At::BeforeVersion),
            b'\r' | b'\n' => {
                self.minor = 9;
                Some(At::AlmostDone)
            }
            0..0x20 | 0x7f => None,
            _ => {
                self.uri.push(byte);
                Some(At::Uri)
            }
        }
    }

    fn version_name(&mut self, byte: u8) -> Option<At> {
        match (self.at, byte) {
            (At::BeforeVersion, b' ') => Some(At::BeforeVersion),
            (At::BeforeVersion, b'\r' | b'\n') => {
                self.minor = 9;
                Some(At::AlmostDone)
            }
            (At::BeforeVersion, b'H') => Some(At::Name(1)),
            (At::Name(count), _) if NAME.get(count) == Some(&byte) => {
                Some(if count + 1 == NAME.len() { At::FirstMajor } else { At::Name(count + 1) })
            }
            _ => None,
        }
    }

    fn version(&mut self, byte: u8, request: &mut Request) -> Step {
        let digit = char::from(byte).to_digit(10);
        match (self.at, byte, digit) {
            (At::FirstMajor, b'1'..=b'9', Some(digit)) => {
                self.major = digit;
                self.at = At::Major;
            }
            (At::Major, b'.', _) => self.at = At::FirstMinor,
            (At::Major, _, Some(digit)) => self.major = self.major * 10 + digit,
            (At::FirstMinor, _, Some(digit)) => {
                self.minor = digit;
                self.at = At::Minor;
            }
            (At::Minor, _, Some(digit)) if self.minor <= 99 => self.minor = self.minor * 10 + digit,
            (At::Minor | At::AfterVersion, b' ', _) => self.at = At::AfterVersion,
            (At::Minor | At::AfterVersion, b'\r', _) => self.at = At::AlmostDone,
            (At::Minor | At::AfterVersion, b'\n', _) => return self.done(request),
            _ => return Step::Refused(400),
        }
        if self.major > 1 { Step::Refused(505) } else { Step::More }
    }

    fn done(&mut self, request: &mut Request) -> Step {
        request.version = match (self.major, self.minor) {
            (0, _) => Version::Http09,
            (_, 0) => Version::Http10,
            _ => Version::Http11,
        };
        if request.version == Version::Http09 && request.method != b"GET" {
            return Step::Refused(400);
        }
        let target = request.set_target(&self.uri);
        let host = match self.host.is_empty() {
            true => Ok(()),
            false => request.set_host(&self.host),
        };
        target.and(host).map_or_else(Step::Refused, |()| Step::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, Refusal> {
        let (mut request, mut reader) = (Request::new(), Line::new());
        for byte in line.bytes() {
            match reader.push(byte, &mut request) {
                Step::More => {}
                Step::Done => return Ok(request),
                Step::Refused(status) => return Err(status),
            }
        }
        panic!("not done: {line:?}")
    }

    #[test]
    fn lines_are_read_as_by_nginx() {
        for (line, method, path, version) in [
            ("GET / HTTP/1.1\r\n", "GET", "/", Version::Http11),
            ("GET / HTTP/1.0\n", "GET", "/", Version::Http10),
            ("\r\n\nGET  /a   HTTP/1.1  \r\n", "GET", "/a", Version::Http11),
            ("GET /\r\n", "GET", "/", Version::Http09),
            ("GET / \n", "GET", "/", Version::Http09),
            ("A_B-C /a?b HTTP/1.25\n", "A_B-C", "/a", Version::Http11),
            ("GET http://a.example:80/b HTTP/1.1\n", "GET", "/b", Version::Http11),
            ("GET http://a.example HTTP/1.1\n", "GET", "/", Version::Http11),
            ("GET http://[::1]?q HTTP/1.1\n", "GET", "/", Version::Http11),
        ] {
            let request = read(line).unwrap_or_else(|status| panic!("{line:?}: {status}"));
            assert_eq!(request.method, method.as_bytes(), "{line:?}");
            assert_eq!(request.target.path, path.as_bytes(), "{line:?}");
            assert_eq!(request.version, version, "{line:?}");
        }
        assert_eq!(read("GET http://A.b/ HTTP/1.1\n").unwrap().host.as_deref(), Some(&b"a.b"[..]));
    }

    #[test]
    fn what_is_no_line_is_refused_with_nginx_s_status() {
        for (line, status) in [
            ("get / HTTP/1.1\n", 400),
            ("\x16\x03", 400),
            ("GET\r\n", 400),
            (" GET / HTTP/1.1\n", 400),
            ("GET * HTTP/1.1\n", 400),
            ("GET /\x01 HTTP/1.1\n", 400),
            ("GET / HTTP/2.0\n", 505),
            ("GET / HTTP/11.0\n", 505),
            ("GET / HTTP/0.9\n", 400),
            ("GET / HTTPS/1.1\n", 400),
            ("GET / HTTP/1.1x\n", 400),
            ("GET / HTTP/1.1\rx\n", 400),
            ("GET / HTTP/1.1234\n", 400),
            ("GET /.. HTTP/1.1\n", 400),
            ("POST /\n", 400),
            ("CONNECT a:1 HTTP/1.1\n", 400),
        ] {
            assert_eq!(read(line).map(drop), Err(status), "{line:?}");
        }
    }
}
