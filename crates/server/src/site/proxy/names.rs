//! Where the other site is, by its name.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::lookup_host,
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::config::HostPort;

/// How long an answer is good for. nginx looks once, when it starts.
const GOOD_TIME: Duration = Duration::from_secs(60);
/// How long a look-up may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The addresses of a name. They are looked up one at a time, however many ask: a look-up takes a
/// thread of those that others wait for, too.
pub(super) struct Names {
    host: String,
    port: u16,
    found: Mutex<Option<(Instant, Arc<[SocketAddr]>)>>,
}

impl Names {
    pub(super) fn new(at: &HostPort) -> Self {
        Self { host: at.host.clone(), port: at.port, found: Mutex::new(None) }
    }

    /// Its addresses; those of earlier while none can be had.
    ///
    /// # Errors
    /// There have never been any.
    pub(super) async fn addresses(&self) -> io::Result<Arc<[SocketAddr]>> {
        let mut found = self.found.lock().await;
        if let Some((at, addresses)) = &*found
            && at.elapsed() < GOOD_TIME
        {
            return Ok(addresses.clone());
        }
        let looked = timeout(PATIENCE, lookup_host((self.host.as_str(), self.port))).await;
        let addresses = match (looked, &*found) {
            (Ok(Ok(addresses)), _) => addresses.collect(),
            (_, Some((_, earlier))) => earlier.clone(),
            (Ok(Err(error)), None) => return Err(error),
            (Err(late), None) => return Err(late.into()),
        };
        *found = Some((Instant::now(), Arc::clone(&addresses)));
        Ok(addresses)
    }
}
