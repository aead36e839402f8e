//! How far connections to each of the gateway's addresses come.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use cipherwall_proto::invitation::Endpoint;
use cipherwall_transport::{
    echo::echo,
    socket::SocketFactory,
    tls::{ClientConfig, TlsError},
};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// How long TCP may take: three tries of the kernel.
const TCP_TIME: Duration = Duration::from_secs(4);
/// How long TLS may take, on a connection that has been made.
const TLS_TIME: Duration = Duration::from_secs(5);
/// How long a machine may take to give any sign of life.
const ALIVE_TIME: Duration = Duration::from_secs(2);
/// Ports at which many machines answer, if only by a refusal.
const OTHER_PORTS: [u16; 3] = [443, 80, 22];
/// Segments that fit into the shortest packets that IPv4 paths are known to take.
const SHORT_MSS: u32 = 500;
/// More addresses are not looked at.
const ADDRESSES_MAX: usize = 12;

/// Where an address is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// DNS says so now.
    Dns,
    /// It worked earlier.
    Earlier,
    /// It stands in the profile.
    Profile,
}

/// One address, and how far connections to it come.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) endpoint: Endpoint,
    pub(super) address: SocketAddr,
    pub(super) source: Source,
    pub(super) outcome: Outcome,
}

/// How far a connection comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// To the end: this is the gateway.
    Good,
    /// Nothing comes back at all; whether the machine answers to anything else.
    Silent {
        /// It does.
        alive: bool,
    },
    /// The machine refuses: nothing listens there.
    Refused,
    /// There is no way there.
    NoWay(String),
    /// TLS fails.
    Altered(String),
    /// TLS fails only if this name is shown.
    NameBlocked(String),
    /// TLS works only in short packets.
    MtuHole,
    /// TLS works, with somebody else.
    WrongPin,
}

/// An address to be looked at.
pub(super) type Target = (Endpoint, SocketAddr, Source);

/// Looks at all of them at once; `name` is shown in the TLS hello, in place of the host's.
pub(super) async fn look(
    sockets: SocketFactory,
    name: Option<&str>,
    targets: Vec<Target>,
) -> Vec<Seen> {
    let mut looks = JoinSet::new();
    for (place, (endpoint, address, source)) in targets.into_iter().take(ADDRESSES_MAX).enumerate()
    {
        let name = name.unwrap_or(&endpoint.host).to_owned();
        looks.spawn(async move {
            let look = Look { sockets, endpoint: &endpoint, address, name };
            let outcome = look.outcome().await;
            (place, Seen { endpoint, address, source, outcome })
        });
    }
    let mut seen = looks.join_all().await;
    seen.sort_by_key(|(place, _)| *place);
    seen.into_iter().map(|(_, seen)| seen).collect()
}

struct Look<'a> {
    sockets: SocketFactory,
    endpoint: &'a Endpoint,
    address: SocketAddr,
    /// To be shown in the TLS hello.
    name: String,
}

impl Look<'_> {
    async fn outcome(&self) -> Outcome {
        match timeout(TCP_TIME, self.sockets.connect(self.address)).await {
            Ok(Ok(tcp)) => self.tls_outcome(tcp).await,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Outcome::Refused,
            Ok(Err(error)) => Outcome::NoWay(error.to_string()),
            Err(_) => {
                let alive = is_alive(self.sockets, self.address.ip()).await;
                Outcome::Silent { alive }
            }
        }
    }

    async fn tls_outcome(&self, tcp: TcpStream) -> Outcome {
        let failed = match self.handshake(tcp, &self.name).await {
            Ok(()) => return Outcome::Good,
            Err(error) if error.is_wrong_pin() => return Outcome::WrongPin,
            Err(error) => error.to_string(),
        };
        // An address is not shown: without a name there is nothing to be blocked by. That comes
        // first, since short packets, too, hide a name from some filters.
        let address = self.address.ip().to_string();
        if self.name.parse::<IpAddr>().is_err() && self.works(None, &address).await {
            return Outcome::NameBlocked(self.name.clone());
        }
        if self.works(Some(SHORT_MSS), &self.name).await {
            return Outcome::MtuHole;
        }
        Outcome::Altered(failed)
    }

    /// Whether another connection comes to the end.
    async fn works(&self, mss: Option<u32>, name: &str) -> bool {
        let connect = async {
            match mss {
                Some(mss) => self.sockets.connect_short(self.address, mss).await,
                None => self.sockets.connect(self.address).await,
            }
        };
        match timeout(TCP_TIME, connect).await {
            Ok(Ok(tcp)) => self.handshake(tcp, name).await.is_ok(),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// A full handshake each time, since a resumed one is shorter.
    async fn handshake(&self, tcp: TcpStream, name: &str) -> Result<(), TlsError> {
        let tls = ClientConfig::new(self.endpoint.pins.to_vec())?;
        let silent = |_| Err(TlsError::Io(io::ErrorKind::TimedOut.into()));
        timeout(TLS_TIME, tls.handshake(tcp, name)).await.unwrap_or_else(silent).map(drop)
    }
}

/// Whether a machine gives any sign of life: an echo, or an answer of whatever kind at another port.
async fn is_alive(sockets: SocketFactory, address: IpAddr) -> bool {
    let mut signs = JoinSet::new();
    signs.spawn(async move { echo(&sockets, address).await.is_ok() });
    for port in OTHER_PORTS {
        let port = SocketAddr::new(address, port);
        signs.spawn(async move {
            match sockets.connect(port).await {
                Ok(_) => true,
                Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            }
        });
    }
    let sign = async {
        while let Some(sign) = signs.join_next().await {
            if sign.unwrap_or(false) {
                return true;
            }
        }
        false
    };
    timeout(ALIVE_TIME, sign).await.unwrap_or(false)
}
