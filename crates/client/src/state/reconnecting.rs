//! The connection was lost; the tunnel's device and routes stay, so that nothing goes around it.

use std::time::Duration;

use anyhow::Context as _;
use cipherwall_proto::backoff::Backoff;

use super::{Context, State};
use crate::cli::coded;

impl Context<'_> {
    /// Dials again and again (A9) until it works, the gateway lets this client in no more, or the
    /// user has had enough.
    pub(crate) async fn reconnecting(&mut self, why: &str) -> State {
        tracing::info!(why, "the connection was lost");
        self.live.failed(why);
        let mut backoff = Backoff::new(getrandom::u64().unwrap_or_default());
        let mut not_before = Duration::ZERO;
        loop {
            let delay = backoff.next_delay().max(not_before);
            let (dialer, addresses) = (self.dialer.clone(), self.addresses.clone());
            let dial = async {
                tokio::time::sleep(delay).await;
                dialer.dial(&addresses).await
            };
            let dialed = tokio::select! {
                dialed = dial => dialed,
                () = self.asked_to_stop() => return State::Disconnecting(None, Ok(())),
            };
            match dialed {
                Ok(dialed) => return State::Connected(Box::new(dialed)),
                Err(error) if error.is_final() => {
                    let ended = Err(coded(error)).context("the connection was lost, and");
                    return State::Disconnecting(None, ended);
                }
                Err(error) => {
                    tracing::info!(%error, "not yet connected again");
                    self.live.failed(&error.to_string());
                    not_before = error.retry_after().unwrap_or_default();
                }
            }
        }
    }
}
