//! What front ends are shown of the tunnel.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cipherwall_ipc::daemon::{State, Status};
use cipherwall_proto::message::Welcome;

/// The status of the tunnel, shared between the engine and its front ends.
#[derive(Clone)]
pub(crate) struct Live(Arc<Mutex<Inner>>);

struct Inner {
    status: Status,
    /// Bytes of the connections before the current one.
    earlier: (u64, u64),
}

impl Live {
    /// Of a tunnel that is not up yet.
    pub(crate) fn new(profile: &str) -> Self {
        let status = Status { profile: Some(profile.to_owned()), ..Status::default() };
        Self(Arc::new(Mutex::new(Inner { status, earlier: (0, 0) })))
    }

    /// Of a tunnel in static mode, which has no profile.
    pub(crate) fn of_static_mode() -> Self {
        Self(Arc::new(Mutex::new(Inner { status: Status::default(), earlier: (0, 0) })))
    }

    /// The tunnel of static mode is up, though nothing may have come back yet.
    pub(crate) fn up(
        &self,
        interface: &str,
        gateway: SocketAddr,
        transport: &str,
        cipher: &str,
        inner_address: IpAddr,
    ) {
        let mut inner = self.inner();
        let status = &mut inner.status;
        status.interface = Some(interface.to_owned());
        status.transport = Some(transport.to_owned());
        status.cipher = Some(cipher.to_owned());
        status.gateway = Some(gateway);
        status.inner_address = Some(inner_address);
        status.since = Some(unix_s(SystemTime::now()));
    }

    /// The gateway's packets come from there now.
    pub(crate) fn moved(&self, gateway: SocketAddr) {
        self.inner().status.gateway = Some(gateway);
    }

    /// As front ends are told.
    pub(crate) fn status(&self) -> Status {
        self.inner().status.clone()
    }

    /// The engine enters a state.
    pub(crate) fn enter(&self, state: State) {
        let mut inner = self.inner();
        inner.status.state = state;
        match state {
            State::Connected => {
                inner.status.error = None;
                inner.status.lost_at = None;
                inner.status.next_try = None;
            }
            State::Disconnected | State::Connecting | State::Disconnecting => {}
            State::Reconnecting => {
                inner.earlier = (inner.status.rx_bytes, inner.status.tx_bytes);
                inner.status.rtt_ms = None;
            }
        }
        tracing::info!(state = state.name(), "state");
    }

    /// A connection is up. The session, for the user, began with the first.
    pub(crate) fn connected(&self, interface: &str, welcome: &Welcome) {
        let mut inner = self.inner();
        let status = &mut inner.status;
        status.interface = Some(interface.to_owned());
        status.inner_address = Some(welcome.v4.0.into());
        status.inner_address_v6 = Some(welcome.v6.0.into());
        status.since.get_or_insert(unix_s(SystemTime::now()));
    }

    /// Packets go this way now.
    pub(crate) fn carried(&self, transport: &str, cipher: &str, gateway: SocketAddr) {
        let mut inner = self.inner();
        let status = &mut inner.status;
        status.transport = Some(transport.to_owned());
        status.cipher = Some(cipher.to_owned());
        status.gateway = Some(gateway);
    }

    /// What the user should know although it is connected; with `None` nothing any more.
    pub(crate) fn notice(&self, notice: Option<&str>) {
        self.inner().status.notice = notice.map(str::to_owned);
    }

    /// The connection was lost.
    pub(crate) fn lost(&self, why: &str) {
        let mut inner = self.inner();
        inner.status.error = Some(why.to_owned());
        inner.status.lost_at.get_or_insert(unix_s(SystemTime::now()));
    }

    /// A try to connect again has failed; the next is in `next`, unless tries follow one another all
    /// the time. Of no interest while the connection still stands.
    pub(crate) fn trouble(&self, error: &str, next: Option<Duration>) {
        let mut inner = self.inner();
        if inner.status.state == State::Reconnecting {
            inner.status.error = Some(error.to_owned());
            inner.status.next_try = next.map(|next| unix_s(SystemTime::now() + next));
        }
    }

    /// Something went wrong that the user should know.
    pub(crate) fn failed(&self, error: &str) {
        self.inner().status.error = Some(error.to_owned());
    }

    /// What the current connection has carried, and how fast it answers.
    pub(crate) fn measured(&self, traffic: (u64, u64), round_trip: Option<Duration>) {
        let mut inner = self.inner();
        inner.status.rx_bytes = inner.earlier.0 + traffic.0;
        inner.status.tx_bytes = inner.earlier.1 + traffic.1;
        if let Some(round_trip) = round_trip {
            inner.status.rtt_ms = Some(round_trip.as_secs_f64() * 1_000.0);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
