//! TCP of an active session: smoltcp, whose packets go through the tunnel instead of a device.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cipherwall_packet::checksum::Sum;
use cipherwall_packet::offload::{GSO_TCPV4, HEADER_LEN, NEEDS_CSUM, OffloadHeader};
use cipherwall_transport::tunnel::Sender;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, Device, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

use super::peer::{self, PORT};
use super::{Arrived, Way};
use crate::address;

/// Bytes under way that a connection can have.
const WINDOW: usize = 1 << 20;
/// The longest packet, before segmentation.
const PACKET_MAX: usize = 65_535;
const IP_HEADER_LEN: u16 = 20;
const TCP_CSUM_OFFSET: u16 = 16;
const PROTOCOL_TCP: u8 = 6;

/// A host inside the tunnel with one TCP connection.
pub(super) struct Stack {
    interface: Interface,
    pipe: Pipe,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    way: Way,
    /// What the peer has to be told first, as far as it has not been sent.
    greeting: Vec<u8>,
    index: usize,
    arrived: Arrived,
    start: Instant,
}

impl Stack {
    /// Begins to connect to the peer.
    pub(super) fn new(
        sender: Arc<Sender>,
        address: Ipv4Addr,
        mtu: u16,
        way: Way,
        index: u32,
        arrived: Arrived,
    ) -> Result<Stack> {
        let mut pipe = Pipe { sender, received: VecDeque::new(), mtu: mtu.into() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from(index);
        let mut interface = Interface::new(config, &mut pipe, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(address.into(), 32));
        });
        interface.routes_mut().add_default_ipv4_route(address::INNER_GATEWAY)?;
        let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_congestion_control(tcp::CongestionControl::Cubic);
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let peer = IpEndpoint::new(address::WEB.into(), PORT);
        // not the same port as in the last transfer, which the peer may not have forgotten
        let port = fastrand::u16(10_000..60_000);
        socket.connect(interface.context(), peer, port).context("connecting")?;
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Ok(Stack {
            interface,
            pipe,
            sockets,
            socket,
            way,
            greeting: peer::greeting(way, index),
            index: index as usize,
            arrived,
            start: Instant::now(),
        })
    }

    /// A packet from the tunnel. Its checksum may be unfinished; nobody looks at it.
    pub(super) fn receive(&mut self, packet: &[u8]) {
        self.pipe.received.push_back(packet.to_vec());
    }

    /// Handles what came and sends what can be sent.
    pub(super) fn work(&mut self) -> Result<()> {
        loop {
            let now = self.now();
            let polled = self.interface.poll(now, &mut self.pipe, &mut self.sockets);
            self.move_data()?;
            let was_full = !self.pipe.has_room();
            self.pipe.sender.flush()?;
            // still none if the socket is full, or while the path is in doubt
            let got_room = was_full && self.pipe.has_room();
            if polled == PollResult::None && !got_room {
                return Ok(());
            }
        }
    }

    /// How long [`Stack::work`] has nothing to do by itself.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        if !self.pipe.has_room() {
            // the link says when there is
            return None;
        }
        let now = self.now();
        self.interface.poll_delay(now, &self.sockets).map(Duration::from)
    }

    /// Ends the connection by a reset.
    pub(super) fn abort(mut self) -> Result<()> {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.socket).abort();
        self.work()
    }

    /// Takes what has arrived, and gives as much as fits.
    fn move_data(&mut self) -> Result<()> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        while socket.can_recv() {
            let count = socket.recv(|bytes| (bytes.len(), bytes.len()))?;
            self.arrived[self.index].fetch_add(count as u64, Ordering::Relaxed);
        }
        if !self.greeting.is_empty() && socket.can_send() {
            let sent = socket.send_slice(&self.greeting)?;
            self.greeting.drain(..sent);
        }
        if self.way == Way::Up && self.greeting.is_empty() {
            while socket.can_send() {
                // whatever is there already
                socket.send(|space| (space.len(), ()))?;
            }
        }
        Ok(())
    }

    fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::ZERO + self.start.elapsed().into()
    }
}

/// The tunnel as smoltcp sees it.
struct Pipe {
    sender: Arc<Sender>,
    received: VecDeque<Vec<u8>>,
    mtu: usize,
}

impl Pipe {
    fn has_room(&self) -> bool {
        self.sender.fill(|_, _| ()).is_some()
    }
}

impl Device for Pipe {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, ToSend<'_>)> {
        if !self.has_room() {
            return None;
        }
        let packet = self.received.pop_front()?;
        Some((Received(packet), ToSend { sender: &self.sender, segment_len: 0 }))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<ToSend<'_>> {
        self.has_room().then(|| ToSend { sender: &self.sender, segment_len: 0 })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // offloaded: the gateway's kernel completes those of TCP
        capabilities.checksum.tcp = Checksum::None;
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.segmentation.tcpv4 = NonZeroUsize::new(PACKET_MAX);
        capabilities
    }
}

struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct ToSend<'a> {
    sender: &'a Sender,
    /// Payload of each piece; 0: the packet is one piece.
    segment_len: u16,
}

impl phy::TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; HEADER_LEN + len];
        let result = f(&mut bytes[HEADER_LEN..]);
        let header = offload(&mut bytes[HEADER_LEN..], self.segment_len);
        bytes[..HEADER_LEN].copy_from_slice(&header.encode());
        // room was asked for before
        self.sender.fill(|batch, _| batch.push_packet(&bytes));
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment_len = meta.segmentation_offload_size.map_or(0, Into::into);
    }
}

/// Leaves checksum and segmentation of a TCP packet to others, as a Linux client does.
fn offload(packet: &mut [u8], segment_len: u16) -> OffloadHeader {
    let (ip, tcp) = packet.split_at_mut(IP_HEADER_LEN.into());
    let address = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
    let sum =
        Sum::ZERO.pseudo_header(address(12), address(16), PROTOCOL_TCP, tcp.len() as u16).fold();
    let at = usize::from(TCP_CSUM_OFFSET);
    tcp[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let whole = OffloadHeader {
        flags: NEEDS_CSUM,
        csum_start: IP_HEADER_LEN,
        csum_offset: TCP_CSUM_OFFSET,
        ..OffloadHeader::NONE
    };
    if segment_len == 0 {
        return whole;
    }
    let header_len = IP_HEADER_LEN + u16::from(tcp[12] >> 4) * 4;
    OffloadHeader { gso_type: GSO_TCPV4, header_len, gso_size: segment_len, ..whole }
}
