//! Bodies of answers, read piece by piece.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{filter::Multipart, proxy::Upstream};

/// How much of a file is read at a time, in bytes.
const PIECE: u64 = 16 * 1024;

/// A body.
pub(super) enum Body {
    Empty,
    Bytes(Bytes),
    File(Part),
    Multipart(Box<Multipart>),
    Gzip(Box<Gzip>),
    Upstream(Box<Upstream>),
}

/// A part of a file.
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pub(super) at: u64,
    pub(super) left: u64,
}

impl Body {
    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Body::Empty => Ok(None),
            Body::Bytes(_) => match std::mem::replace(self, Body::Empty) {
                Body::Bytes(bytes) => Ok(Some(bytes).filter(|bytes| !bytes.is_empty())),
                Body::Empty
                | Body::File(_)
                | Body::Multipart(_)
                | Body::Gzip(_)
                | Body::Upstream(_) => Ok(None),
            },
            Body::File(part) => part.next().await,
            Body::Multipart(parts) => Box::pin(parts.next()).await,
            Body::Gzip(gzip) => Box::pin(gzip.next()).await,
            Body::Upstream(upstream) => upstream.next().await,
        }
    }

    /// Whether another site's connection is behind it.
    pub(super) fn is_fetched(&self) -> bool {
        match self {
            Body::Upstream(_) => true,
            Body::Gzip(gzip) => gzip.source.is_fetched(),
            Body::Empty | Body::Bytes(_) | Body::File(_) | Body::Multipart(_) => false,
        }
    }

    /// From byte `from` on, `count` bytes, of a body of memory or a file.
    pub(super) fn part(&self, from: u64, count: u64) -> Body {
        match self {
            Body::Bytes(bytes) => {
                let end = usize::try_from(from + count).unwrap_or(usize::MAX).min(bytes.len());
                let start = usize::try_from(from).unwrap_or(usize::MAX).min(end);
                Body::Bytes(bytes.slice(start..end))
            }
            Body::File(part) => {
                Body::File(Part { file: part.file.clone(), at: part.at + from, left: count })
            }
            Body::Empty | Body::Multipart(_) | Body::Gzip(_) | Body::Upstream(_) => Body::Empty,
        }
    }
}

impl Part {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let (file, at) = (self.file.clone(), self.at);
        let size = usize::try_from(self.left.min(PIECE)).unwrap_or_default();
        let read = move || {
            let mut piece = vec![0; size];
            file.read_exact_at(&mut piece, at).map(|()| piece)
        };
        let piece = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        self.at += piece.len() as u64;
        self.left -= piece.len() as u64;
        Ok(Some(piece.into()))
    }
}

/// Bodies that are compressed at a time, for all visitors: each takes 256 KiB.
static COMPRESSED: Semaphore = Semaphore::const_new(64);

/// A body under way through gzip, with nginx's settings of it.
pub(super) struct Gzip {
    _permit: SemaphorePermit<'static>,
    source: Body,
    deflate: Compress,
    done: bool,
}

impl Gzip {
    /// Whether there is room for another one.
    pub(super) fn permit() -> Option<SemaphorePermit<'static>> {
        COMPRESSED.try_acquire().ok()
    }

    /// Of a body of this length, if it is known.
    pub(super) fn new(source: Body, length: Option<u64>, permit: SemaphorePermit<'static>) -> Self {
        // a small body has a small window
        let fits = |bits: &u8| length.is_some_and(|length| length < (1 << (bits - 1)) - 262);
        let mut window = 15;
        while window > 9 && fits(&window) {
            window -= 1;
        }
        let deflate = Compress::new_gzip(Compression::new(1), window);
        Self { _permit: permit, source, deflate, done: false }
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut out = Vec::new();
        while !self.done && out.len() < PIECE as usize {
            match self.source.next().await? {
                Some(piece) => self.push(&piece, false, &mut out)?,
                None => {
                    self.push(&[], true, &mut out)?;
                    self.done = true;
                }
            }
        }
        Ok(Some(out).filter(|out| !out.is_empty()).map(Bytes::from))
    }

    fn push(&mut self, mut piece: &[u8], is_end: bool, out: &mut Vec<u8>) -> io::Result<()> {
        let flush = if is_end { FlushCompress::Finish } else { FlushCompress::None };
        loop {
            out.reserve(4_096);
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(piece, out, flush).map_err(io::Error::other)?;
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(piece.len());
            piece = &piece[taken..];
            let is_over = if is_end {
                status == Status::StreamEnd
            } else {
                piece.is_empty() && out.len() < out.capacity()
            };
            if is_over {
                return Ok(());
            }
        }
    }
}
