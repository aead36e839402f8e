//! A connected session: from the client's connection to the TUN device.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cipherwall_packet::{ip, offload::OffloadHeader};
use cipherwall_proto::{
    cipher::CipherId,
    datagram::OLD_KEYS_LIVE,
    frame::{Control, KickReason},
    tunnel::Event,
};
use cipherwall_transport::tunnel::{Link, LinkError};
use tokio::sync::oneshot;

use crate::{
    accounts::{Grant, Standing},
    admin::unix_now,
    gateway::Gateway,
    metrics::Counter,
    sessions::Session,
};

/// What is kept of the packets for a client whose connection was lost, and for how long.
const KEPT_BYTES: usize = 128 * 1024;
const KEPT_TIME: Duration = Duration::from_secs(150);

/// How a session's connection came to its end.
enum End {
    /// The client has left for good.
    Closed,
    /// We end it.
    Kicked(KickReason),
    /// The path is dead; the client may come back.
    Silent,
    /// The connection failed; the client may come back.
    Failed(LinkError),
}

/// Serves a client that was let in until its connection ends.
pub async fn run(
    gateway: &Gateway,
    mut link: Link,
    grant: Grant,
    cipher: CipherId,
    peer: SocketAddr,
) {
    let (kick, kicked) = oneshot::channel();
    let session = Arc::new(Session {
        id: grant.session_id,
        user: grant.user,
        device_id: grant.device_id,
        generation: grant.generation,
        v4: grant.inner_v4,
        v6: grant.inner_v6,
        peer,
        cipher,
        since: unix_now(),
        sender: link.sender().clone(),
        received: Counter::default(),
        sent: Counter::default(),
        rekeys: Counter::default(),
        token_stored: AtomicBool::new(false),
        kick: Mutex::new(Some(kick)),
    });
    gateway.sessions.insert(&session);
    if let Some(datagrams) = &gateway.datagrams {
        datagrams.insert(&session);
    }
    // from here on it can be found by who ends sessions; before that it may have been missed
    match gateway.accounts.standing(session.device_id, session.generation).await {
        Standing::Open => {}
        Standing::Superseded => session.kick(KickReason::Superseded),
        Standing::Revoked => session.kick(KickReason::Revoked),
    }
    let Grant { resumed, .. } = grant;
    tracing::info!(user = session.user, %peer, address = %session.v4, %cipher, resumed, "connected");
    let end = serve(gateway, &session, &mut link, kicked).await;
    let user = &session.user;
    match end {
        End::Closed => {
            gateway.sessions.remove(&session);
            forget_datagrams(gateway, &session);
            tracing::info!(user, %peer, "disconnected");
            gateway.accounts.close_session(&session.id, session.generation, unix_now()).await;
        }
        End::Kicked(reason) => {
            gateway.sessions.remove(&session);
            tracing::info!(user, %peer, ?reason, "session ended");
            if reason != KickReason::Superseded {
                forget_datagrams(gateway, &session);
            }
            link.finish(&Control::Kick { reason }).await;
            // what the client sent before it heard of the new connection
            tokio::time::sleep(OLD_KEYS_LIVE).await;
            forget_datagrams(gateway, &session);
        }
        End::Silent => {
            tracing::info!(user, %peer, "the client has fallen silent");
            wait_for_next(gateway, &session, link).await;
        }
        End::Failed(error) => {
            tracing::info!(user, %peer, %error, "connection lost");
            wait_for_next(gateway, &session, link).await;
        }
    }
}

/// Keeps the last packets for the client's next connection, so that what has stalled inside the
/// tunnel goes on at once. `Sessions::insert` hands them over.
async fn wait_for_next(gateway: &Gateway, session: &Arc<Session>, link: Link) {
    session.sender.keep(KEPT_BYTES);
    drop(link);
    tokio::time::sleep(OLD_KEYS_LIVE).await;
    forget_datagrams(gateway, session);
    tokio::time::sleep(KEPT_TIME - OLD_KEYS_LIVE).await;
    gateway.sessions.remove(session);
}

/// Datagrams of this connection are opened no more.
fn forget_datagrams(gateway: &Gateway, session: &Session) {
    if let Some(datagrams) = &gateway.datagrams {
        datagrams.remove(session);
    }
}

async fn serve(
    gateway: &Gateway,
    session: &Session,
    link: &mut Link,
    mut kicked: oneshot::Receiver<KickReason>,
) -> End {
    let mut on_packet = |header: &OffloadHeader, packet: &[u8]| {
        pass_on(gateway, session, header, packet);
    };
    // to learn the round trip
    if let Err(error) = link.ping() {
        return End::Failed(error);
    }
    loop {
        let event = tokio::select! {
            event = link.run(&mut on_packet) => event,
            Ok(reason) = &mut kicked => return End::Kicked(reason),
        };
        session.rekeys.add(u64::from(link.epoch()).saturating_sub(session.rekeys.value()));
        gateway.counters.congested.add(link.take_dropped());
        // one that always has something to send must not keep the others waiting
        tokio::task::yield_now().await;
        match event {
            Ok(None | Some(Event::Suspect)) => {}
            Ok(Some(Event::Dead)) => return End::Silent,
            Ok(Some(Event::Peer(Control::Close))) => return End::Closed,
            Ok(Some(Event::Peer(Control::TokenStored))) => token_stored(gateway, session),
            // only gateways kick, and the tunnel sees to rekeys
            Ok(Some(Event::Peer(Control::Kick { .. } | Control::RekeyPlease))) => {}
            Err(error) => return End::Failed(error),
        }
    }
}

/// Retires the tokens before this connection's, once; in a task of its own, so that the packets do
/// not have to wait for the disk.
fn token_stored(gateway: &Gateway, session: &Session) {
    if session.token_stored.swap(true, Ordering::Relaxed) {
        return;
    }
    let (accounts, id, generation) = (gateway.accounts.clone(), session.id, session.generation);
    tokio::spawn(async move { accounts.token_stored(&id, generation).await });
}

/// Gives a client's packet to the kernel, if it may send it (docs/architecture.md).
fn pass_on(gateway: &Gateway, session: &Session, header: &OffloadHeader, packet: &[u8]) {
    if may_pass(gateway, session, packet) {
        write(gateway, header, packet);
    }
}

/// Whether a client may send this packet; it is counted.
pub fn may_pass(gateway: &Gateway, session: &Session, packet: &[u8]) -> bool {
    let counters = &gateway.counters;
    let refused = match ip::addresses(packet) {
        Err(_) => &counters.malformed,
        Ok((source, _)) if !session.owns(source) => &counters.spoofed_source,
        Ok((_, destination)) if gateway.is_other_client(destination) => &counters.client_to_client,
        Ok(_) => {
            session.received.add(packet.len() as u64);
            counters.received.add(packet.len() as u64);
            return true;
        }
    };
    refused.add(1);
    false
}

/// Gives a packet to the kernel.
pub fn write(gateway: &Gateway, header: &OffloadHeader, packet: &[u8]) {
    if let Err(error) = gateway.tun.write(header, packet) {
        if error.kind() == io::ErrorKind::InvalidData {
            gateway.counters.malformed.add(1);
        } else {
            tracing::debug!(%error, "the TUN device refuses a packet");
        }
    }
}

impl Gateway {
    /// Whether an address lies inside the tunnel and is not the gateway's own.
    fn is_other_client(&self, address: IpAddr) -> bool {
        let pool = self.accounts.pool();
        match address {
            IpAddr::V4(address) => pool.v4().contains(&address) && address != pool.gateway_v4(),
            IpAddr::V6(address) => pool.v6().contains(&address) && address != pool.gateway_v6(),
        }
    }
}
