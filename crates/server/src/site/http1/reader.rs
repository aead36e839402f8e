//! A request's head from a connection's bytes, within nginx's bounds.

use super::{
    fields::{self, Fields},
    line::{self, Line},
};
use crate::site::request::{HEADER_TOO_LARGE, Refusal, Request, Version};

/// The first buffer of nginx's, in bytes.
pub(super) const FIRST: usize = 1_024;
/// Each further one (`large_client_header_buffers 4 8k`).
pub(super) const LARGE: usize = 8 * 1_024;
const LARGE_MAX: usize = 4;

/// What a byte led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// The whole head is there.
    Done,
    Refused(Refusal),
}

/// Reads one head. Holds at most what fits into nginx's buffers.
pub(super) struct Reader {
    pub(super) request: Request,
    line: Line,
    /// Once the first line is over.
    fields: Option<Fields>,
    room: Room,
    /// How much of the first line came before the last pause.
    pub(super) before_pause: usize,
}

impl Reader {
    pub(super) fn new() -> Self {
        let room = Room { size: FIRST, used: 0, large: 0 };
        Self { request: Request::new(), line: Line::new(), fields: None, room, before_pause: 0 }
    }

    /// Whether a request has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.room.used > 0
    }

    /// Nothing more has come for now.
    pub(super) fn pause(&mut self) {
        self.before_pause = self.line.length;
    }

    /// Takes the next byte.
    pub(super) fn push(&mut self, byte: u8) -> Step {
        self.room.used += 1;
        let step = match &mut self.fields {
            None => self.push_line(byte),
            Some(fields) => match fields.push(byte) {
                fields::Step::More | fields::Step::Ignored => Step::More,
                fields::Step::Field(name, value) => match self.request.add_field(&name, &value) {
                    Ok(()) => Step::More,
                    Err(status) => Step::Refused(status),
                },
                fields::Step::Done => Step::Done,
                fields::Step::Wrong => Step::Refused(400),
            },
        };
        if step == Step::More { self.make_room() } else { step }
    }

    fn push_line(&mut self, byte: u8) -> Step {
        match self.line.push(byte, &mut self.request) {
            line::Step::More => Step::More,
            line::Step::Refused(status) => Step::Refused(status),
            line::Step::Done if self.request.version == Version::Http09 => Step::Done,
            line::Step::Done => {
                self.fields = Some(Fields::new());
                Step::More
            }
        }
    }

    fn make_room(&mut self) -> Step {
        let fits = match &self.fields {
            None if self.line.is_blank() => {
                self.room.used %= self.room.size;
                true
            }
            None => self.room.fits(self.line.length),
            Some(fields) => self.room.fits(fields.length),
        };
        match (fits, &self.fields) {
            (true, _) => Step::More,
            (false, None) => Step::Refused(414),
            (false, Some(_)) => Step::Refused(HEADER_TOO_LARGE),
        }
    }
}

/// nginx's buffers for a head: when one is full, the unfinished line moves to the next one.
struct Room {
    size: usize,
    used: usize,
    large: usize,
}

impl Room {
    /// Whether there is room for another byte behind an unfinished line of this length.
    fn fits(&mut self, line: usize) -> bool {
        if self.used < self.size {
            return true;
        }
        if line >= LARGE || self.large == LARGE_MAX {
            return false;
        }
        (self.size, self.used) = (LARGE, line);
        self.large += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a head, and after how many bytes.
    fn read(head: &str) -> (Step, usize) {
        let mut reader = Reader::new();
        for (at, byte) in head.bytes().enumerate() {
            let step = reader.push(byte);
            match step {
                Step::More => {}
                Step::Done | Step::Refused(_) => return (step, at + 1),
            }
        }
        (Step::More, head.len())
    }

    #[test]
    fn what_is_too_long_is_refused_with_nginx_s_status() {
        let line =
            |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length));
        assert_eq!(read(&line(8_100)).0, Step::Done);
        assert_eq!(read(&line(8_177)), (Step::Refused(414), 8_192));
        let field = |length: usize| {
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(length))
        };
        assert_eq!(read(&field(8_000)).0, Step::Done);
        assert_eq!(read(&field(9_000)).0, Step::Refused(HEADER_TOO_LARGE));
        let many = |count: usize| {
            let field = format!("X: {}\r\n", "a".repeat(4_000));
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", field.repeat(count))
        };
        assert_eq!(read(&many(7)).0, Step::Done);
        assert_eq!(read(&many(10)).0, Step::Refused(HEADER_TOO_LARGE));
        assert_eq!(read(&"\r\n".repeat(100_000)).0, Step::More);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let mut reader = Reader::new();
            let _ = bytes.iter().find(|byte| reader.push(**byte) != Step::More);
        }
    }
}
