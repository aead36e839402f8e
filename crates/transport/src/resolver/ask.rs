//! One question to one server: over UDP, repeated while nothing comes back, and over TCP where the
//! answer is too long for that (RFC 1035, 4.2; RFC 7766).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::ServerError;
use crate::socket::SocketFactory;

/// How long an answer is waited for before the question is sent once more; longer each time.
const REPEAT: Duration = Duration::from_millis(800);
/// Longer answers come over TCP, since the question allows no more (RFC 1035, 4.2.1).
const DATAGRAM_MAX: usize = 512;

/// How many addresses of one kind are taken: each costs whoever tries them all its time.
pub(super) const ADDRESSES_MAX: usize = 8;

/// The addresses of this kind that `server` knows of `name`; at least one. The caller sets a time
/// limit.
pub(super) async fn addresses(
    sockets: SocketFactory,
    server: SocketAddr,
    name: Name,
    kind: RecordType,
) -> Result<Vec<IpAddr>, ServerError> {
    let question = Question::new(name, kind)?;
    let answer = match by_datagrams(sockets, server, &question).await? {
        answer if answer.metadata.truncation => by_stream(sockets, server, &question).await?,
        answer => answer,
    };
    addresses_in(&answer, kind)
}

/// The first addresses of this kind in an answer; at least one.
pub(super) fn addresses_in(answer: &Message, kind: RecordType) -> Result<Vec<IpAddr>, ServerError> {
    let code = answer.metadata.response_code;
    if code == ResponseCode::NXDomain {
        return Err(ServerError::NotFound);
    }
    if code != ResponseCode::NoError {
        return Err(ServerError::Refused(code));
    }
    let of_kind = answer.answers.iter().filter(|record| record.record_type() == kind);
    let addresses = of_kind.filter_map(|record| record.data.ip_addr());
    let addresses: Vec<_> = addresses.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() { Err(ServerError::NotFound) } else { Ok(addresses) }
}

/// A socket and an ID of its own for each question, which is all that a forger has to guess.
async fn by_datagrams(
    sockets: SocketFactory,
    server: SocketAddr,
    question: &Question,
) -> Result<Message, ServerError> {
    let socket = sockets.udp_to(server)?;
    let mut wait = REPEAT;
    let mut datagram = [0; DATAGRAM_MAX];
    loop {
        socket.send(&question.message).await?;
        let answer = async {
            loop {
                let len = socket.recv(&mut datagram).await?;
                if let Some(answer) = question.answer(&datagram[..len]) {
                    return Ok(answer);
                }
            }
        };
        match timeout(wait, answer).await {
            Ok(answer) => return answer,
            Err(_) => wait *= 2,
        }
    }
}

async fn by_stream(
    sockets: SocketFactory,
    server: SocketAddr,
    question: &Question,
) -> Result<Message, ServerError> {
    let mut stream = sockets.connect(server).await?;
    let len = u16::try_from(question.message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), question.message.as_slice()].concat()).await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; len.into()];
    stream.read_exact(&mut answer).await?;
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "its answer is no answer");
    Ok(question.answer(&answer).ok_or_else(odd)?)
}

/// A question, and what its answer has to repeat.
pub(super) struct Question {
    id: u16,
    query: Query,
    pub(super) message: Vec<u8>,
}

impl Question {
    pub(super) fn new(name: Name, kind: RecordType) -> io::Result<Self> {
        let query = Query::query(name, kind);
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Query;
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        let id = message.metadata.id;
        Ok(Self { id, query, message: message.to_vec().map_err(io::Error::other)? })
    }

    /// The message if it answers this question.
    pub(super) fn answer(&self, message: &[u8]) -> Option<Message> {
        let message = Message::from_vec(message).ok()?;
        // names are equal whatever the case
        let fits = message.metadata.id == self.id
            && message.metadata.message_type == MessageType::Response
            && message.queries == [self.query.clone()];
        fits.then_some(message)
    }
}
