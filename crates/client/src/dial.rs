//! Connections to the gateway: addresses, TCP, TLS with the pinned key, the opening.
//!
//! While there is a session, it goes on with its token ([`resume`]); otherwise the client logs in.

mod datagrams;
mod hedge;
mod keeper;
mod reach;
mod resume;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cipherwall_cli::exit;
use cipherwall_proto::{
    cipher::{CipherId, DatagramCipher},
    client::{Answer, Credential, Established, Opening, OpeningError},
    device::DeviceKey,
    frame::Control,
    hint::HINT_LEN,
    invitation::Endpoint,
    keys::DoorKey,
    liveness::Keepalive,
    message::{RefusalCode, Refused, Welcome},
    rekey::{Limits, Side},
};
use cipherwall_transport::{
    hardware,
    resolver::Resolver,
    socket::SocketFactory,
    tls::{Agreed, ClientConfig, Pin, TlsError, TlsStream},
    tunnel::{Link, Sender, Start},
};
use tokio::{net::TcpStream, sync::watch, time::timeout};

pub(crate) use self::{datagrams::Datagrams, reach::Report};
use self::{
    hedge::Patience,
    keeper::Keeper,
    reach::{Handshake, Reach},
};
use crate::profile::{Profile, Profiles};

/// How long a name may take to resolve.
const RESOLVE_TIME: Duration = Duration::from_secs(5);
/// How long TLS and the opening may take; the gateway may have log-ins waiting in a queue.
const OPENING_TIME: Duration = Duration::from_secs(20);
/// How many addresses that worked earlier are tried beside those that the names have now.
const LAST_GOOD: usize = 2;
/// No gateway is that busy.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// What the gateway's log says of this program.
const PROGRAM: &str = concat!("cipherwall ", env!("CARGO_PKG_VERSION"));

/// Why the gateway was not reached or did not accept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The gateway's name has no address.
    #[error(
        "cannot find the address of {host}: {cause}; check this computer's internet connection \
         and DNS"
    )]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// No address accepted a connection.
    #[error(
        "cannot reach the gateway at {address}: {cause}; check this computer's internet \
         connection, and that the gateway is running and its port open"
    )]
    Unreachable {
        /// The last address tried.
        address: SocketAddr,
        /// Why it failed.
        cause: io::Error,
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
    #[error("no encrypted connection to {address}: {cause}; something on the way may alter it")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        cause: TlsError,
    },
    /// The gateway answered as it should not.
    #[error("the gateway at {address}: {cause}")]
    Opening {
        /// The address.
        address: SocketAddr,
        /// What was wrong.
        cause: OpeningError,
    },
    /// The gateway closed the connection, or did not answer in time.
    #[error("the gateway at {address} did not answer; try again, and look into its log")]
    NoAnswer {
        /// The address.
        address: SocketAddr,
    },
    /// There is a password, but it is not here.
    #[error(
        "the password of {user} is in the keyring of the person who logged in: connect as that \
         person, or log in anew: sudo cipherwall login {user}"
    )]
    NoPassword {
        /// The user.
        user: String,
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
            | DialError::NoPassword { .. }
            | DialError::Refused(_) => exit::FAILED,
        }
    }

    /// Whether trying again makes no sense before somebody does something.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            DialError::Refused(refused) => {
                is_final(refused.code) || refused.code == RefusalCode::Version
            }
            DialError::NoPassword { .. } => true,
            DialError::Resolve { .. }
            | DialError::Unreachable { .. }
            | DialError::WrongPin { .. }
            | DialError::Tls { .. }
            | DialError::Opening { .. }
            | DialError::NoAnswer { .. } => false,
        }
    }

    /// Whether the gateway may have done what it was asked for without our knowing.
    pub(crate) fn is_lost_answer(&self) -> bool {
        match self {
            DialError::NoAnswer { .. } | DialError::Tls { .. } => true,
            // it answered, but as somebody who does not know this invitation
            DialError::Opening { .. }
            | DialError::Resolve { .. }
            | DialError::Unreachable { .. }
            | DialError::WrongPin { .. }
            | DialError::NoPassword { .. }
            | DialError::Refused(_) => false,
        }
    }

    /// How long the gateway wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let DialError::Refused(Refused { retry_after, .. }) = self else { return None };
        retry_after.map(|seconds| Duration::from_secs(seconds.into()).min(RETRY_AFTER_MAX))
    }
}

fn is_final(code: RefusalCode) -> bool {
    match code {
        RefusalCode::Rejected
        | RefusalCode::Expired
        | RefusalCode::Revoked
        | RefusalCode::Superseded
        | RefusalCode::Used => true,
        RefusalCode::Busy | RefusalCode::Full | RefusalCode::Version | RefusalCode::Unknown => {
            false
        }
    }
}

/// A tunnel to the gateway.
pub(crate) struct Dialed {
    /// The tunnel.
    pub(crate) link: Link,
    /// What the gateway said.
    pub(crate) welcome: Welcome,
    /// The cipher agreed on.
    pub(crate) cipher: CipherId,
    /// The gateway's address.
    pub(crate) address: SocketAddr,
    /// Whether a session goes on that was there before.
    pub(crate) resumed: bool,
    /// The datagrams beside it, if the gateway offers any.
    pub(crate) datagrams: Option<Datagrams>,
    /// The pins by which the gateway was accepted.
    pins: [Pin; 2],
}

/// Opens connections for one profile. Clones share what they learn: the session, and TLS tickets.
#[derive(Clone)]
pub(crate) struct Dialer {
    profile: Profile,
    factory: SocketFactory,
    ciphers: Vec<CipherId>,
    /// Ciphers of datagrams, if they are wanted.
    datagrams: Vec<DatagramCipher>,
    /// None: each connection is a log-in.
    keeper: Option<Keeper>,
    /// Sends over the connection that waits for the gateway's answer to a resume.
    early: Arc<watch::Sender<Option<Arc<Sender>>>>,
    /// By the pins that they accept, with tickets of the gateway that holds one of them.
    tls: Arc<Mutex<HashMap<[Pin; 2], ClientConfig>>>,
    /// Whether the gateway is told beforehand which session is to go on (A9).
    early_data: bool,
    patience: Patience,
    report: Option<Report>,
    /// Instead of the host's own.
    resolver: Option<Resolver>,
}

impl Dialer {
    /// For the tunnel itself: `mark` keeps its packets outside of it.
    pub(crate) fn new(
        profile: Profile,
        profiles: Profiles,
        mark: u32,
        ciphers: Vec<CipherId>,
    ) -> Self {
        let keeper = Some(Keeper::new(profiles, &profile));
        let factory = SocketFactory { mark: Some(mark) };
        let (patience, report) = (Patience::Once, None);
        Self {
            profile,
            factory,
            ciphers,
            datagrams: Vec::new(),
            keeper,
            early: Arc::default(),
            tls: Arc::default(),
            early_data: false,
            patience,
            report,
            resolver: None,
        }
    }

    /// Whether to tell the gateway beforehand which session is to go on (A9).
    pub(crate) fn with_early_data(self, early_data: bool) -> Self {
        Self { early_data, ..self }
    }

    /// One that does not give up while nobody answers; what goes wrong meanwhile is reported.
    pub(crate) fn tireless(&self, report: Report) -> Self {
        Self { patience: Patience::Endless, report: Some(report), ..self.clone() }
    }

    /// Asks these DNS servers, by sockets like its own: the host's resolver cannot be used while
    /// traffic outside of the tunnel is blocked.
    pub(crate) fn with_resolvers(&self, servers: Vec<SocketAddr>) -> Self {
        Self { resolver: Some(Resolver::new(self.factory, servers)), ..self.clone() }
    }

    /// Whether names have to be asked for to know all addresses.
    pub(crate) fn has_names(&self) -> bool {
        self.profile.endpoints.iter().any(|endpoint| endpoint.host.parse::<IpAddr>().is_err())
    }

    /// Whose gateway it dials.
    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// For a single request while there is no tunnel. Needs no privileges.
    fn unmarked(profile: &Profile) -> Self {
        Self {
            profile: profile.clone(),
            factory: SocketFactory::default(),
            ciphers: CipherId::auto(hardware::aes()),
            datagrams: Vec::new(),
            keeper: None,
            early: Arc::default(),
            tls: Arc::default(),
            early_data: false,
            patience: Patience::Once,
            report: None,
            resolver: None,
        }
    }

    /// The addresses of the gateway, in the order to be tried. Names that cannot be resolved are
    /// replaced by the addresses that worked last.
    pub(crate) async fn resolve(&self) -> Result<Vec<(Endpoint, SocketAddr)>, DialError> {
        let mut found = Vec::new();
        let mut failed = None;
        for endpoint in &self.profile.endpoints {
            match self.lookup(endpoint).await {
                Ok(addresses) => found.extend(addresses.map(|a| (endpoint.clone(), a))),
                Err(cause) => {
                    let host = endpoint.host.clone();
                    failed.get_or_insert(DialError::Resolve { host, cause });
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

    async fn lookup(
        &self,
        endpoint: &Endpoint,
    ) -> io::Result<impl Iterator<Item = SocketAddr> + use<>> {
        let (host, port) = (endpoint.host.as_str(), endpoint.port);
        let found: Vec<SocketAddr> = match (host.parse::<IpAddr>(), &self.resolver) {
            (Ok(address), _) => vec![SocketAddr::new(address, port)],
            (Err(_), Some(resolver)) => {
                let found = resolver.addresses(host).await.map_err(io::Error::other)?;
                found.into_iter().map(|address| SocketAddr::new(address, port)).collect()
            }
            (Err(_), None) => timeout(RESOLVE_TIME, tokio::net::lookup_host((host, port)))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
                .collect(),
        };
        Ok(found.into_iter())
    }

    /// The same addresses in the order to be tried after one of them has worked, which comes first.
    /// Behind them, in case that a name leads elsewhere now, the last good ones.
    pub(crate) fn order_for_redial(
        &self,
        mut addresses: Vec<(Endpoint, SocketAddr)>,
        worked: SocketAddr,
    ) -> Vec<(Endpoint, SocketAddr)> {
        for good in self.profile.last_good_addresses.iter().take(LAST_GOOD) {
            let endpoint = self.profile.endpoints.iter().find(|e| e.port == good.port());
            if let Some(endpoint) = endpoint
                && !addresses.iter().any(|(_, known)| known == good)
            {
                addresses.push((endpoint.clone(), *good));
            }
        }
        reach::in_order(addresses, worked)
    }

    /// Goes on with the session at the first address that works; where there is none any more, logs
    /// in without asking anybody (A4).
    ///
    /// Of several connections only the one that is used is to be told to [`Dialer::keep`].
    pub(crate) async fn dial(
        &self,
        addresses: &[(Endpoint, SocketAddr)],
    ) -> Result<Dialed, DialError> {
        match self.try_resume(addresses).await {
            Some(dialed) => dialed,
            None => self.log_in_as_profile(addresses).await,
        }
    }

    /// With the profile's password if it has one, else as the device that used its invitation.
    async fn log_in_as_profile(
        &self,
        addresses: &[(Endpoint, SocketAddr)],
    ) -> Result<Dialed, DialError> {
        let profile = &self.profile;
        let credential = match &profile.prehash {
            Some(prehash) => Credential::Password { user: &profile.user, prehash },
            None if profile.keyring => {
                return Err(DialError::NoPassword { user: profile.user.clone() });
            }
            None => Credential::Invitation { secret: &profile.enrol_secret },
        };
        self.log_in(addresses, &credential).await
    }

    async fn log_in(
        &self,
        addresses: &[(Endpoint, SocketAddr)],
        credential: &Credential<'_>,
    ) -> Result<Dialed, DialError> {
        let connected = self.connect(addresses, None).await?;
        let Connected { mut stream, agreed, address, pins } = connected;
        let device = DeviceKey::from_seed(&self.profile.device_seed);
        let mut opening = self.opening(agreed);
        opening.offer_datagrams(&self.datagrams);
        let request = opening.request(credential, &device);
        match ask(&mut stream, &mut opening, &request, address).await? {
            Answer::Welcome(established) => {
                let channel = opening.channel(&established.welcome);
                let datagrams = self.datagrams(channel, &established.welcome, address);
                Ok(start(stream, *established, datagrams, address, pins))
            }
            Answer::Refused(refused) => Err(DialError::Refused(refused)),
            Answer::Salt(_) | Answer::Resumed(_) => Err(DialError::NoAnswer { address }),
        }
    }

    /// TCP to the first address that accepts, then TLS, with `hint` as early data.
    async fn connect(
        &self,
        addresses: &[(Endpoint, SocketAddr)],
        hint: Option<[u8; HINT_LEN]>,
    ) -> Result<Connected, DialError> {
        let reach =
            Reach { factory: self.factory, patience: self.patience, report: self.report.as_ref() };
        let connect = |(endpoint, address): (Endpoint, SocketAddr), tcp| -> Handshake<Connected> {
            let dialer = self.clone();
            Box::pin(async move { dialer.handshake(&endpoint, address, tcp, hint).await })
        };
        reach.connect(addresses, connect).await
    }

    async fn handshake(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
        tcp: TcpStream,
        hint: Option<[u8; HINT_LEN]>,
    ) -> Result<Connected, DialError> {
        let name = hello_name(&self.profile.sni, now_s()).unwrap_or(&endpoint.host);
        let handshake = async {
            let tls = self.tls(endpoint.pins)?;
            match hint {
                Some(hint) => tls.handshake_with_early_data(tcp, name, &hint).await,
                None => tls.handshake(tcp, name).await,
            }
        };
        match timeout(OPENING_TIME, handshake).await {
            Ok(Ok((stream, agreed))) => {
                Ok(Connected { stream, agreed, address, pins: endpoint.pins })
            }
            Ok(Err(error)) if error.is_wrong_pin() => Err(DialError::WrongPin { address }),
            Ok(Err(cause)) => Err(DialError::Tls { address, cause }),
            Err(_) => Err(DialError::NoAnswer { address }),
        }
    }

    /// TLS settings that accept these pins, the same ones each time for the sake of their tickets.
    fn tls(&self, pins: [Pin; 2]) -> Result<ClientConfig, TlsError> {
        let mut known = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known.get(&pins) {
            return Ok(config.clone());
        }
        let config = ClientConfig::new(pins.to_vec())?;
        known.insert(pins, config.clone());
        Ok(config)
    }

    fn opening(&self, agreed: Agreed) -> Opening {
        let door = DoorKey(*self.profile.door_key);
        Opening::new(agreed.root, &door, agreed.alpn, PROGRAM, &self.ciphers)
    }
}

/// Sends one request and reads the answer to it.
async fn ask(
    stream: &mut TlsStream,
    opening: &mut Opening,
    request: &[u8],
    address: SocketAddr,
) -> Result<Answer, DialError> {
    let exchange = async {
        stream.send(request).await.map_err(|cause| DialError::Tls { address, cause })?;
        read_answer(stream, opening, address).await
    };
    let answer = timeout(OPENING_TIME, exchange).await;
    answer.unwrap_or(Err(DialError::NoAnswer { address }))
}

async fn read_answer(
    stream: &mut TlsStream,
    opening: &mut Opening,
    address: SocketAddr,
) -> Result<Answer, DialError> {
    loop {
        // a connection that breaks here has lost the answer, whatever breaks it
        let plaintext = stream.read_record().await.ok().flatten();
        let plaintext = plaintext.ok_or(DialError::NoAnswer { address })?;
        let answer = opening.handle_record(&plaintext);
        if let Some(answer) = answer.map_err(|cause| DialError::Opening { address, cause })? {
            return Ok(answer);
        }
    }
}

/// The name that is shown in the TLS hello now, unless it is the host's.
pub(crate) fn shown_name(profile: &Profile) -> Option<&str> {
    hello_name(&profile.sni, now_s()).map(String::as_str)
}

/// The name to show in the TLS hello in place of the host (A16): each for a week, since a name that
/// changes with every connection would stand out.
fn hello_name(names: &[String], now_s: u64) -> Option<&String> {
    const WEEK_S: u64 = 7 * 24 * 3_600;
    let count = u64::try_from(names.len()).ok()?;
    let at = (now_s / WEEK_S).checked_rem(count)?;
    names.get(usize::try_from(at).ok()?)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// A connection after the TLS handshake.
struct Connected {
    stream: TlsStream,
    agreed: Agreed,
    address: SocketAddr,
    pins: [Pin; 2],
}

/// The tunnel begins.
fn start(
    stream: TlsStream,
    established: Established,
    datagrams: Option<Datagrams>,
    address: SocketAddr,
    pins: [Pin; 2],
) -> Dialed {
    let Established { welcome, cipher, sealer, opener } = established;
    let (tcp, leftover) = stream.into_parts();
    let (keepalive, side) = (keepalive(&welcome), Side::Client(Limits::default()));
    let mut link = Link::new(Start { tcp, sealer, opener, keepalive, side });
    if let Some(datagrams) = &datagrams {
        link.add_datagrams(datagrams.channel.clone());
    }
    link.begin(&leftover);
    Dialed { link, welcome, cipher, address, resumed: false, datagrams, pins }
}

/// As the gateway wants it.
fn keepalive(welcome: &Welcome) -> Keepalive {
    let interval = Duration::from_secs(u64::from(welcome.keepalive).clamp(1, 3_600));
    Keepalive { interval, ..Keepalive::default() }
}

/// Enrols this device with the profile's invitation, and leaves again; gives the address that
/// worked. An answer that is lost on the way is asked for once more: to the device that used it,
/// the invitation stays good.
pub(crate) async fn enrol(profile: &Profile) -> Result<SocketAddr, DialError> {
    let dialer = Dialer::unmarked(profile);
    let addresses = dialer.resolve().await?;
    let credential = Credential::Invitation { secret: &dialer.profile.enrol_secret };
    let dialed = match dialer.log_in(&addresses, &credential).await {
        Err(lost @ DialError::NoAnswer { .. }) => {
            match dialer.log_in(&addresses, &credential).await {
                // that it cannot be reached now says nothing about the first time
                Err(error) if !matches!(error, DialError::Refused(_)) => return Err(lost),
                again => again?,
            }
        }
        dialed => dialed?,
    };
    dialed.link.finish(&Control::Close).await;
    Ok(dialed.address)
}

/// Asks for the salt of a user whom the profile is not for.
pub(crate) async fn salt(profile: &Profile, user: &str) -> Result<[u8; 16], DialError> {
    let dialer = Dialer::unmarked(profile);
    let connected = dialer.connect(&dialer.resolve().await?, None).await?;
    let Connected { mut stream, agreed, address, .. } = connected;
    let mut opening = dialer.opening(agreed);
    let request = opening.request_salt(user);
    match ask(&mut stream, &mut opening, &request, address).await? {
        Answer::Salt(salt) => Ok(salt),
        Answer::Refused(refused) => Err(DialError::Refused(refused)),
        Answer::Welcome(_) | Answer::Resumed(_) => Err(DialError::NoAnswer { address }),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_hello_take_turns_by_the_week() {
        let names = ["a".to_owned(), "b".to_owned()];
        let week = 604_800;
        let shown = |at| hello_name(&names, at).cloned();
        assert_eq!((shown(0), shown(week - 1)), (Some("a".into()), Some("a".into())));
        assert_eq!((shown(week), shown(2 * week)), (Some("b".into()), Some("a".into())));
        assert_eq!(hello_name(&[], week), None);
    }

    fn refused(code: RefusalCode) -> DialError {
        DialError::Refused(Refused::new(code))
    }

    #[test]
    fn another_protocol_version_is_final_and_says_which_side_to_update() {
        for (versions, side) in [((2, 3), "update this program"), ((0, 0), "update the gateway")] {
            let refused =
                Refused { versions: Some(versions), ..Refused::new(RefusalCode::Version) };
            let error = DialError::Refused(refused);
            assert!(error.is_final());
            assert_eq!(error.exit_code(), exit::FAILED);
            assert!(error.to_string().ends_with(side), "{error}");
        }
    }

    #[test]
    fn a_busy_gateway_is_no_rejection_and_says_when_to_come_back() {
        let busy = Refused { retry_after: Some(40), ..Refused::new(RefusalCode::Busy) };
        let error = DialError::Refused(busy);
        assert!(!error.is_final());
        assert_eq!(error.exit_code(), exit::FAILED);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(40)));
        assert!(error.to_string().contains("busy; try again in 40 seconds"), "{error}");
        let endless = Refused { retry_after: Some(u32::MAX), ..Refused::new(RefusalCode::Busy) };
        assert_eq!(DialError::Refused(endless).retry_after(), Some(RETRY_AFTER_MAX));
        assert_eq!(refused(RefusalCode::Full).retry_after(), None);
    }

    #[test]
    fn a_rejected_device_is_final_with_its_own_exit_code() {
        for code in
            [RefusalCode::Rejected, RefusalCode::Expired, RefusalCode::Revoked, RefusalCode::Used]
        {
            assert!(refused(code).is_final());
            assert_eq!(refused(code).exit_code(), exit::REJECTED);
        }
    }
}
