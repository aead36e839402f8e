//! Takes routes and DNS back. What may flow outside stays as it is: nothing.

use cipherwall_proto::frame::Control;
use cipherwall_transport::tunnel::Link;

use super::{Context, Over, State};
use crate::engine::{Order, warn};

impl Context<'_> {
    /// Says farewell, if there is somebody to say it to, and gives the host back as it was, but for
    /// the packet policy. `over`: why it comes to this.
    pub(crate) async fn disconnecting(&mut self, link: Option<Box<Link>>, over: Over) -> State {
        if let Over::Failed(error) = &over {
            self.live.failed(&format!("{error:#}"));
        }
        let left = match &over {
            Over::Order(Order::Disconnect | Order::Connect(_)) => true,
            Over::Failed(_) => link.is_some(),
            // the next process goes on with the session
            Over::Order(Order::Quit) => false,
        };
        if left {
            if let Some(link) = link {
                link.finish(&Control::Close).await;
            }
            self.dialer.forget_session();
        }
        self.dialer.rungs().ended();
        let undone = self.service.protection.take_back().await;
        self.pump = None;
        self.tun = None;
        let over = match (over, undone) {
            (over, Ok(report)) => {
                warn(&report);
                over
            }
            (Over::Order(Order::Disconnect), Err(error)) => Over::Failed(error),
            (over, Err(error)) => {
                tracing::error!("{error:#}");
                over
            }
        };
        State::Over(over)
    }
}
