//! Counters since the start of the gateway.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::admin::Drops;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds so many.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Inner bytes, and inner packets that were not passed on, of all sessions together.
#[derive(Debug, Default)]
pub struct Counters {
    /// Inner bytes from clients.
    pub received: Counter,
    /// Inner bytes to clients.
    pub sent: Counter,
    /// From a client, but not from the address that it was given.
    pub spoofed_source: Counter,
    /// From one client to another.
    pub client_to_client: Counter,
    /// No IP packet, or an offload header that does not fit it.
    pub malformed: Counter,
    /// To an inside address that nobody has at the moment.
    pub no_session: Counter,
    /// To a client whose connection is slower than what arrives for it.
    pub congested: Counter,
    /// UDP datagrams that came to the gateway's ports and are of no session.
    pub foreign_datagrams: Counter,
}

impl Counters {
    /// The dropped packets, for the administrator.
    pub fn drops(&self) -> Drops {
        Drops {
            spoofed_source: self.spoofed_source.value(),
            client_to_client: self.client_to_client.value(),
            malformed: self.malformed.value(),
            no_session: self.no_session.value(),
            congested: self.congested.value(),
            foreign_datagrams: self.foreign_datagrams.value(),
        }
    }
}
