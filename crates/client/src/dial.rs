//! Connections to the gateway: addresses, TCP or KCP, TLS with the pinned key, the opening.
//!
//! A profile has several ways to its gateways, the [`Rungs`] of a ladder (C6). While there is a
//! session, it goes on with its token ([`resume`]); otherwise the client logs in.

mod addresses;
mod clock;
mod datagrams;
mod error;
mod gateways;
mod hedge;
mod keeper;
mod reach;
mod resume;
mod rungs;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cipherwall_netcfg::MARK_DEFAULT;
use cipherwall_proto::{
    cipher::{CipherId, DatagramCipher},
    client::{Answer, Credential, Established, Opening, Resumable},
    device::DeviceKey,
    frame::Control,
    hint::{self, HINT_LEN},
    invitation::{Endpoint, Transport},
    keys::DoorKey,
    knock::SkipError,
    liveness::Keepalive,
    message::Welcome,
    rekey::{Limits, Side},
};
use cipherwall_transport::{
    Carrier, hardware, kcp,
    resolver::Resolver,
    socket::SocketFactory,
    tls::{Agreed, ClientConfig, Pin, TlsError, TlsStream},
    tunnel::{Link, Sender, Start},
};
use tokio::{net::TcpStream, sync::watch, time::timeout};

pub(crate) use self::{
    addresses::{Found, LOOK_UP_TIME},
    datagrams::Datagrams,
    error::DialError,
    reach::Report,
    rungs::Rungs,
};
use self::{
    clock::GatewayClock,
    hedge::Patience,
    keeper::Keeper,
    reach::{Handshake, Reach},
};
use crate::profile::{Profile, Profiles, Session};

/// How long TLS and the opening may take; the gateway may have log-ins waiting in a queue.
const OPENING_TIME: Duration = Duration::from_secs(20);
/// What the gateway's log says of this program.
const PROGRAM: &str = concat!("cipherwall ", env!("CARGO_PKG_VERSION"));

/// One address of an endpoint.
pub(crate) type Address = (Endpoint, SocketAddr);

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
    /// The rung that it is over.
    pub(crate) endpoint: Endpoint,
    /// Whether it was made beside one over a worse rung, which still works.
    pub(crate) climbed: bool,
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
    rungs: Rungs,
    gateway_clock: GatewayClock,
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
        let keeper = Some(Keeper::new(profiles.clone(), &profile));
        let factory = SocketFactory { mark: Some(mark) };
        let kept = Some((profiles, profile.name.clone()));
        let rungs = Rungs::new(profile.endpoints.clone(), kept);
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
            rungs,
            gateway_clock: GatewayClock::default(),
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

    /// What is known about the ways to the gateway.
    pub(crate) fn rungs(&self) -> &Rungs {
        &self.rungs
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
            rungs: Rungs::new(profile.endpoints.clone(), None),
            gateway_clock: GatewayClock::default(),
            resolver: None,
        }
    }

    async fn log_in(
        &self,
        addresses: &[Address],
        credential: &Credential<'_>,
    ) -> Result<Dialed, DialError> {
        self.log_in_over(self.connect(addresses, None).await?, credential).await
    }

    async fn log_in_over(
        &self,
        connected: Connected,
        credential: &Credential<'_>,
    ) -> Result<Dialed, DialError> {
        let Connected { mut stream, agreed, address, endpoint } = connected;
        let device = DeviceKey::from_seed(&self.profile.device_seed);
        let mut opening = self.opening(agreed);
        opening.offer_datagrams(&self.datagrams);
        let request = opening.request(credential, &device);
        let answer = ask(&mut stream, &mut opening, &request, address).await;
        self.rungs.asked(&(endpoint.clone(), address), &answer);
        match answer? {
            Answer::Welcome(established) => {
                let channel = opening.channel(&established.welcome);
                let datagrams = self.datagrams(channel, &established.welcome, address);
                Ok(start(stream, *established, datagrams, (endpoint, address)))
            }
            Answer::Refused(refused) => Err(DialError::Refused(refused)),
            Answer::Salt(_) | Answer::Resumed(_) => Err(DialError::NoAnswer { address }),
        }
    }

    /// A connection to the first address that works, then TLS; the gateway that gave this session is
    /// told of it by early data.
    async fn connect(
        &self,
        addresses: &[Address],
        session: Option<&(Session, Resumable)>,
    ) -> Result<Connected, DialError> {
        let (opens, shakes) = (self.clone(), self.clone());
        let hint = session.filter(|_| self.early_data).map(|(session, resumable)| {
            let door = DoorKey(*self.profile.door_key);
            (session.clone(), hint::hint(&resumable.token, &door))
        });
        let open = move |address: Address| -> hedge::Opening<Carrier> {
            let dialer = opens.clone();
            Box::pin(async move { dialer.open(address).await })
        };
        let handshake = move |address: Address, carrier: Carrier| -> Handshake<Connected> {
            let dialer = shakes.clone();
            let hint = hint.as_ref().filter(|(session, _)| dialer.is_of(session, &address.0));
            let hint = hint.map(|(_, hint)| *hint);
            Box::pin(async move { dialer.handshake(address, carrier, hint).await })
        };
        let reach = Reach {
            patience: self.patience,
            report: self.report.as_ref(),
            rungs: &self.rungs,
            open: Arc::new(open),
            handshake: Arc::new(handshake),
        };
        reach.connect(self.rungs.order(addresses)).await
    }

    /// A gateway refuses what comes out of its own tunnel; whoever asks it something while connected
    /// goes beside that.
    async fn open_tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let refused = match self.factory.connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
            opened => return opened,
        };
        let beside = SocketFactory { mark: Some(MARK_DEFAULT) };
        match self.factory.mark {
            None => beside.connect(address).await.map_err(|_| refused),
            Some(_) => Err(refused),
        }
    }

    /// What carries TLS.
    async fn open(&self, (endpoint, address): Address) -> io::Result<Carrier> {
        match endpoint.transport {
            Transport::Tls => self.open_tcp(address).await.map(Carrier::from),
            Transport::Kcp => {
                let door = DoorKey(*self.profile.door_key);
                let ahead_s = self.gateway_clock.ahead_s();
                kcp::connect(&self.factory, address, &door, ahead_s).await
            }
        }
    }

    async fn handshake(
        &self,
        (endpoint, address): Address,
        carrier: Carrier,
        hint: Option<[u8; HINT_LEN]>,
    ) -> Result<Connected, DialError> {
        let name = hello_name(&self.profile.sni, now_s()).unwrap_or(&endpoint.host);
        let handshake = async {
            let tls = self.tls(endpoint.pins)?;
            match hint {
                Some(hint) => tls.handshake_with_early_data(carrier, name, &hint).await,
                None => tls.handshake(carrier, name).await,
            }
        };
        match timeout(OPENING_TIME, handshake).await {
            Ok(Ok((stream, agreed))) => Ok(Connected { stream, agreed, address, endpoint }),
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
        let plaintext = match stream.read_record().await {
            // the gateway takes the tunnel's records here; only its web site still wants TLS
            Err(error) if error.is_alert() => {
                let cause = SkipError::GoAway.into();
                return Err(DialError::Opening { address, cause });
            }
            plaintext => plaintext.ok().flatten(),
        };
        // a connection that breaks here has lost the answer, whatever breaks it
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
    endpoint: Endpoint,
}

/// The tunnel begins.
fn start(
    stream: TlsStream,
    established: Established,
    datagrams: Option<Datagrams>,
    (endpoint, address): Address,
) -> Dialed {
    let Established { welcome, cipher, sealer, opener } = established;
    let (carrier, leftover) = stream.into_parts();
    let (keepalive, side) = (keepalive(&welcome), Side::Client(Limits::default()));
    let mut link = Link::new(Start { carrier, sealer, opener, keepalive, side });
    if let Some(datagrams) = &datagrams {
        link.add_datagrams(datagrams.channel.clone());
    }
    link.begin(&leftover);
    let (resumed, climbed) = (false, false);
    Dialed { link, welcome, cipher, address, resumed, datagrams, endpoint, climbed }
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
}
