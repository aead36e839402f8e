//! From the socket to the TUN device.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use cipherwall_packet::offload::{Coalescer, OffloadHeader};
use cipherwall_proto::datagram::static_mode::{Opener, Packet, Refused, Role};
use cipherwall_transport::udp::Received;
use cipherwall_tun::Device;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    StateFile,
    tunnel::{Peer, Shared},
};

/// Calls to the socket before others have their turn.
const BURST: usize = 8;
/// How often is looked whether the state has to be stored.
const TICK: Duration = Duration::from_secs(1);

/// Moves packets from the peer to the TUN device.
pub(crate) struct Inward {
    shared: Arc<Shared>,
    role: Role,
    opener: Opener,
    received: Received,
    coalescer: Coalescer,
    /// Where the last new packet came from.
    peer: Option<Peer>,
    complaints: Complaints,
    state_file: StateFile,
    /// At work in a thread that may wait for the disk.
    storing: Option<JoinHandle<()>>,
}

impl Inward {
    pub(crate) fn new(
        shared: Arc<Shared>,
        role: Role,
        opener: Opener,
        state_file: StateFile,
    ) -> Self {
        let offloads = shared.tun.offloads();
        Self {
            role,
            opener,
            received: Received::new(),
            coalescer: Coalescer::new(offloads.tcp, offloads.udp),
            peer: None,
            complaints: Complaints::default(),
            state_file,
            storing: None,
            shared,
        }
    }

    /// Runs until told to stop, then stores the state.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let shared = self.shared.clone();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                readable = shared.socket.readable() => match readable {
                    Ok(()) => self.burst(),
                    Err(error) => tracing::debug!(%error, "the socket"),
                },
                _ = ticks.tick() => self.store(),
                _ = &mut stop => break,
            }
            tokio::task::consume_budget().await;
        }
        if let Some(storing) = self.storing.take() {
            let _ = storing.await;
        }
        if let Err(error) = self.state_file.store(self.opener.state()) {
            tracing::error!("{error}");
        }
    }

    /// Receives what is there and gives it to the device.
    fn burst(&mut self) {
        for _ in 0..BURST {
            match self.shared.socket.try_receive(&mut self.received) {
                Ok(()) => self.deliver(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(%error, "receiving");
                    break;
                }
            }
        }
        let tun = &self.shared.tun;
        self.coalescer.flush(&mut |header, packet| write(tun, header, packet));
    }

    fn deliver(&mut self) {
        let Self { shared, role, opener, received, coalescer, peer, complaints, .. } = self;
        let datagrams = received.datagrams().map(|datagram| {
            let local = datagram.to.filter(|_| *role == Role::Gateway);
            (Peer { address: datagram.from, local }, datagram.bytes)
        });
        let mut bytes = 0;
        opener.open_each(datagrams, |from, opened| match opened {
            Ok(Packet { bytes: packet, newest, nailed }) => {
                if newest && *peer != Some(from) {
                    shared.heard_from(from);
                    *peer = Some(from);
                }
                if nailed {
                    tracing::info!(
                        "the peer counts its packets: from now on only counted ones are taken"
                    );
                }
                bytes += packet.len() as u64;
                coalescer.push(packet, &mut |header, packet| write(&shared.tun, header, packet));
            }
            Err(refused) => complaints.note(refused, shared),
        });
        shared.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Stores the state if it is time; the next time waits until that is done.
    fn store(&mut self) {
        if self.storing.as_ref().is_some_and(|storing| !storing.is_finished()) {
            return;
        }
        if let Some(state) = self.opener.poll_store(Instant::now()) {
            let state_file = self.state_file.clone();
            self.storing = Some(tokio::task::spawn_blocking(move || {
                if let Err(error) = state_file.store(state) {
                    tracing::error!("{error}");
                }
            }));
        }
    }
}

fn write(tun: &Device, header: &OffloadHeader, packet: &[u8]) {
    if let Err(error) = tun.write(header, packet) {
        tracing::debug!(%error, "a packet from the peer was dropped");
    }
}

/// What is dropped is told to the owner of this end now and then, and to nobody else.
#[derive(Default)]
struct Complaints(HashMap<Refused, (Instant, u64)>);

impl Complaints {
    /// Each at most once in this time.
    const EVERY: Duration = Duration::from_secs(60);

    fn note(&mut self, refused: Refused, shared: &Shared) {
        let Some(text) = complaint(refused, shared.was_heard()) else { return };
        let now = Instant::now();
        let (last, count) = self.0.entry(refused).or_insert((now, 0));
        *count += 1;
        if *count == 1 || now >= *last + Self::EVERY {
            tracing::warn!(packets = *count, "{text}");
            (*last, *count) = (now, 1);
        }
    }
}

/// What the owner should do something about.
fn complaint(refused: Refused, was_heard: bool) -> Option<&'static str> {
    match refused {
        Refused::NoCounter => Some(
            "a packet with the right key but without a counter was dropped: this peer is known to \
             count its packets; if it is another program now, start with --replay seen",
        ),
        Refused::OldRun => Some(
            "a packet of an earlier run was dropped: somebody has sent it again, or the peer has \
             lost its state directory and its clock is behind; then set the clock right and restart \
             the peer, or make a new key",
        ),
        Refused::Reflected => Some(
            "a packet of our own has come back and was dropped: somebody has sent it back, or both \
             sides were started in the same role",
        ),
        Refused::ForeignAddress => Some(
            "a packet with the right key but the wrong inside address was dropped: both sides need \
             the same --net",
        ),
        Refused::Malformed => {
            Some("a packet with the right key that is not exactly one IP packet was dropped")
        }
        // strangers can cause it at will; worth a word only to somebody who waits for the peer
        Refused::NotAuthentic if !was_heard => Some(
            "a datagram with another key, or damaged, was dropped: both sides need the same key \
             file",
        ),
        Refused::NotAuthentic | Refused::Replayed => None,
    }
}
