//! Both ends, virtual time, and the ways between them.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use cipherwall_proto::frame::{Control, KickReason};

use super::{
    Fate, Settings, Step,
    end::{CLIENT, DEAD_WITHIN, Datagram, End, GATEWAY, Over, PONG_WITHIN},
    model::Model,
    opening::Memory,
};

/// Long enough for everything that is under way, and for datagrams to be tried again.
const SETTLED: Duration = Duration::from_secs(100);
/// So many datagrams are remembered by whoever replays them.
const REMEMBERED: usize = 256;

/// A datagram under way.
#[derive(Debug, Clone)]
struct Flight {
    at: Instant,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// Everything.
pub(super) struct World {
    settings: Settings,
    now: Instant,
    memory: Memory,
    model: Model,
    ends: [End; 2],
    client: SocketAddr,
    /// Bytes under way to each end, with the time at which they arrive.
    stream: [VecDeque<(Instant, Vec<u8>)>; 2],
    cut: bool,
    /// Since when nothing has arrived that was on its way.
    cut_since: Instant,
    doubted_at: Instant,
    flights: Vec<Flight>,
    seen: VecDeque<Flight>,
    closed: bool,
    fate: Option<Fate>,
    /// Somebody has changed what was under way in the stream of this connection.
    tampered: bool,
    /// The way of this connection was cut, or an end stalled.
    disturbed: bool,
    /// An end of this connection has said farewell.
    farewell: bool,
    connected_at: Instant,
}

fn gateway() -> SocketAddr {
    ([192, 0, 2, 1], 1194).into()
}

fn client(port: u8) -> SocketAddr {
    ([192, 0, 2, 2], 40_000 + u16::from(port)).into()
}

impl World {
    pub(super) fn new(settings: Settings) -> World {
        let now = Instant::now();
        let mut memory = Memory::new();
        let ends = ends(now, &mut memory, &settings);
        let mut world = World {
            settings,
            now,
            memory,
            model: Model::default(),
            ends,
            client: client(0),
            stream: Default::default(),
            cut: false,
            cut_since: now,
            doubted_at: now,
            flights: Vec::new(),
            seen: VecDeque::new(),
            closed: false,
            fate: None,
            tampered: false,
            disturbed: false,
            farewell: false,
            connected_at: now,
        };
        world.pump(GATEWAY);
        world.greet();
        world
    }

    pub(super) fn act(&mut self, step: Step) {
        match step {
            Step::Send { from, length } => self.send(from, length),
            Step::Wait(time) => self.run_for(time),
            Step::Cut(cut) => {
                if cut && !self.cut {
                    self.cut_since = self.now;
                }
                self.cut = cut;
                self.disturbed |= cut;
            }
            Step::Stall { at, stalled } => {
                self.ends[at].stalled = stalled;
                self.disturbed |= stalled;
                self.pump(at);
            }
            Step::Close(closed) => self.closed = closed,
            Step::Fate(fate) => self.fate = Some(fate),
            Step::Roam(port) => {
                self.client = client(port);
                if let Some(beside) = &mut self.ends[CLIENT].beside {
                    beside.conversation.handle_doubt(self.now);
                }
                self.pump(CLIENT);
            }
            Step::Please => {
                self.ends[CLIENT].tunnel.say(&Control::RekeyPlease);
                self.pump(CLIENT);
            }
            Step::Resume { early, lost } => {
                if lost {
                    self.memory.lose_answer(&self.settings);
                }
                self.connect();
                (0..early).for_each(|_| self.send(CLIENT, 100));
            }
            Step::Tamper { to, at, cut } => self.tamper(to, at.into(), cut),
            Step::Replay { number, changed } => self.replay(number.into(), changed),
            Step::Farewell { from } => {
                let kick = Control::Kick { reason: KickReason::Revoked };
                self.farewell = true;
                self.ends[from].tunnel.say(if from == CLIENT { &Control::Close } else { &kick });
                self.pump(from);
            }
            Step::Doubt { at } => {
                self.doubted_at = self.now;
                self.ends[at].tunnel.doubt(self.now);
                self.pump(at);
            }
        }
        self.check();
        self.come_back();
    }

    /// The ways are whole again; after a while everything has to be in order.
    pub(super) fn settle(&mut self) {
        self.cut = false;
        self.closed = false;
        self.fate = None;
        self.ends.iter_mut().for_each(|end| end.stalled = false);
        (0..2).for_each(|at| self.pump(at));
        self.run_for(SETTLED);
        // what was tampered with, or cut for too long, has ended by now
        self.come_back();
        let epochs = self.epochs();
        (0..2).for_each(|from| self.send(from, 50));
        self.run_for(SETTLED);
        self.check();
        for end in &self.ends {
            assert_eq!(end.over, None, "a connection ends though the ways are whole");
            if let Some(beside) = &end.beside {
                assert!(beside.conversation.path().up, "datagrams are not tried again");
            }
        }
        self.model.assert_settled();
        let (before, after) = (epochs[GATEWAY].0, self.epochs()[GATEWAY].0);
        let due = SETTLED > self.settings.rekey_interval * 2;
        assert!(!due || after > before, "there was no rekey in {SETTLED:?}");
    }

    fn epochs(&self) -> [(u32, u32); 2] {
        [self.ends[CLIENT].epochs(), self.ends[GATEWAY].epochs()]
    }

    fn send(&mut self, from: usize, length: usize) {
        if self.ends[from].over.is_some() {
            return;
        }
        let packet = self.model.next(from, length);
        match self.ends[from].send(self.now, packet) {
            Some(datagram) => {
                self.model.sent_by_datagram(from, packet);
                self.launch(from, datagram);
            }
            None => self.model.sent_by_stream(from, packet),
        }
        self.pump(from);
    }

    /// Everything that an end has to say goes on its way.
    fn pump(&mut self, at: usize) {
        if self.ends[at].over.is_some() {
            return;
        }
        let records = self.ends[at].records(self.now);
        if !records.is_empty() {
            self.stream[1 - at].push_back((self.now + self.settings.delay, records));
        }
        for datagram in self.ends[at].datagrams(self.now) {
            self.launch(at, datagram);
        }
    }

    fn launch(&mut self, from: usize, (to, bytes): Datagram) {
        let from = if from == CLIENT { self.client } else { gateway() };
        let flight = Flight { at: self.now + self.settings.delay, from, to, bytes };
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(flight.clone());
        if self.closed {
            return;
        }
        let late = Flight { at: flight.at + Duration::from_millis(700), ..flight.clone() };
        let flights = match self.fate {
            Some(Fate::Lost(_)) => vec![],
            Some(Fate::Doubled(_)) => vec![flight, late],
            Some(Fate::Late(_)) => vec![late],
            None => vec![flight],
        };
        self.flights.extend(flights);
        self.fate = match self.fate {
            Some(Fate::Lost(count)) => count.checked_sub(1).map(Fate::Lost),
            Some(Fate::Doubled(count)) => count.checked_sub(1).map(Fate::Doubled),
            Some(Fate::Late(count)) => count.checked_sub(1).map(Fate::Late),
            None => None,
        };
    }

    /// Jumps from event to event.
    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let arrivals = self.stream.iter().filter(|_| !self.cut).filter_map(VecDeque::front);
            let flights = self.flights.iter().map(|flight| flight.at);
            let alive = self.ends.iter().filter(|end| end.over.is_none());
            let next =
                arrivals.map(|(at, _)| *at).chain(flights).chain(alive.map(End::poll_timeout));
            let Some(next) = next.min().filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            self.arrive();
            for at in 0..2 {
                if self.ends[at].over.is_none() {
                    self.ends[at].handle_timeout(self.now);
                }
                self.pump(at);
            }
            self.check();
            self.come_back();
        }
        self.now = until;
    }

    fn arrive(&mut self) {
        let now = self.now;
        for to in 0..2 {
            while !self.cut
                && let Some((_, bytes)) = self.stream[to].pop_front_if(|(at, _)| *at <= now)
            {
                for packet in self.ends[to].receive(now, &bytes) {
                    self.model.came_by_stream(1 - to, &packet);
                }
            }
        }
        while let Some(place) = self.flights.iter().position(|flight| flight.at <= now) {
            let flight = self.flights.remove(place);
            let to = [self.client, gateway()].iter().position(|address| *address == flight.to);
            let Some(to) = to.filter(|to| self.ends[*to].over.is_none()) else { continue };
            for packet in self.ends[to].receive_datagram(now, flight.from, &flight.bytes) {
                self.model.came_by_datagram(1 - to, &packet);
            }
            self.pump(to);
        }
    }

    /// What must hold at any time.
    fn check(&self) {
        for (at, end) in self.ends.iter().enumerate() {
            match &end.over {
                None => {
                    let since = |then| self.now.saturating_duration_since(then);
                    let silence = since(self.cut_since);
                    // who doubts asks, and waits for the answer
                    let asks = since(self.doubted_at) <= PONG_WITHIN;
                    let is_soon = silence <= DEAD_WITHIN + 2 * self.settings.delay;
                    assert!(!self.cut || is_soon || asks, "end {at} waits {silence:?} for nothing");
                }
                Some(Over::Failed(error)) => {
                    // no answer to a rekey in time, where there is none in time to anything
                    let late = self.disturbed && error.contains("30 s");
                    assert!(self.tampered || late, "end {at} fails: {error}");
                }
                Some(Over::Dead) => {
                    assert!(self.tampered || self.disturbed, "end {at} gives up a whole way");
                }
                Some(Over::Farewell(_)) => assert!(self.farewell, "nobody said farewell"),
            }
        }
        let [(client_seals, client_opens), (gateway_seals, gateway_opens)] = self.epochs();
        assert!(client_opens <= gateway_seals && gateway_seals <= client_opens + 1);
        assert!(gateway_opens <= client_seals && client_seals <= gateway_opens + 1);
        // never more than one every second, however much it is asked for
        let age = self.now.saturating_duration_since(self.connected_at).as_secs();
        assert!(u64::from(gateway_seals) <= age + 1, "{gateway_seals} rekeys in {age} s");
    }

    /// If an end is over, so is the connection; the client makes another one as soon as it can.
    fn come_back(&mut self) {
        if self.cut || self.ends.iter().all(|end| end.over.is_none()) {
            return;
        }
        self.connect();
    }

    fn connect(&mut self) {
        let farewell = |end: &End| matches!(end.over, Some(Over::Farewell(_)));
        if self.ends.iter().any(farewell) {
            self.memory.forget();
        }
        self.ends = ends(self.now, &mut self.memory, &self.settings);
        self.stream = Default::default();
        self.model.connected();
        self.cut = false;
        self.tampered = false;
        self.disturbed = false;
        self.farewell = false;
        self.connected_at = self.now;
        self.greet();
    }

    /// The client has its token on disk.
    fn greet(&mut self) {
        self.memory.token_stored();
        (0..2).for_each(|at| self.pump(at));
    }

    fn tamper(&mut self, to: usize, at: usize, cut: bool) {
        let Some((_, bytes)) = self.stream[to].back_mut() else { return };
        self.tampered = true;
        if cut {
            bytes.truncate(at);
        } else if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << (at % 8);
        }
    }

    fn replay(&mut self, number: usize, changed: bool) {
        let Some(flight) = self.seen.get(number % self.seen.len().max(1)) else { return };
        let mut flight = Flight { at: self.now, from: client(250), ..flight.clone() };
        if changed {
            let middle = flight.bytes.len() / 2;
            flight.bytes[middle] ^= 1;
        }
        self.flights.push(flight);
    }
}

fn ends(now: Instant, memory: &mut Memory, settings: &Settings) -> [End; 2] {
    let mut at = 0;
    memory.connect(settings).map(|halves| {
        at += 1;
        End::new(now, at - 1, halves, gateway(), settings)
    })
}
