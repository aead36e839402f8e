//! Frames out of bytes, as soon as they can be judged.

use super::code::{
    self, CONTINUATION, Code, DATA, END_HEADERS, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY,
    HEADERS, PADDED, PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_MAX, WINDOW_UPDATE, WITH_PRIORITY,
};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So much of it is compared first.
const PREFACE_LINE: usize = 16;
const HEADER: usize = 9;

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A frame of a small, fixed size.
    Frame(Header, Vec<u8>),
    /// One setting of a SETTINGS frame.
    Setting(u16, u32),
    /// The end of a SETTINGS frame.
    SettingsEnd,
    /// The beginning of a DATA frame, with the length that counts for windows.
    DataStart(Header),
    /// A piece of its data; whether it ends the stream.
    Data(Header, Vec<u8>, bool),
    /// The beginning of a HEADERS frame, and on which stream it says to depend.
    HeadersStart(Header, Option<u32>),
    /// A piece of its block; whether the block ends with it.
    Block(Vec<u8>, bool),
}

enum At {
    Preface,
    PrefaceEnd,
    Frame,
    /// So many bytes nobody looks at.
    Skip(usize),
    Settings(usize),
    /// Data left, and padding behind it.
    Data(Header, usize, usize),
    /// Of a block: bytes of this frame left, padding behind them, whether the last frame.
    Block {
        stream: u32,
        left: usize,
        padding: usize,
        is_last: bool,
    },
}

/// Cuts a connection's bytes into frames.
pub(super) struct Frames {
    at: At,
    /// nginx takes the bare preface for the beginning of a frame.
    only_preface: bool,
}

/// What to do about the bytes there are.
type Next = Result<Option<Event>, Code>;

impl Frames {
    pub(super) fn new() -> Self {
        Self { at: At::Preface, only_preface: false }
    }

    /// Whether it waits for the rest of something. `input`: what is there of it.
    pub(super) fn is_within(&self, input: &[u8]) -> bool {
        let at_start = matches!(self.at, At::Preface | At::Frame) && input.is_empty();
        !at_start || self.only_preface
    }

    /// The next event; `None` if more bytes have to come.
    pub(super) fn next(&mut self, input: &mut Vec<u8>) -> Next {
        loop {
            match self.at {
                At::Preface => {
                    let Some(line) = input.get(..PREFACE_LINE) else { return Ok(None) };
                    if line != &PREFACE[..PREFACE_LINE] {
                        return Err(PROTOCOL_ERROR);
                    }
                    self.at = At::PrefaceEnd;
                }
                At::PrefaceEnd => {
                    let Some(preface) = input.get(..PREFACE.len()) else { return Ok(None) };
                    if preface != PREFACE {
                        return Err(PROTOCOL_ERROR);
                    }
                    input.drain(..PREFACE.len());
                    self.only_preface = input.is_empty();
                    self.at = At::Frame;
                }
                At::Skip(left) => {
                    let count = left.min(input.len());
                    input.drain(..count);
                    if count < left {
                        self.at = At::Skip(left - count);
                        return Ok(None);
                    }
                    self.at = At::Frame;
                }
                At::Frame => {
                    let Some(header) = header(input) else { return Ok(None) };
                    self.only_preface = false;
                    if let Some(event) = self.begin(header, input)? {
                        return Ok(Some(event));
                    }
                    if matches!(self.at, At::Frame) {
                        return Ok(None);
                    }
                }
                At::Settings(_) | At::Data(..) | At::Block { .. } => return self.go_on(input),
            }
        }
    }

    /// The beginning of a frame. Stays where it is if more of it has to come.
    fn begin(&mut self, header: Header, input: &mut Vec<u8>) -> Next {
        let Header { length, kind, flags, stream } = header;
        let fixed = match kind {
            PRIORITY => 5,
            RST_STREAM | WINDOW_UPDATE => 4,
            PING => 8,
            SETTINGS => return self.begin_settings(header, input),
            DATA => return self.begin_data(header, input),
            HEADERS => return self.begin_headers(header, input),
            GOAWAY if length < 8 => return Err(FRAME_SIZE_ERROR),
            GOAWAY if input.len() < HEADER + 8 => return Ok(None),
            GOAWAY if stream != 0 => return Err(PROTOCOL_ERROR),
            PUSH_PROMISE | CONTINUATION => return Err(PROTOCOL_ERROR),
            _ => {
                input.drain(..HEADER);
                self.at = At::Skip(length);
                return Ok(None);
            }
        };
        if length != fixed {
            return Err(FRAME_SIZE_ERROR);
        }
        if kind == PING && flags & code::ACK != 0 && input.len() >= HEADER + fixed && stream == 0 {
            input.drain(..HEADER);
            self.at = At::Skip(length);
            return Ok(None);
        }
        let Some(payload) = input.get(HEADER..HEADER + fixed) else { return Ok(None) };
        let payload = payload.to_vec();
        input.drain(..HEADER + fixed);
        Ok(Some(Event::Frame(header, payload)))
    }

    fn begin_settings(&mut self, header: Header, input: &mut Vec<u8>) -> Next {
        if header.stream != 0 {
            return Err(PROTOCOL_ERROR);
        }
        let is_ack = header.flags == code::ACK;
        if is_ack && header.length != 0 || !header.length.is_multiple_of(6) {
            return Err(FRAME_SIZE_ERROR);
        }
        input.drain(..HEADER);
        self.at = if is_ack { At::Skip(0) } else { At::Settings(header.length) };
        Ok(None)
    }

    fn begin_data(&mut self, header: Header, input: &mut Vec<u8>) -> Next {
        let mut padding = 0;
        let mut left = header.length;
        if header.flags & PADDED != 0 {
            if left == 0 {
                return Err(FRAME_SIZE_ERROR);
            }
            let Some(&length) = input.get(HEADER) else { return Ok(None) };
            padding = usize::from(length);
            if padding >= left {
                return Err(PROTOCOL_ERROR);
            }
            left -= 1 + padding;
            input.drain(..1);
        }
        if header.stream == 0 {
            return Err(PROTOCOL_ERROR);
        }
        if i64::try_from(header.length).unwrap_or(i64::MAX) > WINDOW_MAX {
            return Err(FLOW_CONTROL_ERROR);
        }
        input.drain(..HEADER);
        self.at = At::Data(header, left, padding);
        Ok(Some(Event::DataStart(header)))
    }

    fn begin_headers(&mut self, header: Header, input: &mut Vec<u8>) -> Next {
        let is_padded = header.flags & PADDED != 0;
        let has_priority = header.flags & WITH_PRIORITY != 0;
        let extra = usize::from(is_padded) + if has_priority { 5 } else { 0 };
        if header.length <= extra {
            return Err(FRAME_SIZE_ERROR);
        }
        let Some(fields) = input.get(HEADER..HEADER + extra) else { return Ok(None) };
        let (padding, priority) = fields.split_at(usize::from(is_padded));
        let padding = padding.first().copied().map_or(0, usize::from);
        let depends_on = priority.first_chunk().map(|id| u32::from_be_bytes(*id) & 0x7fff_ffff);
        let left = header.length - extra;
        if padding > left {
            return Err(PROTOCOL_ERROR);
        }
        if padding == left {
            return Err(FRAME_SIZE_ERROR);
        }
        input.drain(..HEADER + extra);
        let is_last = header.flags & END_HEADERS != 0;
        self.at = At::Block { stream: header.stream, left: left - padding, padding, is_last };
        Ok(Some(Event::HeadersStart(header, depends_on)))
    }

    /// Further into a frame of many parts.
    fn go_on(&mut self, input: &mut Vec<u8>) -> Next {
        match self.at {
            At::Settings(0) => {
                self.at = At::Frame;
                Ok(Some(Event::SettingsEnd))
            }
            At::Settings(left) => {
                let Some(&[a, b, c, d, e, f]) = input.first_chunk::<6>() else { return Ok(None) };
                input.drain(..6);
                self.at = At::Settings(left - 6);
                let value = u32::from_be_bytes([c, d, e, f]);
                Ok(Some(Event::Setting(u16::from_be_bytes([a, b]), value)))
            }
            At::Data(header, left, padding) => {
                if left > 0 && input.is_empty() {
                    return Ok(None);
                }
                let data: Vec<u8> = input.drain(..left.min(input.len())).collect();
                let left = left - data.len();
                self.at =
                    if left > 0 { At::Data(header, left, padding) } else { At::Skip(padding) };
                let is_last = left == 0 && header.flags & code::END_STREAM != 0;
                Ok(Some(Event::Data(header, data, is_last)))
            }
            At::Block { stream, left, padding, is_last } => {
                self.go_on_block(input, stream, left, padding, is_last)
            }
            At::Preface | At::PrefaceEnd | At::Frame | At::Skip(_) => Ok(None),
        }
    }

    fn go_on_block(
        &mut self,
        input: &mut Vec<u8>,
        stream: u32,
        left: usize,
        padding: usize,
        is_last: bool,
    ) -> Next {
        if left > 0 {
            if input.is_empty() {
                return Ok(None);
            }
            let piece: Vec<u8> = input.drain(..left.min(input.len())).collect();
            let left = left - piece.len();
            let is_over = left == 0 && is_last;
            self.at = match is_over {
                true => At::Skip(padding),
                false => At::Block { stream, left, padding, is_last },
            };
            return Ok(Some(Event::Block(piece, is_over)));
        }
        let skipped = padding.min(input.len());
        input.drain(..skipped);
        self.at = At::Block { stream, left, padding: padding - skipped, is_last };
        let Some(next) = header(input) else { return Ok(None) };
        if next.kind != CONTINUATION || next.stream != stream {
            return Err(PROTOCOL_ERROR);
        }
        input.drain(..HEADER);
        let is_last = next.flags & END_HEADERS != 0;
        self.at = match next.length == 0 && is_last {
            true => At::Frame,
            false => At::Block { stream, left: next.length, padding: 0, is_last },
        };
        Ok(Some(Event::Block(Vec::new(), next.length == 0 && is_last)))
    }
}

fn header(input: &[u8]) -> Option<Header> {
    let &[a, b, c, kind, flags, e, f, g, h] = input.first_chunk::<HEADER>()?;
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    let stream = u32::from_be_bytes([e, f, g, h]) & 0x7fff_ffff;
    Some(Header { length, kind, flags, stream })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_in_any_pieces() {
        let bytes = [
            PREFACE.as_slice(),
            b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\x0a",
            b"\0\0\x05\x49\0\0\0\0\0xxxxx",
            b"\0\0\x08\x06\0\0\0\0\x0012345678",
            b"\0\0\x04\x01\x08\0\0\0\x01\x01ab\0",
            b"\0\0\x01\x09\x04\0\0\0\x01c",
            b"\0\0\x04\0\x09\0\0\0\x01\x01xy\0",
        ]
        .concat();
        for size in 1..bytes.len() {
            let (mut frames, mut input, mut events) = (Frames::new(), Vec::new(), Vec::new());
            let (mut block, mut data) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(size) {
                input.extend_from_slice(piece);
                while let Some(event) = frames.next(&mut input).unwrap() {
                    match event {
                        Event::Block(piece, _) => block.extend(piece),
                        Event::Data(_, piece, _) => data.extend(piece),
                        Event::Frame(..)
                        | Event::Setting(..)
                        | Event::SettingsEnd
                        | Event::DataStart(_)
                        | Event::HeadersStart(..) => events.push(event),
                    }
                }
            }
            assert!(!frames.is_within(&input), "{size}");
            assert_eq!((block.as_slice(), data.as_slice()), (&b"abc"[..], &b"xy"[..]));
            assert_eq!(events[0], Event::Setting(4, 10));
            assert_eq!(events[1], Event::SettingsEnd);
            assert_eq!(events.len(), 5, "{size}: {events:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(mut bytes: Vec<u8>) {
            bytes.splice(0..0, *PREFACE);
            let mut frames = Frames::new();
            while let Ok(Some(_)) = frames.next(&mut bytes) {}
        }
    }
}
