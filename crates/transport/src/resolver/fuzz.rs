//! What reads DNS answers and `/etc/hosts`, for a fuzz target and the test that replays its corpus
//! (docs/fuzzing.md). No socket is opened.

use std::net::IpAddr;

use hickory_proto::rr::RecordType;

use super::{
    ask::{Question, addresses_in},
    hosts, name,
};

/// A question for the addresses of a name.
pub struct Asked {
    question: Question,
    kind: RecordType,
}

impl Asked {
    /// For an IPv6 or an IPv4 address of `host`; `None` if that is no name.
    #[must_use]
    pub fn new(host: &str, v6: bool) -> Option<Asked> {
        let kind = if v6 { RecordType::AAAA } else { RecordType::A };
        Some(Asked { question: Question::new(name(host).ok()?, kind).ok()?, kind })
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.question.message
    }

    /// The addresses in an answer to it; `None` if it is no answer, or has none.
    #[must_use]
    pub fn read(&self, answer: &[u8]) -> Option<Vec<IpAddr>> {
        addresses_in(&self.question.answer(answer)?, self.kind).ok()
    }
}

/// The addresses of `host` in the text of `/etc/hosts`.
#[must_use]
pub fn hosts(text: &str, host: &str) -> Option<Vec<IpAddr>> {
    hosts::addresses_in(text, host)
}
