//! On the way to the first connection. A failure is final: whoever typed `connect` is there to
//! read it.

use super::{Context, State};
use crate::{
    cli::coded,
    dial::{DialError, Dialed},
    progress,
};

impl Context<'_> {
    /// Dials once.
    pub(crate) async fn connecting(&mut self) -> State {
        let dialer = self.dialer.clone();
        let dial = progress::tell_of_gateway("connecting to", dialer.profile(), async {
            let addresses = dialer.resolve().await?;
            let dialed = dialer.dial(&addresses).await?;
            Ok::<_, DialError>((addresses, dialed))
        });
        tokio::select! {
            dialed = dial => match dialed {
                Ok((addresses, dialed)) => {
                    self.addresses = self.dialer.order_for_redial(addresses, dialed.address);
                    self.remember(&dialed);
                    State::Connected(Box::new(dialed))
                }
                Err(error) => State::Disconnecting(None, Err(coded(error))),
            },
            () = self.user.asked_to_stop() => State::Disconnecting(None, Ok(())),
        }
    }

    /// Keeps the address that worked, for a day when the name cannot be resolved.
    fn remember(&self, dialed: &Dialed) {
        let kept = self.profiles.update(&self.profile_name, |profile| {
            profile.last_good_addresses.retain(|address| *address != dialed.address);
            profile.last_good_addresses.insert(0, dialed.address);
            profile.last_good_addresses.truncate(ADDRESSES_KEPT);
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "cannot keep the gateway's address");
        }
    }
}

/// How many good addresses a profile holds.
const ADDRESSES_KEPT: usize = 8;
