//! What can be said about one direction of an emulated link.

use std::time::Duration;

/// One direction of an emulated link. Packets wait in the queue, are sent at the link's rate, may
/// get lost on the way, and arrive after the delay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// From the end of sending to arrival.
    pub delay: Duration,
    /// Share of the sent packets that do not arrive, 0 to 1. They take their time of sending.
    pub loss: f64,
    /// Bits per second, counted in whole IP packets; `None` is unlimited, and has no queue.
    pub rate: Option<u64>,
    /// How long a packet may have to wait until it is sent. Any that would wait longer is dropped.
    pub queue: Duration,
    /// Some packets are overtaken by later ones.
    pub reorder: Option<Reorder>,
}

/// Packets that arrive late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reorder {
    /// Share of them, 0 to 1.
    pub share: f64,
    /// How much later they arrive.
    pub delay: Duration,
}

impl Default for Link {
    /// No delay, no loss, unlimited; a queue of 200 ms once there is a rate.
    fn default() -> Self {
        Link {
            delay: Duration::ZERO,
            loss: 0.0,
            rate: None,
            queue: Duration::from_millis(200),
            reorder: None,
        }
    }
}

impl Link {
    /// The bad link of the benchmarks, each way: 20 Mbit/s, 100 ms, 1% loss, 200 ms of queue.
    pub const BAD: Link = Link {
        delay: Duration::from_millis(100),
        loss: 0.01,
        rate: Some(20_000_000),
        queue: Duration::from_millis(200),
        reorder: None,
    };
}

/// What became of the packets of one direction. Those that are under way are in the first figure
/// only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Came to the link.
    pub packets: u64,
    /// Were let out at the other end.
    pub delivered: u64,
    /// Were lost by [`Link::loss`].
    pub lost: u64,
    /// Found the queue full.
    pub dropped: u64,
    /// Were lost because the link was cut.
    pub cut: u64,
}
