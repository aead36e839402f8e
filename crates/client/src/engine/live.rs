//! What front ends are shown of the tunnel.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cipherwall_ipc::daemon::{QUALITY_PAGE, Sample, State, Status};
use cipherwall_proto::message::Welcome;
use ipnet::IpNet;
use tokio::sync::watch;

use super::Wanted;
use crate::dial::Rungs;

/// How many samples of a second are kept: an hour.
const SAMPLES: usize = 3_600;
/// Who has asked for the quality looks at it for so long.
const LOOKS: Duration = Duration::from_secs(5);

/// The status of the tunnel, shared between the engine and its front ends.
#[derive(Clone)]
pub(crate) struct Live(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    /// Told of changes, but not of figures, of which there are new ones all the time.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    status: Status,
    /// Bytes of the connections before the current one.
    earlier: (u64, u64),
    /// The quality of the last hour.
    samples: VecDeque<Sample>,
    /// When somebody has asked for it last.
    asked: Option<Instant>,
    /// The ways to the gateways of the session.
    rungs: Option<Rungs>,
}

impl Live {
    /// Of a process without a tunnel.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { inner: Mutex::default(), changed: watch::Sender::new(()) }))
    }

    /// A session begins; nothing is known of it yet.
    pub(crate) fn begin(&self, wanted: &Wanted) {
        let networks = |all: &[IpNet]| all.iter().map(ToString::to_string).collect();
        let mut inner = self.change();
        inner.earlier = (0, 0);
        inner.status = Status {
            state: inner.status.state,
            profile: Some(wanted.profile.name.clone()),
            allow_lan: wanted.exceptions.allow_lan,
            direct: networks(&wanted.exceptions.direct),
            only: networks(&wanted.only),
            protected: inner.status.protected,
            lockdown: inner.status.lockdown,
            ..Status::default()
        };
    }

    /// The session is over; of it, only why it is may still be of interest.
    pub(crate) fn ended(&self) {
        let mut inner = self.change();
        inner.earlier = (0, 0);
        inner.rungs = None;
        let status = &inner.status;
        inner.status = Status {
            state: status.state,
            error: status.error.clone(),
            protected: status.protected,
            lockdown: status.lockdown,
            portal_until: status.portal_until,
            allow_lan: status.allow_lan,
            ..Status::default()
        };
    }

    /// The ways to the gateways of the session that begins.
    pub(crate) fn ladder(&self, rungs: &Rungs) {
        self.inner().rungs = Some(rungs.clone());
    }

    /// What the host lets through.
    pub(crate) fn protection(&self, closed: bool, lockdown: bool, portal_left: Option<Duration>) {
        let portal_until = portal_left.map(|left| unix_s(SystemTime::now() + left));
        let status = self.status();
        // it is told in whole seconds, and computed anew each time
        let near = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => a.abs_diff(b) <= 1,
            (a, b) => a == b,
        };
        if (status.protected, status.lockdown) == (closed, lockdown)
            && near(status.portal_until, portal_until)
        {
            return;
        }
        let mut inner = self.change();
        inner.status.protected = closed;
        inner.status.lockdown = lockdown;
        inner.status.portal_until = portal_until;
    }

    /// Whether the local network is reachable while there is no session.
    pub(crate) fn allow_lan(&self, allow_lan: bool) {
        self.change().status.allow_lan = allow_lan;
    }

    /// Changes with each change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// The quality of the last second.
    pub(crate) fn sample(&self, sample: Sample) {
        let mut inner = self.inner();
        if inner.samples.len() >= SAMPLES {
            inner.samples.pop_front();
        }
        inner.samples.push_back(sample);
    }

    /// The first samples later than that time, as many as one reply holds.
    pub(crate) fn samples(&self, after: u64) -> Vec<Sample> {
        let mut inner = self.inner();
        inner.asked = Some(Instant::now());
        let hour_ago = unix_s(SystemTime::now()).saturating_sub(SAMPLES as u64);
        let later = inner.samples.iter().filter(|sample| sample.at > after.max(hour_ago));
        later.take(QUALITY_PAGE).copied().collect()
    }

    /// Whether somebody looks at the quality now.
    pub(crate) fn is_looked_at(&self) -> bool {
        self.inner().asked.is_some_and(|at| at.elapsed() < LOOKS)
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
        let mut inner = self.change();
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
        let inner = self.inner();
        let ladder = inner.rungs.as_ref().map(Rungs::shown).unwrap_or_default();
        Status { ladder, ..inner.status.clone() }
    }

    /// The engine enters a state.
    pub(crate) fn enter(&self, state: State) {
        let mut inner = self.change();
        inner.status.state = state;
        match state {
            State::Connected => {
                inner.status.error = None;
                inner.status.lost_at = None;
                inner.status.next_try = None;
            }
            State::Disconnected | State::Connecting | State::Disconnecting | State::Blocked => {}
            State::Reconnecting => inner.begin_anew(),
        }
        tracing::info!(state = state.name(), "state");
    }

    /// Another connection takes over, while it is connected.
    pub(crate) fn replaced(&self) {
        self.change().begin_anew();
    }

    /// A connection is up. The session, for the user, began with the first.
    pub(crate) fn connected(&self, interface: &str, welcome: &Welcome) {
        let mut inner = self.change();
        let status = &mut inner.status;
        status.interface = Some(interface.to_owned());
        status.inner_address = Some(welcome.v4.0.into());
        status.inner_address_v6 = Some(welcome.v6.0.into());
        status.since.get_or_insert(unix_s(SystemTime::now()));
    }

    /// Packets go this way now.
    pub(crate) fn carried(&self, transport: &str, cipher: &str, gateway: SocketAddr) {
        let mut inner = self.change();
        let status = &mut inner.status;
        status.transport = Some(transport.to_owned());
        status.cipher = Some(cipher.to_owned());
        status.gateway = Some(gateway);
    }

    /// What the user should know although it is connected; with `None` nothing any more.
    pub(crate) fn notice(&self, notice: Option<&str>) {
        self.change().status.notice = notice.map(str::to_owned);
    }

    /// The connection was lost.
    pub(crate) fn lost(&self, why: &str) {
        let mut inner = self.change();
        inner.status.error = Some(why.to_owned());
        inner.status.lost_at.get_or_insert(unix_s(SystemTime::now()));
    }

    /// A try to connect again has failed; the next is in `next`, unless tries follow one another all
    /// the time. Of no interest while the connection still stands.
    pub(crate) fn trouble(&self, error: &str, next: Option<Duration>) {
        let mut inner = self.change();
        if matches!(inner.status.state, State::Connecting | State::Reconnecting) {
            inner.status.error = Some(error.to_owned());
            inner.status.next_try = next.map(|next| unix_s(SystemTime::now() + next));
        }
    }

    /// Something went wrong that the user should know.
    pub(crate) fn failed(&self, error: &str) {
        self.change().status.error = Some(error.to_owned());
    }

    /// That is of no interest any more.
    pub(crate) fn forget_error(&self) {
        self.change().status.error = None;
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
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change something that front ends are told of at once.
    fn change(&self) -> Change<'_> {
        Change { inner: self.inner(), changed: &self.0.changed }
    }
}

impl Inner {
    /// The figures of the next connection are added to those so far.
    fn begin_anew(&mut self) {
        self.earlier = (self.status.rx_bytes, self.status.tx_bytes);
        self.status.rtt_ms = None;
    }
}

/// Tells when it is done.
struct Change<'a> {
    inner: MutexGuard<'a, Inner>,
    changed: &'a watch::Sender<()>,
}

impl Deref for Change<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Change<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.changed.send_replace(());
    }
}

fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
