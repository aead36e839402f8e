//! Dialling again and again (A9): beside a connection that may be dead, and instead of one that is.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use cipherwall_proto::backoff::{Backoff, Pace};

use super::Addresses;
use crate::{
    dial::{DialError, Dialed, Dialer},
    engine::Live,
};

type Dial = Pin<Box<dyn Future<Output = Result<Dialed, DialError>> + Send>>;

/// A series of tries that ends with a connection.
pub(crate) struct Redial {
    dialer: Dialer,
    addresses: Addresses,
    live: Live,
    /// Between answers.
    backoff: Backoff,
    /// Between connections that break: those to a gateway that is just stopping do.
    pace: Pace,
    dial: Dial,
}

impl Redial {
    /// The first try is made at once, as soon as [`Redial::done`] is waited for.
    pub(crate) fn new(dialer: &Dialer, addresses: &Addresses, live: &Live) -> Self {
        let told = live.clone();
        let dialer = dialer.tireless(Arc::new(move |error: &DialError| {
            told.trouble(&error.to_string(), None);
        }));
        let seed = getrandom::u64().unwrap_or_default();
        let (mut backoff, pace) = (Backoff::new(seed), Pace::new(Instant::now(), seed));
        let dial = dial(&dialer, addresses, backoff.next_delay());
        Self { dialer, addresses: addresses.clone(), live: live.clone(), backoff, pace, dial }
    }

    /// Begins again, at once: what has failed so far says nothing any more.
    pub(crate) fn begin_again(&mut self) {
        self.backoff.reset();
        self.dial = dial(&self.dialer, &self.addresses, self.backoff.next_delay());
    }

    /// Waits for the connection. May be dropped and called again.
    ///
    /// # Errors
    /// Only those that are final.
    pub(crate) async fn done(&mut self) -> Result<Box<Dialed>, DialError> {
        loop {
            match self.dial.as_mut().await {
                Ok(dialed) => return Ok(Box::new(dialed)),
                Err(error) if error.is_final() => {
                    // to be awaited again, should anybody want that
                    self.begin_again();
                    return Err(error);
                }
                Err(error) => {
                    let wish = error.retry_after().unwrap_or_default();
                    let pause = if error.is_lost_answer() {
                        self.pace.after_refusal(Instant::now())
                    } else {
                        self.backoff.next_delay()
                    };
                    let delay = pause.max(wish);
                    tracing::info!(%error, retry_in = ?delay, "not yet connected again");
                    self.live.trouble(&error.to_string(), Some(delay));
                    self.dial = dial(&self.dialer, &self.addresses, delay);
                }
            }
        }
    }
}

fn dial(dialer: &Dialer, addresses: &Addresses, delay: Duration) -> Dial {
    let (dialer, addresses) = (dialer.clone(), addresses.clone());
    Box::pin(async move {
        tokio::time::sleep(delay).await;
        dialer.dial(&addresses).await
    })
}
