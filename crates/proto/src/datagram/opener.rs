//! The receiving half of a session's datagram keys.
//!
//! ```text
//!  previous   30 s longer
//!  current    the epoch of what this end sends
//!  next       as soon as it can be computed: the other end may be ahead
//! ```

use std::time::Instant;

use super::{
    HEAD_LEN, Head, Masks, OLD_KEYS_LIVE, Usage,
    channel::{Cipher, EpochKeys},
    masks::Form,
    packet,
    window::Window,
};
use crate::{
    cipher::{Aead, DatagramCipher},
    keys::Direction,
};

/// Opens datagrams in one direction, in any order, each once.
pub struct Opener {
    cipher: DatagramCipher,
    index: u32,
    direction: Direction,
    masks: Masks,
    epochs: Epochs,
    /// The latest epoch of which something authentic has come.
    newest_epoch: u32,
}

struct Epochs {
    previous: Option<(Epoch, Instant)>,
    current: Epoch,
    next: Option<Epoch>,
}

/// One epoch's key, what came under it, and how often.
struct Epoch {
    cipher: Cipher,
    seen: Seen,
}

struct Seen {
    window: Window,
    usage: Usage,
}

/// An authentic datagram that has not come before.
#[derive(Debug)]
pub struct Opened<'a> {
    /// The frames: for [`super::frames`].
    pub plaintext: &'a mut [u8],
    /// Bytes of the datagram.
    pub len: usize,
    /// None that was sent later has come before.
    pub newest: bool,
}

impl Opener {
    pub(super) fn new(cipher: DatagramCipher, index: u32, masks: Masks, keys: &EpochKeys) -> Self {
        Self {
            cipher,
            index,
            direction: keys.direction(),
            masks,
            epochs: Epochs { previous: None, current: Epoch::new(keys), next: None },
            newest_epoch: keys.epoch,
        }
    }

    /// From now on the other end may use these keys, those of the next epoch.
    pub fn accept(&mut self, keys: &EpochKeys) {
        self.epochs.next = Some(Epoch::new(keys));
    }

    /// This end has changed to the next epoch, too: the one before lives 30 s longer.
    pub fn advance(&mut self, now: Instant) {
        if let Some(next) = self.epochs.next.take() {
            let before = std::mem::replace(&mut self.epochs.current, next);
            self.epochs.previous = Some((before, now + OLD_KEYS_LIVE));
        }
    }

    /// Forgets keys whose time is over. Called now and then, so that they are gone even if nothing
    /// comes any more.
    pub fn expire(&mut self, now: Instant) {
        self.epochs.previous.take_if(|(_, until)| now >= *until);
    }

    /// What has been opened in this epoch, and what could not be opened.
    pub fn usage(&self) -> Usage {
        self.epochs.current.seen.usage
    }

    /// What a datagram says of itself, if it says that it is of this session: for an end that has
    /// only one.
    pub fn head(&self, datagram: &[u8]) -> Option<Head> {
        self.masks.heads(datagram).find(|head| self.is_for(head))
    }

    /// Opens a datagram where it stands, for an end that has only one session.
    pub fn receive<'a>(&mut self, now: Instant, datagram: &'a mut [u8]) -> Option<Opened<'a>> {
        let head = self.head(datagram)?;
        self.open(now, &head, datagram)
    }

    /// Opens the datagram of this head where it stands. `None`: drop it; if index or format are not
    /// the session's, nothing was touched.
    pub fn open<'a>(
        &mut self,
        now: Instant,
        head: &Head,
        datagram: &'a mut [u8],
    ) -> Option<Opened<'a>> {
        let mut all = None;
        self.open_each(now, std::iter::once((*head, datagram)), |opened| all = Some(opened));
        all
    }

    /// Opens several datagrams where they stand, in their order; what is not valid is left out. With
    /// CipherWall packets this is faster than one by one.
    pub fn open_each<'a>(
        &mut self,
        now: Instant,
        datagrams: impl Iterator<Item = (Head, &'a mut [u8])>,
        mut each: impl FnMut(Opened<'a>),
    ) {
        self.expire(now);
        let (index, cipher) = (self.index, self.cipher);
        let is_ours = |head: &Head| head.index == index && head.form.is_of(cipher);
        let mut datagrams = datagrams.filter(|(head, _)| is_ours(head)).peekable();
        while let Some(number) = datagrams.peek().map(|(head, _)| head.form.epoch()) {
            // those of one epoch together
            let same = || datagrams.next_if(|(head, _)| head.form.epoch() == number);
            let same = std::iter::from_fn(same);
            let Some(epoch) = self.epochs.find(cipher, number) else {
                same.for_each(drop);
                continue;
            };
            // epochs count modulo 2^32, and no two accepted ones are far from each other
            let number = epoch.seen.usage.epoch;
            let is_behind = (number.wrapping_sub(self.newest_epoch) as i32) < 0;
            epoch.open_each(self.direction, same, |mut opened| {
                opened.newest &= !is_behind;
                if opened.newest {
                    self.newest_epoch = number;
                }
                each(opened);
            });
        }
    }

    fn is_for(&self, head: &Head) -> bool {
        head.index == self.index && head.form.is_of(self.cipher)
    }
}

impl Epochs {
    /// The epoch of this number, as far as datagrams of this cipher tell.
    fn find(&mut self, cipher: DatagramCipher, number: u8) -> Option<&mut Epoch> {
        let previous = self.previous.as_mut().map(|(epoch, _)| epoch);
        let all = [Some(&mut self.current), self.next.as_mut(), previous];
        let is = |epoch: &&mut Epoch| Form::epoch_of(cipher, epoch.seen.usage.epoch) == number;
        all.into_iter().flatten().find(is)
    }
}

impl Epoch {
    fn new(keys: &EpochKeys) -> Self {
        let seen = Seen { window: Window::default(), usage: Usage::new(keys.epoch) };
        Self { cipher: keys.cipher(), seen }
    }

    fn open_each<'a>(
        &mut self,
        direction: Direction,
        datagrams: impl Iterator<Item = (Head, &'a mut [u8])>,
        mut each: impl FnMut(Opened<'a>),
    ) {
        let Self { cipher, seen } = self;
        match cipher {
            Cipher::Aead(aead) => {
                let open = |(head, datagram)| seen.open_aead(aead, &head, datagram);
                datagrams.filter_map(open).for_each(each);
            }
            Cipher::Packet(cipher) => cipher.open_each(datagrams, |head, datagram| {
                seen.opened_packet(&head, direction, datagram).into_iter().for_each(&mut each);
            }),
        }
    }
}

impl Seen {
    fn open_aead<'a>(
        &mut self,
        aead: &Aead,
        head: &Head,
        datagram: &'a mut [u8],
    ) -> Option<Opened<'a>> {
        let Form::Aead(nonce) = head.form else { return None };
        let counter = head.form.counter();
        // saves the work for replays; forgeries of old counters are not worth counting either
        if !self.window.accepts(counter) {
            return None;
        }
        let len = datagram.len();
        let sealed = datagram.get_mut(HEAD_LEN..)?;
        let Ok(plaintext) = aead.open_in_place(&nonce, &head.index.to_be_bytes(), sealed) else {
            self.usage.failures += 1;
            return None;
        };
        Some(Opened { plaintext, len, newest: self.mark(counter, len) })
    }

    /// What has come of a CipherWall packet; its head may be believed only now.
    fn opened_packet<'a>(
        &mut self,
        head: &Head,
        expected: Direction,
        datagram: Option<&'a mut [u8]>,
    ) -> Option<Opened<'a>> {
        let Some(datagram) = datagram else {
            self.usage.failures += 1;
            return None;
        };
        let Form::Packet { direction, counter, .. } = head.form else { return None };
        if direction != expected.wire() || !self.window.accepts(counter) {
            return None;
        }
        let len = datagram.len();
        let plaintext = datagram.get_mut(packet::OVERHEAD..)?;
        Some(Opened { plaintext, len, newest: self.mark(counter, len) })
    }

    /// Notes an authentic datagram; whether its counter is the highest of the epoch.
    fn mark(&mut self, counter: u64, length: usize) -> bool {
        let newest = self.window.highest().is_none_or(|highest| counter > highest);
        self.window.mark(counter);
        self.usage.add(length);
        newest
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("usage", &self.usage()).finish_non_exhaustive()
    }
}
