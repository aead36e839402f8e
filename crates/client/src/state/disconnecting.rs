//! Takes everything back.

use cipherwall_proto::frame::Control;
use cipherwall_transport::tunnel::Link;

use super::{Context, State};
use crate::engine::host_error;

impl Context<'_> {
    /// Says farewell, if there is somebody to say it to, and gives the host back as it was.
    /// `ended`: why it comes to this, if it was not the user who wanted it.
    pub(crate) async fn disconnecting(
        &mut self,
        link: Option<Box<Link>>,
        ended: anyhow::Result<()>,
    ) -> State {
        if let Err(error) = &ended {
            self.live.failed(&format!("{error:#}"));
        }
        let left = link.is_some() || ended.is_ok();
        if let Some(link) = link {
            link.finish(&Control::Close).await;
        }
        if left {
            self.dialer.forget_session();
        }
        let undone = self.host.reset().await.map_err(host_error);
        self.pump = None;
        self.tun = None;
        let ended = match (ended, undone) {
            (Err(error), undone) => {
                if let Err(also) = undone {
                    tracing::error!("{also:#}");
                }
                Err(error)
            }
            (Ok(()), undone) => undone.map(|report| {
                for warning in &report.warnings {
                    tracing::warn!("{warning}");
                }
            }),
        };
        State::Disconnected(ended)
    }
}
