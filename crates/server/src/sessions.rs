//! The sessions that are connected at the moment, found by their inside addresses.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::AtomicBool},
};

use cipherwall_proto::{cipher::CipherId, frame::KickReason};
use cipherwall_transport::tunnel::Sender;
use tokio::sync::oneshot;

use crate::{admin::LiveSession, metrics::Counter};

/// A connected session.
pub struct Session {
    /// Its id.
    pub id: [u8; 16],
    /// The user's name.
    pub user: String,
    /// Whose session this is: the device's row number.
    pub device_id: i64,
    /// Which of the device's connections this is.
    pub generation: i64,
    /// Its inside address.
    pub v4: Ipv4Addr,
    /// Its inside IPv6 address.
    pub v6: Ipv6Addr,
    /// Where the client comes from.
    pub peer: SocketAddr,
    /// What encrypts the stream.
    pub cipher: CipherId,
    /// Start of this connection, Unix seconds.
    pub since: u64,
    /// Sends to the client.
    pub sender: Arc<Sender>,
    /// Inner bytes from the client.
    pub received: Counter,
    /// Inner bytes to the client.
    pub sent: Counter,
    /// How often this connection's keys were changed (A7).
    pub rekeys: Counter,
    /// Whether the client has said that it has stored its token.
    pub token_stored: AtomicBool,
    /// Ends the session, once.
    pub kick: Mutex<Option<oneshot::Sender<KickReason>>>,
}

impl Session {
    /// Ends the session with a message to the client. Does nothing the second time.
    pub fn kick(&self, reason: KickReason) {
        let sender = self.kick.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // the session may be ending by itself
            let _ = sender.send(reason);
        }
    }

    /// Whether a packet may come from this address.
    pub fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.v4,
            IpAddr::V6(address) => address == self.v6,
        }
    }
}

/// All connected sessions, and those whose connection was lost a short while ago: packets for them
/// are kept.
#[derive(Default)]
pub struct Sessions {
    by_address: RwLock<HashMap<IpAddr, Arc<Session>>>,
}

impl Sessions {
    /// The session that has this inside address.
    pub fn find(&self, address: IpAddr) -> Option<Arc<Session>> {
        let sessions = self.by_address.read().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&address).cloned()
    }

    /// A session is connected. Whoever had its address is superseded: inside addresses belong to
    /// devices, and a device has one session. Two connections of a device that come at the same
    /// moment may arrive here in any order: the one granted later stays.
    pub fn insert(&self, session: &Arc<Session>) {
        let mut sessions = self.by_address.write().unwrap_or_else(PoisonError::into_inner);
        let is_later = |other: &Arc<Session>| {
            other.device_id == session.device_id && other.generation > session.generation
        };
        if sessions.get(&IpAddr::V4(session.v4)).is_some_and(is_later) {
            return session.kick(KickReason::Superseded);
        }
        for address in [IpAddr::V4(session.v4), IpAddr::V6(session.v6)] {
            if let Some(old) = sessions.insert(address, session.clone()) {
                old.kick(KickReason::Superseded);
                // never to another device that was given the address
                if old.device_id == session.device_id && !Arc::ptr_eq(&old, session) {
                    // a connection that has failed already is noticed by its own task
                    let _ = session.sender.adopt(old.sender.retire());
                }
            }
        }
    }

    /// A session is over.
    pub fn remove(&self, session: &Arc<Session>) {
        let mut sessions = self.by_address.write().unwrap_or_else(PoisonError::into_inner);
        for address in [IpAddr::V4(session.v4), IpAddr::V6(session.v6)] {
            if sessions.get(&address).is_some_and(|here| Arc::ptr_eq(here, session)) {
                sessions.remove(&address);
            }
        }
    }

    /// Every connected session once.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let sessions = self.by_address.read().unwrap_or_else(PoisonError::into_inner);
        let connected = sessions
            .iter()
            .filter(|(address, session)| address.is_ipv4() && !session.sender.has_failed());
        connected.map(|(_, session)| session.clone()).collect()
    }
}

impl From<&Session> for LiveSession {
    fn from(session: &Session) -> Self {
        let (transport, cipher) = match session.sender.datagrams() {
            Some(channel) => ("udp", channel.cipher().name()),
            None if session.sender.carrier().is_kcp() => ("kcp", session.cipher.name()),
            None => ("tls", session.cipher.name()),
        };
        LiveSession {
            peer: session.sender.carrier().moving_peer().unwrap_or(session.peer),
            transport: transport.to_owned(),
            cipher: cipher.to_owned(),
            since: session.since,
            rx_bytes: session.received.value(),
            tx_bytes: session.sent.value(),
            rekeys: session.rekeys.value(),
        }
    }
}
