//! Questions of clients to the gateway's forwarder, and what answers to them: against a library that
//! reads whole messages.

use hickory_proto::op::{Message, MessageType, OpCode};

use crate::dns::{
    host_resolvers,
    message::{Code, Query, Unfit, refusal},
};

/// A client's message; the second half of the input is what comes back.
pub(crate) fn run(data: &[u8]) {
    let (asked, answer) = data.split_at(data.len() / 2);
    question(data);
    question(asked);
    let resolvers = host_resolvers(&String::from_utf8_lossy(data));
    assert!(resolvers.len() <= 3 && resolvers.iter().all(|resolver| resolver.port() == 53));
    if let Ok(query) = Query::parse(asked)
        && query.is_answered_by(answer, query.id())
    {
        // the same question, but for the case of letters
        let asked_too = [&answer[..2], &[answer[2] & !0x80 & !0x78], &answer[3..]].concat();
        assert!(Query::parse(&asked_too).is_ok(), "an answer to nothing");
        assert!(!query.is_answered_by(answer, [!answer[0], answer[1]]), "whatever its ID");
    }
}

fn question(message: &[u8]) {
    let library = Message::from_vec(message).ok();
    match Query::parse(message) {
        Ok(query) => {
            assert_eq!(query.id(), message[..2]);
            let mut answer = message.to_vec();
            answer[2] |= 0x80;
            assert!(query.is_answered_by(&answer, query.id()));
            assert!(!query.is_answered_by(message, query.id()), "a question is no answer");
            let refused = refusal(message, Code::ServerFailure);
            assert!(query.is_answered_by(&refused, query.id()));
            if let Some(library) = library {
                assert_eq!(library.metadata.op_code, OpCode::Query);
                assert_eq!(library.metadata.message_type, MessageType::Query);
                assert_eq!(library.queries.len(), 1);
            }
        }
        Err(Unfit::Refuse(code)) => {
            let refused = refusal(message, code);
            assert!(refused.len() <= message.len().max(12), "an answer longer than its question");
            let read = Message::from_vec(&refused).expect("an answer that can be read");
            assert_eq!(read.metadata.message_type, MessageType::Response);
        }
        Err(Unfit::Ignore) => {
            assert!(message.len() < 12 || message[2] & 0x80 != 0);
        }
    }
}
