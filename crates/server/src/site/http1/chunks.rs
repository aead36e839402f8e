//! The body of a request, passed over or kept.

use crate::site::request::BodyLength;

/// Where in a body of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    SizeStart,
    Size,
    Extension,
    Data,
    AfterData,
    AfterDataCr,
    TrailerStart,
    Trailer,
    TrailerEnd,
}

/// What is left of a body.
pub(super) struct Rest {
    /// Bytes: of all, or of the current chunk.
    left: u64,
    chunk: Option<At>,
    is_over: bool,
}

/// It is no body of chunks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl Rest {
    pub(super) fn new(length: BodyLength) -> Self {
        let (left, chunk) = match length {
            BodyLength::None => (0, None),
            BodyLength::Known(length) => (length, None),
            BodyLength::Chunked => (0, Some(At::SizeStart)),
        };
        Self { left, chunk, is_over: left == 0 && chunk.is_none() }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes what belongs to the body from the front of `input`; `keep` is given its data.
    pub(super) fn take(
        &mut self,
        input: &mut Vec<u8>,
        mut keep: impl FnMut(&[u8]),
    ) -> Result<(), Invalid> {
        let mut at = 0;
        while at < input.len() && !self.is_over {
            if matches!(self.chunk, None | Some(At::Data)) {
                let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                let count = left.min(input.len() - at);
                keep(&input[at..at + count]);
                at += count;
                self.left -= count as u64;
                if self.left == 0 {
                    self.is_over = self.chunk.is_none();
                    self.chunk = self.chunk.map(|_| At::AfterData);
                }
                continue;
            }
            if let Some(place) = self.chunk {
                self.chunk = Some(self.step(place, input[at]).ok_or(Invalid)?);
            }
            at += 1;
        }
        input.drain(..at);
        Ok(())
    }

    fn step(&mut self, at: At, byte: u8) -> Option<At> {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        let after_size = if self.left == 0 { At::TrailerStart } else { At::Data };
        Some(match (at, byte) {
            (At::SizeStart, _) => {
                self.left = digit?;
                At::Size
            }
            (At::Size | At::Extension, b'\n') => after_size,
            (At::Size, b'\r' | b';' | b' ' | b'\t') | (At::Extension, _) => At::Extension,
            (At::Size, _) => {
                self.left = self.left.checked_mul(16)? + digit?;
                i64::try_from(self.left).ok()?;
                At::Size
            }
            (At::AfterData, b'\r') => At::AfterDataCr,
            (At::AfterData | At::AfterDataCr, b'\n') => At::SizeStart,
            (At::TrailerStart | At::TrailerEnd, b'\n') => {
                self.is_over = true;
                at
            }
            (At::TrailerStart, b'\r') => At::TrailerEnd,
            (At::Trailer, b'\n') => At::TrailerStart,
            (At::TrailerStart | At::Trailer, _) => At::Trailer,
            (At::AfterData | At::AfterDataCr | At::TrailerEnd | At::Data, _) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_chunks_ends_where_it_says() {
        let body = b"5\r\nhello\r\n3;x=y\nabc\n0\r\nTrailer: a\r\n\r\nGET";
        for cut in 0..body.len() {
            let (mut rest, mut kept) = (Rest::new(BodyLength::Chunked), Vec::new());
            let mut input = body[..cut].to_vec();
            rest.take(&mut input, |data| kept.extend_from_slice(data)).unwrap();
            input.extend_from_slice(&body[cut..]);
            rest.take(&mut input, |data| kept.extend_from_slice(data)).unwrap();
            assert!(rest.is_over());
            assert_eq!(input, b"GET");
            assert_eq!(kept, b"helloabc");
        }
        for wrong in ["x", "5\r\nhellox", "fffffffffffffffff\r\n", "5\r\nhello\rx", "0\r\n\rx"] {
            let taken = Rest::new(BodyLength::Chunked).take(&mut wrong.into(), |_| ());
            assert_eq!(taken, Err(Invalid), "{wrong}");
        }
    }

    #[test]
    fn a_body_of_known_length_ends_there() {
        let mut rest = Rest::new(BodyLength::Known(3));
        let mut input = b"abcdef".to_vec();
        rest.take(&mut input, |_| ()).unwrap();
        assert_eq!((rest.is_over(), input.as_slice()), (true, &b"def"[..]));
    }
}
