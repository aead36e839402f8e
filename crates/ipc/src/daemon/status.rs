//! How the connection is.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The state of the connection and what is known about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The state.
    pub state: State,
    /// The profile in use.
    pub profile: Option<String>,
    /// What carries packets now: `tls`, `kcp`, or `udp`.
    pub transport: Option<String>,
    /// The cipher of these packets.
    pub cipher: Option<String>,
    /// This device's IPv4 address inside the tunnel.
    pub inner_address: Option<IpAddr>,
    /// This device's IPv6 address inside the tunnel.
    pub inner_address_v6: Option<IpAddr>,
    /// The gateway's address and port.
    pub gateway: Option<SocketAddr>,
    /// The TUN device.
    pub interface: Option<String>,
    /// Bytes of inner packets received since `since`.
    pub rx_bytes: u64,
    /// Bytes of inner packets sent since `since`.
    pub tx_bytes: u64,
    /// When the session began, Unix seconds.
    pub since: Option<u64>,
    /// Smoothed round trip to the gateway, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Why it is not connected, or was lost last, for people.
    pub error: Option<String>,
    /// What the user should know although it is connected, for people.
    pub notice: Option<String>,
    /// While reconnecting: when the connection was lost, Unix seconds.
    pub lost_at: Option<u64>,
    /// While reconnecting: when the next try is due, Unix seconds; absent if tries follow one
    /// another all the time.
    pub next_try: Option<u64>,
    /// Whether traffic outside of the tunnel is blocked now.
    pub protected: bool,
    /// Whether it is blocked always, connected or not.
    pub lockdown: bool,
    /// Until when names and web pages are let outside for a captive portal, Unix seconds.
    pub portal_until: Option<u64>,
    /// Whether the local network stays reachable.
    pub allow_lan: bool,
    /// Networks that are reached directly, outside of the tunnel.
    pub direct: Vec<String>,
    /// If any, the only networks that are reached through the tunnel; all others directly.
    pub only: Vec<String>,
    /// The ways to the gateways of the profile, best first.
    pub ladder: Vec<Rung>,
}

/// One way to a gateway, and why it is not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rung {
    /// Name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What is spoken there: `tls` or `kcp`.
    pub transport: String,
    /// Whether the session is over it.
    pub in_use: bool,
    /// What went wrong when it was tried last, for people; absent if nothing did, or it was not
    /// tried since a better one works.
    pub why: Option<String>,
    /// When that was, Unix seconds.
    pub failed_at: Option<u64>,
    /// When it is tried beside the one in use, which is worse; Unix seconds.
    pub next_try: Option<u64>,
}

/// The state of the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not connected and not about to be; traffic flows as without this program.
    #[default]
    Disconnected,
    /// On the way to the first connection.
    Connecting,
    /// Traffic flows.
    Connected,
    /// The connection was lost; the tunnel stays up meanwhile.
    Reconnecting,
    /// Taking everything back.
    Disconnecting,
    /// Traffic is blocked and nothing is tried: lockdown without a connection, or a connection that
    /// has ended for good.
    Blocked,
}

impl State {
    /// The name that users see, the same as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Disconnected => "disconnected",
            State::Connecting => "connecting",
            State::Connected => "connected",
            State::Reconnecting => "reconnecting",
            State::Disconnecting => "disconnecting",
            State::Blocked => "blocked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_in_json() {
        for state in [
            State::Disconnected,
            State::Connecting,
            State::Connected,
            State::Reconnecting,
            State::Disconnecting,
            State::Blocked,
        ] {
            let json = serde_json::to_string(&state).expect("JSON");
            assert_eq!(json, format!("\"{}\"", state.name()));
        }
    }
}
