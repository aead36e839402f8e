//! Messages of the client's daemon (or of `connect --foreground`, which serves the same socket).
//!
//! Kept stable: command line, desktop client and scripts (`status --json`) rely on the names.
//! Fields and requests may be added; readers take a missing field for its default, and a daemon
//! answers a request that it does not know with [`Reply::Error`].

#[cfg(feature = "fake")]
pub mod fake;
mod quality;
mod settings;
mod status;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use quality::{QUALITY_PAGE, Quality, Sample};
pub use settings::{AddEndpoints, Endpoint, Origin, Profile, ProfileChange, Settings};
pub use status::{Rung, State, Status};

/// The group whose members may command the daemon.
pub const GROUP: &str = "cipherwall";

/// How many lines of log [`Request::Logs`] gives at most.
pub const LOG_LINES: usize = 1_000;

/// The daemon's socket within the run directory (`/run/cipherwall`).
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("client.sock")
}

/// What a front end asks.
///
/// Each request gets one [`Reply`], which is [`Reply::Error`] if it failed; those that say so get
/// more before it, or go on until the front end closes its connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How things are: [`Reply::Status`].
    Status,
    /// [`Reply::Status`] now, at each change, and once a second while there is a connection, until
    /// the front end closes its own.
    Watch,
    /// Connect, or change over to another profile: [`Reply::Status`] at each change on the way, then
    /// [`Reply::Done`] when traffic flows.
    Connect(Connect),
    /// Disconnect and undo all changes to this host, except those of lockdown: [`Reply::Done`] when
    /// that is done. A process that ends with it (`connect --foreground`) gives up its socket before
    /// it answers, so that the next one can start at once.
    Disconnect,
    /// The same, whatever state the host is in: [`Reply::Repaired`].
    Repair,
    /// Block all traffic outside the tunnel always, or only from `connect` until `disconnect`:
    /// [`Reply::Done`] when that is in force.
    Lockdown {
        /// Whether from now on.
        on: bool,
    },
    /// Let programs ask names and use the web outside of the tunnel for five minutes, to log in at a
    /// captive portal; or end that before: [`Reply::Done`].
    Portal {
        /// Whether to open.
        open: bool,
    },
    /// How good the connection was, of the last hour: [`Reply::Quality`].
    Quality {
        /// Only samples of later than this, Unix seconds.
        after: u64,
    },
    /// The last lines of the log, oldest first: [`Reply::Log`] for each part of them, then
    /// [`Reply::Done`].
    Logs {
        /// How many at most; [`LOG_LINES`] are kept.
        lines: usize,
        /// Whether to go on with new lines instead, until the front end closes its connection.
        follow: bool,
    },
    /// [`Reply::Settings`].
    Settings,
    /// Replace the settings: [`Reply::Done`]. What concerns connections counts from the next one on.
    SetSettings(Settings),
    /// [`Reply::Profiles`].
    Profiles,
    /// Change a profile: [`Reply::Done`].
    ChangeProfile(ProfileChange),
    /// Forget a profile with its secrets: [`Reply::Done`].
    RemoveProfile {
        /// Its name.
        name: String,
    },
}

/// What to connect with; what is left out is as in the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connect {
    /// The profile; the default one, or the only one.
    pub profile: Option<String>,
    /// The cipher, as `connect --cipher` calls it.
    pub cipher: Option<String>,
    /// The transport, as `connect --transport` calls it.
    pub transport: Option<String>,
    /// Keep this host away from the local network, too.
    pub no_lan: bool,
    /// Say in TLS early data which session it is.
    pub early_data: bool,
    /// Connections that stay outside of the tunnel: those by which people are logged in.
    pub keep: Vec<Kept>,
    /// From the person's keyring, where the profile's `login` is `keyring`. The daemon keeps it in
    /// memory only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
}

/// What stands for a password at the gateway: 32 bytes in base64. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Login(pub String);

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(..)")
    }
}

/// A TCP connection of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on its way to a socket")]
pub enum Reply {
    /// How things are now.
    Status(Status),
    /// What was asked is done.
    Done,
    /// It failed.
    Error {
        /// What, where and what to do, for people.
        message: String,
        /// The exit code of a command that failed with it, as of the command line; 0 from a daemon
        /// that does not say.
        #[serde(default)]
        code: u8,
    },
    /// To [`Request::Repair`].
    Repaired {
        /// What was put back, for people.
        undone: Vec<String>,
        /// What was not, why, and what to do, for people.
        warnings: Vec<String>,
    },
    /// To [`Request::Quality`]: at most [`QUALITY_PAGE`] samples, oldest first; ask again with the
    /// time of the last one until there is none.
    Quality(Quality),
    /// To [`Request::Logs`].
    Log {
        /// As they are written.
        lines: Vec<String>,
    },
    /// To [`Request::Settings`].
    Settings(Settings),
    /// To [`Request::Profiles`].
    Profiles(Vec<Profile>),
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

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
            ..Status::default()
        };
        assert_eq!(
            serde_json::to_string(&Reply::Status(status)).expect("JSON"),
            concat!(
                r#"{"status":{"state":"connected","profile":"home","transport":"tls","#,
                r#""cipher":"aes-256-gcm","inner_address":"10.8.0.2","#,
                r#""inner_address_v6":"fd00::2","gateway":"192.0.2.1:8443","interface":"cw0","#,
                r#""rx_bytes":1,"tx_bytes":2,"since":1700000000,"rtt_ms":12.5,"error":null,"#,
                r#""notice":null,"lost_at":null,"next_try":null,"protected":false,"#,
                r#""lockdown":false,"portal_until":null,"allow_lan":false,"direct":[],"only":[],"#,
                r#""ladder":[]}}"#,
            )
        );
        assert_eq!(serde_json::to_string(&Request::Disconnect).expect("JSON"), r#""disconnect""#);
        assert_eq!(
            serde_json::to_string(&Request::Lockdown { on: true }).expect("JSON"),
            r#"{"lockdown":{"on":true}}"#
        );
        assert_eq!(serde_json::to_string(&Reply::Done).expect("JSON"), r#""done""#);
    }

    #[test]
    fn a_daemon_of_a_later_build_may_know_more_and_an_earlier_one_less() {
        let more = r#"{"status":{"state":"reconnecting","jitter_ms":3}}"#;
        let reply: Reply = serde_json::from_str(more).expect("read");
        let expected = Status { state: State::Reconnecting, ..Status::default() };
        assert_eq!(reply, Reply::Status(expected));
        let less = r#"{"error":{"message":"no"}}"#;
        let reply: Reply = serde_json::from_str(less).expect("read");
        assert_eq!(reply, Reply::Error { message: "no".into(), code: 0 });
        let connect: Request = serde_json::from_str(r#"{"connect":{}}"#).expect("read");
        assert_eq!(connect, Request::Connect(Connect::default()));
    }
}
