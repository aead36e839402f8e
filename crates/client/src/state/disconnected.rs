//! The daemon rests, and traffic flows as without it.

use cipherwall_ipc::daemon::State;

use crate::engine::{Order, Service};

/// What comes after a rest.
pub(crate) enum Next {
    /// An order was given.
    Order(Order),
    /// Lockdown was switched on or off, so that the other rest is due.
    Changed,
}

impl Service {
    /// Waits for an order. An error of the last session is still shown.
    pub(crate) async fn disconnected(&mut self) -> Next {
        self.live.ended();
        self.live.enter(State::Disconnected);
        self.rest(|service| !service.protection.is_closed()).await
    }

    /// Heeds what does not end the rest, for as long as `right` holds.
    pub(super) async fn rest(&mut self, right: impl Fn(&Service) -> bool) -> Next {
        self.show();
        loop {
            if !right(self) {
                return Next::Changed;
            }
            let wish = self.wish().await;
            if let Some(order) = self.heed(wish).await {
                return Next::Order(order);
            }
        }
    }
}
