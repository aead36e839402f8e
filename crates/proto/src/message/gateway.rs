//! What a gateway answers before the tunnel.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteArray;

/// One message of a gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GatewayMessage {
    /// The answer.
    pub reply: Reply,
}

/// The answer to a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Reply {
    /// The salt of the user asked for, known or not.
    Salt {
        /// 16 bytes.
        salt: ByteArray<16>,
    },
    /// Let in: the tunnel begins behind this message.
    Welcome(Box<Welcome>),
    /// Not let in.
    Refused(Refused),
}

/// What a client is told when it is let in.
#[derive(Clone, Serialize, Deserialize)]
pub struct Welcome {
    /// The session, for the key schedule.
    pub session_id: ByteArray<16>,
    /// The session token: a UUID v4 (A4).
    pub token: ByteArray<16>,
    /// The protocol version of the tunnel.
    pub version: u8,
    /// The cipher of the stream.
    pub cipher: u8,
    /// The client's IPv4 address inside the tunnel.
    pub v4: Text<Ipv4Addr>,
    /// The client's IPv6 address inside the tunnel, unique local.
    pub v6: Text<Ipv6Addr>,
    /// What goes through the tunnel.
    pub routes: Vec<Text<IpNet>>,
    /// Resolvers inside the tunnel.
    pub dns: Vec<Text<IpAddr>>,
    /// MTU inside the tunnel, in bytes.
    pub mtu: u16,
    /// Seconds without sending after which an end pings (A8).
    pub keepalive: u16,
    /// The gateway's clock (Unix seconds).
    pub time: u64,
    /// Public keys (SHA-256 of the SPKI) that belong to this gateway: in use, and spare.
    pub pins: Vec<ByteArray<32>>,
    /// Where packets may go as datagrams, if the client wants that and the gateway offers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagram: Option<DatagramOffer>,
}

/// A channel for datagrams beside the stream ([`crate::datagram`]).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramOffer {
    /// The cipher's number. It is part of the keys even if there is no port.
    pub cipher: u8,
    /// The gateway's UDP port for this session: the shared one, or one of a range (A22). 0: the
    /// gateway has no channel to offer at present.
    pub port: u16,
    /// The session in each datagram.
    pub index: u32,
    /// Hides index and counter from whoever looks on; the same for all sessions of a gateway.
    pub mask_key: ByteArray<32>,
}

impl DatagramOffer {
    /// A channel with this port, index and mask key. The cipher is set by
    /// [`crate::gateway::Opening::welcome`].
    pub fn new(port: u16, index: u32, mask_key: [u8; 32]) -> Self {
        Self { cipher: 0, port, index, mask_key: mask_key.into() }
    }

    /// No channel.
    pub(crate) fn none() -> Self {
        Self::new(0, 0, [0; 32])
    }
}

impl std::fmt::Debug for DatagramOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatagramOffer")
            .field("cipher", &self.cipher)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// A value that travels in its usual written form: addresses and networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Text).map_err(serde::de::Error::custom)
    }
}

impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome")
            .field("version", &self.version)
            .field("cipher", &self.cipher)
            .field("v4", &self.v4.0)
            .field("v6", &self.v6.0)
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The reason.
    pub code: RefusalCode,
    /// Seconds after which another try makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// The protocol versions that the gateway speaks, with [`RefusalCode::Version`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<(u8, u8)>,
    /// More for the user, in English; with [`RefusalCode::Full`] the pool and its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The reasons for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusalCode {
    /// Unknown user, wrong password, disabled: never told apart.
    Rejected,
    /// The invitation, the account, or the session to be resumed has expired.
    Expired,
    /// The invitation, or the session to be resumed, was revoked.
    Revoked,
    /// Another holder of the same token and device key has gone on with the session.
    Superseded,
    /// Too much to do; try again later.
    Busy,
    /// No inside address is free.
    Full,
    /// No common protocol version.
    Version,
    /// Another device has used the invitation.
    Used,
    /// A reason of a later version.
    #[serde(other)]
    Unknown,
}

impl Refused {
    /// A refusal with nothing but its reason.
    pub fn new(code: RefusalCode) -> Self {
        Self { code, retry_after: None, versions: None, detail: None }
    }
}

/// What a user reads, with the remedy.
impl Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            RefusalCode::Rejected => f.write_str(
                "the gateway rejected the log-in: wrong user name or password, or the account is \
                 disabled; check both, or ask the gateway's owner",
            ),
            RefusalCode::Expired => f.write_str(
                "the invitation or account has expired; ask the gateway's owner for a new one",
            ),
            RefusalCode::Revoked => f.write_str(
                "the invitation was revoked; ask the gateway's owner for a new one",
            ),
            RefusalCode::Superseded => {
                f.write_str(
                    "another computer has used a copy of this profile and taken over its session; if \
                     nobody should have one, ask the gateway's owner to remove this device and for a \
                     new invitation; otherwise connect again",
                )
            }
            RefusalCode::Busy => {
                let seconds = self.retry_after.unwrap_or(5);
                write!(f, "the gateway is busy; try again in {seconds} seconds")
            }
            RefusalCode::Full => {
                let pool = self.detail.as_deref().unwrap_or("the address pool");
                write!(f, "the gateway has no inside address left ({pool}); its owner can enlarge it")
            }
            RefusalCode::Version => {
                let Some((low, high)) = self.versions else {
                    return f.write_str(
                        "the gateway knows none of the ciphers offered; leave the choice to it \
                         (--cipher auto)",
                    );
                };
                let side = if low > crate::VERSION { "this program" } else { "the gateway" };
                write!(
                    f,
                    "no common protocol version: the gateway speaks {low} to {high}, this program \
                     {}; update {side}",
                    crate::VERSION
                )
            }
            RefusalCode::Unknown => f.write_str(
                "the gateway refused for a reason that this program does not know; update it",
            ),
            RefusalCode::Used => f.write_str(
                "another device has used this invitation; each works for one device, ask for a new one",
            ),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_mismatch_says_which_side_to_update() {
        let text =
            |versions| Refused { versions, ..Refused::new(RefusalCode::Version) }.to_string();
        assert!(text(Some((2, 3))).contains("update this program"));
        assert!(text(Some((0, 0))).contains("update the gateway"));
        assert!(text(None).contains("--cipher auto"));
    }
}
