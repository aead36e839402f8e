//! What a client says first on a connection, and the gateway's answer to it.

use crate::MAX_SECONDS;

/// Bytes of a request.
pub(crate) const REQUEST_LEN: usize = 6;
/// Begins each request; the last byte is the version.
const MAGIC: [u8; 4] = *b"CWS\x01";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// A test begins: bytes come back as they are. It lasts as long as this connection.
    Echo,
    /// The gateway sends for so many seconds.
    Download(u8),
    /// The client sends for so many seconds, and hears how much has arrived.
    Upload(u8),
}

impl Request {
    pub(crate) fn encode(self) -> [u8; REQUEST_LEN] {
        let [a, b, c, d] = MAGIC;
        let (kind, seconds) = match self {
            Request::Echo => (b'e', 0),
            Request::Download(seconds) => (b'd', seconds),
            Request::Upload(seconds) => (b'u', seconds),
        };
        [a, b, c, d, kind, seconds]
    }

    /// `None`: not a request of this version.
    pub(crate) fn parse(bytes: [u8; REQUEST_LEN]) -> Option<Request> {
        let [magic @ .., kind, seconds] = bytes;
        let transfer = (1..=MAX_SECONDS).contains(&seconds);
        match kind {
            _ if magic != MAGIC => None,
            b'e' if seconds == 0 => Some(Request::Echo),
            b'd' if transfer => Some(Request::Download(seconds)),
            b'u' if transfer => Some(Request::Upload(seconds)),
            _ => None,
        }
    }
}

/// The one byte that answers a request. After anything but `Go` the gateway closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Go = 0,
    /// Others are testing.
    Busy = 1,
    /// This client is testing already.
    AlreadyTesting = 2,
    /// Not understood, or a transfer without a test.
    Refused = 3,
}

impl Answer {
    /// `None`: an answer of a later version.
    pub(crate) fn parse(byte: u8) -> Option<Answer> {
        [Answer::Go, Answer::Busy, Answer::AlreadyTesting, Answer::Refused]
            .into_iter()
            .find(|answer| *answer as u8 == byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        for request in [Request::Echo, Request::Download(1), Request::Upload(30)] {
            assert_eq!(Request::parse(request.encode()), Some(request));
        }
        assert_eq!(&Request::Download(10).encode(), b"CWS\x01d\x0a");
    }

    #[test]
    fn anything_else_is_none() {
        for wrong in [
            b"CWS\x02e\x00",
            b"GET / ",
            b"CWS\x01x\x01",
            b"CWS\x01d\x00",
            b"CWS\x01u\x1f",
            b"CWS\x01e\x01",
            b"\0\0\0\0\0\0",
        ] {
            assert_eq!(Request::parse(*wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        for answer in [Answer::Go, Answer::Busy, Answer::AlreadyTesting, Answer::Refused] {
            assert_eq!(Answer::parse(answer as u8), Some(answer));
        }
        assert_eq!(Answer::parse(4), None);
    }
}
