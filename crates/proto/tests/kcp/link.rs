//! Conversations over a virtual path: rate, delay, loss and a queue, on a virtual clock.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use cipherwall_proto::{
    kcp::{Conversation, DATAGRAM_MAX, Door, Head, Transmit},
    keys::DoorKey,
};

/// Unix seconds of the virtual clock.
pub(crate) const NOW_S: u32 = 1_700_000_000;
const STEP: Duration = Duration::from_micros(250);
/// IP and UDP.
const HEADERS: usize = 28;

pub(crate) fn door() -> Door {
    Door::new(&DoorKey([7; 32]))
}

pub(crate) fn gateway_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 443))
}

pub(crate) fn client_address(last: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], 5_000))
}

/// One direction of a path.
pub(crate) struct Link {
    /// Bits a second.
    pub(crate) rate: f64,
    pub(crate) delay: Duration,
    /// Of so many datagrams one is lost, at random.
    pub(crate) loss: f64,
    /// Bytes that wait for their turn at most.
    pub(crate) queue: usize,
    free_at: Instant,
    random: u64,
    on_the_way: VecDeque<(Instant, usize, Vec<u8>)>,
    pub(crate) dropped: u64,
    pub(crate) sent: u64,
    /// How long the last datagrams had to wait in the queue, at most; falls slowly.
    pub(crate) longest_wait: Duration,
}

impl Link {
    pub(crate) fn new(now: Instant, mbit: f64, delay_ms: u64, loss: f64, queue: usize) -> Self {
        let delay = Duration::from_millis(delay_ms);
        Self {
            rate: mbit * 1e6,
            delay,
            loss,
            queue,
            free_at: now,
            random: 0x9e37_79b9_7f4a_7c15,
            on_the_way: VecDeque::new(),
            dropped: 0,
            sent: 0,
            longest_wait: Duration::ZERO,
        }
    }

    /// A datagram of the flow with this number begins its way.
    pub(crate) fn send(&mut self, now: Instant, flow: usize, datagram: Vec<u8>) {
        self.sent += 1;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let takes = |bytes: usize| Duration::from_secs_f64(bytes as f64 * 8.0 / self.rate);
        let begins = self.free_at.max(now);
        self.longest_wait = (begins - now).max(self.longest_wait.mul_f64(0.9999));
        let is_lost = (self.random >> 11) as f64 / (1_u64 << 53) as f64 <= self.loss;
        if begins - now > takes(self.queue) || is_lost {
            self.dropped += 1;
            return;
        }
        self.free_at = begins + takes(datagram.len() + HEADERS);
        self.on_the_way.push_back((self.free_at + self.delay, flow, datagram));
    }

    /// The datagrams that have arrived.
    pub(crate) fn arrived(&mut self, now: Instant) -> Vec<(usize, Vec<u8>)> {
        let mut arrived = Vec::new();
        while let Some((_, flow, datagram)) = self.on_the_way.pop_front_if(|(at, ..)| *at <= now) {
            arrived.push((flow, datagram));
        }
        arrived
    }
}

/// A client and its gateway.
pub(crate) struct Pair {
    pub(crate) client: Conversation,
    pub(crate) gateway: Conversation,
    /// Bytes that the gateway has sent and the client has read.
    pub(crate) sent: u64,
    pub(crate) read: u64,
    /// What the gateway has to send; the client's bytes are checked to be the same.
    pub(crate) limit: u64,
    /// The client reads what has come.
    pub(crate) reads: bool,
    /// Where the client is.
    pub(crate) address: SocketAddr,
}

/// A client that asks for an answer.
pub(crate) fn client(now: Instant, number: u8) -> Conversation {
    let mut client = Conversation::client(now, &door(), [number; 8], gateway_address());
    client.ask();
    client
}

/// The gateway's end of what begins with this datagram.
pub(crate) fn begin(
    now: Instant,
    door: &Door,
    head: &Head,
    from: SocketAddr,
    datagram: &mut [u8],
) -> Conversation {
    let (gateway, time_s) =
        Conversation::gateway(now, door, head, from, datagram, [9; 32]).unwrap();
    assert_eq!(time_s, NOW_S);
    gateway
}

/// The byte at this place of the stream.
pub(crate) fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

impl Pair {
    pub(crate) fn new(now: Instant, number: u8) -> Self {
        let (door, address) = (door(), client_address(number));
        let mut client = client(now, number);
        // as long as a TLS hello, by which the gateway may answer
        client.write(&[0; 1_500]);
        let mut first = datagrams(&mut client, now).into_iter();
        let mut datagram = first.next().unwrap();
        let head = door.head(&datagram).unwrap();
        let mut gateway = begin(now, &door, &head, address, &mut datagram);
        for mut datagram in first {
            let head = door.head(&datagram).unwrap();
            assert_eq!(gateway.handle(now, address, &head, &mut datagram), Some(NOW_S));
        }
        gateway.admit();
        Self { client, gateway, sent: 0, read: 0, limit: u64::MAX, reads: true, address }
    }

    /// The gateway writes whatever there is room for, and the client reads all that has come.
    fn work(&mut self) {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let count = (self.limit - self.sent).min(bytes.len() as u64) as usize;
            for (at, to) in (self.sent..).zip(&mut bytes[..count]) {
                *to = byte(at);
            }
            match self.gateway.write(&bytes[..count]) {
                0 => break,
                count => self.sent += count as u64,
            }
        }
        while self.reads {
            let count = self.client.read(&mut bytes);
            if count == 0 {
                break;
            }
            for (at, read) in (self.read..).zip(&bytes[..count]) {
                assert_eq!(*read, byte(at), "byte {at}");
            }
            self.read += count as u64;
        }
    }
}

/// What a conversation sends now.
pub(crate) fn datagrams(conversation: &mut Conversation, now: Instant) -> Vec<Vec<u8>> {
    conversation.poll(now);
    let mut all = Vec::new();
    let mut room = [0; DATAGRAM_MAX];
    while let Transmit::Written(len) = conversation.transmit(NOW_S, |len| Some(&mut room[..len])) {
        all.push(room[..len].to_vec());
    }
    all
}

/// Lets time pass for all pairs, which share the path.
pub(crate) fn run(
    pairs: &mut [Pair],
    [down, up]: [&mut Link; 2],
    now: &mut Instant,
    time: Duration,
) {
    let (door, end) = (door(), *now + time);
    while *now < end {
        *now += STEP;
        for (flow, mut datagram) in down.arrived(*now) {
            let head = door.head(&datagram).unwrap();
            pairs[flow].client.handle(*now, gateway_address(), &head, &mut datagram);
        }
        for (flow, mut datagram) in up.arrived(*now) {
            let head = door.head(&datagram).unwrap();
            let from = pairs[flow].address;
            pairs[flow].gateway.handle(*now, from, &head, &mut datagram);
        }
        for (flow, pair) in pairs.iter_mut().enumerate() {
            pair.work();
            for datagram in datagrams(&mut pair.gateway, *now) {
                down.send(*now, flow, datagram);
            }
            for datagram in datagrams(&mut pair.client, *now) {
                up.send(*now, flow, datagram);
            }
        }
    }
}
