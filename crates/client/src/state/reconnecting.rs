//! The connection was lost; the tunnel's device, its routes and the packet policy stay, so that
//! nothing goes around it.

use std::{pin::Pin, sync::Arc, time::Duration};

use cipherwall_proto::backoff::Backoff;
use cipherwall_transport::tunnel::Sender;
use tokio::time::{Instant, sleep_until};

use super::{Context, Redial, State};
use crate::{
    cli::coded,
    dial::{Found, LOOK_UP_TIME},
    engine::Change,
};

/// How long the known addresses are tried before the gateway's names are asked for again (A23).
/// From then on they are asked for as often as the back-off says (A9), so that a name that leads
/// elsewhere now is found within one step of it.
const ASK_AFTER: Duration = Duration::from_secs(1);

type Asking = Pin<Box<dyn Future<Output = Found> + Send>>;

/// Asks for the gateway's names now and then.
struct Names {
    at: Instant,
    backoff: Backoff,
    asking: Option<Asking>,
}

impl Names {
    fn new() -> Names {
        let mut backoff = Backoff::new(getrandom::u64().unwrap_or_default());
        // its first step, which takes no time
        backoff.next_delay();
        Names { at: Instant::now() + ASK_AFTER, backoff, asking: None }
    }

    fn soon(&mut self) {
        *self = Names { asking: self.asking.take(), ..Names::new() };
    }

    fn later(&mut self) {
        self.at = Instant::now() + self.backoff.next_delay();
    }

    /// It is time to ask, with `None`, or here is the answer. May be dropped and called again.
    async fn next(&mut self) -> Option<Found> {
        let Some(asking) = &mut self.asking else {
            sleep_until(self.at).await;
            return None;
        };
        let answer = asking.as_mut().await;
        self.asking = None;
        self.later();
        Some(answer)
    }
}

impl Context<'_> {
    /// Dials again and again (A9) until it works, the gateway lets this client in no more, or the
    /// user has had enough. `redial`: what was begun while the connection was only suspect.
    pub(crate) async fn reconnecting(&mut self, why: &str, redial: Option<Box<Redial>>) -> State {
        tracing::info!(why, "the connection was lost");
        self.live.lost(why);
        self.way.lost();
        self.dialer.rungs().lost(why);
        let mut redial = redial
            .unwrap_or_else(|| Box::new(Redial::new(&self.dialer, &self.addresses, &self.live)));
        let mut early = self.dialer.early();
        // of what was begun before
        early.mark_changed();
        let mut paths = self.paths().await;
        let mut names = Names::new();
        loop {
            let change = tokio::select! {
                dialed = redial.done() => return match dialed {
                    Ok(dialed) => State::Connected(dialed),
                    Err(error) => {
                        State::failed(coded(error).context("the connection was lost, and"))
                    }
                },
                Ok(()) = early.changed() => {
                    let sender = early.borrow_and_update().clone();
                    self.send_early(sender);
                    continue;
                }
                answer = names.next(), if self.dialer.has_names() => {
                    if self.ask(answer, &mut names).await {
                        *redial = Redial::new(&self.dialer, &self.addresses, &self.live);
                    }
                    continue;
                }
                change = self.surroundings.changed() => change,
                wish = self.service.wish() => match self.heed(wish).await {
                    Some(order) => return State::ordered(order),
                    None => continue,
                },
            };
            let now = self.paths().await;
            let woke = matches!(change, Change::Woke(_));
            if woke || now != paths {
                tracing::info!(?change, "trying at once");
                self.look_at_network().await;
                redial.begin_again();
                names.soon();
            }
            paths = now;
        }
    }

    /// Begins to ask for names, or takes the answer; whether the gateway has addresses that were not
    /// known.
    async fn ask(&mut self, answer: Option<Found>, names: &mut Names) -> bool {
        let protection = &mut self.service.protection;
        let Some(answer) = answer else {
            match protection.flow(|flow| flow.resolvers = true).await {
                Ok(()) => {
                    let dialer = self.dialer.with_resolvers(protection.outside_resolvers());
                    names.asking =
                        Some(Box::pin(async move { dialer.look_up(LOOK_UP_TIME).await }));
                }
                Err(error) => {
                    tracing::error!("{error:#}");
                    names.later();
                }
            }
            return false;
        };
        let is_new = self.learn(answer).await;
        if is_new {
            self.dialer.rungs().forget_address();
        }
        is_new
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
