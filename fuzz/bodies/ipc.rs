//! What comes to the daemon's socket from the people of its group, and to front ends from the daemon.

use cipherwall_ipc::{
    MESSAGE_MAX,
    daemon::{Reply, Request},
    fuzz,
};
use serde::{Serialize, de::DeserializeOwned};

/// First byte: whose messages, and whether the rest is the bytes of a socket, or JSON in a message whose
/// head is right.
pub(crate) fn run(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let bytes = match kind & 1 {
        0 => data.to_vec(),
        _ => {
            let json = [br#"{"v":1,"m":"#, data, b"}"].concat();
            let length = u32::try_from(json.len()).expect("no input is that long");
            [&length.to_be_bytes()[..], &json].concat()
        }
    };
    if kind & 2 == 0 { read::<Request>(&bytes) } else { read::<Reply>(&bytes) }
}

/// What is read can be written again.
fn read<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    for message in fuzz::messages::<T>(bytes) {
        let Some(again) = fuzz::bytes(&message) else {
            assert!(bytes.len() > MESSAGE_MAX / 8, "a short message became too long");
            continue;
        };
        assert_eq!(fuzz::messages::<T>(&again), [message]);
    }
}
