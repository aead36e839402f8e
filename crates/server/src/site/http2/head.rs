//! The fields of a request on one stream.

use super::{
    code::{Code, ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR, PROTOCOL_ERROR, REFUSED_STREAM},
    hpack::{Decoder, Field, Item},
};
use crate::site::request::{BodyLength, Refusal, Request, Version};

/// All names and values of a request together, in bytes, as with nginx.
const FIELDS_MAX: usize = 32 * 1_024;

/// A request whose fields are being read.
pub(super) struct Head {
    pub(super) stream: u32,
    /// No body follows.
    pub(super) is_last: bool,
    request: Request,
    has_method: bool,
    has_scheme: bool,
    has_path: bool,
    /// What stands in all fields `cookie`, which are one.
    cookie: Option<Vec<u8>>,
    /// What has not been decoded yet.
    block: Vec<u8>,
    left: usize,
    /// Nobody is interested any more: only the table has to be kept.
    is_void: bool,
}

/// What a piece of a block led to.
pub(super) enum Read {
    More,
    /// The request, and what follows it.
    Done(Request, BodyLength),
    /// It is answered with this status, at once.
    Refused(Request, Refusal),
    /// The stream ends.
    Reset(Code),
    /// The end of a request that was dealt with before.
    Over,
}

/// Why a field ends a request.
enum Bad {
    Status(Refusal),
    Reset,
}

impl From<Refusal> for Bad {
    fn from(status: Refusal) -> Self {
        Bad::Status(status)
    }
}

impl Head {
    pub(super) fn new(stream: u32, is_last: bool) -> Self {
        let mut request = Request::new();
        request.version = Version::Http2;
        Self {
            stream,
            is_last,
            request,
            has_method: false,
            has_scheme: false,
            has_path: false,
            cookie: None,
            block: Vec::new(),
            left: FIELDS_MAX,
            is_void: false,
        }
    }

    /// One that is not wanted.
    pub(super) fn void(stream: u32) -> (Self, Code) {
        (Self { is_void: true, ..Self::new(stream, true) }, REFUSED_STREAM)
    }

    /// Takes the next piece of the block. May have to be called again, with nothing, after a
    /// refusal or reset.
    pub(super) fn push(
        &mut self,
        decoder: &mut Decoder,
        piece: &[u8],
        is_whole: bool,
    ) -> Result<Read, Code> {
        self.block.extend_from_slice(piece);
        let mut at = 0;
        while at < self.block.len() {
            let next = decoder.next(&self.block[at..], is_whole, self.is_void)?;
            let Some((item, length)) = next else { break };
            at += length;
            let Item::Field(field) = item else { continue };
            let size = field.0.len() + field.1.len();
            self.left = self.left.checked_sub(size).ok_or(ENHANCE_YOUR_CALM)?;
            if self.is_void {
                continue;
            }
            if let Err(bad) = self.take(field) {
                self.is_void = true;
                self.block.drain(..at);
                return Ok(match bad {
                    Bad::Status(status) => Read::Refused(self.give_request(), status),
                    Bad::Reset => Read::Reset(PROTOCOL_ERROR),
                });
            }
        }
        self.block.drain(..at);
        if is_whole && decoder.is_within() {
            return Err(FRAME_SIZE_ERROR);
        }
        match (is_whole, self.is_void) {
            (false, _) => Ok(Read::More),
            (true, true) => Ok(Read::Over),
            (true, false) => Ok(self.finish()),
        }
    }

    fn give_request(&mut self) -> Request {
        std::mem::replace(&mut self.request, Request::new())
    }

    fn finish(&mut self) -> Read {
        self.is_void = true;
        let mut request = self.give_request();
        if let Some(cookie) = self.cookie.take() {
            // as nginx hands it on: behind all others; it is refused never
            let _ = request.add_uncounted(b"cookie", &cookie);
        }
        let is_named = self.has_method && self.has_scheme && self.has_path;
        let length =
            if is_named { request.check().map_err(|(status, _)| status) } else { Err(400) };
        match length {
            Ok(BodyLength::Known(1..)) if self.is_last => Read::Refused(request, 400),
            Ok(BodyLength::None) if !self.is_last => Read::Done(request, BodyLength::Chunked),
            Ok(length) => Read::Done(request, length),
            Err(status) => Read::Refused(request, status),
        }
    }

    fn take(&mut self, (name, value): Field) -> Result<(), Bad> {
        let bare = name.strip_prefix(b":").unwrap_or(&name);
        let is_bad = |byte: &u8| matches!(byte, 0..=0x20 | 0x7f | b':' | b'A'..=b'Z');
        let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if bare.iter().any(is_bad) || value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
            return Err(Bad::Reset);
        }
        if bare.len() < name.len() {
            return self.take_pseudo(bare, &value);
        }
        if !bare.iter().all(is_plain) {
            // nginx ignores it
            return Ok(());
        }
        if name == b"cookie" {
            match &mut self.cookie {
                None => self.cookie = Some(value),
                Some(cookie) => cookie.extend([b"; ", value.as_slice()].concat()),
            }
            return Ok(());
        }
        Ok(self.request.add_field(&name, &value)?)
    }

    fn take_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Bad> {
        let first = |has: &mut bool| !std::mem::replace(has, true) && !value.is_empty();
        let is_right = match name {
            b"authority" => return Ok(self.request.add_uncounted(b"Host", value)?),
            b"path" => {
                let is_path = value.first() == Some(&b'/')
                    && !value.iter().any(|byte| matches!(byte, 0..=0x20 | 0x7f));
                if first(&mut self.has_path) && is_path {
                    return Ok(self.request.set_target(value)?);
                }
                false
            }
            b"method" => {
                self.request.method = value.to_vec();
                first(&mut self.has_method)
                    && value.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'_' | b'-'))
            }
            b"scheme" => {
                let mut bytes = value.iter();
                first(&mut self.has_scheme)
                    && bytes.next().is_some_and(u8::is_ascii_alphabetic)
                    && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
            }
            _ => false,
        };
        if is_right { Ok(()) } else { Err(Bad::Status(400)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_ends_behind_a_name_is_cut() {
        let (mut head, mut decoder) = (Head::new(1, true), Decoder::new());
        assert!(matches!(head.push(&mut decoder, b"\x82\x00\x01a", false), Ok(Read::More)));
        assert!(matches!(head.push(&mut decoder, b"", false), Ok(Read::More)));
        assert!(matches!(head.push(&mut decoder, b"", true), Err(FRAME_SIZE_ERROR)));
    }

    #[test]
    fn cookies_in_pieces_are_one() {
        let (mut head, mut decoder) = (Head::new(1, true), Decoder::new());
        let mut block = b"\x82\x87\x84\x41\x01a".to_vec();
        for cookie in ["a=b", "", "c=d"] {
            crate::site::http2::hpack::write(&mut block, "cookie", cookie.as_bytes());
        }
        crate::site::http2::hpack::write(&mut block, "x", b"y");
        let Ok(Read::Done(request, _)) = head.push(&mut decoder, &block, true) else { panic!() };
        let last = (b"cookie".to_vec(), b"a=b; ; c=d".to_vec());
        assert_eq!(request.fields.last(), Some(&last));
        assert_eq!(request.fields.len(), 3);
    }
}
