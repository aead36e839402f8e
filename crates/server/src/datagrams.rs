//! The datagrams of sessions: the sockets they come to, and whose each one is (design 3.8, A22).
//!
//! A task for each socket opens what is there and gives the packets to the kernel. What belongs to
//! no session, or is not authentic, is dropped; nobody is answered.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use cipherwall_packet::offload::Coalescer;
use cipherwall_proto::{
    datagram::{self, Head, KEEPALIVE, Masks},
    message::DatagramOffer,
};
use cipherwall_transport::{
    datagram::{Arrival, Channel, Start, give_back_received, take_received},
    socket::{ListenError, SocketFactory},
    udp::{Datagram, Received, UdpSocket},
};

use crate::{config::Config, gateway::Gateway, session, sessions::Session};

/// How often a socket is emptied before others have their turn.
const BATCHES: usize = 8;
/// Pause after a failure to receive.
const PAUSE: Duration = Duration::from_millis(100);

/// What the gateway offers to clients that want datagrams.
pub struct Datagrams {
    ports: RangeInclusive<u16>,
    mtu: u16,
    mask_key: [u8; 32],
    masks: Masks,
    /// Of the next channel. Counted, so that no two have the same.
    next_index: AtomicU32,
    by_index: RwLock<HashMap<u32, Arc<Session>>>,
}

impl Datagrams {
    /// As configured; `None` if they are off.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(config: &Config) -> Result<Option<Self>, getrandom::Error> {
        let Some(ports) = config.datagrams.offered() else { return Ok(None) };
        let mut mask_key = [0; 32];
        getrandom::fill(&mut mask_key)?;
        Ok(Some(Self {
            ports,
            mtu: config.mtu,
            masks: Masks::new(&mask_key),
            mask_key,
            next_index: AtomicU32::new(getrandom::u32()?),
            by_index: RwLock::default(),
        }))
    }

    /// A socket for each port, on each address that the gateway listens on.
    ///
    /// # Errors
    /// A port is taken, or an address is not of this machine.
    pub fn listen(&self, config: &Config) -> Result<Vec<UdpSocket>, ListenError> {
        let addresses: BTreeSet<IpAddr> = config.listen.iter().map(SocketAddr::ip).collect();
        let all = addresses
            .into_iter()
            .flat_map(|address| self.ports.clone().map(move |port| SocketAddr::new(address, port)));
        all.map(|address| SocketFactory::default().udp_listen(address)).collect()
    }

    /// The ports, as people write them.
    pub fn ports(&self) -> String {
        let (first, last) = (self.ports.start(), self.ports.end());
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    }

    /// A channel for a client that wants one. Sessions share the ports in turns.
    pub fn offer(&self) -> DatagramOffer {
        let index = self.next_index.fetch_add(1, Ordering::Relaxed);
        let turn = index as usize % self.ports.len().max(1);
        let port = self.ports.clone().nth(turn).unwrap_or(*self.ports.start());
        DatagramOffer::new(port, index, self.mask_key)
    }

    /// The gateway's end of a channel that was offered; `None` if the system gives no random bytes,
    /// and the stream has to do.
    pub fn channel(&self, channel: datagram::Channel) -> Option<Arc<Channel>> {
        let masks = self.masks.clone();
        let start =
            Start { channel, masks, client: None, inner_mtu: self.mtu, keepalive: KEEPALIVE };
        Channel::new(start)
            .inspect_err(|error| tracing::error!(%error, "no datagrams for a client"))
            .ok()
    }

    /// Datagrams of this session are opened from now on.
    pub fn insert(&self, session: &Arc<Session>) {
        if let Some(channel) = session.sender.channel() {
            let mut sessions = self.by_index.write().unwrap_or_else(PoisonError::into_inner);
            sessions.insert(channel.index(), session.clone());
        }
    }

    /// Datagrams of this session are opened no more.
    pub fn remove(&self, session: &Session) {
        if let Some(channel) = session.sender.channel() {
            let mut sessions = self.by_index.write().unwrap_or_else(PoisonError::into_inner);
            sessions.remove(&channel.index());
        }
    }

    /// Whose datagram it may be. Nothing is authentic yet.
    fn owner(&self, datagram: &[u8], last: Option<&Owned>) -> Option<Owned> {
        self.masks.heads(datagram).find_map(|head| {
            if let Some(last) = last.filter(|last| last.head.index == head.index) {
                return Some(Owned { head, session: last.session.clone() });
            }
            let sessions = self.by_index.read().unwrap_or_else(PoisonError::into_inner);
            let session = sessions.get(&head.index)?.clone();
            Some(Owned { head, session })
        })
    }
}

/// What a datagram says of itself, and the session that it says to be of.
struct Owned {
    head: Head,
    session: Arc<Session>,
}

/// Receives for as long as the gateway runs.
pub(crate) async fn receive(gateway: Arc<Gateway>, socket: Arc<UdpSocket>) {
    let Some(datagrams) = &gateway.datagrams else { return };
    let offloads = gateway.tun.offloads();
    let mut coalescer = Coalescer::new(offloads.tcp, offloads.udp);
    loop {
        let ready = match socket.readable().await {
            Ok(()) => empty(&gateway, datagrams, &socket, &mut coalescer),
            Err(error) => Err(error),
        };
        if let Err(error) = ready {
            tracing::warn!(%error, "cannot receive datagrams");
            tokio::time::sleep(PAUSE).await;
        }
        tokio::task::yield_now().await;
    }
}

/// Takes what is there.
fn empty(
    gateway: &Gateway,
    datagrams: &Datagrams,
    socket: &Arc<UdpSocket>,
    coalescer: &mut Coalescer,
) -> io::Result<()> {
    let mut received = take_received();
    let mut result = Ok(());
    for _ in 0..BATCHES {
        match socket.try_receive(&mut received) {
            Ok(()) => hand_out(gateway, datagrams, socket, &mut received, coalescer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    give_back_received(received);
    result
}

/// Gives what was received to the sessions, and their packets to the kernel.
fn hand_out(
    gateway: &Gateway,
    datagrams: &Datagrams,
    socket: &Arc<UdpSocket>,
    received: &mut Received,
    coalescer: &mut Coalescer,
) {
    let now = Instant::now();
    let mut all = received.datagrams();
    let mut next = |last: Option<&Owned>| -> Option<(Owned, Datagram<'_>)> {
        all.find_map(|datagram| match datagrams.owner(datagram.bytes, last) {
            Some(owned) => Some((owned, datagram)),
            None => {
                gateway.counters.foreign_datagrams.add(1);
                None
            }
        })
    };
    let mut ahead = next(None);
    while let Some((owned, first)) = ahead.take() {
        let Datagram { from, to, bytes } = first;
        let Owned { session, head } = &owned;
        let Some(channel) = session.sender.channel() else { continue };
        // those behind it that have come the same way
        let same = std::iter::from_fn(|| {
            let (other, datagram) = next(Some(&owned))?;
            if Arc::ptr_eq(&other.session, session) && datagram.from == from && datagram.to == to {
                return Some((other.head, datagram.bytes));
            }
            ahead = Some((other, datagram));
            None
        });
        let run = std::iter::once((*head, bytes)).chain(same);
        channel.receive(Arrival { now, from, to, socket }, run, &mut |packet| {
            if session::may_pass(gateway, session, packet) {
                coalescer
                    .push(packet, &mut |header, packet| session::write(gateway, header, packet));
            }
        });
    }
    coalescer.flush(&mut |header, packet| session::write(gateway, header, packet));
}
