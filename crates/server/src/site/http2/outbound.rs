//! Answers on their way out: header and data frames, within the windows of the other end.

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    code::{self, DATA, END_HEADERS, END_STREAM, HEADERS},
    hpack,
    session::{Broken, Session},
};
use crate::site::{ASKED_MAX, answer::Answer, body::Body, date, request::Request};

/// Data of one frame, in bytes, as with nginx.
const DATA_MAX: usize = 8 * 1_024;

/// A stream whose answer has not left yet.
pub(super) struct Outgoing {
    body: Body,
    /// What was read of the body and has not left.
    piece: Bytes,
    /// What follows it, if it is known already.
    next: Option<Option<Bytes>>,
    /// How much the other end takes.
    pub(super) window: i64,
    /// The visitor has sent all there is.
    pub(super) is_heard: bool,
    /// While it waits for a window.
    permit: Option<SemaphorePermit<'static>>,
}

/// Answers that wait for a window, for all visitors: each takes a file and 32 KiB.
static WAITING: Semaphore = Semaphore::const_new(256);
/// The same of another site's answers: they leave connections to it for others.
static WAITING_FETCHED: Semaphore = Semaphore::const_new(ASKED_MAX / 2);

impl Session<'_> {
    /// Begins an answer; what fits into the windows leaves at once.
    pub(super) async fn answer(
        &mut self,
        stream: u32,
        request: &Request,
        answer: Answer,
        is_heard: bool,
    ) -> Result<(), Broken> {
        let block = self.header_block(request, &answer);
        let has_body = !answer.is_header_only(request) && answer.length != Some(0);
        let flags = if has_body { END_HEADERS } else { END_HEADERS | END_STREAM };
        self.frame(HEADERS, flags, stream, &block);
        self.flush_if_urgent().await?;
        let window = self.first_window;
        let (body, piece) = (answer.body, Bytes::new());
        let outgoing = Outgoing { body, piece, next: None, window, is_heard, permit: None };
        if has_body {
            self.streams.insert(stream, outgoing);
            self.pump(stream).await?;
            if let Some(outgoing) = self.streams.get_mut(&stream) {
                let is_fetched = outgoing.body.is_fetched();
                let waiting = if is_fetched { &WAITING_FETCHED } else { &WAITING };
                outgoing.permit = waiting.try_acquire().ok();
                if outgoing.permit.is_none() {
                    self.reset(stream, code::REFUSED_STREAM);
                }
            }
            Ok(())
        } else {
            self.finish(stream, is_heard);
            Ok(())
        }
    }

    /// Sends of a stream what the windows let through.
    pub(super) async fn pump(&mut self, stream: u32) -> Result<(), Broken> {
        loop {
            let Some(outgoing) = self.streams.get_mut(&stream) else { return Ok(()) };
            let window = outgoing.window.min(self.window);
            let window = usize::try_from(window).unwrap_or(0).min(DATA_MAX);
            let Ok((data, is_last)) = outgoing.take(window).await else {
                self.reset(stream, code::INTERNAL_ERROR);
                return Ok(());
            };
            if data.is_empty() && !is_last {
                return Ok(());
            }
            outgoing.window -= data.len() as i64;
            let is_heard = outgoing.is_heard;
            self.window -= data.len() as i64;
            self.frame(DATA, if is_last { END_STREAM } else { 0 }, stream, &data);
            self.flush().await?;
            if is_last {
                self.finish(stream, is_heard);
            }
        }
    }

    /// Sends of all streams what the windows let through.
    pub(super) async fn pump_all(&mut self) -> Result<(), Broken> {
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            self.pump(stream).await?;
        }
        Ok(())
    }

    /// Fields in nginx's order, with its choice of tables and codes.
    fn header_block(&mut self, request: &Request, answer: &Answer) -> Vec<u8> {
        let mut block = Vec::new();
        if std::mem::take(&mut self.table_changed) {
            block.push(0x20);
        }
        match answer.status {
            200 => block.push(0x88),
            204 => block.push(0x89),
            206 => block.push(0x8a),
            304 => block.push(0x8b),
            400 => block.push(0x8c),
            404 => block.push(0x8d),
            500 => block.push(0x8e),
            status => hpack::write_known_raw(&mut block, 8, &status.to_string()),
        }
        hpack::write_known(&mut block, 54, b"nginx");
        hpack::write_known(&mut block, 33, date::now().as_bytes());
        if let Some(kind) = &answer.kind {
            hpack::write_known(&mut block, 31, kind.as_bytes());
        }
        if let Some(length) = answer.length {
            hpack::write_known_raw(&mut block, 28, &length.to_string());
        }
        if let Some(modified) = answer.modified {
            hpack::write_known(&mut block, 44, date::format(modified).as_bytes());
        }
        if let Some(location) = answer.absolute_location(request, self.conn.local_address()) {
            hpack::write_known(&mut block, 46, &location);
        }
        for (name, value) in &answer.fields {
            hpack::write(&mut block, name, value);
        }
        block
    }
}

impl Outgoing {
    /// The next data, at most `window` bytes, and whether it is the last.
    async fn take(&mut self, window: usize) -> std::io::Result<(Bytes, bool)> {
        if self.piece.is_empty() {
            self.piece = match self.next.take() {
                Some(next) => next.unwrap_or_default(),
                None => self.body.next().await?.unwrap_or_default(),
            };
        }
        let data = self.piece.split_to(window.min(self.piece.len()));
        if self.piece.is_empty() && self.next.is_none() && (window > 0 || data.is_empty()) {
            self.next = Some(self.body.next().await?);
        }
        let is_last = self.piece.is_empty() && matches!(self.next, Some(None));
        Ok((data, is_last))
    }
}
