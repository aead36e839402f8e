//! One connection, from its first byte to its last: handshake, web site or log-in, tunnel.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cipherwall_proto::{
    cipher::CipherId,
    gateway::{Demand, Established, Opening, OpeningError},
    keys::DoorKey,
    knock::Watch,
    message::{RefusalCode, Refused, Text, Welcome},
};
use cipherwall_transport::{
    tls::{TlsError, TlsStream},
    tunnel::{Link, Start},
};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    accounts::{Grant, Refusal},
    admin::unix_now,
    gateway::Gateway,
    listener::Place,
    session,
    site::{self, Knocked},
};

/// How long a client may take from its opener to a whole request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
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
    #[error(transparent)]
    Opening(#[from] OpeningError),
}

/// A client that was let in.
struct LetIn {
    grant: Grant,
    cipher: CipherId,
    established: Established,
}

/// Serves a connection to its end.
pub async fn serve(gateway: Arc<Gateway>, tcp: TcpStream, peer: SocketAddr, place: Place) {
    let knocked = match receive(&gateway, tcp).await {
        Ok(Some(knocked)) => knocked,
        Ok(None) => return tracing::debug!(%peer, "a visitor of the web site has left"),
        Err(error) => return tracing::debug!(%peer, %error, "connection ended"),
    };
    let (opening, Knocked { mut stream, rest }) = knocked;
    let let_in = match let_in(&gateway, &mut stream, opening, rest, peer).await {
        Ok(let_in) => let_in,
        Err(error) => return tracing::info!(%peer, %error, "a client came no further"),
    };
    drop(place);
    let (tcp, leftover) = stream.into_parts();
    let Established { sealer, opener } = let_in.established;
    let link =
        Link::new(Start { tcp, leftover, sealer, opener, keepalive: gateway.keepalive() });
    session::run(&gateway, link, let_in.grant, let_in.cipher, peer).await;
}

/// The TLS handshake, and the web site until the client has knocked.
async fn receive(
    gateway: &Gateway,
    tcp: TcpStream,
) -> Result<Option<(Opening, Knocked)>, Ended> {
    let limit = Duration::from_secs(gateway.config.limits.handshake_s.into());
    let (stream, agreed) =
        timeout(limit, gateway.tls.handshake(tcp)).await.map_err(|_| Ended::HandshakeTime)??;
    let keys = gateway.accounts.door_keys();
    let doors: Vec<DoorKey> =
        [Some(keys.current), keys.previous].into_iter().flatten().map(DoorKey).collect();
    let watch = Watch::new(&agreed.root, &doors, agreed.alpn);
    let knocked = site::serve(stream, watch, agreed.alpn).await;
    Ok(knocked.map(|knocked| (Opening::new(agreed.root, gateway.aes_hardware), knocked)))
}

/// Requests and answers, until one lets the client in.
async fn let_in(
    gateway: &Gateway,
    stream: &mut TlsStream,
    mut opening: Opening,
    rest: Vec<u8>,
    peer: SocketAddr,
) -> Result<LetIn, Ended> {
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
        let bytes = match decide(gateway, demand).await {
            Decision::Grant(grant) => {
                let cipher = opening.cipher();
                let (bytes, established) = opening.welcome(welcome(gateway, &grant));
                stream.send(&bytes).await?;
                return Ok(LetIn { grant: *grant, cipher, established });
            }
            Decision::Salt(salt) => opening.salt(salt),
            Decision::Refuse(refused) => {
                tracing::info!(%peer, reason = ?refused.code, "a client was refused");
                opening.refuse(refused)
            }
        };
        stream.send(&bytes).await?;
    }
}

enum Decision {
    Grant(Box<Grant>),
    Salt([u8; 16]),
    Refuse(Refused),
}

/// Looks a demand up.
async fn decide(gateway: &Gateway, demand: Demand) -> Decision {
    let now = unix_now();
    let granted = match demand {
        Demand::Refuse(refused) => return Decision::Refuse(refused),
        Demand::Salt { user } => return Decision::Salt(gateway.accounts.salt(&user)),
        Demand::Login { user, prehash, device } => {
            gateway.accounts.login(&user, &prehash, &device, now).await
        }
        Demand::Enrol { secret, device, prehash } => {
            gateway.accounts.enrol(&secret, &device, prehash.as_ref(), now).await
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
        Refusal::Used => Refused::new(RefusalCode::Used),
        Refusal::Full { pool, size } => Refused {
            detail: Some(format!("{pool}, {size} clients")),
            ..Refused::new(RefusalCode::Full)
        },
        Refusal::Busy { retry_after } => {
            Refused { retry_after: Some(retry_after), ..Refused::new(RefusalCode::Busy) }
        }
        // the client can do nothing about it but wait
        Refusal::Internal => Refused { retry_after: Some(60), ..Refused::new(RefusalCode::Busy) },
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
        pins: gateway.pins.map(Into::into).to_vec(),
    }
}
