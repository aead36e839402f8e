//! What carries packets now, datagrams or the stream, and what the user is told about it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use cipherwall_tun::Device;

use crate::{
    dial::{Datagrams, Dialed},
    engine::{IsOurs, Live, Receiver},
};

/// How long datagrams may take to get through before the user is told that they do not.
const PATIENCE: Duration = Duration::from_secs(5);
const BLOCKED: &str = "datagrams do not get through; the stream carries the traffic";
const NOT_OFFERED: &str = "this gateway takes no datagrams; the stream carries the traffic";

/// Over all connections.
pub(crate) struct Way {
    /// Whether the user wants datagrams.
    wanted: bool,
    /// Transport, cipher and gateway, as shown last.
    shown: Option<(&'static str, &'static str, SocketAddr)>,
    /// Since when they do not get through, while there is a connection.
    down_since: Option<Instant>,
    /// What the user was told.
    told: Option<&'static str>,
}

impl Way {
    /// `wanted`: the user wants datagrams.
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, shown: None, down_since: None, told: None }
    }

    /// When [`Way::look`] is due although nothing has happened.
    pub(super) fn due(&self) -> Option<Instant> {
        self.down_since.filter(|_| self.told.is_none()).map(|since| since + PATIENCE)
    }

    /// Shows how packets go now over this connection.
    pub(super) fn look(&mut self, dialed: &Dialed, live: &Live) {
        let up = dialed.datagrams.as_ref().filter(|datagrams| datagrams.channel.is_up());
        let now = match up {
            Some(datagrams) => ("udp", datagrams.channel.cipher().name(), datagrams.gateway),
            None => (dialed.endpoint.transport.name(), dialed.cipher.name(), dialed.address),
        };
        // called for each arrival
        if self.shown.replace(now) != Some(now) {
            live.carried(now.0, now.1, now.2);
        }
        if up.is_some() || !self.wanted {
            self.down_since = None;
            self.tell(None, live);
            return;
        }
        let since = *self.down_since.get_or_insert_with(Instant::now);
        if dialed.datagrams.is_none() {
            self.tell(Some(NOT_OFFERED), live);
        } else if since.elapsed() >= PATIENCE {
            self.tell(Some(BLOCKED), live);
        }
    }

    /// There is no connection: whether datagrams get through is not known.
    pub(super) fn lost(&mut self) {
        self.down_since = None;
    }

    /// Once.
    fn tell(&mut self, notice: Option<&'static str>, live: &Live) {
        if std::mem::replace(&mut self.told, notice) == notice {
            return;
        }
        live.notice(notice);
        match notice {
            Some(notice) => tracing::warn!("{notice}"),
            None => tracing::info!("datagrams get through"),
        }
    }
}

/// The datagrams of the connection in use.
pub(super) struct Reception {
    was_up: bool,
    is_ours: IsOurs,
    receiver: Option<Receiver>,
}

impl Reception {
    /// Receives what comes for this connection by datagram.
    pub(super) fn start(dialed: &Dialed, tun: &Arc<Device>, is_ours: IsOurs) -> Self {
        let start = |datagrams| Receiver::start(datagrams, tun, is_ours.clone());
        let receiver = dialed.datagrams.as_ref().map(start);
        Self { was_up: false, is_ours, receiver }
    }

    /// Looks whether datagrams get through no more: something on the way may have forgotten the
    /// client's port, so another one is tried.
    pub(super) fn look(&mut self, dialed: &mut Dialed, tun: &Arc<Device>) {
        let Some(datagrams) = &mut dialed.datagrams else { return };
        let is_up = datagrams.channel.is_up();
        if std::mem::replace(&mut self.was_up, is_up) && !is_up {
            self.rebind(datagrams, tun);
        }
    }

    /// The way to the gateway may be another one.
    pub(super) fn doubt(&mut self, dialed: &mut Dialed, tun: &Arc<Device>) {
        if let Some(datagrams) = &mut dialed.datagrams {
            self.rebind(datagrams, tun);
        }
    }

    fn rebind(&mut self, datagrams: &mut Datagrams, tun: &Arc<Device>) {
        match datagrams.rebind() {
            Ok(()) => {
                self.receiver = Some(Receiver::start(datagrams, tun, self.is_ours.clone()));
                datagrams.channel.doubt(Some(datagrams.socket.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "no other socket for datagrams");
                datagrams.channel.doubt(None);
            }
        }
    }
}
