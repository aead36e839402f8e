//! Datagrams of KCP: of strangers, of whoever has the door key but no account (anybody who was ever
//! invited), and between two good ends over a bad way. How datagrams are made is written here once
//! more, from docs/protocol.md.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use aes::{
    Aes256,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use cipherwall_proto::{
    kcp::{Conversation, DATAGRAM_MAX, Door, OVERHEAD, Register, Transmit},
    keys::DoorKey,
};
use hkdf::Hkdf;
use sha2::Sha256;

const DOOR: [u8; 32] = [7; 32];
const NUMBER: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const SECRET: [u8; 32] = [9; 32];
const NOW_S: u32 = 1_700_000_000;
/// More datagrams than this never leave at once.
const BURST_MAX: usize = 20_000;
/// The step of a way that keeps everything to itself for a while.
const HOLD: u8 = 5;
/// A client that has heard nothing for so long has given up long ago.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// First byte: which of the three. The rest is theirs.
pub(crate) fn run(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    match kind % 4 {
        0 => stranger(data),
        1 => meddling(data),
        way => insider(way == 2, data),
    }
}

fn door() -> Door {
    Door::new(&DoorKey(DOOR))
}

fn address(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 443).into()
}

/// Whatever it is, it begins nothing and changes nothing.
fn stranger(data: &[u8]) {
    let (door, now) = (door(), Instant::now());
    let Some(head) = door.head(data) else {
        assert!(data.len() < OVERHEAD);
        return;
    };
    let begun = Conversation::gateway(now, &door, &head, address(9), &mut data.to_vec(), SECRET);
    assert!(begun.is_none(), "a stranger has begun a conversation");
    let mut client = Conversation::client(now, &door, head.conversation, address(1));
    assert!(client.handle(now, address(1), &head, &mut data.to_vec()).is_none());
    assert!(!client.is_heard());
}

/// Segments of a peer's choice, in datagrams as they have to be: eight bytes each.
fn insider(to_gateway: bool, data: &[u8]) {
    let (door, mut now) = (door(), Instant::now());
    let mut counter = 0;
    let mut seal = |kcp: &[u8]| {
        counter += 1;
        sealed(u64::from(!to_gateway) << 63 | (counter - 1), kcp)
    };
    let peer = address(if to_gateway { 9 } else { 1 });
    let mut end = if to_gateway {
        let mut first = seal(&segment(81, 0, [0, 0, 0], b"hello"));
        let head = door.head(&first).expect("a head");
        let begun = Conversation::gateway(now, &door, &head, peer, &mut first, SECRET);
        let (end, time_s) = begun.expect("it is as it has to be");
        assert!(Register::new(0).admits(now, NOW_S, &head, time_s));
        end
    } else {
        Conversation::client(now, &door, NUMBER, peer)
    };
    let mut read = [0; 1_024];
    for &[command, window, number, unacknowledged, time, length, pause, what] in
        data.as_chunks::<8>().0
    {
        let spread = |byte: u8| match byte {
            0..=127 => u32::from(byte),
            128..=191 => u32::from(byte) << 8,
            _ => u32::MAX - u32::from(byte - 192),
        };
        let numbers = [spread(time), spread(number), spread(unacknowledged)];
        let payload = vec![length; usize::from(length) * 4];
        let payload = if command % 8 == 1 { &payload[..] } else { &[] };
        let mut kcp = segment(80 + command % 8, u16::from(window) << 4, numbers, payload);
        if what & 1 != 0 {
            kcp = kcp.repeat(2);
        }
        if what & 2 != 0 {
            let at = usize::from(number) % kcp.len();
            kcp[at] ^= 1 << (time % 8);
        }
        let mut datagram = seal(&kcp);
        let head = door.head(&datagram).expect("a head");
        let mut again = datagram.clone();
        let took = end.handle(now, peer, &head, &mut datagram);
        assert_eq!(took, Some(NOW_S), "an authentic datagram");
        if what & 4 != 0 {
            assert_eq!(end.handle(now, peer, &head, &mut again), None, "the same once more");
        }
        if what & 8 != 0 {
            end.write(&[1; 3_000]);
        }
        if what & 16 != 0 {
            end.finish();
        }
        now += Duration::from_millis(u64::from(pause) * 8);
        let _ = datagrams(&mut end, now);
        while what & 32 != 0 && end.read(&mut read) > 0 {}
    }
}

/// Two good ends, and a way that does with each datagram what two bytes say: time passes, datagrams
/// are lost, repeated, changed and reordered, and the client has another address. What comes out is a
/// beginning of what went in; and all of it once the way has been good for a minute, and for half of the
/// time in which it was bad: whenever something is lost again the library waits half as long again. Two
/// ends that have waited for long wait for one another; but a client that hears nothing has begun
/// another conversation by then.
fn meddling(data: &[u8]) {
    let mut way = Way::new(Instant::now());
    // a TLS hello, by whose length the gateway may answer
    way.write(0, 1_500);
    let steps = &data.as_chunks::<2>().0[..(data.len() / 2).min(300)];
    let mut given_up = false;
    for &[what, how] in steps {
        let from = usize::from(what >> 3 & 1);
        if way.sent[from] < 200_000 {
            way.write(from, usize::from(how) * 16);
        }
        way.step(what & 7, how);
        // what is only held up still comes
        given_up |= what & 7 != HOLD && way.now > way.heard + SILENCE_MAX;
    }
    let bad_ms: u32 = steps.iter().map(|[_, how]| u32::from(*how) * 4).sum();
    for settling in 1..=(60_000 + bad_ms / 2) / 100 {
        // a sign of life every second
        if settling % 10 == 0 {
            way.write(0, 60);
        }
        way.step(0, 25);
        if way.got == way.sent {
            return;
        }
    }
    let Way { got, sent, .. } = way;
    assert!(given_up, "{got:?} of {sent:?} after half of {bad_ms} ms and a minute of a good way");
}

/// The two ends of [`meddling`], and what is between them. Of two, the client's comes first.
struct Way {
    door: Door,
    now: Instant,
    client: Conversation,
    gateway: Option<Conversation>,
    /// Where the client is.
    here: SocketAddr,
    /// Datagrams, and whether they go to the gateway.
    under_way: Vec<(bool, Vec<u8>)>,
    /// Bytes of the streams.
    sent: [u64; 2],
    got: [u64; 2],
    /// When the client heard something.
    heard: Instant,
}

impl Way {
    fn new(now: Instant) -> Self {
        let door = door();
        let client = Conversation::client(now, &door, NUMBER, address(1));
        Self {
            door,
            now,
            client,
            gateway: None,
            here: address(9),
            under_way: Vec::new(),
            sent: [0; 2],
            got: [0; 2],
            heard: now,
        }
    }

    fn write(&mut self, from: usize, count: usize) {
        let end = if from == 0 { Some(&mut self.client) } else { self.gateway.as_mut() };
        self.sent[from] += end.map_or(0, |end| write(end, self.sent[from], count));
    }

    /// Time passes, the ends send, and what is under way arrives, unless `what` says otherwise.
    fn step(&mut self, what: u8, how: u8) {
        self.now += Duration::from_millis(u64::from(how) * 4);
        self.collect();
        match what {
            1 => drop(self.under_way.pop()),
            2 => self.under_way.extend(self.under_way.last().cloned()),
            3 => self.under_way.reverse(),
            4 => {
                if let Some((_, datagram)) = self.under_way.last_mut() {
                    let at = usize::from(how) % datagram.len();
                    datagram[at] ^= 0x10;
                }
            }
            HOLD => return,
            // a client that has heard nothing yet begins anew instead
            6 if self.got[1] > 0 => self.here = address(9 + how % 4),
            _ => {}
        }
        for (to_gateway, datagram) in std::mem::take(&mut self.under_way) {
            self.deliver(to_gateway, datagram);
        }
        self.got[1] += read(&mut self.client, self.got[1]);
        self.got[0] += self.gateway.as_mut().map_or(0, |gateway| read(gateway, self.got[0]));
    }

    fn collect(&mut self) {
        let sent = datagrams(&mut self.client, self.now).into_iter();
        self.under_way.extend(sent.map(|datagram| (true, datagram)));
        if let Some(gateway) = &mut self.gateway {
            let sent = datagrams(gateway, self.now).into_iter();
            let arrive = gateway.peer() == self.here;
            self.under_way.extend(sent.filter(|_| arrive).map(|datagram| (false, datagram)));
        }
    }

    fn deliver(&mut self, to_gateway: bool, mut datagram: Vec<u8>) {
        let Self { door, now, here, .. } = self;
        let head = door.head(&datagram).expect("long enough");
        if !to_gateway {
            if self.client.handle(*now, address(1), &head, &mut datagram).is_some() {
                self.heard = *now;
            }
        } else if let Some(gateway) = &mut self.gateway {
            let _ = gateway.handle(*now, *here, &head, &mut datagram);
        } else if head.conversation == NUMBER {
            let begun = Conversation::gateway(*now, door, &head, *here, &mut datagram, SECRET);
            self.gateway = begun.map(|(mut gateway, _)| {
                gateway.admit();
                gateway
            });
        }
    }
}

/// The byte at this place of a stream.
fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

fn write(end: &mut Conversation, at: u64, count: usize) -> u64 {
    let bytes: Vec<u8> = (at..).take(count).map(byte).collect();
    end.write(&bytes) as u64
}

fn read(end: &mut Conversation, mut at: u64) -> u64 {
    let (begin, mut bytes) = (at, [0; 4_096]);
    loop {
        let count = end.read(&mut bytes);
        for read in &bytes[..count] {
            assert_eq!(*read, byte(at), "byte {at}");
            at += 1;
        }
        if count == 0 {
            return at - begin;
        }
    }
}

/// What an end sends now.
fn datagrams(end: &mut Conversation, now: Instant) -> Vec<Vec<u8>> {
    end.poll(now);
    let (mut all, mut room) = (Vec::new(), [0; DATAGRAM_MAX]);
    while let Transmit::Written(length) = end.transmit(NOW_S, |length| room.get_mut(..length)) {
        all.push(room[..length].to_vec());
        assert!(all.len() < BURST_MAX, "there is no end to it");
    }
    all
}

/// A segment: command, window, time, number and the first number that is not acknowledged.
fn segment(command: u8, window: u16, numbers: [u32; 3], payload: &[u8]) -> Vec<u8> {
    let [a, b, c, d, ..] = NUMBER;
    let mut bytes = u32::from_be_bytes([a, b, c, d]).to_le_bytes().to_vec();
    bytes.extend([command, 0]);
    bytes.extend(window.to_le_bytes());
    numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    bytes.extend(u32::try_from(payload.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The datagram with this counter (bit 63: the direction) and these segments.
fn sealed(counter: u64, kcp: &[u8]) -> Vec<u8> {
    let expand = |label: &str, context: &[u8]| {
        let mut key = [0; 32];
        let info = [b"cipherwall 1 ", label.as_bytes(), &[0], context].concat();
        let prk = Hkdf::<Sha256>::from_prk(&DOOR).expect("32 bytes");
        prk.expand(&info, &mut key).expect("32 bytes");
        key
    };
    let mut head: [u8; 16] = [0; 16];
    head[..8].copy_from_slice(&NUMBER);
    head[8..].copy_from_slice(&counter.to_be_bytes());
    let key = UnboundKey::new(&CHACHA20_POLY1305, &expand("kcp key", &NUMBER)).expect("a key");
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    let mut sealed = [&NOW_S.to_be_bytes()[..], kcp].concat();
    LessSafeKey::new(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(head), &mut sealed)
        .expect("sealed");
    Aes256::new(&expand("kcp head", b"").into()).encrypt_block((&mut head).into());
    [&head[..], &sealed].concat()
}
