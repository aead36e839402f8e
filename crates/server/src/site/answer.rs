//! Answers, as nginx forms them before it is known which version of HTTP carries them.

use std::{borrow::Cow, net::SocketAddr};

use super::{
    body::Body,
    date,
    request::{HEADER_TOO_LARGE, Request},
};

/// What a visitor is answered.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The words behind the status in HTTP/1, if not the usual ones.
    pub(super) reason: Option<String>,
    /// `Content-Type`
    pub(super) kind: Option<Cow<'static, str>>,
    /// `Content-Length`; without one the body is of unknown length.
    pub(super) length: Option<u64>,
    /// `Last-Modified`, Unix s.
    pub(super) modified: Option<i64>,
    /// A path on this host.
    pub(super) location: Option<Vec<u8>>,
    /// The fields that follow those above.
    pub(super) fields: Vec<(Cow<'static, str>, Vec<u8>)>,
    pub(super) body: Body,
    /// The connection ends behind it, whatever the answer says.
    pub(super) breaks: bool,
    /// Parts of it may be asked for.
    pub(super) in_ranges: bool,
    /// There is a file behind it, even if the answer is that it is not sent.
    pub(super) is_file: bool,
}

/// nginx's own name for plain HTTP where TLS is expected; answered as 400.
pub(super) const PLAIN_HTTP: u16 = 497;

const TAIL: &str = "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";
const PADDING: &str = "<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";

impl Answer {
    /// 200, with what is given.
    pub(super) fn ok(kind: impl Into<Cow<'static, str>>, length: u64, body: Body) -> Self {
        Self {
            status: 200,
            reason: None,
            kind: Some(kind.into()),
            length: Some(length),
            modified: None,
            location: None,
            fields: Vec::new(),
            body,
            breaks: false,
            in_ranges: false,
            is_file: false,
        }
    }

    /// An error page of nginx's.
    pub(super) fn page(status: u16, request: &Request) -> Self {
        let (shown, title, text) = match status {
            HEADER_TOO_LARGE => (400, Some("Request Header Or Cookie Too Large"), true),
            PLAIN_HTTP => (400, Some("The plain HTTP request was sent to HTTPS port"), true),
            _ => (status, None, false),
        };
        let name = reason(shown);
        let title = title.unwrap_or(name);
        let text = if text { format!("<center>{title}</center>\r\n") } else { String::new() };
        let mut page = format!(
            "<html>\r\n<head><title>{shown} {title}</title></head>\r\n<body>\r\n\
             <center><h1>{shown} {name}</h1></center>\r\n{text}{TAIL}"
        );
        if shown >= 400 && request.wants_padding() {
            page += &PADDING.repeat(6);
        }
        let length = page.len() as u64;
        Self { status: shown, ..Self::ok("text/html", length, Body::Bytes(page.into())) }
    }

    /// To a path on this host, for good.
    pub(super) fn moved(location: Vec<u8>, request: &Request) -> Self {
        Self { location: Some(location), ..Self::page(301, request) }
    }

    pub(super) fn add(&mut self, name: &'static str, value: impl Into<Vec<u8>>) {
        self.fields.push((name.into(), value.into()));
    }

    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }

    /// `Location` with scheme, host and port.
    pub(super) fn absolute_location(
        &self,
        request: &Request,
        local: Option<SocketAddr>,
    ) -> Option<Vec<u8>> {
        let path = self.location.as_ref()?;
        let local_host = local.map(|local| local.ip().to_string().into_bytes());
        let host = request.host.clone().or(local_host).unwrap_or_default();
        let port = local.map(|local| local.port()).filter(|port| *port != 443);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Some([b"https://", host.as_slice(), port.as_bytes(), path].concat())
    }

    /// Whether only the header is sent.
    pub(super) fn is_header_only(&self, request: &Request) -> bool {
        request.is_head() || matches!(self.status, 204 | 304)
    }

    /// What is left of a file's answer after `If-...` (RFC 9110, 13), in nginx's order.
    pub(super) fn unless_known(mut self, request: &Request) -> Self {
        if self.status != 200 {
            return self;
        }
        let modified = self.modified.unwrap_or(-1);
        let unmodified_since = request.field("if-unmodified-since").map(date::parse);
        let is_older = unmodified_since.is_some_and(|since| since.unwrap_or(-1) < modified);
        let matches = |name, weak| request.field(name).map(|list| self.is_listed(list, weak));
        if is_older || matches("if-match", false) == Some(false) {
            return Self { breaks: true, is_file: true, ..Self::page(412, request) };
        }
        let since =
            request.field("if-modified-since").map(|time| date::parse(time) == self.modified);
        let listed = matches("if-none-match", true);
        let is_known = (since.is_some() || listed.is_some())
            && since.unwrap_or(true)
            && listed.unwrap_or(true);
        if is_known {
            self.status = 304;
            (self.kind, self.length, self.in_ranges) = (None, None, false);
            self.body = Body::Empty;
        }
        self
    }

    /// Whether a list of entity tags has this answer's.
    fn is_listed(&self, list: &[u8], weak: bool) -> bool {
        if list == b"*" {
            return true;
        }
        let Some(own) = self.field("etag") else { return false };
        let strong = |tag: &[u8]| -> Vec<u8> {
            let tag = tag.trim_ascii();
            if weak { tag.strip_prefix(b"W/").unwrap_or(tag).to_vec() } else { tag.to_vec() }
        };
        list.split(|byte| *byte == b',').any(|tag| strong(tag) == strong(own))
    }
}

/// The words behind a status.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        408 => "Request Time-out",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        416 => "Requested Range Not Satisfiable",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
