//! Packets that come from the gateway by datagram.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use cipherwall_packet::offload::{Coalescer, OffloadHeader};
use cipherwall_proto::datagram::OLD_KEYS_LIVE;
use cipherwall_transport::{
    datagram::{Arrival, Channel, give_back_received, take_received},
    udp::{Received, UdpSocket},
};
use cipherwall_tun::Device;
use tokio::sync::oneshot;

use crate::dial::Datagrams;

/// How often a socket is emptied before others have their turn.
const BATCHES: usize = 8;
/// Pause after a failure to receive.
const PAUSE: Duration = Duration::from_millis(100);

/// Which packets are this client's.
pub(crate) type IsOurs = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Receives from one socket. Once dropped, it goes on for as long as keys that were replaced are
/// good: what is under way is still welcome.
pub(crate) struct Receiver {
    _ends: oneshot::Sender<()>,
}

impl Receiver {
    /// Gives what comes for this channel to the device, for as long as others have use for that.
    pub(crate) fn start(datagrams: &Datagrams, tun: &Arc<Device>, is_ours: IsOurs) -> Self {
        let (ends, ended) = oneshot::channel();
        let offloads = tun.offloads();
        let mut inbox = Inbox {
            channel: datagrams.channel.clone(),
            socket: datagrams.socket.clone(),
            gateway: datagrams.gateway,
            tun: Arc::downgrade(tun),
            coalescer: Coalescer::new(offloads.tcp, offloads.udp),
            is_ours,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = inbox.run() => {}
                () = linger(ended) => {}
            }
        });
        Self { _ends: ends }
    }
}

/// Waits until the receiver was dropped, and then some.
async fn linger(ended: oneshot::Receiver<()>) {
    let _ = ended.await;
    tokio::time::sleep(OLD_KEYS_LIVE).await;
}

struct Inbox {
    channel: Arc<Channel>,
    socket: Arc<UdpSocket>,
    gateway: SocketAddr,
    tun: Weak<Device>,
    coalescer: Coalescer,
    is_ours: IsOurs,
}

impl Inbox {
    async fn run(&mut self) {
        loop {
            let ready = match self.socket.readable().await {
                Ok(()) => self.empty(),
                Err(error) => Err(error),
            };
            if let Err(error) = ready {
                tracing::debug!(%error, "cannot receive datagrams");
                tokio::time::sleep(PAUSE).await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes what is there.
    fn empty(&mut self) -> io::Result<()> {
        let mut received = take_received();
        let mut result = Ok(());
        for _ in 0..BATCHES {
            match self.socket.try_receive(&mut received) {
                Ok(()) => self.open(&mut received),
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

    /// Opens what was received. Where it has come from does not matter: the gateway has the keys.
    fn open(&mut self, received: &mut Received) {
        let Self { channel, socket, gateway, tun, coalescer, is_ours } = self;
        let Some(tun) = tun.upgrade() else { return };
        let datagrams = received.datagrams();
        let all = datagrams.filter_map(|it| channel.head(it.bytes).map(|head| (head, it.bytes)));
        let arrival = Arrival { now: Instant::now(), from: *gateway, to: None, socket };
        let mut write = |header: &OffloadHeader, packet: &[u8]| deliver(&tun, header, packet);
        channel.receive(arrival, all, &mut |packet| {
            // a gateway has no business with other addresses of this host or behind it
            if is_ours(packet) {
                coalescer.push(packet, &mut write);
            }
        });
        coalescer.flush(&mut write);
    }
}

/// Gives a packet to the kernel, if it takes it.
pub(crate) fn deliver(tun: &Device, header: &OffloadHeader, packet: &[u8]) {
    if let Err(error) = tun.write(header, packet) {
        // not worth more than a word to whoever looks for it
        tracing::debug!(%error, "a packet from the gateway was dropped");
    }
}
