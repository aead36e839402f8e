//! Traffic outside of the tunnel is blocked, and nothing is being tried: because of lockdown, or
//! because a session that was up has ended for good and the user has not disconnected since.

use cipherwall_ipc::daemon::State;

use super::disconnected::Next;
use crate::engine::Service;

impl Service {
    /// Waits for an order. Why it has come to this is shown until then.
    pub(crate) async fn blocked(&mut self) -> Next {
        self.live.ended();
        let allow_lan = self.allow_lan();
        if let Err(error) = self.protection.block(allow_lan).await {
            tracing::error!("{error:#}");
        }
        self.live.allow_lan(self.protection.allows_lan());
        self.live.enter(State::Blocked);
        self.rest(|service| service.protection.is_closed()).await
    }
}
