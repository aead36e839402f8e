//! The two ends of a session with datagrams on a virtual clock, the stream between them, and a
//! network that loses, repeats, reorders and relays.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use cipherwall_proto::{
    cipher::{CipherId, DatagramCipher},
    client::{self, Answer, Credential},
    datagram::{
        Channel, Conversation, End, Frame, KEEPALIVE, KeyChange, Masks, Opener, Outlet, Sealer,
        Settings, frames,
    },
    device::DeviceKey,
    frame, gateway,
    keys::{DoorKey, Root},
    knock::{Alpn, OPENER_LEN},
    liveness::Keepalive,
    message::{DatagramOffer, Text, Welcome},
    record::{self, Batch, Inflow},
    rekey::{Limits, Policy, Randomness, Side},
    tunnel::Tunnel,
};

pub(crate) const CIPHERS: [DatagramCipher; 3] = [
    DatagramCipher::Aead(CipherId::ChaCha20Poly1305),
    DatagramCipher::Aead(CipherId::Aes256Gcm),
    DatagramCipher::Packet,
];
pub(crate) const CLIENT: usize = 0;
pub(crate) const GATEWAY: usize = 1;
pub(crate) const INDEX: u32 = 0x1234_5678;
pub(crate) const MASK_KEY: [u8; 32] = [8; 32];
pub(crate) const MTU: u16 = 1_420;

pub(crate) fn welcome(datagram: Option<DatagramOffer>) -> Welcome {
    Welcome {
        session_id: [1; 16].into(),
        token: [2; 16].into(),
        version: 0,
        cipher: 0,
        v4: Text("10.8.0.2".parse().unwrap()),
        v6: Text("fd00::2".parse().unwrap()),
        routes: vec![],
        dns: vec![],
        mtu: MTU,
        keepalive: 15,
        time: 1,
        pins: vec![],
        datagram,
    }
}

pub(crate) fn offer() -> DatagramOffer {
    DatagramOffer::new(1194, INDEX, MASK_KEY)
}

/// Both sides of an opening whose TLS root is this.
pub(crate) fn openings(root: u8) -> (client::Opening, gateway::Opening) {
    let door = DoorKey([7; 32]);
    let root = || Root([root; 32]);
    let ciphers = CipherId::auto(true);
    let client = client::Opening::new(root(), &door, Alpn::Http1, "test 1", &ciphers);
    (client, gateway::Opening::new(root(), true))
}

/// What both ends have after a log-in with datagrams.
pub(crate) struct LoggedIn {
    pub(crate) client: client::Established,
    pub(crate) gateway: gateway::Established,
    pub(crate) channels: [Channel; 2],
}

pub(crate) fn log_in(root: u8, cipher: DatagramCipher) -> LoggedIn {
    let (mut client, mut gateway) = openings(root);
    client.offer_datagrams(&[cipher]);
    let device = DeviceKey::from_seed(&[5; 32]);
    let request = client.request(&Credential::Invitation { secret: &[4; 16] }, &device);
    gateway.handle_record(&request[OPENER_LEN..]).unwrap().unwrap();
    assert_eq!(gateway.datagram_cipher(), Some(cipher));
    let (answer, mut theirs) = gateway.welcome(welcome(Some(offer())));
    let Ok(Some(Answer::Welcome(ours))) = client.handle_record(&answer) else { panic!() };
    let channel = client.channel(&ours.welcome).unwrap();
    let channels = [channel, theirs.datagram.take().unwrap()];
    LoggedIn { client: *ours, gateway: theirs, channels }
}

/// The halves of both ends.
pub(crate) fn halves(cipher: DatagramCipher) -> [(Sealer, Opener); 2] {
    let mut seed = 0;
    log_in(9, cipher).channels.map(|channel| {
        seed += 1;
        channel.into_halves(&Masks::new(&MASK_KEY), [seed; 32])
    })
}

/// The bytes of a packet as a frame.
pub(crate) fn packet(length: usize, number: u8) -> Vec<u8> {
    [&frame::header(frame::PACKET, length)[..], &vec![number; length]].concat()
}

/// Frames in a datagram of their own.
pub(crate) fn seal(sealer: &mut Sealer, now: Instant, frames: &[u8]) -> Vec<u8> {
    let cipher = sealer.cipher();
    let (before, behind) = (vec![0; cipher.prefix_len()], vec![0; cipher.suffix_len()]);
    let mut datagram = [&before[..], frames, &behind].concat();
    let length = datagram.len();
    sealer.seal(now, &mut datagram, length).unwrap();
    datagram
}

/// The frames of a datagram, and whether it was the newest.
pub(crate) fn open(opener: &mut Opener, now: Instant, datagram: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut datagram = datagram.to_vec();
    let opened = opener.receive(now, &mut datagram)?;
    Some((opened.plaintext.to_vec(), opened.newest))
}

/// One end: a stream's tunnel, as far as rekeys go, and the datagrams beside it.
pub(crate) struct Peer {
    pub(crate) conversation: Conversation,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) outlet: Outlet,
    pub(crate) tunnel: Tunnel,
    stream_sealer: record::Sealer,
    stream_opener: record::Opener,
    inflow: Inflow,
    randomness: u64,
    pub(crate) address: SocketAddr,
    /// Packets that came, and whether by datagram.
    pub(crate) got: Vec<(Vec<u8>, bool)>,
    /// Ups and downs of the path, and moves, with the time since the start.
    pub(crate) log: Vec<(Duration, bool, Option<SocketAddr>)>,
    /// Bytes that went by datagram to each address.
    pub(crate) sent_to: BTreeMap<SocketAddr, usize>,
}

/// A datagram on its way.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub(crate) at: Instant,
    pub(crate) from: SocketAddr,
    pub(crate) to: usize,
    pub(crate) bytes: Vec<u8>,
}

/// Both ends, virtual time, and what is between them.
pub(crate) struct Net {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) delay: Duration,
    pub(crate) peers: [Peer; 2],
    flights: VecDeque<Flight>,
    stream: VecDeque<(Instant, usize, Vec<u8>)>,
    /// What happens to a datagram: none for it was lost.
    pub(crate) fate: Box<dyn FnMut(Flight) -> Vec<Flight>>,
    /// Everything that was ever sent by datagram.
    pub(crate) seen: Vec<Flight>,
}

pub(crate) fn address(last: u8, port: u16) -> SocketAddr {
    ([192, 0, 2, last], port).into()
}

pub(crate) fn gateway_address() -> SocketAddr {
    address(1, 1194)
}

impl Net {
    pub(crate) fn new(cipher: DatagramCipher, delay: Duration) -> Self {
        Self::with(cipher, delay, MTU, Policy::default())
    }

    pub(crate) fn with(cipher: DatagramCipher, delay: Duration, mtu: u16, policy: Policy) -> Self {
        let now = Instant::now();
        let LoggedIn { client, gateway, channels: [ours, theirs] } = log_in(9, cipher);
        let peer = |end, channel: Channel, side, seed: u8, sealer, opener| {
            let settings =
                Settings { keepalive: KEEPALIVE, inner_mtu: mtu, cipher, seed: [seed; 32] };
            let conversation = Conversation::new(now, end, &settings);
            let (datagram_sealer, datagram_opener) =
                channel.into_halves(&Masks::new(&MASK_KEY), [seed + 10; 32]);
            let mut tunnel = Tunnel::new(now, Keepalive::default(), side, seed.into());
            tunnel.set_datagrams(cipher);
            Peer {
                outlet: Outlet::new(cipher, conversation.path()),
                conversation,
                sealer: datagram_sealer,
                opener: datagram_opener,
                tunnel,
                stream_sealer: sealer,
                stream_opener: opener,
                inflow: Inflow::default(),
                randomness: u64::from(seed) << 32,
                address: if seed == 1 { address(2, 40_000) } else { gateway_address() },
                got: Vec::new(),
                log: Vec::new(),
                sent_to: BTreeMap::new(),
            }
        };
        let end = End::Client { gateway: gateway_address() };
        let client_side = Side::Client(Limits::default());
        let client = peer(end, ours, client_side, 1, client.sealer, client.opener);
        let side = Side::Gateway(policy);
        let gateway = peer(End::Gateway, theirs, side, 2, gateway.sealer, gateway.opener);
        let peers = [client, gateway];
        Self {
            start: now,
            now,
            delay,
            peers,
            flights: VecDeque::new(),
            stream: VecDeque::new(),
            fate: Box::new(|flight| vec![flight]),
            seen: Vec::new(),
        }
    }

    /// Sends a packet as the programs do: by datagram while the path is up, else over the stream.
    pub(crate) fn send(&mut self, from: usize, length: usize, number: u8) {
        let frame = packet(length, number);
        let peer = &mut self.peers[from];
        let datagram_len = frame.len() + peer.sealer.cipher().overhead();
        let fits = length <= peer.outlet.packet_max();
        let to = fits.then(|| peer.outlet.admit(self.now, datagram_len, datagram_len)).flatten();
        match to {
            Some(to) => self.launch(from, to, &frame),
            None => self.send_by_stream(from, &frame),
        }
        self.pump(from);
    }

    fn launch(&mut self, from: usize, to: SocketAddr, frames: &[u8]) {
        let peer = &mut self.peers[from];
        let bytes = seal(&mut peer.sealer, self.now, frames);
        *peer.sent_to.entry(to).or_default() += bytes.len();
        let to_peer = self.peers.iter().position(|peer| peer.address == to);
        let flight = Flight {
            at: self.now + self.delay,
            from: self.peers[from].address,
            to: to_peer.unwrap_or(usize::MAX),
            bytes,
        };
        self.seen.push(flight.clone());
        let flights = (self.fate)(flight);
        self.flights.extend(flights);
    }

    /// Puts a datagram on its way, whosoever it is.
    pub(crate) fn inject(&mut self, flight: Flight) {
        self.flights.push_back(flight);
    }

    fn send_by_stream(&mut self, from: usize, frame: &[u8]) {
        let mut batch = Batch::default();
        assert!(batch.push(frame));
        self.stream_batch(from, batch);
    }

    fn stream_batch(&mut self, from: usize, mut batch: Batch) {
        batch.seal(&mut self.peers[from].stream_sealer, self.now).unwrap();
        self.stream.push_back((self.now + self.delay, 1 - from, batch.sealed().to_vec()));
    }

    /// Everything that an end has to say.
    pub(crate) fn pump(&mut self, at: usize) {
        let (now, start) = (self.now, self.start);
        let peer = &mut self.peers[at];
        let sent = peer.outlet.take_sent();
        peer.conversation.handle_sent(now, sent);
        peer.step_rekey(now);
        while let Some(outgoing) = self.peers[at].tunnel.poll_outgoing() {
            let mut batch = Batch::default();
            assert!(match &outgoing.next_keys {
                Some(keys) => batch.push_last(&outgoing.frame, keys),
                None => batch.push(&outgoing.frame),
            });
            self.peers[at].tunnel.outgoing_taken();
            self.stream_batch(at, batch);
        }
        while let Some(transmit) = self.peers[at].conversation.poll_transmit() {
            self.launch(at, transmit.to, &transmit.frames);
        }
        let peer = &mut self.peers[at];
        if let Some(path) = peer.conversation.poll_path() {
            if peer.log.last().is_none_or(|(_, up, to)| (*up, *to) != (path.up, path.to)) {
                peer.log.push((now - start, path.up, path.to));
            }
            peer.outlet.update(path);
        }
    }

    /// Runs until the given virtual time, jumping from event to event.
    pub(crate) fn run_until(&mut self, until: Duration) {
        (0..2).for_each(|at| self.pump(at));
        loop {
            let flights = self.flights.iter().map(|flight| flight.at);
            let stream = self.stream.iter().map(|(at, ..)| *at);
            let timers = self.peers.iter().filter_map(|peer| peer.conversation.poll_timeout());
            let next = flights.chain(stream).chain(timers.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= self.start + until) else {
                self.now = self.start + until;
                return;
            };
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(at) = self.flights.iter().position(|flight| flight.at <= now) {
            let flight = self.flights.remove(at).unwrap();
            if flight.to < 2 {
                self.peers[flight.to].receive(now, &flight);
                self.pump(flight.to);
            }
        }
        while let Some((_, to, bytes)) = self.stream.pop_front_if(|(at, ..)| *at <= now) {
            self.peers[to].receive_stream(now, &bytes);
            self.pump(to);
        }
        for at in 0..2 {
            let peer = &mut self.peers[at];
            if peer.conversation.poll_timeout().is_some_and(|(at, _)| at <= now) {
                peer.conversation.handle_timeout(now);
                peer.opener.expire(now);
                self.pump(at);
            }
        }
    }

    /// Whether datagrams get through, as either end sees it.
    pub(crate) fn up(&self) -> [bool; 2] {
        [CLIENT, GATEWAY].map(|at| self.peers[at].conversation.path().up)
    }
}

impl Peer {
    fn receive(&mut self, now: Instant, flight: &Flight) {
        let mut bytes = flight.bytes.clone();
        let Some(opened) = self.opener.receive(now, &mut bytes) else { return };
        self.conversation.handle_received(now, flight.from, opened.len, opened.newest);
        for frame in frames(opened.plaintext) {
            if let Frame::Packet(packet) = frame {
                self.got.push((packet.to_vec(), true));
            }
            self.conversation.handle_frame(now, flight.from, &frame);
        }
    }

    fn receive_stream(&mut self, now: Instant, bytes: &[u8]) {
        self.inflow.spare()[..bytes.len()].copy_from_slice(bytes);
        self.inflow.filled(bytes.len());
        while let Some(frame) = self.inflow.next_frame(&mut self.stream_opener).unwrap() {
            if let frame::Frame::Packet(packet) = frame {
                self.got.push((packet.to_vec(), false));
            } else {
                self.tunnel.handle_frame(now, &frame, &mut self.stream_opener).unwrap();
            }
        }
        self.change_keys(now);
    }

    fn step_rekey(&mut self, now: Instant) {
        self.tunnel.handle_usage(&self.stream_sealer.usage(), &self.stream_opener.usage());
        let usages = (self.sealer.usage(), self.opener.usage());
        self.tunnel.handle_datagram_usage(&usages.0, &usages.1, &self.stream_opener);
        if self.tunnel.wants_randomness() {
            self.randomness += 1;
            let bytes = self.randomness.to_be_bytes().repeat(4).try_into().unwrap();
            let randomness = Randomness { secret: bytes, random: bytes };
            self.tunnel.handle_randomness(now, &randomness, &self.stream_opener).unwrap();
        }
        self.change_keys(now);
    }

    fn change_keys(&mut self, now: Instant) {
        while let Some(change) = self.tunnel.poll_key_change() {
            match change {
                KeyChange::Accept(keys) => self.opener.accept(&keys),
                KeyChange::Use(keys) => {
                    self.sealer.install(now, &keys);
                    self.opener.advance(now);
                }
            }
        }
    }

    /// The numbers of the packets that came by datagram, or over the stream.
    pub(crate) fn numbers(&self, by_datagram: bool) -> Vec<u8> {
        self.got.iter().filter(|got| got.1 == by_datagram).map(|(packet, _)| packet[0]).collect()
    }
}
