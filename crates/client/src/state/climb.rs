//! Better rungs, tried beside the connection in use (C6). One at a time: there is never more than one
//! connection besides.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use super::Addresses;
use crate::dial::{DialError, Dialed, Dialer};

/// How long one rung may take.
const TRY_TIME: Duration = Duration::from_secs(10);
/// A second with more than this is one in which something goes on: more than what a computer says
/// of itself.
const QUIET_BYTES: u64 = 2_000;
/// After so many seconds without any the public address may be another one.
const QUIET_TIME: Duration = Duration::from_secs(60);

type Dial = Pin<Box<dyn Future<Output = Result<Box<Dialed>, DialError>> + Send>>;

/// Climbs from one connection.
pub(super) struct Climb {
    dialer: Dialer,
    addresses: Addresses,
    /// What is tried now.
    dial: Option<Dial>,
    /// What is tried next in this climb, the best last.
    left: Addresses,
    busy_at: Instant,
    carried: u64,
}

impl Climb {
    /// Nothing happens before it is time.
    pub(super) fn new(dialer: &Dialer, addresses: &Addresses) -> Climb {
        Climb {
            dialer: dialer.clone(),
            addresses: addresses.clone(),
            dial: None,
            left: Vec::new(),
            busy_at: Instant::now(),
            carried: 0,
        }
    }

    /// Waits for a better connection; for ever, without a timer, while the best one is in use. May
    /// be dropped and called again.
    pub(super) async fn won(&mut self) -> Box<Dialed> {
        loop {
            let Some(dial) = &mut self.dial else {
                match self.dialer.rungs().climb_at() {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
                self.begin();
                continue;
            };
            match dial.as_mut().await {
                Ok(dialed) => return dialed,
                Err(error) => tracing::debug!(%error, "no better way"),
            }
            self.dial = self.next();
            if self.dial.is_none() {
                self.dialer.rungs().stayed(true);
            }
        }
    }

    /// Whether a connection is being made, which the gateway may know of already.
    pub(super) fn is_under_way(&self) -> bool {
        self.dial.is_some()
    }

    /// Not now: the connection in use may be dead, and all ways are tried at once.
    pub(super) fn call_off(&mut self) {
        if self.dial.take().is_some() {
            self.dialer.rungs().stayed(false);
        }
        self.left.clear();
    }

    /// The connection in use has carried so many bytes by now; called once a second.
    pub(super) fn carried(&mut self, bytes: u64) {
        if bytes.saturating_sub(self.carried) > QUIET_BYTES {
            self.busy_at = Instant::now();
        }
        self.carried = bytes;
    }

    fn begin(&mut self) {
        let is_quiet = self.busy_at.elapsed() >= QUIET_TIME;
        self.left = self.dialer.rungs().better(&self.addresses, is_quiet);
        self.left.reverse();
        self.dial = self.next();
        if self.dial.is_none() {
            self.dialer.rungs().stayed(false);
        }
    }

    fn next(&mut self) -> Option<Dial> {
        let address = self.left.pop()?;
        let dialer = self.dialer.clone();
        Some(Box::pin(async move {
            let none = DialError::NoAnswer { address: address.1 };
            let dialed = tokio::time::timeout(TRY_TIME, dialer.dial(&[address])).await;
            let dialed = dialed.unwrap_or(Err(none))?;
            Ok(Box::new(Dialed { climbed: true, ..dialed }))
        }))
    }
}
