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
    tls::TlsError,
    tunnel::{Link, Start},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    accounts::{Foreseen, Grant, Refusal},
    admin::unix_now,
    datagrams::Datagrams,
    gateway::Gateway,
    listener::{Place, Shed, Stage},
    session,
    site::{self, Knocked},
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
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("no request in time")]
    RequestTime,
    #[error("too many TLS records before the tunnel")]
    TooManyRecords,
    #[error("closed before the tunnel")]
    Closed,
    #[error("its session does not go on")]
    NotResumed,
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

/// Serves a connection to its end, or until its place is needed.
pub async fn serve(
    gateway: Arc<Gateway>,
    tcp: TcpStream,
    peer: SocketAddr,
    mut place: Place,
    shed: Shed,
) {
    // Each step is in a box of its own, so that a connection takes the memory of the step it is in:
    // a silent one next to nothing, a session none of the web server's.
    let knocked = tokio::select! {
        knocked = receive(&gateway, tcp, &mut place) => knocked,
        _ = shed => return tracing::debug!(%peer, "too many connections: this one had to go"),
    };
    let knocked = match knocked {
        Ok(Some(knocked)) => knocked,
        Ok(None) => return tracing::debug!(%peer, "a visitor of the web site has left"),
        Err(error) => return tracing::debug!(%peer, %error, "connection ended"),
    };
    let Begun { link, grant, cipher } = match Box::pin(let_in(&gateway, *knocked, peer)).await {
        Ok(begun) => begun,
        Err(error) => return tracing::info!(%peer, %error, "a client came no further"),
    };
    drop(place);
    Box::pin(session::run(&gateway, *link, *grant, cipher, peer)).await;
}

/// The TLS handshake, and the web site until the client has knocked.
async fn receive(
    gateway: &Gateway,
    tcp: TcpStream,
    place: &mut Place,
) -> Result<Option<Box<Client>>, Ended> {
    let limit = Instant::now() + Duration::from_secs(gateway.config.limits.handshake_s.into());
    timeout_at(limit, tcp.readable())
        .await
        .map_err(|_| Ended::HandshakeTime)?
        .map_err(TlsError::from)?;
    place.advance(Stage::Speaking);
    Box::pin(visit(gateway, tcp, limit, place)).await
}

/// The rest of [`receive`], for connections that have sent something.
async fn visit(
    gateway: &Gateway,
    tcp: TcpStream,
    limit: Instant,
    place: &mut Place,
) -> Result<Option<Box<Client>>, Ended> {
    let tls = gateway.identity.tls();
    let keys = gateway.accounts.door_keys();
    let doors: Vec<DoorKey> =
        [Some(keys.current), keys.previous].into_iter().flatten().map(DoorKey).collect();
    let mut early = Early { gateway, doors: &doors, decided: false, foreseen: None };
    let handshake = tls.handshake_with_early_data(tcp, |bytes| early.look_at(bytes));
    let (stream, agreed) =
        timeout_at(limit, handshake).await.map_err(|_| Ended::HandshakeTime)??;
    let foreseen = early.foreseen;
    place.advance(Stage::Visitor);
    let watch = Watch::new(&agreed.root, &doors, agreed.alpn);
    let knocked = Box::pin(site::serve(stream, watch, agreed.alpn)).await;
    place.advance(Stage::Client);
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
) -> Result<Begun, Ended> {
    let mut records = 1;
    let mut plaintext = rest;
    loop {
        let demand = timeout(REQUEST_TIME, async {
            loop {
                if let Some(demand) = opening.handle_record(&plaintext)? {
                    return Ok::<_, Ended>(demand);
                }
                records += 1;
                if records > RECORDS_MAX {
                    return Err(Ended::TooManyRecords);
                }
                plaintext = stream.read_record().await?.ok_or(Ended::Closed)?;
            }
        })
        .await
        .map_err(|_| Ended::RequestTime)??;
        plaintext.clear();
        let bytes = match decide(gateway, demand, peer, &mut foreseen).await {
            Decision::Grant(grant) => {
                let cipher = opening.cipher();
                let mut welcome = welcome(gateway, &grant);
                if opening.datagram_cipher().is_some() {
                    welcome.datagram = gateway.datagrams.as_ref().map(Datagrams::offer);
                }
                let (bytes, established) = opening.welcome(welcome);
                stream.send(&bytes).await?;
                let (tcp, leftover) = stream.into_parts();
                let Established { sealer, opener, datagram } = established;
                let keepalive = gateway.keepalive();
                let side = Side::Gateway(gateway.rekey_policy());
                let mut link = Link::new(Start { tcp, sealer, opener, keepalive, side });
                if let Some(datagrams) = &gateway.datagrams
                    && let Some(channel) = datagram.and_then(|keys| datagrams.channel(keys))
                {
                    link.add_datagrams(channel);
                }
                // what a client that resumes has sent already: not opened before this
                link.begin(&leftover);
                return Ok(Begun { link: Box::new(link), grant, cipher });
            }
            Decision::Salt(salt) => opening.salt(salt),
            Decision::Refuse(refused) => {
                tracing::info!(%peer, reason = ?refused.code, "a client was refused");
                opening.refuse(refused)
            }
        };
        stream.send(&bytes).await?;
        if opening.is_resuming() {
            // behind the request came tunnel records that nobody can open
            let _ = timeout(REQUEST_TIME, stream.finish(DROPPED_MAX)).await;
            return Err(Ended::NotResumed);
        }
    }
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
