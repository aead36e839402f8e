//! The invitation: one link that holds all a client needs (C1; docs/protocol.md, "Invitation").
//!
//! `cipherwall://1/` ‖ base64url(MessagePack ‖ SHA-256(MessagePack)[..4])

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::ByteArray;
use sha2::{Digest, Sha256};

use crate::message;

const PREFIX: &str = "cipherwall://";
const VERSION: &str = "1";
/// The longest link that is looked at, in characters.
const LINK_MAX: usize = 8_192;
const CHECK_LEN: usize = 4;

/// All that a new client has to know. Holds secrets: whoever has an unused link can enrol.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Where the gateway can be reached, best first; at least one.
    pub endpoints: Vec<Endpoint>,
    /// The user this invitation is for, normalised.
    pub user: String,
    /// The user's salt.
    pub salt: [u8; 16],
    /// The door key G.
    pub door_key: [u8; 32],
    /// The secret that enrols one device.
    pub enrol_secret: [u8; 16],
    /// Until when the link can be used first, by the gateway's clock (Unix seconds).
    pub expires: u64,
    /// Names to give in the TLS hello instead of the host (A16); may be empty.
    pub sni: Vec<String>,
}

/// One way to reach a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// A DNS name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What is spoken there.
    pub transport: Transport,
    /// SHA-256 of the public keys (SPKI, DER) that are accepted: the one in use and the spare.
    #[serde(with = "pins")]
    pub pins: [[u8; 32]; 2],
}

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TLS 1.3 over TCP.
    Tls,
    /// TLS 1.3 over KCP, which is over UDP (A20).
    Kcp,
}

impl Transport {
    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tls => "tls",
            Transport::Kcp => "kcp",
        }
    }

    /// The transport of this name.
    pub fn from_name(name: &str) -> Option<Transport> {
        [Transport::Tls, Transport::Kcp].into_iter().find(|transport| transport.name() == name)
    }
}

/// Endpoints without those whose transport this program does not know: later gateways and programs
/// may have more.
///
/// # Errors
/// They are no endpoints.
pub fn known_endpoints<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Endpoint>, D::Error> {
    #[derive(Deserialize)]
    struct Any {
        host: String,
        port: u16,
        transport: String,
        #[serde(with = "pins")]
        pins: [[u8; 32]; 2],
    }
    let known = |Any { host, port, transport, pins }| {
        let transport = Transport::from_name(&transport)?;
        Some(Endpoint { host, port, transport, pins })
    };
    Ok(Vec::<Any>::deserialize(deserializer)?.into_iter().filter_map(known).collect())
}

/// Why a text is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// It does not begin with `cipherwall://`.
    #[error("this is no invitation: an invitation begins with cipherwall://")]
    NotAnInvitation,
    /// Made by a newer gateway.
    #[error(
        "the invitation has format {0:?}, which this program does not know; update this program"
    )]
    Version(String),
    /// Characters are missing or changed.
    #[error("the invitation is damaged; copy the whole link again")]
    Damaged,
    /// Whole, but not what an invitation holds.
    #[error("the invitation is malformed ({0}); ask for a new one")]
    Malformed(String),
}

/// The MessagePack map in the link; short keys keep the QR code small.
#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(rename = "e")]
    endpoints: Vec<Short>,
    #[serde(rename = "u")]
    user: String,
    #[serde(rename = "s")]
    salt: ByteArray<16>,
    #[serde(rename = "g")]
    door_key: ByteArray<32>,
    #[serde(rename = "k")]
    enrol_secret: ByteArray<16>,
    #[serde(rename = "x")]
    expires: u64,
    #[serde(rename = "n", default)]
    sni: Vec<String>,
}

/// An endpoint without what it has in common with the one before it.
#[derive(Serialize, Deserialize)]
struct Short {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    port: u16,
    transport: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pins: Option<Pins>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Pins(#[serde(with = "pins")] [[u8; 32]; 2]);

fn shortened(endpoints: &[Endpoint]) -> Vec<Short> {
    let before = std::iter::once(None).chain(endpoints.iter().map(Some));
    let short = |(endpoint, before): (&Endpoint, Option<&Endpoint>)| Short {
        host: before.is_none_or(|it| it.host != endpoint.host).then(|| endpoint.host.clone()),
        port: endpoint.port,
        transport: endpoint.transport.name().to_owned(),
        pins: before.is_none_or(|it| it.pins != endpoint.pins).then_some(Pins(endpoint.pins)),
    };
    endpoints.iter().zip(before).map(short).collect()
}

/// Whole again, without those of a transport that this program does not know; `None` if the first
/// one is not whole.
fn lengthened(short: Vec<Short>) -> Option<Vec<Endpoint>> {
    let (mut host, mut pins) = (None, None);
    let mut endpoints = Vec::new();
    for it in short {
        (host, pins) = (it.host.or(host), it.pins.or(pins));
        let (host, Pins(pins)) = (host.clone()?, pins?);
        if let Some(transport) = Transport::from_name(&it.transport) {
            endpoints.push(Endpoint { host, port: it.port, transport, pins });
        }
    }
    Some(endpoints)
}

impl Invitation {
    /// The link that [`Invitation::from_link`] reads.
    pub fn to_link(&self) -> String {
        let mut bytes = message::pack(&Body {
            endpoints: shortened(&self.endpoints),
            user: self.user.clone(),
            salt: self.salt.into(),
            door_key: self.door_key.into(),
            enrol_secret: self.enrol_secret.into(),
            expires: self.expires,
            sni: self.sni.clone(),
        });
        let check = Sha256::digest(&bytes);
        bytes.extend_from_slice(&check[..CHECK_LEN]);
        format!("{PREFIX}{VERSION}/{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a link; surrounding and inner white space (a mail client's line breaks) is ignored.
    pub fn from_link(link: &str) -> Result<Invitation, InvitationError> {
        let link: String = link.chars().filter(|c| !c.is_whitespace()).take(LINK_MAX + 1).collect();
        let rest = link.strip_prefix(PREFIX).ok_or(InvitationError::NotAnInvitation)?;
        let (version, text) = rest.split_once('/').ok_or(InvitationError::Damaged)?;
        if version != VERSION {
            return Err(InvitationError::Version(version.chars().take(16).collect()));
        }
        if link.len() > LINK_MAX {
            return Err(InvitationError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvitationError::Damaged)?;
        let (body, check) =
            bytes.split_last_chunk::<CHECK_LEN>().ok_or(InvitationError::Damaged)?;
        if Sha256::digest(body)[..CHECK_LEN] != check[..] {
            return Err(InvitationError::Damaged);
        }
        let body: Body =
            message::unpack(body).map_err(|error| InvitationError::Malformed(error.to_string()))?;
        let endpoints = lengthened(body.endpoints).unwrap_or_default();
        if endpoints.is_empty() {
            return Err(InvitationError::Malformed(
                "it names no gateway that this program knows how to reach; update this program"
                    .into(),
            ));
        }
        Ok(Invitation {
            endpoints,
            user: body.user,
            salt: body.salt.into_array(),
            door_key: body.door_key.into_array(),
            enrol_secret: body.enrol_secret.into_array(),
            expires: body.expires,
            sni: body.sni,
        })
    }
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Two pins as two byte strings in MessagePack, as two base64 strings where people may read it.
mod pins {
    use super::{ByteArray, Engine, URL_SAFE_NO_PAD};
    use serde::{
        Deserialize, Deserializer, Serialize, Serializer,
        de::{Error, Visitor},
    };

    pub(super) fn serialize<S: Serializer>(
        pins: &[[u8; 32]; 2],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            pins.map(|pin| URL_SAFE_NO_PAD.encode(pin)).serialize(serializer)
        } else {
            pins.map(ByteArray::new).serialize(serializer)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[[u8; 32]; 2], D::Error> {
        Ok(<[Pin; 2]>::deserialize(deserializer)?.map(|pin| pin.0))
    }

    struct Pin([u8; 32]);

    impl<'de> Deserialize<'de> for Pin {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(PinVisitor)
        }
    }

    struct PinVisitor;

    impl Visitor<'_> for PinVisitor {
        type Value = Pin;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a pin: 32 bytes, or these as base64url")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Pin, E> {
            let pin = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
            Ok(Pin(pin))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Pin, E> {
            self.visit_bytes(&URL_SAFE_NO_PAD.decode(text).map_err(E::custom)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Invitation {
        Invitation {
            endpoints: vec![Endpoint {
                host: "gateway.example".into(),
                port: 8443,
                transport: Transport::Tls,
                pins: [[1; 32], [2; 32]],
            }],
            user: "ali".into(),
            salt: [3; 16],
            door_key: [4; 32],
            enrol_secret: [5; 16],
            expires: 1_900_000_000,
            sni: vec![],
        }
    }

    #[test]
    fn a_link_carries_everything() {
        let link = sample().to_link();
        assert_eq!(Invitation::from_link(&link).unwrap(), sample());
        let folded = format!(" {}\r\n  {}\n", &link[..40], &link[40..]);
        assert_eq!(Invitation::from_link(&folded).unwrap(), sample());
    }

    #[test]
    fn each_kind_of_bad_link_says_so() {
        let link = sample().to_link();
        assert_eq!(Invitation::from_link("https://x"), Err(InvitationError::NotAnInvitation));
        let cut = Invitation::from_link(&link[..link.len() - 5]);
        assert_eq!(cut, Err(InvitationError::Damaged));
        let newer = link.replace("//1/", "//2/");
        assert_eq!(Invitation::from_link(&newer), Err(InvitationError::Version("2".into())));
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let text = format!("{:?}", sample());
        assert!(!text.contains("4, 4, 4") && !text.contains("5, 5, 5"), "{text}");
    }

    #[test]
    fn endpoints_of_one_gateway_hardly_make_a_link_longer() {
        let one = sample();
        let with = |endpoints: Vec<Endpoint>| Invitation { endpoints, ..sample() };
        let tls = one.endpoints[0].clone();
        let kcp = Endpoint { port: 443, transport: Transport::Kcp, ..tls.clone() };
        let other = Endpoint { host: "192.0.2.1".into(), pins: [[7; 32]; 2], ..tls.clone() };
        let two = with(vec![tls.clone(), kcp.clone()]);
        assert!(two.to_link().len() < one.to_link().len() + 40, "{}", two.to_link());
        let many = with(vec![tls.clone(), kcp.clone(), other.clone(), tls, kcp, other]);
        for invitation in [two, many] {
            assert_eq!(Invitation::from_link(&invitation.to_link()).unwrap(), invitation);
        }
    }

    #[test]
    fn transports_of_later_gateways_are_skipped() {
        // the same length, so that the map around it stays right
        let with = |transports: [&[u8; 3]; 2]| {
            let (pins, port) = ([[1; 32], [2; 32]], 8443);
            let endpoint =
                |host: &str| Endpoint { host: host.into(), port, transport: Transport::Tls, pins };
            let endpoints = vec![endpoint("a.example"), endpoint("b.example")];
            let link = Invitation { endpoints, ..sample() }.to_link();
            let bytes = URL_SAFE_NO_PAD.decode(&link[15..]).unwrap();
            let mut body = bytes[..bytes.len() - CHECK_LEN].to_vec();
            let mut new = transports.into_iter();
            while let Some(at) = body.windows(3).position(|three| three == b"tls") {
                body[at..at + 3].copy_from_slice(new.next().unwrap());
            }
            let check = Sha256::digest(&body);
            body.extend_from_slice(&check[..CHECK_LEN]);
            Invitation::from_link(&format!("cipherwall://1/{}", URL_SAFE_NO_PAD.encode(body)))
        };
        let known = with([b"uwu", b"kcp"]).unwrap().endpoints;
        assert_eq!(known.len(), 1);
        assert_eq!((known[0].host.as_str(), known[0].transport), ("b.example", Transport::Kcp));
        let none = with([b"uwu", b"owo"]).unwrap_err().to_string();
        assert!(none.contains("update this program"), "{none}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = Invitation::from_link(&text);
            let _ = Invitation::from_link(&format!("cipherwall://1/{text}"));
        }

        #[test]
        fn one_changed_character_is_noticed(at in 15usize..200, c in "[A-Za-z0-9_-]") {
            let mut link = sample().to_link();
            let at = 15 + at % (link.len() - 15);
            if link[at..=at] != c {
                link.replace_range(at..=at, &c);
                prop_assert!(Invitation::from_link(&link).is_err());
            }
        }
    }
}
