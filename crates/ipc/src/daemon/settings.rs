//! Settings and profiles, as front ends see and change them. Secrets of a profile never leave the
//! daemon.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What `client.json` holds; its keys have the same names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The profile that is taken when none is named.
    pub default_profile: Option<String>,
    /// Whether the local network stays reachable while connected or blocked.
    pub allow_lan: bool,
    /// The cipher of the tunnel, as `connect --cipher` calls it.
    pub cipher: String,
    /// What carries packets, as `connect --transport` calls it.
    pub transport: String,
    /// The tunnel's MTU in bytes, instead of what the gateway says.
    pub mtu: Option<u16>,
    /// Whether a hint of the session is sent as TLS early data.
    pub early_data: bool,
    /// Networks (`192.0.2.0/24`) that are reached directly, outside of the tunnel.
    pub direct: Vec<String>,
    /// If any, the only networks that are reached through the tunnel; all others directly.
    pub only: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_profile: None,
            allow_lan: true,
            cipher: "auto".to_owned(),
            transport: "auto".to_owned(),
            mtu: None,
            early_data: false,
            direct: Vec::new(),
            only: Vec::new(),
        }
    }
}

/// What a person may see of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Whether it is taken when none is named.
    pub default: bool,
    /// The user at the gateway.
    pub user: String,
    /// How it logs in: by `invitation`; by `password`; or by one that is in the `keyring` of the
    /// person who logged in, who has to give it to [`Connect`](super::Connect).
    pub login: String,
    /// Where the gateway can be reached, in the order to be tried.
    pub endpoints: Vec<Endpoint>,
    /// Names for the TLS hello, instead of the gateway's host name.
    pub sni: Vec<String>,
    /// Addresses that worked, the latest first.
    pub last_good_addresses: Vec<SocketAddr>,
    /// Why it cannot be read; then all else but its name is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One way to reach a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// TCP port, or UDP port of `kcp`.
    pub port: u16,
    /// `tls` or `kcp`.
    pub transport: String,
    /// SHA-256 of the public keys that the gateway may have, as in the invitation.
    pub pins: Vec<String>,
}

/// What to change in a profile; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileChange {
    /// Which profile.
    pub profile: String,
    /// Its new name.
    pub name: Option<String>,
    /// Take it when none is named.
    pub default: bool,
    /// New names for the TLS hello; an empty list stands for the gateway's host name.
    pub sni: Option<Vec<String>>,
    /// The endpoint (`HOST:PORT`) to try first.
    pub prefer: Option<String>,
    /// Endpoints to try after those that there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<Box<AddEndpoints>>,
    /// The endpoint to forget: `HOST:PORT`, or `TRANSPORT:HOST:PORT` where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<String>,
}

/// Endpoints to add to a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddEndpoints {
    /// One without pins has those of `like`.
    pub endpoints: Vec<Endpoint>,
    /// An endpoint of the profile (`HOST:PORT`), if not its first.
    pub like: Option<String>,
    /// The invitation that they are from, if they are.
    pub from: Option<Origin>,
}

/// By what an invitation shows that it is for the users of a profile's gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Its user.
    pub user: String,
    /// SHA-256 of its door key, in hexadecimal digits.
    pub door: String,
}
