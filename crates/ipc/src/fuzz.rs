//! What reads a peer's bytes, for a fuzz target and the test that replays its corpus
//! (docs/fuzzing.md), without a socket.

use serde::{Serialize, de::DeserializeOwned};

use crate::frame::{self, HEADER_LEN};

/// The messages of this type in `bytes`, until there is one that is not whole or not right.
#[must_use]
pub fn messages<T: DeserializeOwned>(mut bytes: &[u8]) -> Vec<T> {
    let mut messages = Vec::new();
    while let Ok(Some(length)) = frame::whole_len(bytes) {
        let Some((whole, rest)) = bytes.split_at_checked(length) else { break };
        let Ok(message) = frame::decode(&whole[HEADER_LEN..]) else { break };
        messages.push(message);
        bytes = rest;
    }
    messages
}

/// The bytes of a message; `None` if it is too long.
#[must_use]
pub fn bytes(message: &impl Serialize) -> Option<Vec<u8>> {
    frame::encode(message).ok()
}
