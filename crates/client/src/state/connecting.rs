//! On the way to the first connection. Everything else is blocked already.
//!
//! A failure is final, since whoever wants to connect is there to read it; unless the user was
//! connected before this process began: then it is tried again and again.

use std::time::Duration;

use cipherwall_proto::backoff::Backoff;
use tokio::time::timeout;

use super::{Context, Redial, State};
use crate::{
    cli::coded,
    dial::{DialError, Dialed, LOOK_UP_TIME},
    engine::Order,
    progress,
};

/// How long one look at the addresses is good for: the longest step of the back-off (A9, A23).
const ROUND: Duration = Duration::from_secs(15);
/// How long names may take while there are addresses that need none.
const SOON: Duration = Duration::from_secs(1);
/// How many good addresses a profile holds.
const ADDRESSES_KEPT: usize = 8;

/// Why there is no connection.
enum Failed {
    Ordered(Order),
    Host(anyhow::Error),
    Dial(DialError),
    /// Not within a round.
    Time,
}

impl Context<'_> {
    /// Dials once, or until it works.
    pub(crate) async fn connecting(&mut self) -> State {
        if let Err(error) = self.service.protection.close(self.wanted.exceptions()).await {
            return State::failed(error);
        }
        self.service.show();
        let mut backoff = Backoff::new(getrandom::u64().unwrap_or_default());
        loop {
            let error = match self.dial().await {
                Ok(dialed) => return State::Connected(Box::new(dialed)),
                Err(Failed::Ordered(order)) => return State::ordered(order),
                Err(Failed::Host(error)) => return State::failed(error),
                Err(Failed::Time) => continue,
                Err(Failed::Dial(error)) if error.is_final() || !self.wanted.insist => {
                    return State::failed(coded(error));
                }
                Err(Failed::Dial(error)) => error,
            };
            let delay = backoff.next_delay();
            tracing::info!(%error, retry_in = ?delay, "not yet connected");
            self.live.trouble(&error.to_string(), Some(delay));
            if let Err(order) = self.pause(delay).await {
                return State::ordered(order);
            }
        }
    }

    /// Addresses that are known do not wait for names that nobody answers for.
    async fn dial(&mut self) -> Result<Dialed, Failed> {
        let is_cut_short = match self.dialer.has_names() && self.dialer.has_addresses() {
            true => self.resolve(SOON).await?,
            false => self.resolve(LOOK_UP_TIME).await?,
        };
        match self.dial_known().await {
            Err(Failed::Dial(error)) if error.is_final() => Err(Failed::Dial(error)),
            Err(Failed::Dial(_) | Failed::Time) if is_cut_short => {
                self.resolve(LOOK_UP_TIME).await?;
                self.dial_known().await
            }
            dialed => dialed,
        }
    }

    async fn dial_known(&mut self) -> Result<Dialed, Failed> {
        let gateways = self.gateways();
        let opened = self.service.protection.flow(|flow| flow.gateways = gateways).await;
        opened.map_err(Failed::Host)?;
        self.look_at_network().await;
        let dialer = self.dialer.clone();
        let addresses = self.addresses.clone();
        let dialed = if self.wanted.insist {
            let mut redial = Redial::new(&dialer, &addresses, &self.live);
            let round = self.meanwhile(timeout(ROUND, redial.done())).await;
            let dialed = round.map_err(Failed::Ordered)?.map_err(|_| Failed::Time)?;
            Ok(dialed.map(|dialed| *dialed))
        } else {
            let dial = dialer.dial(&addresses);
            self.meanwhile(progress::tell_of_gateway("connecting to", dialer.profile(), dial)).await
        };
        dialed.map_err(Failed::Ordered)?.map_err(Failed::Dial)
    }

    /// The gateway's addresses, from the DNS servers outside; whether answers were not waited for.
    async fn resolve(&mut self, time: Duration) -> Result<bool, Failed> {
        let protection = &mut self.service.protection;
        let asks = self.dialer.has_names();
        if asks {
            protection.flow(|flow| flow.resolvers = true).await.map_err(Failed::Host)?;
        }
        let dialer = self.dialer.with_resolvers(protection.outside_resolvers());
        let resolve = dialer.look_up(time);
        let resolve = progress::tell_of_gateway("looking for", dialer.profile(), resolve);
        let found = self.meanwhile(resolve).await.map_err(Failed::Ordered)?;
        if asks {
            let protection = &mut self.service.protection;
            protection.flow(|flow| flow.resolvers = false).await.map_err(Failed::Host)?;
        }
        let is_cut_short = found.is_cut_short;
        self.addresses = dialer.known(found, &[], None).map_err(Failed::Dial)?;
        Ok(is_cut_short)
    }

    /// Waits, but not longer than until something has changed that may help.
    async fn pause(&mut self, delay: Duration) -> Result<(), Order> {
        let until = tokio::time::Instant::now() + delay;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                _ = self.surroundings.changed() => return Ok(()),
                wish = self.service.wish() => {
                    if let Some(order) = self.heed(wish).await {
                        return Err(order);
                    }
                }
            }
        }
    }

    /// Keeps the address that worked, for a day when the name cannot be resolved.
    pub(super) fn remember(&mut self, dialed: &Dialed) {
        if self.good.replace(dialed.address) == Some(dialed.address) {
            return;
        }
        let kept = self.profiles.update(&self.wanted.profile.name, |profile| {
            profile.last_good_addresses.retain(|address| *address != dialed.address);
            profile.last_good_addresses.insert(0, dialed.address);
            profile.last_good_addresses.truncate(ADDRESSES_KEPT);
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "cannot keep the gateway's address");
        }
    }
}
