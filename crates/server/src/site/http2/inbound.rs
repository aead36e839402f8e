//! What each frame of a visitor's does.

use super::{
    code::{
        ACK, Code, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, NO_ERROR, PING, PRIORITY,
        PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_MAX, WINDOW_UPDATE,
    },
    frames::{Event, Header},
    head::{Head, Read},
    session::{Broken, Incoming, Session},
};
use crate::site::{
    BODY_KEPT_MAX, REQUESTS_MAX, TIME_MAX,
    answer::Answer,
    request::{BodyLength, Request},
};

/// Requests at a time, and PRIORITY frames that each of them stands for.
const STREAMS_MAX: usize = 128;

/// What is held of requests whose bodies are coming, in bytes, if they are several.
const HEADS_KEPT_MAX: usize = 64 * 1_024;

/// The window of a stream that this end gives, in bytes.
const FIRST_OWN_WINDOW: u32 = 65_536;
const TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const FIRST_WINDOW: u16 = 4;
const FRAME_SIZE: u16 = 5;

impl Session<'_> {
    pub(super) async fn handle(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Frame(header, payload) => self.small_frame(header, &payload).await,
            Event::Setting(name, value) => Ok(self.setting(name, value)?),
            Event::SettingsEnd => self.settings_end().await,
            Event::DataStart(header) => Ok(self.data_start(header)?),
            Event::Data(header, data, is_last) => self.data(header.stream, &data, is_last).await,
            Event::HeadersStart(header, depends_on) => Ok(self.headers_start(header, depends_on)?),
            Event::Block(piece, is_whole) => self.block(&piece, is_whole).await,
        }
    }

    async fn small_frame(&mut self, header: Header, payload: &[u8]) -> Result<(), Broken> {
        let stream = header.stream;
        let number = payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let number = number.unwrap_or_default();
        match header.kind {
            PING if stream != 0 => return Err(PROTOCOL_ERROR.into()),
            PING => self.frame(PING, ACK, 0, payload),
            PRIORITY => {
                self.priorities -= 1;
                if self.priorities == 0 {
                    return Err(ENHANCE_YOUR_CALM.into());
                }
                if stream == 0 || number & 0x7fff_ffff == stream {
                    return Err(PROTOCOL_ERROR.into());
                }
            }
            RST_STREAM if stream == 0 => return Err(PROTOCOL_ERROR.into()),
            RST_STREAM => {
                let is_known =
                    self.streams.contains_key(&stream) || self.incoming.contains_key(&stream);
                if is_known {
                    self.forget(stream);
                }
            }
            WINDOW_UPDATE => self.window_update(stream, i64::from(number & 0x7fff_ffff)).await?,
            _ => {}
        }
        Ok(())
    }

    async fn window_update(&mut self, stream: u32, more: i64) -> Result<(), Broken> {
        if more == 0 {
            return Err(PROTOCOL_ERROR.into());
        }
        if stream == 0 {
            if more > WINDOW_MAX - self.window {
                return Err(FLOW_CONTROL_ERROR.into());
            }
            self.window += more;
            return self.pump_all().await;
        }
        let Some(outgoing) = self.streams.get_mut(&stream) else { return Ok(()) };
        if more > WINDOW_MAX - outgoing.window {
            self.reset(stream, FLOW_CONTROL_ERROR);
            return Ok(());
        }
        outgoing.window += more;
        self.pump(stream).await
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Code> {
        let value = i64::from(value);
        match name {
            FIRST_WINDOW if value > WINDOW_MAX => return Err(FLOW_CONTROL_ERROR),
            FIRST_WINDOW => self.window_change = value - self.first_window,
            FRAME_SIZE if !(16_384..1 << 24).contains(&value) => return Err(PROTOCOL_ERROR),
            ENABLE_PUSH if value > 1 => return Err(PROTOCOL_ERROR),
            TABLE_SIZE => self.table_changed = true,
            _ => {}
        }
        Ok(())
    }

    async fn settings_end(&mut self) -> Result<(), Broken> {
        self.frame(SETTINGS, ACK, 0, &[]);
        let change = std::mem::take(&mut self.window_change);
        self.first_window += change;
        let mut overflows = Vec::new();
        for (stream, outgoing) in &mut self.streams {
            if change > WINDOW_MAX - outgoing.window {
                overflows.push(*stream);
            }
            outgoing.window += change;
        }
        for stream in overflows {
            self.reset(stream, FLOW_CONTROL_ERROR);
        }
        if change > 0 { self.pump_all().await } else { Ok(()) }
    }

    fn headers_start(&mut self, header: Header, depends_on: Option<u32>) -> Result<(), Code> {
        let stream = header.stream;
        if self.is_leaving {
            self.head = Some(Head::void(stream).0);
            return Ok(());
        }
        if stream.is_multiple_of(2) || stream <= self.last_stream || depends_on == Some(stream) {
            return Err(PROTOCOL_ERROR);
        }
        self.last_stream = stream;
        if self.streams.len() + self.incoming.len() >= STREAMS_MAX {
            let (head, code) = Head::void(stream);
            self.head = Some(head);
            self.reset(stream, code);
            return Ok(());
        }
        self.head = Some(Head::new(stream, header.flags & END_STREAM != 0));
        self.requests += 1;
        self.priorities += STREAMS_MAX as u32;
        self.bytes.1 += header.length as u64;
        if self.requests >= REQUESTS_MAX || self.since.elapsed() > TIME_MAX {
            self.go_away(NO_ERROR);
        }
        Ok(())
    }

    async fn block(&mut self, piece: &[u8], is_whole: bool) -> Result<(), Broken> {
        let Some(mut head) = self.head.take() else { return Ok(()) };
        let mut piece = piece;
        loop {
            let (stream, is_last) = (head.stream, head.is_last);
            match head.push(&mut self.decoder, piece, is_whole)? {
                Read::More => {
                    self.head = Some(head);
                    return Ok(());
                }
                Read::Over => return Ok(()),
                Read::Reset(code) => self.reset(stream, code),
                Read::Refused(request, status) => {
                    let answer = Answer::page(status, &request);
                    self.answer(stream, &request, answer, is_last).await?;
                }
                Read::Done(request, length) => {
                    return self.request(stream, request, length, is_last).await;
                }
            }
            piece = &[];
        }
    }

    async fn request(
        &mut self,
        stream: u32,
        request: Request,
        length: BodyLength,
        is_last: bool,
    ) -> Result<(), Broken> {
        let fits = !matches!(length, BodyLength::Known(length) if length > BODY_KEPT_MAX as u64);
        if !is_last && fits && self.content.takes_bodies() {
            let kept: usize = self.incoming.values().map(|other| other.request.size()).sum();
            if kept > 0 && kept + request.size() > HEADS_KEPT_MAX {
                self.reset(stream, REFUSED_STREAM);
                return Ok(());
            }
            // as much as nginx takes, though not as much is kept
            let more = u32::try_from(WINDOW_MAX).unwrap_or_default() - FIRST_OWN_WINDOW;
            self.frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
            self.incoming.insert(stream, Incoming { request, length, body: Vec::new() });
            return Ok(());
        }
        let answer = if !self.content.takes_bodies() {
            self.content.answer(&request, length).await
        } else {
            let body = if fits { Ok(Vec::new()) } else { Err(413) };
            self.content.answer_with_body(&request, length, body).await
        };
        self.answer(stream, &request, answer, is_last).await
    }

    fn data_start(&mut self, header: Header) -> Result<(), Code> {
        let size = header.length as i64;
        if size > self.own_window {
            return Err(FLOW_CONTROL_ERROR);
        }
        self.own_window -= size;
        if self.own_window < WINDOW_MAX / 4 {
            let more = u32::try_from(WINDOW_MAX - self.own_window).unwrap_or_default();
            self.frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
            self.own_window = WINDOW_MAX;
        }
        Ok(())
    }

    async fn data(&mut self, stream: u32, data: &[u8], is_last: bool) -> Result<(), Broken> {
        let Some(incoming) = self.incoming.get_mut(&stream) else {
            if is_last && let Some(outgoing) = self.streams.get_mut(&stream) {
                outgoing.is_heard = true;
            }
            return Ok(());
        };
        self.bytes.1 += data.len() as u64;
        incoming.body.extend_from_slice(data);
        let kept: usize = self.incoming.values().map(|incoming| incoming.body.len()).sum();
        let is_too_large = kept > BODY_KEPT_MAX;
        if !is_last && !is_too_large {
            return Ok(());
        }
        let Some(Incoming { request, length, body }) = self.incoming.remove(&stream) else {
            return Ok(());
        };
        let body = if is_too_large { Err(413) } else { Ok(body) };
        let answer = self.content.answer_with_body(&request, length, body).await;
        self.answer(stream, &request, answer, is_last).await
    }
}
