//! The two ends of a tunnel on a virtual clock, and the stream between them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use cipherwall_proto::{
    cipher::CipherId,
    client::{Answer, Credential},
    device::DeviceKey,
    frame::{self, Frame},
    knock::Alpn,
    liveness::Keepalive,
    record::{Batch, Inflow, InflowError, Opener, Sealer},
    rekey::{Limits, Policy, Randomness, Side},
    tunnel::{Event, Tunnel},
};

use crate::{openings, welcome};

/// One end of a tunnel with its side of the simulated stream.
pub(crate) struct End {
    sealer: Sealer,
    opener: Opener,
    inflow: Inflow,
    pub(crate) tunnel: Tunnel,
    /// Frames that wait for the socket, and packets that wait for room there.
    filling: Batch,
    waiting: VecDeque<Vec<u8>>,
    /// The socket takes nothing.
    pub(crate) stalled: bool,
    /// It keeps its answers to rekeys to itself.
    pub(crate) withholds_keys: bool,
    randomness: u64,
    pub(crate) got: Vec<Vec<u8>>,
    pub(crate) events: Vec<(Duration, Event)>,
    /// Bytes on their way to this end, with the time at which they arrive.
    pub(crate) arriving: VecDeque<(Instant, Vec<u8>)>,
    pub(crate) failed: Option<String>,
}

impl End {
    fn new(now: Instant, side: Side, sealer: Sealer, opener: Opener) -> Self {
        let seed = u64::from(matches!(side, Side::Gateway(_)));
        Self {
            sealer,
            opener,
            inflow: Inflow::default(),
            tunnel: Tunnel::new(now, Keepalive::default(), side, seed + 1),
            filling: Batch::default(),
            waiting: VecDeque::new(),
            stalled: false,
            withholds_keys: false,
            randomness: seed << 32,
            got: Vec::new(),
            events: Vec::new(),
            arriving: VecDeque::new(),
            failed: None,
        }
    }

    /// Whether it does nothing more.
    pub(crate) fn is_over(&self) -> bool {
        self.failed.is_some() || self.events.iter().any(|(_, event)| *event == Event::Dead)
    }

    /// The epochs of what it seals and of what it opens.
    pub(crate) fn epochs(&self) -> (u32, u32) {
        (self.sealer.usage().epoch, self.opener.usage().epoch)
    }

    /// Sends the bytes of a frame, whatever it is, behind those that wait.
    pub(crate) fn say_bytes(&mut self, frame: &[u8]) {
        assert!(self.filling.push(frame));
    }

    /// The records of what this end wants to send; none while it is stalled.
    pub(crate) fn seal(&mut self, now: Instant, packets: &[Vec<u8>]) -> Vec<u8> {
        self.waiting.extend(packets.iter().cloned());
        self.step_rekey(now);
        let mut records = Vec::new();
        loop {
            self.fill();
            if self.filling.is_empty() || self.stalled {
                return records;
            }
            if let Err(error) = self.filling.seal(&mut self.sealer, now) {
                self.failed = Some(error.to_string());
                return records;
            }
            records.extend_from_slice(self.filling.sealed());
            self.filling.clear();
            self.tunnel.handle_sent(now, !packets.is_empty());
            self.step_rekey(now);
        }
    }

    fn fill(&mut self) {
        while let Some(outgoing) = self.tunnel.poll_outgoing() {
            let pushed = match &outgoing.next_keys {
                Some(_) if self.withholds_keys => true,
                Some(keys) => self.filling.push_last(&outgoing.frame, keys),
                None => self.filling.push(&outgoing.frame),
            };
            if !pushed {
                break;
            }
            self.tunnel.outgoing_taken();
        }
        if let Some(frames) = self.tunnel.poll_frames() {
            self.filling.push(&frames);
        }
        while let Some(packet) = self.waiting.front() {
            let bytes = [&frame::header(frame::PACKET, packet.len()), &packet[..]].concat();
            if !self.filling.push(&bytes) {
                break;
            }
            self.waiting.pop_front();
        }
    }

    fn step_rekey(&mut self, now: Instant) {
        self.tunnel.handle_usage(&self.sealer.usage(), &self.opener.usage());
        if self.tunnel.wants_randomness() {
            self.randomness += 1;
            let [a, b, c, d, e, f, g, h] = self.randomness.to_be_bytes();
            let bytes = [a, b, c, d, e, f, g, h].repeat(4).try_into().unwrap();
            let randomness = Randomness { secret: bytes, random: bytes };
            if let Err(error) = self.tunnel.handle_randomness(now, &randomness, &self.opener) {
                self.failed = Some(error.to_string());
            }
        }
    }

    pub(crate) fn receive(&mut self, start: Instant, now: Instant, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.failed.is_none() {
            let spare = self.inflow.spare();
            let count = spare.len().min(bytes.len());
            spare[..count].copy_from_slice(&bytes[..count]);
            self.inflow.filled(count);
            bytes = &bytes[count..];
            self.failed = self.read_frames(start, now).err();
        }
    }

    fn read_frames(&mut self, start: Instant, now: Instant) -> Result<(), String> {
        let error = |error: InflowError| error.to_string();
        while let Some(frame) = self.inflow.next_frame(&mut self.opener).map_err(error)? {
            self.tunnel.handle_received(now);
            if let Frame::Packet(packet) = frame {
                self.got.push(packet.to_vec());
            } else {
                let event = self.tunnel.handle_frame(now, &frame, &mut self.opener);
                let event = event.map_err(|error| error.to_string())?;
                self.events.extend(event.map(|event| (now - start, event)));
            }
        }
        Ok(())
    }

    fn handle_timeout(&mut self, start: Instant, now: Instant) {
        match self.tunnel.handle_timeout(now) {
            Ok(event) => self.events.extend(event.map(|event| (now - start, event))),
            Err(error) => self.failed = Some(error.to_string()),
        }
    }
}

/// Both ends, virtual time, and a stream with a delay between them.
pub(crate) struct Pair {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    delay: Duration,
    pub(crate) cut: bool,
    /// The client and the gateway.
    pub(crate) ends: [End; 2],
}

impl Pair {
    pub(crate) fn new(cipher: CipherId, delay: Duration) -> Self {
        Self::with_rekeys(cipher, delay, Limits::default(), Policy::default())
    }

    pub(crate) fn with_rekeys(
        cipher: CipherId,
        delay: Duration,
        limits: Limits,
        policy: Policy,
    ) -> Self {
        let device = DeviceKey::from_seed(&[5; 32]);
        let mut o = openings(Alpn::Http1, &[cipher]);
        let request = o.client.request(&Credential::Invitation { secret: &[4; 16] }, &device);
        o.ask(&request);
        let (bytes, theirs) = o.gateway.welcome(welcome());
        let Ok(Some(Answer::Welcome(ours))) = o.client.handle_record(&bytes) else { panic!() };
        assert_eq!(ours.cipher, cipher);
        let now = Instant::now();
        let client = End::new(now, Side::Client(limits), ours.sealer, ours.opener);
        let gateway = End::new(now, Side::Gateway(policy), theirs.sealer, theirs.opener);
        Self { start: now, now, delay, cut: false, ends: [client, gateway] }
    }

    pub(crate) fn send(&mut self, from: usize, packets: &[Vec<u8>]) {
        let bytes = self.ends[from].seal(self.now, packets);
        if !bytes.is_empty() && !self.cut {
            self.ends[1 - from].arriving.push_back((self.now + self.delay, bytes));
        }
    }

    /// Runs until the given virtual time, jumping from event to event.
    pub(crate) fn run_until(&mut self, until: Duration) {
        loop {
            let running = || self.ends.iter().filter(|end| !end.is_over());
            let arrivals = running().filter_map(|end| end.arriving.front().map(|a| a.0));
            let next = arrivals.chain(running().map(|end| end.tunnel.poll_timeout().0)).min();
            let Some(next) = next.filter(|next| *next <= self.start + until) else {
                self.now = self.start + until;
                return;
            };
            self.now = self.now.max(next);
            (0..2).for_each(|at| self.step(at));
        }
    }

    fn step(&mut self, at: usize) {
        let (start, now) = (self.start, self.now);
        let end = &mut self.ends[at];
        while let Some((_, bytes)) = end.arriving.pop_front_if(|(time, _)| *time <= now) {
            end.receive(start, now, &bytes);
        }
        if !end.is_over() {
            end.handle_timeout(start, now);
        }
        if !self.ends[at].is_over() {
            self.send(at, &[]);
        }
    }

    /// What an end was told to act upon, with tenths of a second since the start.
    pub(crate) fn events(&self, at: usize) -> Vec<(u128, Event)> {
        self.ends[at].events.iter().map(|(t, e)| (t.as_millis() / 100, e.clone())).collect()
    }
}
