//! Better rungs, tried beside the connection in use (C6). One at a time, and not while the one in use is
//! suspect: there is never more than one connection besides.
//!
//! Before each climb the gateway's names are asked for again, through the tunnel: they may lead
//! elsewhere by now, or may have had no address before.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use cipherwall_proto::invitation::Endpoint;

use super::Addresses;
use crate::dial::{DialError, Dialed, Dialer, Found, LOOK_UP_TIME};

/// How long one rung may take.
const TRY_TIME: Duration = Duration::from_secs(10);
/// A second with more than this is one in which something goes on: more than what a computer says
/// of itself.
const QUIET_BYTES: u64 = 2_000;
/// After so many seconds without any the public address may be another one.
const QUIET_TIME: Duration = Duration::from_secs(60);

type Dial = Pin<Box<dyn Future<Output = Result<Box<Dialed>, DialError>> + Send>>;
type Asking = Pin<Box<dyn Future<Output = Found> + Send>>;

/// Climbs from one connection.
pub(super) struct Climb {
    dialer: Dialer,
    addresses: Addresses,
    work: Work,
    /// What is tried next in this climb, the best last.
    left: Addresses,
    busy_at: Instant,
    carried: u64,
}

enum Work {
    /// Until it is time.
    Waits,
    Asks(Asking),
    /// Over this rung.
    Dials(Endpoint, Dial),
}

/// What has come of it.
pub(super) enum Step {
    /// A better connection.
    Won(Box<Dialed>),
    /// What names lead to: [`Climb::go_on`] with the addresses.
    Found(Found),
}

impl Climb {
    /// Nothing happens before it is time.
    pub(super) fn new(dialer: &Dialer, addresses: &Addresses) -> Climb {
        Climb {
            dialer: dialer.clone(),
            addresses: addresses.clone(),
            work: Work::Waits,
            left: Vec::new(),
            busy_at: Instant::now(),
            carried: 0,
        }
    }

    /// Waits for the next step; for ever, without a timer, while the best rung is in use. May be
    /// dropped and called again.
    pub(super) async fn next(&mut self) -> Step {
        loop {
            match &mut self.work {
                Work::Waits => {
                    match self.dialer.rungs().climb_at() {
                        Some(at) => tokio::time::sleep_until(at.into()).await,
                        None => std::future::pending().await,
                    }
                    self.begin();
                }
                Work::Asks(asking) => {
                    let found = asking.as_mut().await;
                    self.work = Work::Waits;
                    return Step::Found(found);
                }
                Work::Dials(_, dial) => {
                    match dial.as_mut().await {
                        Ok(dialed) => return Step::Won(dialed),
                        Err(error) => tracing::debug!(%error, "no better way"),
                    }
                    if !self.try_next() {
                        self.dialer.rungs().stayed(true);
                    }
                }
            }
        }
    }

    /// The rung over which a connection is being made, which the gateway may know of already.
    pub(super) fn under_way(&self) -> Option<Endpoint> {
        match &self.work {
            Work::Dials(endpoint, _) => Some(endpoint.clone()),
            Work::Waits | Work::Asks(_) => None,
        }
    }

    /// Not now: the connection in use may be dead, and all ways are tried at once.
    pub(super) fn call_off(&mut self) {
        if !matches!(std::mem::replace(&mut self.work, Work::Waits), Work::Waits) {
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

    fn is_quiet(&self) -> bool {
        self.busy_at.elapsed() >= QUIET_TIME
    }

    fn begin(&mut self) {
        if self.dialer.rungs().better_by_name(self.is_quiet()) {
            let dialer = self.dialer.clone();
            self.work = Work::Asks(Box::pin(async move { dialer.look_up(LOOK_UP_TIME).await }));
        } else if !self.try_better() {
            self.dialer.rungs().stayed(false);
        }
    }

    /// These are the addresses now: on with the climb.
    pub(super) fn go_on(&mut self, addresses: &Addresses) {
        self.addresses.clone_from(addresses);
        if !self.try_better() {
            self.dialer.rungs().stayed(true);
        }
    }

    fn try_better(&mut self) -> bool {
        self.left = self.dialer.rungs().better(&self.addresses, self.is_quiet());
        self.left.reverse();
        self.try_next()
    }

    /// Whether there is another one to try.
    fn try_next(&mut self) -> bool {
        self.work = Work::Waits;
        let Some(address) = self.left.pop() else { return false };
        let (dialer, endpoint) = (self.dialer.clone(), address.0.clone());
        let dial = Box::pin(async move {
            let none = DialError::NoAnswer { address: address.1 };
            let dialed = tokio::time::timeout(TRY_TIME, dialer.dial(&[address])).await;
            let dialed = dialed.unwrap_or(Err(none))?;
            Ok(Box::new(Dialed { climbed: true, ..dialed }))
        });
        self.work = Work::Dials(endpoint, dial);
        true
    }
}
