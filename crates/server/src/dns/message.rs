//! As much of a DNS message (RFC 1035, 4.1) as a forwarder has to understand: ID, flags and the
//! one question.

/// Longest message: what a length prefix can say.
pub(crate) const MAX_MESSAGE_LEN: usize = 65_535;

const HEADER_LEN: usize = 12;
const MAX_NAME_LEN: usize = 255;
const MAX_LABEL_LEN: usize = 63;

const IS_ANSWER: u8 = 0x80;
const OPCODE: u8 = 0x78;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;

/// Response codes (RFC 1035, 4.1.1) of answers that the forwarder makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The message makes no sense.
    FormatError = 1,
    /// No upstream answered.
    ServerFailure = 2,
    /// A kind of message that is not forwarded.
    NotImplemented = 4,
}

/// Why a client's message is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It is no question at all, and answering might make a loop.
    Ignore,
    /// It is to be answered by [`refusal`] with this code.
    Refuse(Code),
}

/// A client's question that may be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    /// The whole message.
    pub(crate) message: &'a [u8],
    /// The question section within it: name, type, class.
    question: &'a [u8],
}

impl<'a> Query<'a> {
    /// Accepts standard queries with exactly one question.
    pub(crate) fn parse(message: &'a [u8]) -> Result<Query<'a>, Unfit> {
        let header = message.first_chunk::<HEADER_LEN>().ok_or(Unfit::Ignore)?;
        if header[2] & IS_ANSWER != 0 {
            return Err(Unfit::Ignore);
        }
        if header[2] & OPCODE != 0 {
            return Err(Unfit::Refuse(Code::NotImplemented));
        }
        let question = question(message).ok_or(Unfit::Refuse(Code::FormatError))?;
        Ok(Query { message, question })
    }

    /// The ID that the client chose.
    pub(crate) fn id(&self) -> [u8; 2] {
        [self.message[0], self.message[1]]
    }

    /// Whether `message` is an answer to this question, asked with `id`. Letters of the name may
    /// differ in case, because some servers answer in lower case only.
    pub(crate) fn is_answered_by(&self, message: &[u8], id: [u8; 2]) -> bool {
        let Some(header) = message.first_chunk::<HEADER_LEN>() else { return false };
        let Some(answered) = question(message) else { return false };
        let (name, kind) = self.question.split_at(self.question.len() - 4);
        header[..2] == id
            && header[2] & IS_ANSWER != 0
            && answered.len() == self.question.len()
            && answered.ends_with(kind)
            && answered[..name.len()].eq_ignore_ascii_case(name)
    }
}

/// An answer of the forwarder's own to `message`, which is at least a header long: the code, and
/// the question if there is one that can be read.
pub(crate) fn refusal(message: &[u8], code: Code) -> Vec<u8> {
    let question = question(message).unwrap_or_default();
    let flags = message.get(2).map_or(0, |flags| flags & (OPCODE | RECURSION_DESIRED));
    let mut answer = message.get(..2).unwrap_or(&[0, 0]).to_vec();
    answer.extend([IS_ANSWER | flags, RECURSION_AVAILABLE | code as u8]);
    answer.extend([0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    answer
}

/// The question section of a message with exactly one question, whose name is not compressed.
fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let section = message.get(HEADER_LEN..)?;
    let mut at = 0;
    loop {
        let len = usize::from(*section.get(at)?);
        at += 1 + len;
        if len > MAX_LABEL_LEN || at > MAX_NAME_LEN {
            return None;
        }
        if len == 0 {
            return section.get(..at + 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_fits_only_its_own_question() {
        let asked = message(0x01, "\x03WwW\x07example\0", 65);
        let query = Query::parse(&asked).unwrap();
        let answer = message(0x81, "\x03www\x07example\0", 65);
        assert!(query.is_answered_by(&answer, query.id()));
        assert!(!query.is_answered_by(&answer, [9, 9]), "another ID");
        assert!(!query.is_answered_by(&asked, query.id()), "no answer");
        let other_name = message(0x81, "\x03www\x07exbmple\0", 65);
        assert!(!query.is_answered_by(&other_name, query.id()));
        // 65 and 97 are a letter in both cases, but another type.
        let other_type = message(0x81, "\x03www\x07example\0", 97);
        assert!(!query.is_answered_by(&other_type, query.id()));
        assert!(!query.is_answered_by(&answer[..answer.len() - 1], query.id()), "cut");
    }

    #[test]
    fn what_is_no_plain_question_is_not_forwarded() {
        let question = message(0x01, "\x01a\0", 1);
        assert!(Query::parse(&question).is_ok());
        assert_eq!(Query::parse(&question[..11]), Err(Unfit::Ignore));
        assert_eq!(Query::parse(&message(0x81, "\x01a\0", 1)), Err(Unfit::Ignore));
        let update = message(0x28, "\x01a\0", 6);
        assert_eq!(Query::parse(&update), Err(Unfit::Refuse(Code::NotImplemented)));
        let broken = Err(Unfit::Refuse(Code::FormatError));
        for len in 12..question.len() {
            assert_eq!(Query::parse(&question[..len]), broken, "cut at {len}");
        }
        let mut two = question.clone();
        two[5] = 2;
        assert_eq!(Query::parse(&two), broken);
        let compressed = message(0x01, "\0", 1);
        let compressed = [&compressed[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
        assert_eq!(Query::parse(&compressed), broken);
        let endless = message(0x01, &"\x01a".repeat(128), 1);
        assert_eq!(Query::parse(&endless), broken);
    }

    #[test]
    fn a_refusal_repeats_id_and_question() {
        let question = message(0x01, "\x01a\0", 1);
        let answer = refusal(&question, Code::ServerFailure);
        assert_eq!(answer[..12], [7, 7, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer[12..], question[12..]);
        let answer = refusal(&question[..12], Code::FormatError);
        assert_eq!(answer, [7, 7, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    fn message(flags: u8, name: &str, kind: u8) -> Vec<u8> {
        let mut message = vec![7, 7, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(name.bytes());
        message.extend([0, kind, 0, 1]);
        message
    }
}
