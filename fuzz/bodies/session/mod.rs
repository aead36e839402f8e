//! Both ends of a session against a reference model, on a virtual clock: log-in, tunnel, rekeys,
//! datagrams, resumes, and a network and users that do whatever they can.
//!
//! [`world`] has the ends and what is between them; [`model`] says what a user may expect, in terms
//! of packets and connections only.

mod end;
mod model;
mod opening;
mod world;

use std::time::Duration;

use cipherwall_proto::cipher::{CipherId, DatagramCipher};

use world::World;

/// More does not make a better story.
const STEPS_MAX: usize = 400;

/// What a session is like.
#[derive(Debug, Clone, Copy)]
struct Settings {
    stream: CipherId,
    datagrams: Option<DatagramCipher>,
    /// One way, on either path.
    delay: Duration,
    /// Between two rekeys, ±10%.
    rekey_interval: Duration,
}

/// What happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// An end has a packet of this length to send.
    Send { from: usize, length: usize },
    /// Time passes.
    Wait(Duration),
    /// The way of the stream is cut: nothing arrives, nothing is lost; or it is whole again.
    Cut(bool),
    /// An end's socket takes nothing, or takes something again.
    Stall { at: usize, stalled: bool },
    /// The way of the datagrams is closed; or open again.
    Close(bool),
    /// What becomes of the next datagrams.
    Fate(Fate),
    /// The client has another address.
    Roam(u8),
    /// The client asks for new keys.
    Please,
    /// The client comes back with another connection, and sends packets before it has an answer;
    /// perhaps the answer is lost, and it has to come again.
    Resume { early: u8, lost: bool },
    /// A bit of what is under way in the stream is changed, or the end of it is lost.
    Tamper { to: usize, at: u8, cut: bool },
    /// Somebody sends a datagram again, from another address, perhaps changed.
    Replay { number: u8, changed: bool },
    /// An end says farewell.
    Farewell { from: usize },
    /// An end has a reason to doubt the path.
    Doubt { at: usize },
}

/// Of so many datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost(u8),
    Doubled(u8),
    Late(u8),
}

/// Two bytes of settings, then what happens, two bytes each. Afterwards the ways are whole, and after
/// some minutes everything has to be as the model says.
pub(crate) fn run(data: &[u8]) {
    let Some((&[kind, delay], steps)) = data.split_first_chunk() else { return };
    let mut world = World::new(settings(kind, delay));
    for &[what, how] in steps.as_chunks().0.iter().take(STEPS_MAX) {
        world.act(step(what, how));
    }
    world.settle();
}

fn settings(kind: u8, delay: u8) -> Settings {
    let aead = [CipherId::ChaCha20Poly1305, CipherId::Aes256Gcm];
    let datagrams = match kind >> 1 & 3 {
        0 => None,
        1 => Some(DatagramCipher::Aead(aead[0])),
        2 => Some(DatagramCipher::Aead(aead[1])),
        _ => Some(DatagramCipher::Packet),
    };
    let seconds = if kind & 8 == 0 { 10 } else { 3_600 };
    Settings {
        stream: aead[usize::from(kind & 1)],
        datagrams,
        delay: Duration::from_millis(u64::from(delay) * 2),
        rekey_interval: Duration::from_secs(seconds),
    }
}

fn step(what: u8, how: u8) -> Step {
    let end = usize::from(what >> 4 & 1);
    match what & 15 {
        0..=3 => Step::Send { from: end, length: 20 + usize::from(how) * 5 },
        4 => Step::Wait(Duration::from_millis(u64::from(how) * 4)),
        5 => Step::Wait(Duration::from_millis(u64::from(how) * 250)),
        6 => Step::Cut(how & 1 == 1),
        7 => Step::Stall { at: end, stalled: how & 1 == 1 },
        8 if end == 0 => Step::Close(how & 1 == 1),
        8 => Step::Roam(how),
        9 => match how >> 6 {
            0 => Step::Fate(Fate::Lost(how & 63)),
            1 => Step::Fate(Fate::Doubled(how & 63)),
            _ => Step::Fate(Fate::Late(how & 63)),
        },
        10 => Step::Please,
        11 => Step::Resume { early: how & 7, lost: how & 8 != 0 },
        12 => Step::Tamper { to: end, at: how, cut: what & 32 != 0 },
        13 => Step::Replay { number: how, changed: what & 16 != 0 },
        14 => Step::Farewell { from: end },
        _ => Step::Doubt { at: end },
    }
}
