//! From the TUN device to the gateway. A full socket stops the reading, so that packets wait, and
//! are dropped, where they can be: in front of the tunnel.

use std::{io, sync::Arc};

use cipherwall_transport::tunnel::Sender;
use cipherwall_tun::Device;
use tokio::task::JoinHandle;

/// Bytes that are sent at once, though more may be waiting.
const BATCH_ENOUGH: usize = 128 * 1024;

/// The task that moves packets; dropping it stops it.
pub(crate) struct Pump(JoinHandle<()>);

impl Pump {
    /// Moves packets from now on. Ends by itself when the connection fails, which the link
    /// notices as well.
    pub(crate) fn start(tun: Arc<Device>, sender: Arc<Sender>) -> Self {
        Self(tokio::spawn(async move {
            if let Err(error) = run(&tun, &sender).await {
                tracing::debug!(%error, "no more packets go out over this connection");
            }
        }))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(tun: &Device, sender: &Sender) -> anyhow::Result<()> {
    loop {
        tun.readable().await?;
        loop {
            let empty = sender.fill(|batch| -> io::Result<bool> {
                while batch.has_room() && batch.len() < BATCH_ENOUGH {
                    match tun.try_read(&mut batch.packet_slices()) {
                        Ok(read) => batch.commit_packet(read),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Ok(true);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(false)
            })?;
            sender.drain().await?;
            if empty {
                break;
            }
            tokio::task::consume_budget().await;
        }
    }
}
