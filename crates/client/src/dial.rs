//! Connections to the gateway: addresses, TCP, TLS with the pinned key, the opening.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use cipherwall_cli::exit;
use cipherwall_proto::{
    cipher::CipherId,
    client::{Answer, Credential, Established, Opening, OpeningError},
    device::DeviceKey,
    frame::Control,
    invitation::Endpoint,
    keys::DoorKey,
    liveness::Keepalive,
    message::{RefusalCode, Refused},
};
use cipherwall_transport::{
    hardware,
    socket::SocketFactory,
    tls::{Agreed, ClientConfig, TlsError, TlsStream},
    tunnel::{Link, Start},
};
use tokio::{net::TcpStream, time::timeout};

use crate::profile::Profile;

/// How long a name may take to resolve.
const RESOLVE_TIME: Duration = Duration::from_secs(5);
/// How long one address may take to accept a TCP connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long TLS and the opening may take; the gateway may have log-ins waiting in a queue.
const OPENING_TIME: Duration = Duration::from_secs(20);
/// What the gateway's log says of this program.
const PROGRAM: &str = concat!("cipherwall ", env!("CARGO_PKG_VERSION"));

/// Why the gateway was not reached or did not accept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The gateway's name has no address.
    #[error(
        "cannot find the address of {host}: {source}; check this computer's internet connection \
         and DNS"
    )]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address accepted a connection.
    #[error(
        "cannot reach the gateway at {address}: {source}; check this computer's internet \
         connection, and that the gateway is running and its port open"
    )]
    Unreachable {
        /// The last address tried.
        address: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// The key is not the gateway's.
    #[error(
        "{address} holds another key than this gateway's: somebody intercepts the connection, or \
         the gateway was set up anew; nothing was sent to it. If it was set up anew, ask its owner \
         for a new invitation"
    )]
    WrongPin {
        /// The address.
        address: SocketAddr,
    },
    /// The TLS handshake failed.
    #[error("no encrypted connection to {address}: {source}; something on the way may alter it")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        source: TlsError,
    },
    /// The gateway answered as it should not.
    #[error("the gateway at {address}: {source}")]
    Opening {
        /// The address.
        address: SocketAddr,
        /// What was wrong.
        source: OpeningError,
    },
    /// The gateway closed the connection, or did not answer in time.
    #[error("the gateway at {address} did not answer; try again, and look into its log")]
    NoAnswer {
        /// The address.
        address: SocketAddr,
    },
    /// The gateway said no.
    #[error(transparent)]
    Refused(Refused),
}

impl DialError {
    /// The exit code of a command that failed with this.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            DialError::Resolve { .. }
            | DialError::Unreachable { .. }
            | DialError::NoAnswer { .. } => exit::NOT_REACHABLE,
            DialError::Refused(refused) if is_final(refused.code) => exit::REJECTED,
            DialError::WrongPin { .. }
            | DialError::Tls { .. }
            | DialError::Opening { .. }
            | DialError::Refused(_) => exit::FAILED,
        }
    }

    /// Whether trying again makes no sense before somebody does something.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, DialError::Refused(refused)
            if is_final(refused.code) || refused.code == RefusalCode::Version)
    }

    /// Whether the request may have reached the gateway without its answer reaching us.
    fn is_lost_answer(&self) -> bool {
        matches!(self, DialError::NoAnswer { .. })
    }
}

fn is_final(code: RefusalCode) -> bool {
    match code {
        RefusalCode::Rejected | RefusalCode::Expired | RefusalCode::Revoked | RefusalCode::Used => {
            true
        }
        RefusalCode::Superseded | RefusalCode::Busy | RefusalCode::Full | RefusalCode::Version => {
            false
        }
    }
}

/// A tunnel to the gateway.
pub(crate) struct Dialed {
    /// The tunnel.
    pub(crate) link: Link,
    /// What the gateway said.
    pub(crate) welcome: cipherwall_proto::message::Welcome,
    /// The cipher agreed on.
    pub(crate) cipher: CipherId,
    /// The gateway's address.
    pub(crate) address: SocketAddr,
}

/// Opens connections for one profile.
#[derive(Clone)]
pub(crate) struct Dialer {
    profile: Profile,
    factory: SocketFactory,
    ciphers: Vec<CipherId>,
}

impl Dialer {
    /// For the tunnel itself: `mark` keeps its packets outside of it.
    pub(crate) fn new(profile: Profile, mark: u32, ciphers: Vec<CipherId>) -> Self {
        Self { profile, factory: SocketFactory { mark: Some(mark) }, ciphers }
    }

    /// For a single request while there is no tunnel. Needs no privileges.
    fn unmarked(profile: &Profile) -> Self {
        Self {
            profile: profile.clone(),
            factory: SocketFactory::default(),
            ciphers: CipherId::auto(hardware::aes()),
        }
    }

    /// The addresses of the gateway, in the order to be tried. Names that cannot be resolved are
    /// replaced by the addresses that worked last.
    pub(crate) async fn resolve(&self) -> Result<Vec<(Endpoint, SocketAddr)>, DialError> {
        let mut found = Vec::new();
        let mut failed = None;
        for endpoint in &self.profile.endpoints {
            match lookup(endpoint).await {
                Ok(addresses) => found.extend(addresses.map(|a| (endpoint.clone(), a))),
                Err(source) => {
                    let host = endpoint.host.clone();
                    failed.get_or_insert(DialError::Resolve { host, source });
                    let last = self.profile.last_good_addresses.iter();
                    let here = last.filter(|address| address.port() == endpoint.port);
                    found.extend(here.map(|address| (endpoint.clone(), *address)));
                }
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            Some(_) | None => Ok(found),
        }
    }

    /// Logs in at the first address that works, with the profile's password if it has one, else
    /// as the device that used its invitation.
    pub(crate) async fn dial(
        &self,
        addresses: &[(Endpoint, SocketAddr)],
    ) -> Result<Dialed, DialError> {
        let profile = &self.profile;
        let credential = match &profile.prehash {
            Some(prehash) => Credential::Password { user: &profile.user, prehash },
            None => Credential::Invitation { secret: &profile.enrol_secret },
        };
        self.log_in(addresses, &credential).await
    }

    async fn log_in(
        &self,
        addresses: &[(Endpoint, SocketAddr)],
        credential: &Credential<'_>,
    ) -> Result<Dialed, DialError> {
        let connected = self.connect(addresses).await?;
        let address = connected.address;
        let device = DeviceKey::from_seed(&self.profile.device_seed);
        let (stream, answer) =
            self.ask(connected, |opening| opening.request(credential, &device)).await?;
        match answer {
            Answer::Welcome(established) => Ok(start(stream, *established, address)),
            Answer::Refused(refused) => Err(DialError::Refused(refused)),
            Answer::Salt(_) => Err(DialError::NoAnswer { address }),
        }
    }

    /// TCP to the first address that accepts, then TLS.
    async fn connect(&self, addresses: &[(Endpoint, SocketAddr)]) -> Result<Connected, DialError> {
        let mut failed = None;
        for (endpoint, address) in addresses {
            let started = Instant::now();
            match self.connect_to(endpoint, *address).await {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    let took = started.elapsed();
                    tracing::debug!(%address, ?took, %error, "an address does not work");
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| DialError::Resolve {
            host: "the gateway".to_owned(),
            source: io::ErrorKind::NotFound.into(),
        }))
    }

    async fn connect_to(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
    ) -> Result<Connected, DialError> {
        let unreachable = |source| DialError::Unreachable { address, source };
        let tcp: TcpStream = timeout(CONNECT_TIME, self.factory.connect(address))
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        let name = self.profile.sni.first().unwrap_or(&endpoint.host);
        let handshake =
            async { ClientConfig::new(endpoint.pins.to_vec())?.handshake(tcp, name).await };
        match timeout(OPENING_TIME, handshake).await {
            Ok(Ok((stream, agreed))) => Ok(Connected { stream, agreed, address }),
            Ok(Err(error)) if error.is_wrong_pin() => Err(DialError::WrongPin { address }),
            Ok(Err(source)) => Err(DialError::Tls { address, source }),
            Err(_) => Err(DialError::NoAnswer { address }),
        }
    }

    /// Sends one request and reads the answer to it.
    async fn ask(
        &self,
        connected: Connected,
        request: impl FnOnce(&mut Opening) -> Vec<u8>,
    ) -> Result<(TlsStream, Answer), DialError> {
        let Connected { mut stream, agreed, address } = connected;
        let door = DoorKey(*self.profile.door_key);
        let mut opening = Opening::new(agreed.root, &door, agreed.alpn, PROGRAM, &self.ciphers);
        let request = request(&mut opening);
        let exchange = async {
            stream.send(&request).await.map_err(|source| DialError::Tls { address, source })?;
            loop {
                // a connection that breaks here has lost the answer, whatever breaks it
                let plaintext = stream.read_record().await.ok().flatten();
                let plaintext = plaintext.ok_or(DialError::NoAnswer { address })?;
                let answer = opening.handle_record(&plaintext);
                let answer = answer.map_err(|source| DialError::Opening { address, source })?;
                if let Some(answer) = answer {
                    return Ok(answer);
                }
            }
        };
        let answer = timeout(OPENING_TIME, exchange).await;
        let answer = answer.unwrap_or(Err(DialError::NoAnswer { address }))?;
        Ok((stream, answer))
    }
}

/// A connection after the TLS handshake.
struct Connected {
    stream: TlsStream,
    agreed: Agreed,
    address: SocketAddr,
}

async fn lookup(endpoint: &Endpoint) -> io::Result<impl Iterator<Item = SocketAddr>> {
    let host = (endpoint.host.as_str(), endpoint.port);
    timeout(RESOLVE_TIME, tokio::net::lookup_host(host))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map(|addresses| addresses.collect::<Vec<_>>().into_iter())
}

/// The tunnel begins.
fn start(stream: TlsStream, established: Established, address: SocketAddr) -> Dialed {
    let Established { welcome, cipher, sealer, opener } = established;
    let (tcp, leftover) = stream.into_parts();
    let keepalive = Keepalive {
        interval: Duration::from_secs(u64::from(welcome.keepalive).clamp(1, 3_600)),
        ..Keepalive::default()
    };
    let link = Link::new(Start { tcp, leftover, sealer, opener, keepalive });
    Dialed { link, welcome, cipher, address }
}

/// Enrols this device with the profile's invitation, and leaves again. An answer that is lost on
/// the way is asked for once more: to the device that used it, the invitation stays good.
pub(crate) async fn enrol(profile: &mut Profile) -> Result<(), DialError> {
    let dialer = Dialer::unmarked(profile);
    let addresses = dialer.resolve().await?;
    let credential = Credential::Invitation { secret: &dialer.profile.enrol_secret };
    let dialed = match dialer.log_in(&addresses, &credential).await {
        Err(error) if error.is_lost_answer() => dialer.log_in(&addresses, &credential).await?,
        dialed => dialed?,
    };
    profile.last_good_addresses = vec![dialed.address];
    dialed.link.finish(&Control::Close).await;
    Ok(())
}

/// Asks for the salt of a user whom the profile is not for.
pub(crate) async fn salt(profile: &Profile, user: &str) -> Result<[u8; 16], DialError> {
    let dialer = Dialer::unmarked(profile);
    let connected = dialer.connect(&dialer.resolve().await?).await?;
    let address = connected.address;
    match dialer.ask(connected, |opening| opening.request_salt(user)).await?.1 {
        Answer::Salt(salt) => Ok(salt),
        Answer::Refused(refused) => Err(DialError::Refused(refused)),
        Answer::Welcome(_) => Err(DialError::NoAnswer { address }),
    }
}

/// Checks a password's pre-hash, and leaves again.
pub(crate) async fn login(
    profile: &Profile,
    user: &str,
    prehash: &[u8; 32],
) -> Result<(), DialError> {
    let dialer = Dialer::unmarked(profile);
    let addresses = dialer.resolve().await?;
    let dialed = dialer.log_in(&addresses, &Credential::Password { user, prehash }).await?;
    dialed.link.finish(&Control::Close).await;
    Ok(())
}
