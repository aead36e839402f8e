//! One connection between a front end and the privileged process.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::MESSAGE_TIME;
use crate::frame::{self, DecodeError, EncodeError, HEADER_LEN, MESSAGE_MAX, VERSION};
use crate::peer::Peer;

/// Messages in both directions. After any error other than a send's [`EncodeError`] the
/// connection is of no more use.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    peer_uid: u32,
    /// Room for the longest message, so that no peer makes it grow.
    buffer: Box<[u8]>,
    /// Bytes of `buffer` that hold something.
    filled: usize,
    /// Until when the message that has begun must be whole.
    deadline: Option<Instant>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error("nothing is running: nobody listens at {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket is there, but not for this user.
    #[error("this user may not use {}: run it with sudo", .0.display())]
    NotPermitted(PathBuf),
    /// Anything else.
    #[error("cannot connect to {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl ConnectError {
    fn new(path: &Path, source: io::Error) -> Self {
        use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        let (kind, path) = (source.kind(), path.to_path_buf());
        if matches!(kind, NotFound | ConnectionRefused) {
            Self::NotRunning(path)
        } else if kind == PermissionDenied {
            Self::NotPermitted(path)
        } else {
            Self::Io { path, source }
        }
    }
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It is too long, or not to be had as JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The peer did not take it within [`MESSAGE_TIME`].
    #[error("the other side does not read its messages")]
    TooSlow,
    /// The connection is broken.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The other side speaks another version of the messages.
    #[error("{}", describe_version(*.0))]
    Version(u32),
    /// The other side will not talk to this user.
    #[error("{0}")]
    Refused(String),
    /// Too long or not what was expected.
    #[error("the other side sent nonsense: {0}")]
    Malformed(String),
    /// A message began but was not whole within [`MESSAGE_TIME`].
    #[error("the other side began a message and did not end it")]
    TooSlow,
    /// The connection is broken, or closed within a message.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

fn describe_version(theirs: u32) -> String {
    let older = if theirs < VERSION {
        "the process on the other side is older than this program: restart it"
    } else {
        "this program is older than the process on the other side: update it"
    };
    format!("{older} (messages of version {theirs} there, {VERSION} here)")
}

impl Connection {
    /// Connects to a [`Listener`](crate::Listener).
    ///
    /// # Errors
    /// Nobody listens at `path`, or this user may not connect.
    pub async fn connect(path: &Path) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::new(path, source);
        let stream = UnixStream::connect(path).await.map_err(failed)?;
        let peer = Peer::of(&stream).map_err(failed)?;
        Ok(Self::new(stream, peer.uid))
    }

    pub(crate) fn new(stream: UnixStream, peer_uid: u32) -> Self {
        let buffer = vec![0; HEADER_LEN + MESSAGE_MAX].into_boxed_slice();
        Self { stream, peer_uid, buffer, filled: 0, deadline: None }
    }

    /// The user id of the process on the other side, as the kernel noted it when it connected.
    pub fn peer_uid(&self) -> u32 {
        self.peer_uid
    }

    /// Sends one message. Not to be cancelled: half a message would remain.
    ///
    /// # Errors
    /// The message is too long, the peer does not take it, or the connection is broken.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), SendError> {
        let bytes = frame::encode(message)?;
        self.write(&bytes).await
    }

    /// The next message; `None` when the other side closed the connection. May be cancelled
    /// (`select!`): what has arrived is kept for the next call.
    ///
    /// # Errors
    /// The peer was refused, speaks another version or sends nonsense, or the connection is broken.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ReceiveError> {
        let Some(len) = self.fill().await? else { return Ok(None) };
        let decoded = frame::decode(&self.buffer[HEADER_LEN..len]);
        self.buffer.copy_within(len..self.filled, 0);
        self.filled -= len;
        // What is left is the beginning of the next message; its time starts now.
        self.deadline = (self.filled > 0).then(|| Instant::now() + MESSAGE_TIME);
        if let Err(DecodeError::Version(_)) = decoded {
            // The other side shall be able to say which of us is older, too.
            let ours = frame::encode_refusal("another version of the messages");
            if let Ok(bytes) = ours {
                let _ = self.stream.try_write(&bytes);
            }
        }
        Ok(Some(decoded?))
    }

    /// Waits until one whole message is in the buffer and returns its length.
    async fn fill(&mut self) -> Result<Option<usize>, ReceiveError> {
        loop {
            let wanted = frame::whole_len(&self.buffer[..self.filled])?;
            if let Some(len) = wanted.filter(|&len| len <= self.filled) {
                return Ok(Some(len));
            }
            // Never full here: the buffer holds the longest message.
            let read = self.stream.read(&mut self.buffer[self.filled..]);
            let count = match self.deadline {
                None => read.await?,
                Some(deadline) => {
                    timeout_at(deadline, read).await.map_err(|_| ReceiveError::TooSlow)??
                }
            };
            match (count, self.filled) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                _ => {}
            }
            self.filled += count;
            self.deadline.get_or_insert_with(|| Instant::now() + MESSAGE_TIME);
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let written = timeout(MESSAGE_TIME, self.stream.write_all(bytes)).await;
        written.map_err(|_| SendError::TooSlow)?.map_err(SendError::Io)
    }
}

impl From<DecodeError> for ReceiveError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Version(theirs) => Self::Version(theirs),
            DecodeError::Refused(why) => Self::Refused(why),
            error @ (DecodeError::TooLong(_) | DecodeError::Malformed(_)) => {
                Self::Malformed(error.to_string())
            }
        }
    }
}
