//! The form of a message: length (4 bytes, big-endian) ‖ JSON. Pure; no sockets here.
//!
//! The JSON is `{"v": 1, "m": <message>}`, or `{"v": 1, "refused": "<why>"}` from a listener that
//! will not talk to this peer. `v` and `refused` never change their meaning, so that programs of
//! different versions can at least tell their users so.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the messages that this program speaks.
pub const VERSION: u32 = 1;

/// The longest message, in bytes of JSON.
pub const MESSAGE_MAX: usize = 65_536;

/// Length of the length field.
pub(crate) const HEADER_LEN: usize = 4;

/// Why a message cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Longer than [`MESSAGE_MAX`].
    #[error("the message has {0} bytes, at most {MESSAGE_MAX} are allowed")]
    TooLong(usize),
    /// Not to be had as JSON.
    #[error("the message cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Why received bytes are no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("a message of {0} bytes was announced, at most {MESSAGE_MAX} are allowed")]
    TooLong(usize),
    #[error("the message is malformed: {0}")]
    Malformed(String),
    #[error("the message has version {0}")]
    Version(u32),
    #[error("{0}")]
    Refused(String),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outgoing<'a, T> {
    Message { v: u32, m: &'a T },
    Refused { v: u32, refused: &'a str },
}

/// What can be read of every version.
#[derive(Deserialize)]
struct Header {
    v: u32,
    refused: Option<String>,
}

#[derive(Deserialize)]
struct Body<T> {
    m: T,
}

/// A whole message, header included.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, EncodeError> {
    pack(&Outgoing::Message { v: VERSION, m: message })
}

/// A whole message that turns a peer away.
pub(crate) fn encode_refusal(why: &str) -> Result<Vec<u8>, EncodeError> {
    let refusal: Outgoing<'_, ()> = Outgoing::Refused { v: VERSION, refused: why };
    pack(&refusal)
}

fn pack<T: Serialize>(outgoing: &Outgoing<'_, T>) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![0; HEADER_LEN];
    serde_json::to_writer(&mut bytes, outgoing)?;
    let len = bytes.len() - HEADER_LEN;
    let header = u32::try_from(len).ok().filter(|_| len <= MESSAGE_MAX);
    let header = header.ok_or(EncodeError::TooLong(len))?;
    bytes[..HEADER_LEN].copy_from_slice(&header.to_be_bytes());
    Ok(bytes)
}

/// How many bytes the message at the front of `received` has, header included; `None` while its
/// header is not there yet.
pub(crate) fn whole_len(received: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some((header, _)) = received.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let len = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
    if len > MESSAGE_MAX {
        return Err(DecodeError::TooLong(len));
    }
    Ok(Some(HEADER_LEN + len))
}

/// Reads the JSON of one message.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    let malformed = |error: serde_json::Error| DecodeError::Malformed(error.to_string());
    let header: Header = serde_json::from_slice(json).map_err(malformed)?;
    if header.v != VERSION {
        return Err(DecodeError::Version(header.v));
    }
    if let Some(why) = header.refused {
        return Err(DecodeError::Refused(why));
    }
    let body: Body<T> = serde_json::from_slice(json).map_err(malformed)?;
    Ok(body.m)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::daemon::{Reply, Request};

    #[test]
    fn the_form_on_the_socket_is_fixed() {
        let bytes = encode(&Request::Status).expect("encoded");
        assert_eq!(bytes, b"\x00\x00\x00\x14{\"v\":1,\"m\":\"status\"}");
        let bytes = encode_refusal("root only").expect("encoded");
        assert_eq!(&bytes[4..], br#"{"v":1,"refused":"root only"}"#);
    }

    #[test]
    fn the_longest_message_passes_and_one_byte_more_does_not() {
        let overhead = encode(&"").expect("encoded").len() - HEADER_LEN;
        let longest = "x".repeat(MESSAGE_MAX - overhead);
        let bytes = encode(&longest).expect("encoded");
        assert_eq!(whole_len(&bytes).expect("good"), Some(HEADER_LEN + MESSAGE_MAX));
        assert_eq!(decode::<String>(&bytes[HEADER_LEN..]).expect("decoded"), longest);
        assert!(matches!(encode(&(longest + "x")), Err(EncodeError::TooLong(_))));
        assert!(matches!(whole_len(&[0, 1, 0, 1]), Err(DecodeError::TooLong(65_537))));
    }

    #[test]
    fn another_version_is_told_apart_from_nonsense() {
        let newer = br#"{"v":2,"x":{"unknown":[]},"m":{"shape":"new"}}"#;
        assert!(matches!(decode::<Request>(newer), Err(DecodeError::Version(2))));
        let nonsense = br#"{"v":1,"m":{"fly":null}}"#;
        assert!(matches!(decode::<Request>(nonsense), Err(DecodeError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = whole_len(&bytes);
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Reply>(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic(
            position in 0_usize..200,
            value in any::<u8>(),
            message in "[ -~]{0,40}",
        ) {
            let mut bytes = encode(&Reply::Error { message, code: 1 }).expect("encoded");
            let position = position % bytes.len();
            bytes[position] = value;
            let _ = whole_len(&bytes);
            let _ = decode::<Reply>(&bytes[HEADER_LEN..]);
        }

        #[test]
        fn what_is_encoded_is_decoded(message in any::<String>()) {
            let bytes = encode(&message).expect("encoded");
            prop_assert_eq!(whole_len(&bytes).expect("good"), Some(bytes.len()));
            prop_assert_eq!(decode::<String>(&bytes[HEADER_LEN..]).expect("decoded"), message);
        }
    }
}
