//! From the TUN device to the socket.

use std::{
    convert::Infallible,
    io::{self, IoSliceMut},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use cipherwall_packet::offload::{HEADER_LEN, OffloadHeader, Segments};
use cipherwall_proto::datagram::{
    packet::OVERHEAD,
    static_mode::{Keepalive, Sealer},
};
use cipherwall_transport::udp::{OutBatch, is_too_long};
use cipherwall_tun::MAX_PACKET_LEN;

use crate::tunnel::Shared;

/// Packets that are read before what is there is sent, though more may be waiting.
const BURST: usize = 64;
/// The longest inside packet where the path takes no longer ones: what fits into the datagrams that
/// every IPv6 link carries (1,280 bytes) less the headers of IPv6, UDP and ours.
const MTU_SAFE: usize = 1_280 - 40 - 8 - OVERHEAD;

/// Moves packets from the TUN device to the peer.
pub(crate) struct Outward {
    outlet: Outlet,
    /// What the device gives.
    buffer: Box<[u8]>,
    /// A client's.
    keepalive: Option<Keepalive>,
}

/// Where packets leave.
struct Outlet {
    shared: Arc<Shared>,
    sealer: Sealer,
    batch: OutBatch,
}

impl Outward {
    pub(crate) fn new(shared: Arc<Shared>, sealer: Sealer, keepalive: Option<Keepalive>) -> Self {
        let outlet = Outlet { shared, sealer, batch: OutBatch::new() };
        Self { outlet, buffer: vec![0; HEADER_LEN + MAX_PACKET_LEN].into(), keepalive }
    }

    /// Runs until the device is gone, and tells why.
    pub(crate) async fn run(mut self) -> io::Error {
        let Err(error) = self.serve().await;
        error
    }

    async fn serve(&mut self) -> io::Result<Infallible> {
        let tun = self.outlet.shared.tun.clone();
        loop {
            tokio::select! {
                readable = tun.readable() => {
                    readable?;
                    self.burst().await?;
                }
                () = until_due(self.keepalive.as_ref()) => self.echo().await,
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Reads some packets and sends them.
    async fn burst(&mut self) -> io::Result<()> {
        for _ in 0..BURST {
            let shared = &self.outlet.shared;
            let read = match shared.tun.try_read(&mut [IoSliceMut::new(&mut self.buffer)]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let Some((header, packet)) = self.buffer[..read].split_first_chunk() else { continue };
            self.outlet.add(&OffloadHeader::parse(header), packet).await;
        }
        self.outlet.send().await;
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.sent(Instant::now(), self.outlet.shared.was_heard());
        }
        Ok(())
    }

    async fn echo(&mut self) {
        let Some(keepalive) = &mut self.keepalive else { return };
        let echo = keepalive.echo();
        keepalive.sent(Instant::now(), self.outlet.shared.was_heard());
        self.outlet.add(&OffloadHeader::NONE, &echo).await;
        self.outlet.send().await;
    }
}

/// Waits until an echo is due; for ever where there is no need for any.
async fn until_due(keepalive: Option<&Keepalive>) {
    match keepalive {
        Some(keepalive) => tokio::time::sleep_until(keepalive.due().into()).await,
        None => std::future::pending().await,
    }
}

impl Outlet {
    /// Adds the packets that one packet of the device stands for; sends what does not go with them.
    async fn add(&mut self, header: &OffloadHeader, packet: &[u8]) {
        let mtu = self.shared.mtu.load(Ordering::Relaxed);
        let mut segments = match Segments::new(header, packet, mtu) {
            Ok(segments) => segments,
            Err(error) => return tracing::debug!(%error, "a packet from inside was dropped"),
        };
        self.shared.sent.fetch_add(packet.len() as u64, Ordering::Relaxed);
        while let Some(len) = segments.next_len() {
            let len = OVERHEAD + len;
            if self.batch.room(len).is_none() {
                self.send().await;
            }
            // an empty batch has room for everything that fits into a datagram
            let Some(room) = self.batch.room(len) else { return };
            segments.next_into(&mut room[OVERHEAD..]);
            self.batch.commit(len);
        }
    }

    /// Seals and sends what is there, waiting while the socket is full: packets then wait in the TUN
    /// device, which drops what does not fit, so that TCP inside sees it.
    async fn send(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let Some(peer) = self.shared.peer() else { return self.batch.clear() };
        let len = self.batch.datagrams().map(<[u8]>::len).max().unwrap_or_default();
        self.sealer.seal(self.batch.take_unsealed());
        loop {
            match self.batch.send(&self.shared.socket, peer.address, peer.local) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.shared.socket.writable().await {
                        return tracing::debug!(%error, "the socket");
                    }
                }
                Err(error) if is_too_long(&error) => return self.shorten(len),
                Err(error) => return tracing::debug!(%error, "no way to the peer at the moment"),
            }
        }
    }

    /// The interface does not take datagrams of that length.
    fn shorten(&self, len: usize) {
        if self.shared.mtu.swap(MTU_SAFE, Ordering::Relaxed) > MTU_SAFE {
            tracing::warn!(
                "the network takes no datagrams of {len} bytes: TCP is cut smaller now, and longer \
                 packets of other kinds are lost; give --mtu {MTU_SAFE} to avoid that"
            );
        }
    }
}
