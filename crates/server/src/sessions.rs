//! The sessions that are connected at the moment, found by their inside addresses.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock},
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
    /// Its inside address.
    pub v4: Ipv4Addr,
    /// Its inside IPv6 address.
    pub v6: Ipv6Addr,
    /// Where the client comes from.
    pub peer: SocketAddr,
    /// What encrypts the tunnel.
    pub cipher: CipherId,
    /// Start of this connection, Unix seconds.
    pub since: u64,
    /// Sends to the client.
    pub sender: Arc<Sender>,
    /// Inner bytes from the client.
    pub received: Counter,
    /// Inner bytes to the client.
    pub sent: Counter,
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

/// All connected sessions.
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
    /// devices, and a device has one session.
    pub fn insert(&self, session: &Arc<Session>) {
        let mut sessions = self.by_address.write().unwrap_or_else(PoisonError::into_inner);
        for address in [IpAddr::V4(session.v4), IpAddr::V6(session.v6)] {
            if let Some(old) = sessions.insert(address, session.clone()) {
                old.kick(KickReason::Superseded);
            }
        }
    }

    /// A session is no longer connected.
    pub fn remove(&self, session: &Arc<Session>) {
        let mut sessions = self.by_address.write().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, other| !Arc::ptr_eq(other, session));
    }

    /// Every session once.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let sessions = self.by_address.read().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().filter(|(a, _)| a.is_ipv4()).map(|(_, session)| session.clone()).collect()
    }
}

impl From<&Session> for LiveSession {
    fn from(session: &Session) -> Self {
        LiveSession {
            peer: session.peer,
            transport: "tls".to_owned(),
            cipher: session.cipher.name().to_owned(),
            since: session.since,
            rx_bytes: session.received.value(),
            tx_bytes: session.sent.value(),
        }
    }
}
