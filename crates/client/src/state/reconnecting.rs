//! The connection was lost; the tunnel's device and routes stay, so that nothing goes around it.

use std::sync::Arc;

use anyhow::Context as _;
use cipherwall_transport::tunnel::Sender;

use super::{Context, Redial, State};
use crate::{cli::coded, engine::Change};

impl Context<'_> {
    /// Dials again and again (A9) until it works, the gateway lets this client in no more, or the
    /// user has had enough. `redial`: what was begun while the connection was only suspect.
    pub(crate) async fn reconnecting(&mut self, why: &str, redial: Option<Box<Redial>>) -> State {
        tracing::info!(why, "the connection was lost");
        self.live.lost(why);
        self.way.lost();
        let mut redial = redial
            .unwrap_or_else(|| Box::new(Redial::new(&self.dialer, &self.addresses, &self.live)));
        let mut early = self.dialer.early();
        // of what was begun before
        early.mark_changed();
        let mut paths = self.paths().await;
        loop {
            let change = tokio::select! {
                dialed = redial.done() => return match dialed {
                    Ok(dialed) => State::Connected(dialed),
                    Err(error) => {
                        let ended = Err(coded(error)).context("the connection was lost, and");
                        State::Disconnecting(None, ended)
                    }
                },
                Ok(()) = early.changed() => {
                    let sender = early.borrow_and_update().clone();
                    self.send_early(sender);
                    continue;
                }
                change = self.surroundings.changed() => change,
                () = self.user.asked_to_stop() => return State::Disconnecting(None, Ok(())),
            };
            let now = self.paths().await;
            let woke = matches!(change, Change::Woke(_));
            if woke || now != paths {
                tracing::info!(?change, "trying at once");
                redial.begin_again();
            }
            paths = now;
        }
    }

    /// The user's packets go out behind the request to resume, before it is answered. Should it be
    /// refused, those that are under way are lost, as packets may be.
    fn send_early(&mut self, sender: Option<Arc<Sender>>) {
        if let (Some(sender), Some(tun)) = (sender, self.tun.clone()) {
            self.pump = Some(self.start_pump(&sender, &tun));
        }
    }

    /// How packets get to the gateway's addresses now.
    async fn paths(&self) -> crate::engine::Paths {
        self.surroundings.paths(self.addresses.iter().map(|(_, address)| address.ip())).await
    }
}
