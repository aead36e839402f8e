//! One HTTP/2 connection.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    code::{
        Code, GOAWAY, HEADERS, NO_ERROR, PROTOCOL_ERROR, RST_STREAM, SETTINGS, WINDOW_MAX,
        WINDOW_UPDATE,
    },
    frames::Frames,
    head::Head,
    hpack::Decoder,
    outbound::Outgoing,
};
use crate::site::{
    HEADER_TIME, KEEP_TIME,
    conn::{Conn, Ending, Stop},
    content::Content,
    request::{BodyLength, Request},
};

/// A window before any settings (RFC 9113, 6.9.2).
const WINDOW: i64 = 65_535;
/// Settings as nginx sends them: 128 streams, windows of 64 KiB, frames of any size.
const OUR_SETTINGS: &[u8] = b"\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff";
/// What is queued at most before it has to leave, in bytes.
const OUT_MAX: usize = 16 * 1_024;
/// PRIORITY frames that are taken for nothing.
const PRIORITIES: u32 = 128;

/// Why a connection goes no further.
pub(super) enum Broken {
    /// The visitor has broken a rule.
    Rule(Code),
    Stop(Stop),
}

impl From<Code> for Broken {
    fn from(code: Code) -> Self {
        Broken::Rule(code)
    }
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        Broken::Stop(stop)
    }
}

/// A request whose body somebody reads.
pub(super) struct Incoming {
    pub(super) request: Request,
    pub(super) length: BodyLength,
    pub(super) body: Vec<u8>,
}

/// What is known of the connection.
pub(super) struct Session<'a> {
    pub(super) conn: &'a mut Conn,
    pub(super) content: &'a Arc<Content>,
    pub(super) since: Instant,
    pub(super) frames: Frames,
    pub(super) decoder: Decoder,
    /// The request whose fields are coming.
    pub(super) head: Option<Head>,
    pub(super) incoming: HashMap<u32, Incoming>,
    pub(super) streams: BTreeMap<u32, Outgoing>,
    pub(super) last_stream: u32,
    pub(super) requests: u32,
    pub(super) priorities: u32,
    /// How much the other end takes in all.
    pub(super) window: i64,
    /// How much it takes of each stream at first.
    pub(super) first_window: i64,
    /// How much the settings under way change that.
    pub(super) window_change: i64,
    /// How much this end takes.
    pub(super) own_window: i64,
    /// The other end has said something about its table, which stays empty.
    pub(super) table_changed: bool,
    /// No further requests are taken.
    pub(super) is_leaving: bool,
    /// Bytes that were read, and those of them that were good for something.
    pub(super) bytes: (u64, u64),
    /// When the connection has been idle for too long.
    idle_until: Instant,
    out: Vec<u8>,
    /// There is more in it than headers, which nginx holds back for what follows them.
    is_urgent: bool,
}

/// Serves a connection that was accepted at `since` until it is to be ended.
pub(in crate::site) async fn serve(
    conn: &mut Conn,
    content: &Arc<Content>,
    since: Instant,
) -> Result<Ending, Stop> {
    let mut session = Session::new(conn, content, since);
    session.frame(SETTINGS, 0, 0, OUR_SETTINGS);
    session.frame(WINDOW_UPDATE, 0, 0, &((WINDOW_MAX - WINDOW) as u32).to_be_bytes());
    match session.run().await {
        Ok(()) => {}
        Err(Broken::Rule(code)) => {
            if !session.is_leaving {
                session.go_away(code);
            }
            session.flush().await?;
            if !session.is_idle() {
                return Ok(Ending::Silent);
            }
        }
        Err(Broken::Stop(Stop::Closed)) => return Ok(Ending::Silent),
        Err(Broken::Stop(stop)) => return Err(stop),
    }
    Ok(Ending::Linger)
}

impl<'a> Session<'a> {
    pub(super) fn new(conn: &'a mut Conn, content: &'a Arc<Content>, since: Instant) -> Self {
        Self {
            conn,
            content,
            since,
            frames: Frames::new(),
            decoder: Decoder::new(),
            head: None,
            incoming: HashMap::new(),
            streams: BTreeMap::new(),
            last_stream: 0,
            requests: 0,
            priorities: PRIORITIES,
            window: WINDOW,
            first_window: WINDOW,
            window_change: 0,
            own_window: WINDOW_MAX,
            table_changed: false,
            is_leaving: false,
            bytes: (0, 0),
            idle_until: since + HEADER_TIME,
            out: Vec::new(),
            is_urgent: false,
        }
    }

    /// Until it is over.
    async fn run(&mut self) -> Result<(), Broken> {
        loop {
            while self.conn.try_read().await? {
                self.take_input().await?;
            }
            let is_idle = self.is_idle();
            if is_idle || self.is_urgent {
                self.flush().await?;
            }
            if self.is_leaving && is_idle {
                return Ok(());
            }
            let until = if is_idle { self.idle_until } else { Instant::now() + HEADER_TIME };
            match self.conn.read(until).await {
                Ok(()) => self.take_input().await?,
                Err(Stop::TimedOut) if is_idle => {
                    let is_within = self.frames.is_within(&self.conn.input);
                    return Err(if is_within { PROTOCOL_ERROR } else { NO_ERROR }.into());
                }
                Err(Stop::TimedOut) => {
                    let streams = self.streams.keys().chain(self.incoming.keys()).copied();
                    for stream in streams.collect::<Vec<_>>() {
                        self.reset(stream, PROTOCOL_ERROR);
                    }
                }
                Err(stop) => return Err(stop.into()),
            }
        }
    }

    /// Whether no request is under way.
    fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.incoming.is_empty()
    }

    pub(super) async fn take_input(&mut self) -> Result<(), Broken> {
        self.bytes.0 += self.conn.input.len() as u64;
        while let Some(event) = self.frames.next(&mut self.conn.input)? {
            self.handle(event).await?;
            if self.out.len() > OUT_MAX {
                self.flush().await?;
            }
        }
        // as nginx calls it: a flood
        if self.bytes.0 / 8 > self.bytes.1 + (1 << 20) {
            return Err(NO_ERROR.into());
        }
        Ok(())
    }

    /// Queues a frame.
    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.is_urgent |= kind != HEADERS;
        let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
        self.out.extend_from_slice(&length);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    /// Sends what is queued.
    pub(super) async fn flush(&mut self) -> Result<(), Stop> {
        self.is_urgent = false;
        let out = std::mem::take(&mut self.out);
        self.conn.write(&out).await
    }

    /// Sends what is queued unless it may wait.
    pub(super) async fn flush_if_urgent(&mut self) -> Result<(), Stop> {
        if self.is_urgent { self.flush().await } else { Ok(()) }
    }

    pub(super) fn go_away(&mut self, code: Code) {
        self.is_leaving = true;
        let payload = [self.last_stream.to_be_bytes(), code.to_be_bytes()].concat();
        self.frame(GOAWAY, 0, 0, &payload);
    }

    /// Ends a stream.
    pub(super) fn reset(&mut self, stream: u32, code: Code) {
        self.frame(RST_STREAM, 0, stream, &code.to_be_bytes());
        self.forget(stream);
    }

    /// The end of an answer; who is still sending is told that nobody listens.
    pub(super) fn finish(&mut self, stream: u32, is_heard: bool) {
        if is_heard {
            self.forget(stream);
        } else {
            self.reset(stream, NO_ERROR);
        }
    }

    pub(super) fn forget(&mut self, stream: u32) {
        self.streams.remove(&stream);
        self.incoming.remove(&stream);
        self.idle_until = Instant::now() + KEEP_TIME;
    }
}
