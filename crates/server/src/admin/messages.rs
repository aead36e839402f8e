//! What goes over the administration socket.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::accounts::{DeviceInfo, InvitationInfo, Invited, UserInfo};
use crate::identity::CertificateInfo;

/// What a command wants.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminRequest {
    /// A new user.
    UserAdd {
        /// As typed.
        name: String,
        /// None: enters by invitation only.
        password: Option<Zeroizing<String>>,
        /// When the account ends, in seconds from now.
        lifetime_s: Option<u64>,
    },
    /// All users.
    UserList,
    /// One user.
    UserShow {
        /// As typed.
        name: String,
    },
    /// Another password for a user.
    UserPassword {
        /// As typed.
        name: String,
        /// The new one.
        password: Zeroizing<String>,
    },
    /// Another end of an account.
    UserLifetime {
        /// As typed.
        name: String,
        /// When the account ends, in seconds from now; none: never.
        lifetime_s: Option<u64>,
    },
    /// A user is let in, or no more.
    UserEnable {
        /// As typed.
        name: String,
        /// Whether the user is let in from now on.
        enabled: bool,
    },
    /// A user goes, with all that belongs to the user.
    UserRemove {
        /// As typed.
        name: String,
    },
    /// Devices.
    DeviceList {
        /// As typed; none: of all users.
        user: Option<String>,
    },
    /// A device goes for good.
    DeviceRemove {
        /// Its number.
        id: i64,
    },
    /// An invitation for a user, who is made if missing.
    InviteCreate {
        /// As typed.
        name: String,
        /// How long it can be used first, in seconds.
        lifetime_s: u64,
    },
    /// All invitations.
    InviteList,
    /// An invitation becomes useless.
    InviteRevoke {
        /// Its number.
        id: i64,
    },
    /// All open sessions.
    SessionList,
    /// A session ends.
    SessionRevoke {
        /// How its id begins, in hexadecimal digits.
        id: String,
    },
    /// All sessions of a user end.
    SessionRevokeAll {
        /// As typed.
        user: String,
    },
    /// A new certificate for the running gateway, with the same key.
    CertRenew,
    /// How the gateway is.
    Status,
}

/// The answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminReply {
    /// It is done, to whom or to whose.
    Done {
        /// The user's normalised name.
        user: String,
        /// Sessions that ended by it.
        sessions: u64,
    },
    /// To [`AdminRequest::UserList`] and [`AdminRequest::UserShow`].
    Users(Vec<UserInfo>),
    /// To [`AdminRequest::DeviceList`].
    Devices(Vec<DeviceInfo>),
    /// To [`AdminRequest::InviteList`].
    Invitations(Vec<InvitationInfo>),
    /// To [`AdminRequest::CertRenew`].
    Certificate(CertificateInfo),
    /// To [`AdminRequest::InviteCreate`].
    Invited(Invited),
    /// To [`AdminRequest::SessionList`].
    Sessions(Vec<SessionInfo>),
    /// To [`AdminRequest::Status`].
    Status(StatusInfo),
    /// It could not be done.
    Failed {
        /// Why, and what to do about it.
        message: String,
    },
    /// The rows of the list so far, with more to come. Only on the socket.
    Part(Box<AdminReply>),
}

/// A session, as the administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// 32 hexadecimal digits.
    pub id: String,
    /// User name.
    pub user: String,
    /// Device number.
    pub device_id: i64,
    /// Device name.
    pub device: String,
    /// Inside address.
    pub inner_v4: Option<Ipv4Addr>,
    /// Inside IPv6 address.
    pub inner_v6: Option<Ipv6Addr>,
    /// Unix s.
    pub opened: u64,
    /// What only a running gateway knows; none: the client is away, and may come back.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveSession>,
}

/// The state of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusInfo {
    /// Whether a gateway runs here.
    pub running: bool,
    /// Of the program that answers.
    pub version: String,
    /// Number of users.
    pub users: u64,
    /// Number of devices of all users.
    pub devices: u64,
    /// Inside networks, with the gateway's address.
    pub networks: Vec<ipnet::IpNet>,
    /// How many clients they hold.
    pub pool_size: u64,
    /// What only a running gateway knows.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveStatus>,
}

/// What the gateway knows of itself since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveStatus {
    /// Start, Unix s.
    pub since: u64,
    /// Connected clients.
    pub sessions: u64,
    /// Those of them whose packets go in datagrams now.
    #[serde(default)]
    pub datagram_sessions: u64,
    /// The UDP ports for that, as `1194` or `9000-9099`; none: it is off.
    #[serde(default)]
    pub datagram_ports: Option<String>,
    /// Those of the connected clients that are over KCP.
    #[serde(default)]
    pub kcp_sessions: u64,
    /// The UDP port for that; none: it is off.
    #[serde(default)]
    pub kcp_port: Option<u16>,
    /// TCP connections that are not let in.
    #[serde(default)]
    pub strangers: Strangers,
    /// Inner bytes from clients.
    pub rx_bytes: u64,
    /// Inner bytes to clients.
    pub tx_bytes: u64,
    /// Inner packets that were not passed on.
    pub drops: Drops,
}

/// Connections that have not been let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strangers {
    /// Now.
    pub connections: u64,
    /// How many had to make room for others since the start: under attack many.
    pub gave_way: u64,
}

/// Dropped inner packets by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// From a client, but not from the address that it was given.
    pub spoofed_source: u64,
    /// From one client to another.
    pub client_to_client: u64,
    /// No IP packet, or an offload header that does not fit it.
    pub malformed: u64,
    /// To an inside address that nobody has at the moment.
    pub no_session: u64,
    /// To a client whose connection is slower than what arrives for it.
    pub congested: u64,
    /// No inner packets: UDP datagrams that came to the gateway and are of no session.
    #[serde(default)]
    pub foreign_datagrams: u64,
}

/// What the gateway knows of a connected session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSession {
    /// Where the client comes from.
    pub peer: SocketAddr,
    /// What carries packets to the client now: `tls`, `kcp` or `udp`.
    pub transport: String,
    /// What encrypts them.
    pub cipher: String,
    /// Start of this connection, Unix s.
    pub since: u64,
    /// Inner bytes from the client.
    pub rx_bytes: u64,
    /// Inner bytes to the client.
    pub tx_bytes: u64,
    /// How often this connection's keys were changed.
    pub rekeys: u64,
}
