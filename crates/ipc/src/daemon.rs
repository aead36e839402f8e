//! Messages of the client's daemon (or of `connect --foreground`, which serves the same socket).
//!
//! Kept stable: command line, desktop client and scripts (`status --json`) rely on the names.
//! Fields may be added; readers take a missing one for its default.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The daemon's socket within the run directory (`/run/cipherwall`).
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("client.sock")
}

/// What a front end asks; each request gets one [`Reply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How things are: [`Reply::Status`].
    Status,
    /// Disconnect and undo all changes to this host: [`Reply::Done`] when that is done. A process
    /// that ends with it (`connect --foreground`) gives up its socket before it answers, so that
    /// the next one can start at once.
    Disconnect,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on its way to a socket")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Status),
    /// What was asked is done.
    Done,
    /// It failed.
    Error {
        /// What, where and what to do, for people.
        message: String,
    },
}

/// The state of the connection and what is known about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The state.
    pub state: State,
    /// The profile in use.
    pub profile: Option<String>,
    /// What carries packets now: `tls`, or `udp`.
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
}

/// The state of the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not connected and not about to be.
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_that_scripts_read_is_fixed() {
        let status = Status {
            state: State::Connected,
            profile: Some("home".into()),
            transport: Some("tls".into()),
            cipher: Some("aes-256-gcm".into()),
            inner_address: Some([10, 8, 0, 2].into()),
            inner_address_v6: Some(IpAddr::V6("fd00::2".parse().expect("an address"))),
            gateway: Some(([192, 0, 2, 1], 8443).into()),
            interface: Some("cw0".into()),
            rx_bytes: 1,
            tx_bytes: 2,
            since: Some(1_700_000_000),
            rtt_ms: Some(12.5),
            error: None,
            notice: None,
            lost_at: None,
            next_try: None,
        };
        assert_eq!(
            serde_json::to_string(&Reply::Status(status)).expect("JSON"),
            concat!(
                r#"{"status":{"state":"connected","profile":"home","transport":"tls","#,
                r#""cipher":"aes-256-gcm","inner_address":"10.8.0.2","#,
                r#""inner_address_v6":"fd00::2","gateway":"192.0.2.1:8443","interface":"cw0","#,
                r#""rx_bytes":1,"tx_bytes":2,"since":1700000000,"rtt_ms":12.5,"error":null,"#,
                r#""notice":null,"lost_at":null,"next_try":null}}"#,
            )
        );
        assert_eq!(serde_json::to_string(&Request::Disconnect).expect("JSON"), r#""disconnect""#);
        assert_eq!(serde_json::to_string(&Reply::Done).expect("JSON"), r#""done""#);
    }

    #[test]
    fn a_daemon_of_a_later_build_may_know_more_and_an_earlier_one_less() {
        let more = r#"{"status":{"state":"reconnecting","jitter_ms":3}}"#;
        let reply: Reply = serde_json::from_str(more).expect("read");
        let expected = Status { state: State::Reconnecting, ..Status::default() };
        assert_eq!(reply, Reply::Status(expected));
    }

    #[test]
    fn names_are_those_in_json() {
        for state in [
            State::Disconnected,
            State::Connecting,
            State::Connected,
            State::Reconnecting,
            State::Disconnecting,
        ] {
            let json = serde_json::to_string(&state).expect("JSON");
            assert_eq!(json, format!("\"{}\"", state.name()));
        }
    }
}
