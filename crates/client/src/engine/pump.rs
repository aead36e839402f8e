//! From the TUN device to the gateway. A full socket stops the reading, so that packets wait, and
//! are dropped, where they can be: in front of the tunnel.

use std::{convert::Infallible, io, sync::Arc};

use cipherwall_transport::tunnel::{SendError, Sender};
use cipherwall_tun::Device;
use tokio::task::JoinHandle;

/// Bytes that are sent at once, though more may be waiting.
const BATCH_ENOUGH: usize = 128 * 1024;

/// The task that moves packets; dropping it stops it.
pub(crate) struct Pump(Option<JoinHandle<PumpError>>);

/// Why a pump has ended.
#[derive(Debug, thiserror::Error)]
enum PumpError {
    /// The device is gone.
    #[error(transparent)]
    Device(io::Error),
    /// The connection is; the link notices as well.
    #[error(transparent)]
    Connection(#[from] SendError),
}

impl Pump {
    /// Moves packets from now on.
    pub(crate) fn start(tun: Arc<Device>, sender: Arc<Sender>) -> Self {
        Self(Some(tokio::spawn(async move {
            let Err(error) = run(&tun, &sender).await;
            error
        })))
    }

    /// Waits until the TUN device is gone: for ever, usually. May be dropped and called again.
    pub(crate) async fn device_lost(&mut self) -> io::Error {
        if let Some(task) = &mut self.0 {
            let ended = task.await;
            self.0 = None;
            if let Ok(PumpError::Device(error)) = ended {
                return error;
            }
        }
        std::future::pending().await
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn run(tun: &Device, sender: &Sender) -> Result<Infallible, PumpError> {
    loop {
        tun.readable().await.map_err(PumpError::Device)?;
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
            });
            let empty = empty.map_err(PumpError::Device)?;
            sender.drain().await?;
            if empty {
                break;
            }
            tokio::task::consume_budget().await;
        }
    }
}
