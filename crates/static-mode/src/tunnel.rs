//! The running tunnel: its two directions, and what they share.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use cipherwall_proto::datagram::static_mode::{Inside, Keepalive, Opener, Role, Sealer};
use cipherwall_transport::udp::UdpSocket;
use cipherwall_tun::Device;
use tokio::{
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{StateFile, StateFileError, inward::Inward, outward::Outward};

/// All that static mode needs to run.
pub struct Tunnel {
    /// The inside.
    pub tun: Arc<Device>,
    /// The outside.
    pub socket: UdpSocket,
    /// Which end this is.
    pub role: Role,
    /// The inside addresses.
    pub inside: Inside,
    /// The longest inside packet that is sent, in bytes.
    pub mtu: usize,
    /// Where the peer is, as far as that is known; a gateway learns it.
    pub peer: Option<SocketAddr>,
    /// The sending direction.
    pub sealer: Sealer,
    /// The receiving direction.
    pub opener: Opener,
    /// Where its state is kept.
    pub state_file: StateFile,
}

/// A running tunnel. Dropping it ends it, without its state being stored.
pub struct Running {
    live: Live,
    /// Gives why it failed; empty once that was told.
    outward: JoinSet<io::Error>,
    inward: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

/// What can be seen of a tunnel while it runs.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

impl Tunnel {
    /// Stores the number of this run, then moves packets: each direction in a task of its own (B7).
    ///
    /// # Errors
    /// The state cannot be stored; nothing has been sent then.
    pub fn start(mut self) -> Result<Running, StateFileError> {
        if let Some(state) = self.opener.poll_store(Instant::now()) {
            self.state_file.store(state)?;
        }
        let shared = Arc::new(Shared {
            tun: self.tun,
            socket: self.socket,
            mtu: AtomicUsize::new(self.mtu),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            peer: Mutex::new(self.peer.map(|address| Peer { address, local: None })),
            heard: watch::Sender::new(None),
        });
        let keepalive = match self.role {
            Role::Client => Some(Keepalive::new(self.inside, Instant::now())),
            Role::Gateway => None,
        };
        let (stop, stopped) = oneshot::channel();
        let mut outward = JoinSet::new();
        outward.spawn(Outward::new(shared.clone(), self.sealer, keepalive).run());
        let inward = Inward::new(shared.clone(), self.role, self.opener, self.state_file);
        Ok(Running {
            live: Live(shared),
            outward,
            inward: tokio::spawn(inward.run(stopped)),
            stop: Some(stop),
        })
    }
}

impl Running {
    /// What can be seen of it.
    pub fn live(&self) -> Live {
        self.live.clone()
    }

    /// Waits until the TUN device is gone: for ever, usually. May be dropped and called again.
    pub async fn failed(&mut self) -> io::Error {
        match self.outward.join_next().await {
            Some(ended) => ended.unwrap_or_else(io::Error::other),
            None => std::future::pending().await,
        }
    }

    /// Ends it, and stores how far the peer has come.
    pub async fn stop(mut self) {
        self.outward.abort_all();
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.inward).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inward.abort();
    }
}

impl Live {
    /// Waits for the first authentic packet, and tells where it came from.
    pub async fn heard(&self) -> Option<SocketAddr> {
        let mut heard = self.0.heard.subscribe();
        heard.wait_for(Option::is_some).await.ok().and_then(|peer| *peer)
    }

    /// Where the peer is, as far as known.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer().map(|peer| peer.address)
    }

    /// Bytes of inside packets: received, sent.
    pub fn traffic(&self) -> (u64, u64) {
        (self.0.received.load(Ordering::Relaxed), self.0.sent.load(Ordering::Relaxed))
    }
}

/// What the two directions share.
pub(crate) struct Shared {
    pub(crate) tun: Arc<Device>,
    pub(crate) socket: UdpSocket,
    /// The longest inside packet that is sent.
    pub(crate) mtu: AtomicUsize,
    /// Bytes of inside packets.
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    peer: Mutex<Option<Peer>>,
    /// Where the last new packet came from.
    heard: watch::Sender<Option<SocketAddr>>,
}

/// Where the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The gateway's address that a client sends to, which answers have to come from. A client sends
    /// from whichever address the way there has now.
    pub(crate) local: Option<IpAddr>,
}

impl Shared {
    pub(crate) fn peer(&self) -> Option<Peer> {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer has sent a new packet from there.
    pub(crate) fn heard_from(&self, peer: Peer) {
        let before = self.peer.lock().unwrap_or_else(PoisonError::into_inner).replace(peer);
        let first = self.heard.send_replace(Some(peer.address)).is_none();
        if first {
            tracing::info!("the peer is there");
        } else if before.is_some_and(|before| before.address != peer.address) {
            tracing::info!("the peer has moved to another address");
        }
        tracing::debug!(address = %peer.address, "the peer's address");
    }

    /// Whether anything came from the peer yet.
    pub(crate) fn was_heard(&self) -> bool {
        self.heard.borrow().is_some()
    }
}
