//! Control messages before the tunnel: MessagePack behind a magic and a length (A35;
//! docs/protocol.md, "Control messages").
//!
//! ```text
//!  "IRVP" | length (4) | MessagePack map, padded by its `pad` field
//! ```
//!
//! Each message ends its TLS record and is padded to a multiple of 1,024 bytes, so that lengths
//! tell a listener nothing.

mod client;
mod gateway;

pub use client::{ClientMessage, Enrol, Login, Offer, Request, Resume};
pub use gateway::{DatagramOffer, GatewayMessage, RefusalCode, Refused, Reply, Text, Welcome};

use serde::{Serialize, de::DeserializeOwned};

/// The first four bytes of each control message.
pub const MAGIC: [u8; 4] = *b"IRVP";
/// The longest MessagePack map, in bytes.
pub const LENGTH_MAX: usize = 16_384;
const HEADER_LEN: usize = 8;
const PAD_TO: usize = 1_024;
/// Maps and arrays within each other.
const DEPTH_MAX: usize = 8;

/// Why bytes are no control message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The first bytes are not [`MAGIC`].
    #[error("a control message begins with IRVP")]
    Magic,
    /// Longer than [`LENGTH_MAX`].
    #[error("a control message of {0} bytes, at most {LENGTH_MAX} are allowed")]
    TooLong(usize),
    /// Bytes behind the message in the same TLS record.
    #[error("{0} bytes behind a control message in the same record")]
    Trailing(usize),
    /// Deeper than allowed.
    #[error("a control message is nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// A key that is no string.
    #[error("a control message has a key that is no string")]
    Key,
    /// The same key twice in one map.
    #[error("a control message has the key {0:?} twice")]
    DuplicateKey(String),
    /// Not MessagePack, or a field is missing or of the wrong type.
    #[error("malformed control message: {0}")]
    Malformed(String),
}

/// Packs a value as a MessagePack map with named fields.
pub(crate) fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    #[allow(clippy::expect_used)]
    rmp_serde::to_vec_named(value).expect("our own types can be packed, memory does not fail")
}

/// Unpacks exactly one value: bounded depth, no duplicate keys, nothing behind it. Unknown fields
/// are ignored, so that later versions can add some.
pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let malformed = |error: &dyn std::fmt::Display| MessageError::Malformed(error.to_string());
    // rmpv counts a level up to three times
    let depth = 4 * DEPTH_MAX;
    let mut rest = bytes;
    let value = rmpv::decode::read_value_ref_with_max_depth(&mut rest, depth)
        .map_err(|error| malformed(&error))?;
    if !rest.is_empty() {
        return Err(MessageError::Trailing(rest.len()));
    }
    check_shape(&value, DEPTH_MAX)?;
    rmp_serde::from_slice(bytes).map_err(|error| malformed(&error))
}

fn check_shape(value: &rmpv::ValueRef<'_>, depth: usize) -> Result<(), MessageError> {
    let deeper = || depth.checked_sub(1).ok_or(MessageError::TooDeep);
    if let rmpv::ValueRef::Array(items) = value {
        let depth = deeper()?;
        items.iter().try_for_each(|item| check_shape(item, depth))?;
    }
    if let rmpv::ValueRef::Map(entries) = value {
        let depth = deeper()?;
        let mut keys = entries.iter().map(|(key, _)| text(key)).collect::<Result<Vec<_>, _>>()?;
        // sorted, so that many keys take no quadratic time
        keys.sort_unstable();
        if let Some([twice, _]) = keys.array_windows().find(|[a, b]| a == b) {
            return Err(MessageError::DuplicateKey((*twice).to_owned()));
        }
        entries.iter().try_for_each(|(_, item)| check_shape(item, depth))?;
    }
    Ok(())
}

/// A key, which is a string.
fn text<'a>(key: &'a rmpv::ValueRef<'_>) -> Result<&'a str, MessageError> {
    match key {
        rmpv::ValueRef::String(text) => text.as_str().ok_or(MessageError::Key),
        rmpv::ValueRef::Nil
        | rmpv::ValueRef::Boolean(_)
        | rmpv::ValueRef::Integer(_)
        | rmpv::ValueRef::F32(_)
        | rmpv::ValueRef::F64(_)
        | rmpv::ValueRef::Binary(_)
        | rmpv::ValueRef::Array(_)
        | rmpv::ValueRef::Map(_)
        | rmpv::ValueRef::Ext(..) => Err(MessageError::Key),
    }
}

/// A message with its padding.
#[derive(Serialize)]
struct Padded<'a, T> {
    #[serde(flatten)]
    message: &'a T,
    pad: &'a serde_bytes::Bytes,
}

/// Encodes a message, padded to a multiple of 1,024 bytes, header included.
///
/// # Panics
/// If the message is longer than [`LENGTH_MAX`]: ours are not.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let padded = |pad: usize| {
        let zeros = vec![0; pad];
        pack(&Padded { message, pad: serde_bytes::Bytes::new(&zeros) })
    };
    let length = HEADER_LEN + padded(0).len();
    let missing = length.next_multiple_of(PAD_TO) - length;
    // the length field of a longer pad takes a byte or two more
    let pads = (0..=2).filter_map(|more| missing.checked_sub(more));
    let body = pads
        .chain((0..=2).map(|more| missing + PAD_TO - more))
        .map(padded)
        .find(|body| (HEADER_LEN + body.len()).is_multiple_of(PAD_TO));
    #[allow(clippy::expect_used)]
    let body = body.expect("one of them fits");
    assert!(body.len() <= LENGTH_MAX, "our own messages are short");
    [&MAGIC[..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

/// Collects one control message from the plaintext of TLS records.
#[derive(Debug, Default)]
pub struct Collector {
    bytes: Vec<u8>,
}

impl Collector {
    /// Takes the plaintext of one TLS record (or what is left of it) and gives the message's
    /// MessagePack body once it is complete. A message ends its record.
    pub fn push(&mut self, plaintext: &[u8]) -> Result<Option<Vec<u8>>, MessageError> {
        self.bytes.extend_from_slice(plaintext);
        let magic = self.bytes.len().min(MAGIC.len());
        if self.bytes[..magic] != MAGIC[..magic] {
            return Err(MessageError::Magic);
        }
        let Some((header, body)) = self.bytes.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > LENGTH_MAX {
            return Err(MessageError::TooLong(length));
        }
        if body.len() < length {
            return Ok(None);
        }
        if body.len() > length {
            return Err(MessageError::Trailing(body.len() - length));
        }
        let body = body.to_vec();
        self.bytes.clear();
        Ok(Some(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Sample {
        text: String,
    }

    #[test]
    fn padding_hides_the_length_at_every_size() {
        let mut longer = 0;
        for size in 0..3_000 {
            let message = Sample { text: "x".repeat(size) };
            let bytes = encode(&message);
            assert_eq!(bytes.len() % PAD_TO, 0, "{size}");
            longer += usize::from(bytes.len() > size + 40 + PAD_TO);
            let body = Collector::default().push(&bytes).unwrap().unwrap();
            assert_eq!(unpack::<Sample>(&body).unwrap(), message);
        }
        // where a pad of just that length cannot be written
        assert!(longer <= 3, "{longer} are padded further than needed");
    }

    #[test]
    fn a_message_arrives_in_any_pieces_and_ends_its_record() {
        let bytes = encode(&Sample { text: "hello".into() });
        let mut collector = Collector::default();
        for byte in &bytes[..bytes.len() - 1] {
            assert_eq!(collector.push(&[*byte]), Ok(None));
        }
        assert!(collector.push(&bytes[bytes.len() - 1..]).unwrap().is_some());
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(Collector::default().push(&longer), Err(MessageError::Trailing(1)));
    }

    #[test]
    fn hostile_shapes_are_refused() {
        assert_eq!(Collector::default().push(b"HTTP"), Err(MessageError::Magic));
        let long = [&MAGIC[..], &20_000u32.to_be_bytes()].concat();
        assert_eq!(Collector::default().push(&long), Err(MessageError::TooLong(20_000)));
        // {"text": "a", "text": "b"}
        let twice = b"\x82\xa4text\xa1a\xa4text\xa1b";
        assert!(matches!(unpack::<Sample>(twice), Err(MessageError::DuplicateKey(_))));
        assert_eq!(unpack::<Sample>(b"\x81\x01\xa1a"), Err(MessageError::Key));
        let mut deep = vec![0x91; 9];
        deep.push(0xc0);
        assert_eq!(unpack::<rmpv::Value>(&deep), Err(MessageError::TooDeep));
        assert!(unpack::<rmpv::Value>(&[0x91; 10_000]).is_err());
        // an array that claims 4 billion entries
        assert!(unpack::<rmpv::Value>(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpack::<ClientMessage>(&bytes);
            let _ = unpack::<GatewayMessage>(&bytes);
        }
    }
}
