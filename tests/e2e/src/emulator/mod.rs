//! A link emulator: delay, loss, rate, queue and reordering between the carrier, where the clients
//! are, and the gateway with the web host.
//!
//! In the laboratory's `internet`, packets from the carrier and to it take a detour through two TUN
//! devices, one for each direction. A thread behind each lets them out again as an emulated
//! [`Link`] would: [`shaper`] decides what happens to a packet and when, [`detour`] does it.
//! The path to the gateway and the direct one to the web host share the link; between gateway and
//! web host there is none.

mod detour;
mod link;
mod shaper;

use std::time::Instant;

use anyhow::{Context, Result};

pub use link::{Counters, Link, Reorder};

use crate::lab::Lab;
use crate::node::Node;
use detour::Detour;

/// Where the losses of a link begin to be counted from: the same ones in every run.
const SEED: u64 = 0x0c1b_4e2a_11d5_0ff5;
/// Priority of the rules that lead packets into the devices.
const PRIORITY: &str = "100";
/// Prefixes on the carrier's side; `192.0.2.0/24` is the carrier's NAT.
const CARRIER_SIDE: [&str; 4] =
    ["192.0.2.0/24", "2001:db8:c::/48", "2001:db8:ca::/64", "2001:db8:cc::/48"];

/// A direction of the emulated link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the clients.
    Up,
    /// To the clients.
    Down,
}

impl Direction {
    const BOTH: [Direction; 2] = [Direction::Up, Direction::Down];

    /// The TUN device.
    fn device(self) -> &'static str {
        match self {
            Direction::Up => "emu-up",
            Direction::Down => "emu-down",
        }
    }

    /// The routing table of what enters the device.
    fn table(self) -> &'static str {
        match self {
            Direction::Up => "101",
            Direction::Down => "102",
        }
    }

    /// The interfaces of `internet` from which packets come in this direction.
    fn sources(self) -> &'static [&'static str] {
        match self {
            Direction::Up => &["to-carrier"],
            Direction::Down => &["to-gateway", "to-web"],
        }
    }

    /// Where packets in this direction go.
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Direction::Up => &["0.0.0.0/0", "::/0"],
            Direction::Down => &CARRIER_SIDE,
        }
    }
}

/// A running emulation; dropping it makes the path direct again.
#[derive(Debug)]
pub struct Emulator {
    internet: Node,
    up: Detour,
    down: Detour,
}

impl Lab {
    /// Puts an emulated link between the clients' side and everything else: `up` in the direction
    /// from the clients, `down` in the other.
    pub fn emulate(&self, up: Link, down: Link) -> Result<Emulator> {
        let start = |direction: Direction, link, seed| {
            Detour::start(&self.internet, direction.device(), link, seed)
                .with_context(|| format!("cannot start the emulated link, {direction:?}"))
        };
        let (up, down) = (start(Direction::Up, up, SEED)?, start(Direction::Down, down, !SEED)?);
        let emulator = Emulator { internet: self.internet.clone(), up, down };
        Direction::BOTH.into_iter().try_for_each(|direction| emulator.lead_in(direction))?;
        Ok(emulator)
    }
}

impl Emulator {
    /// Changes one direction. What is under way goes on as it began.
    pub fn set(&self, direction: Direction, link: Link) {
        self.of(direction).shaper().set(link);
    }

    /// Cuts both directions: everything is lost silently, also what is under way.
    pub fn cut(&self) {
        [&self.up, &self.down].iter().for_each(|detour| detour.shaper().cut(Instant::now()));
    }

    /// Ends a [`Emulator::cut`].
    pub fn restore(&self) {
        [&self.up, &self.down].iter().for_each(|detour| detour.shaper().restore());
    }

    /// What became of the packets of one direction so far.
    pub fn counters(&self, direction: Direction) -> Counters {
        self.of(direction).shaper().counters()
    }

    fn of(&self, direction: Direction) -> &Detour {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// Routes first, so that the rules never lead nowhere.
    fn lead_in(&self, direction: Direction) -> Result<()> {
        let (device, table) = (direction.device(), direction.table());
        for prefix in direction.prefixes() {
            self.internet.ip(&["route", "add", prefix, "dev", device, "table", table])?;
        }
        for source in direction.sources() {
            for family in ["-4", "-6"] {
                self.internet.ip(&rule(family, "add", source, table))?;
            }
        }
        Ok(())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // the routes go with the devices
        for direction in Direction::BOTH {
            for source in direction.sources() {
                for family in ["-4", "-6"] {
                    let _ = self.internet.ip(&rule(family, "delete", source, direction.table()));
                }
            }
        }
    }
}

fn rule<'a>(family: &'a str, change: &'a str, source: &'a str, table: &'a str) -> [&'a str; 9] {
    [family, "rule", change, "priority", PRIORITY, "iif", source, "lookup", table]
}
