//! A link that somebody pasted.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cipherwall_proto::invitation::Invitation;
use sha2::{Digest, Sha256};

/// First byte: the rest is the link's text, or the MessagePack in a link whose checksum is right.
pub(crate) fn run(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let link = if kind % 2 == 0 {
        let Ok(text) = std::str::from_utf8(data) else { return };
        text.to_owned()
    } else {
        let check = Sha256::digest(data);
        let body = URL_SAFE_NO_PAD.encode([data, &check[..4]].concat());
        format!("cipherwall://1/{body}")
    };
    match Invitation::from_link(&link) {
        Ok(invitation) => {
            assert!(!invitation.endpoints.is_empty());
            assert_eq!(Invitation::from_link(&invitation.to_link()), Ok(invitation));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
