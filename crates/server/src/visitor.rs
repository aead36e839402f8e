//! One connection, from its first byte to its last: handshake, web site or log-in, tunnel.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cipherwall_proto::{
    cipher::CipherId,
    gateway::{Demand, Established, Opening, OpeningError},
    hint::{self, HINT_LEN},
    keys::DoorKey,
    knock::Watch,
    message::{RefusalCode, Refused, Text, Welcome},
    rekey::Side,
};
use cipherwall_transport::{
    Carrier,
    tls::{TlsError, TlsStream},
    tunnel::{Link, Start},
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    accounts::{Foreseen, Grant, Refusal},
    admin::unix_now,
    datagrams::Datagrams,
    gateway::Gateway,
    places::{Place, Shed, Stage},
    session,
    site::{self, First, Knocked},
};

/// How long a client may take from its opener to a whole request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Bytes of tunnel records that are read for nothing behind a resume that was refused.
const DROPPED_MAX: usize = 64 * 1024;
/// When to come back if the gateway itself is in trouble, as with a full disk; in seconds.
const RETRY_AFTER_FAILURE_S: u32 = 15;
/// TLS records that a client may send before the switch.
const RECORDS_MAX: u32 = 64;

/// Why a connection ended before it was a tunnel. For the log only: the other end learns nothing.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("no TLS handshake in time")]
    HandshakeTime,
    #[error("not TLS")]
    NoTls,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("no request in time")]
    RequestTime,
    #[error("the answer was not read in time")]
    AnswerTime,
    #[error("too many TLS records before the tunnel")]
    TooManyRecords,
    #[error("closed before the tunnel")]
    Closed,
    #[error("its session does not go on")]
    NotResumed,
    #[error("too many connections: this one had to go")]
    Shed,
    #[error(transparent)]
    Opening(#[from] OpeningError),
}

/// A client that was let in.
struct Begun {
    link: Box<Link>,
    grant: Box<Grant>,
    cipher: CipherId,
}

/// A client that knocked.
struct Client {
    opening: Opening,
    knocked: Knocked,
    /// The session that it hinted at.
    foreseen: Option<Foreseen>,
}

/// Serves a connection until it is let in, ends, or its place is needed. To run in the
/// [lobby](crate::lobby); a session goes on elsewhere.
pub async fn serve(
    gateway: Arc<Gateway>,
    carrier: Carrier,
    peer: SocketAddr,
    mut place: Place,
    shed: Shed,
) {
    let time = Duration::from_secs(gateway.config.limits.handshake_s.into());
    let limit = Instant::now() + time;
    let begun = match listen(&carrier, limit, &mut place, shed).await {
        Ok(shed) => tokio::select! {
            // looked at first, so that who has to go costs nothing more
            biased;
            _ = shed => Err(Ended::Shed),
            begun = Box::pin(enter(&gateway, carrier, limit, peer, &mut place)) => begun,
        },
        Err(error) => Err(error),
    };
    drop(place);
    match begun {
        Ok(Some(Begun { link, grant, cipher })) => {
            gateway.lobby.sessions().clone().spawn(async move {
                session::run(&gateway, *link, *grant, cipher, peer).await;
            });
        }
        Ok(None) => tracing::debug!(%peer, "a visitor of the web site has left"),
        Err(error) => tracing::debug!(%peer, %error, "connection ended"),
    }
}

/// Waits for the first byte.
async fn listen(
    carrier: &Carrier,
    limit: Instant,
    place: &mut Place,
    mut shed: Shed,
) -> Result<Shed, Ended> {
    tokio::select! {
        biased;
        readable = timeout_at(limit, carrier.readable()) => {
            readable.map_err(|_| Ended::HandshakeTime)?.map_err(TlsError::from)?;
        }
        _ = &mut shed => return Err(Ended::Shed),
    }
    place.speak(shed).ok_or(Ended::Shed)
}

/// From the first byte to the session; `None` for a visitor of the web site.
async fn enter(
    gateway: &Gateway,
    carrier: Carrier,
    limit: Instant,
    peer: SocketAddr,
    place: &mut Place,
) -> Result<Option<Begun>, Ended> {
    // Each step is in a box of its own, so that a connection takes the memory of the step it is in:
    // a silent one next to nothing, a session none of the web server's.
    let visit = Box::pin(visit(gateway, carrier, limit, place)).await?;
    let Some(client) = visit else { return Ok(None) };
    let let_in = Box::pin(let_in(gateway, *client, peer, place)).await;
    if let Err(error) = &let_in
        && let Some(unsaid) = gateway.quiet.may_say(std::time::Instant::now())
    {
        tracing::info!(%peer, %error, unsaid, "a client came no further");
    }
    let_in.map(Some)
}

/// The TLS handshake, and the web site until the client has knocked.
async fn visit(
    gateway: &Gateway,
    carrier: Carrier,
    limit: Instant,
    place: &mut Place,
) -> Result<Option<Box<Client>>, Ended> {
    let since = limit - Duration::from_secs(gateway.config.limits.handshake_s.into());
    let first = timeout_at(limit, site::first_bytes(&carrier)).await;
    match first.map_err(|_| Ended::HandshakeTime)?.map_err(TlsError::from)? {
        First::Tls => {}
        First::Plain => {
            gateway.site.serve_plain(carrier, since).await;
            return Ok(None);
        }
        First::Refused(refusal) => {
            site::refuse(&carrier, refusal);
            return Err(Ended::NoTls);
        }
    }
    let tls = gateway.identity.tls();
    let keys = gateway.accounts.door_keys();
    let doors: Vec<DoorKey> =
        [Some(keys.current), keys.previous].into_iter().flatten().map(DoorKey).collect();
    let mut early = Early { gateway, doors: &doors, decided: false, foreseen: None };
    let handshake = tls.handshake_with_early_data(carrier, |bytes| early.look_at(bytes));
    let (stream, agreed) =
        timeout_at(limit, handshake).await.map_err(|_| Ended::HandshakeTime)??;
    let foreseen = early.foreseen;
    place.advance(Stage::Visitor);
    let watch = Watch::new(&agreed.root, &doors, agreed.alpn);
    let knocked = Box::pin(gateway.site.serve(stream, watch, agreed.alpn, since)).await;
    place.advance(Stage::Knocked);
    let opening = Opening::new(agreed.root, gateway.aes_hardware);
    Ok(knocked.map(|knocked| Box::new(Client { opening, knocked, foreseen })))
}

/// The early data of a connection: one hint, or the web site's.
struct Early<'a> {
    gateway: &'a Gateway,
    doors: &'a [DoorKey],
    decided: bool,
    foreseen: Option<Foreseen>,
}

impl Early<'_> {
    /// How many of the bytes so far the web site is not to see. What a hint asks for goes on beside
    /// the handshake and has no answer.
    fn look_at(&mut self, bytes: &[u8]) -> usize {
        if self.decided || bytes.len() < HINT_LEN {
            return 0;
        }
        self.decided = true;
        let Some(token_hash) = hint::read(bytes, self.doors) else { return 0 };
        tracing::debug!("a client hints at its session");
        self.foreseen = Some(self.gateway.accounts.foresee(token_hash));
        HINT_LEN
    }
}

/// Requests and answers, until one lets the client in.
async fn let_in(
    gateway: &Gateway,
    Client { mut opening, knocked: Knocked { mut stream, rest }, mut foreseen }: Client,
    peer: SocketAddr,
    place: &mut Place,
) -> Result<Begun, Ended> {
    let mut records = 1;
    let mut plaintext = rest;
    loop {
        let next = next_demand(&mut opening, &mut stream, &mut plaintext, &mut records);
        let demand = timeout(REQUEST_TIME, next).await.map_err(|_| Ended::RequestTime)??;
        let asking = gateway.lobby.ask().await;
        if !place.advance(Stage::Asking) {
            return Err(Ended::Shed);
        }
        let decision = decide(gateway, demand, peer, &mut foreseen).await;
        drop(asking);
        let bytes = match decision {
            Decision::Grant(grant) => return begin(gateway, opening, stream, grant).await,
            Decision::Salt(salt) => opening.salt(salt),
            Decision::Refuse(refused) => {
                if let Some(unsaid) = gateway.quiet.may_say(std::time::Instant::now()) {
                    tracing::info!(%peer, reason = ?refused.code, unsaid, "a client was refused");
                }
                opening.refuse(refused)
            }
        };
        place.advance(Stage::Knocked);
        send(&mut stream, &bytes).await?;
        if opening.is_resuming() {
            // behind the request came tunnel records that nobody can open
            let _ = timeout(REQUEST_TIME, stream.finish(DROPPED_MAX)).await;
            return Err(Ended::NotResumed);
        }
    }
}

/// Reads records up to the end of a request. `plaintext`: of the next one.
async fn next_demand(
    opening: &mut Opening,
    stream: &mut TlsStream,
    plaintext: &mut Vec<u8>,
    records: &mut u32,
) -> Result<Demand, Ended> {
    loop {
        let demand = opening.handle_record(plaintext)?;
        plaintext.clear();
        if let Some(demand) = demand {
            return Ok(demand);
        }
        *records += 1;
        if *records > RECORDS_MAX {
            return Err(Ended::TooManyRecords);
        }
        *plaintext = stream.read_record().await?.ok_or(Ended::Closed)?;
    }
}

/// Welcomes the client; its session begins.
async fn begin(
    gateway: &Gateway,
    opening: Opening,
    mut stream: TlsStream,
    grant: Box<Grant>,
) -> Result<Begun, Ended> {
    let cipher = opening.cipher();
    let mut welcome = welcome(gateway, &grant);
    if opening.datagram_cipher().is_some() {
        welcome.datagram = gateway.datagrams.as_ref().map(Datagrams::offer);
    }
    let (bytes, established) = opening.welcome(welcome);
    send(&mut stream, &bytes).await?;
    let (carrier, leftover) = stream.into_parts();
    let Established { sealer, opener, datagram } = established;
    let keepalive = gateway.keepalive();
    let side = Side::Gateway(gateway.rekey_policy());
    let mut link = Link::new(Start { carrier, sealer, opener, keepalive, side });
    if let Some(datagrams) = &gateway.datagrams
        && let Some(channel) = datagram.and_then(|keys| datagrams.channel(keys))
    {
        link.add_datagrams(channel);
    }
    // what a client that resumes has sent already: not opened before this
    link.begin(&leftover);
    Ok(Begun { link: Box::new(link), grant, cipher })
}

/// An answer, to somebody who may not be reading.
async fn send(stream: &mut TlsStream, bytes: &[u8]) -> Result<(), Ended> {
    let sent = timeout(REQUEST_TIME, stream.send(bytes)).await;
    Ok(sent.map_err(|_| Ended::AnswerTime)??)
}

enum Decision {
    Grant(Box<Grant>),
    Salt([u8; 16]),
    Refuse(Refused),
}

/// Looks a demand up.
async fn decide(
    gateway: &Gateway,
    demand: Demand,
    peer: SocketAddr,
    foreseen: &mut Option<Foreseen>,
) -> Decision {
    let now = unix_now();
    let granted = match demand {
        Demand::Refuse(refused) => return Decision::Refuse(refused),
        Demand::Salt { user } => return Decision::Salt(gateway.accounts.salt(&user)),
        Demand::Login { user, prehash, device } => {
            gateway.accounts.login(&user, &prehash, &device, peer.ip(), now).await
        }
        Demand::Enrol { secret, device, prehash } => {
            gateway.accounts.enrol(&secret, &device, prehash.as_ref(), peer.ip(), now).await
        }
        Demand::Resume { token, signature } => {
            let is_signed_by = |device: &[u8; 32]| signature.is_by(device);
            let foreseen = foreseen.take();
            gateway.accounts.resume(&token, is_signed_by, peer.ip(), now, foreseen).await
        }
    };
    match granted {
        Ok(grant) => Decision::Grant(Box::new(grant)),
        Err(refusal) => Decision::Refuse(refused(refusal)),
    }
}

/// What the client is told.
fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::Rejected => Refused::new(RefusalCode::Rejected),
        Refusal::Expired => Refused::new(RefusalCode::Expired),
        Refusal::Revoked => Refused::new(RefusalCode::Revoked),
        Refusal::Superseded => Refused::new(RefusalCode::Superseded),
        Refusal::Used => Refused::new(RefusalCode::Used),
        Refusal::Full { pool, size } => Refused {
            detail: Some(format!("{pool}, {size} clients")),
            ..Refused::new(RefusalCode::Full)
        },
        Refusal::Busy { retry_after } => {
            Refused { retry_after: Some(retry_after), ..Refused::new(RefusalCode::Busy) }
        }
        // the client can do nothing about it but wait
        Refusal::Internal => {
            Refused { retry_after: Some(RETRY_AFTER_FAILURE_S), ..Refused::new(RefusalCode::Busy) }
        }
    }
}

fn welcome(gateway: &Gateway, grant: &Grant) -> Welcome {
    let pool = gateway.accounts.pool();
    Welcome {
        session_id: grant.session_id.into(),
        token: grant.token.into(),
        // the opening fills in what was agreed
        version: 0,
        cipher: 0,
        v4: Text(grant.inner_v4),
        v6: Text(grant.inner_v6),
        routes: cipherwall_netcfg::default_routes().into_iter().map(Text).collect(),
        dns: vec![Text(pool.gateway_v4().into()), Text(pool.gateway_v6().into())],
        mtu: gateway.config.mtu,
        keepalive: gateway.config.keepalive.interval_s,
        time: unix_now(),
        pins: gateway.identity.pins().map(Into::into).to_vec(),
        datagram: None,
    }
}
