//! The rungs of a profile's ladder (C6): what is known about each, and what is kept of that.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cipherwall_ipc::daemon;
use cipherwall_proto::{
    client::Answer,
    invitation::Endpoint,
    ladder::{Candidate, Ladder},
};

use super::{Address, DialError};
use crate::profile::{Memory, Network, Profiles, endpoint_name};

/// The rungs of one profile. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Rungs(Arc<Inner>);

struct Inner {
    endpoints: Vec<Endpoint>,
    /// Where to keep which of them worked where; `None`: nowhere.
    kept: Option<(Profiles, String)>,
    state: Mutex<State>,
}

struct State {
    ladder: Ladder,
    network: Option<Network>,
    memory: Memory,
    /// Of each rung, why it was not taken when it was tried last.
    failures: Vec<Option<Failure>>,
    in_use: Option<usize>,
}

#[derive(Clone)]
struct Failure {
    why: String,
    at: SystemTime,
}

impl Rungs {
    /// With what is kept of earlier connections with this profile of these, if anything is.
    pub(super) fn new(endpoints: Vec<Endpoint>, kept: Option<(Profiles, String)>) -> Rungs {
        let memory = kept.as_ref().map(|(profiles, name)| profiles.memory(name)).transpose();
        let memory = memory.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read which way has worked where");
            None
        });
        let state = State {
            ladder: Ladder::new(getrandom::u64().unwrap_or_default()),
            network: None,
            memory: memory.unwrap_or_default(),
            failures: vec![None; endpoints.len()],
            in_use: None,
        };
        Rungs(Arc::new(Inner { endpoints, kept, state: Mutex::new(state) }))
    }

    /// This host is on this network now. Nothing happens while it stays the same.
    pub(crate) fn enter(&self, network: Network) {
        let mut state = self.state();
        if !state.network.as_ref().is_some_and(|known| known.is_same(&network)) {
            let remembered = state.memory.worked(&network, &self.0.endpoints);
            state.ladder.enter_network(remembered);
            state.failures.fill(None);
            if let Some(endpoint) = remembered.and_then(|at| self.0.endpoints.get(at)) {
                tracing::debug!(
                    rung = endpoint_name(endpoint),
                    "has worked on this network before"
                );
            }
        }
        state.network = Some(network);
    }

    /// The order of a race, each address with how reluctantly it is taken.
    pub(super) fn order(&self, addresses: &[Address]) -> Vec<(Address, u8)> {
        let candidates = self.candidates(addresses);
        let order = self.state().ladder.order(Instant::now(), &candidates);
        order.into_iter().map(|choice| (addresses[choice.at].clone(), choice.reluctance)).collect()
    }

    /// The addresses of better rungs than the one in use, best first.
    pub(crate) fn better(&self, addresses: &[Address], quiet: bool) -> Vec<Address> {
        let better = self.state().ladder.better(&self.candidates(addresses), quiet);
        better.into_iter().map(|at| addresses[at].clone()).collect()
    }

    /// Whether the address of a better rung has to be asked for.
    pub(crate) fn better_by_name(&self, quiet: bool) -> bool {
        let nowhere = |endpoint: &Endpoint| {
            (endpoint.clone(), SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), endpoint.port))
        };
        let all: Vec<Address> = self.0.endpoints.iter().map(nowhere).collect();
        let better = self.better(&all, quiet);
        better.iter().any(|(endpoint, _)| endpoint.host.parse::<IpAddr>().is_err())
    }

    /// When [`Rungs::better`] is to be asked.
    pub(crate) fn climb_at(&self) -> Option<Instant> {
        self.state().ladder.climb_at()
    }

    /// No better rung works, or none could be `tried`.
    pub(crate) fn stayed(&self, tried: bool) {
        self.state().ladder.stayed(Instant::now(), tried);
    }

    /// A connection to this address is the one in use.
    pub(super) fn connected(&self, address: &Address, climbed: bool) {
        let [candidate] = self.candidates(std::slice::from_ref(address))[..] else { return };
        let mut state = self.state();
        state.ladder.connected(Instant::now(), candidate, climbed);
        let before = state.in_use.replace(candidate.rung);
        if let Some(before) = before.filter(|_| !climbed) {
            state.note(before, "fell silent".to_owned());
        }
        if let Some(failure) = state.failures.get_mut(candidate.rung) {
            *failure = None;
        }
        let State { network: Some(network), memory, .. } = &mut *state else { return };
        if memory.note(network, &address.0)
            && let Some((profiles, name)) = self.0.kept.clone()
        {
            let memory = memory.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = profiles.save_memory(&name, &memory) {
                    tracing::debug!(%error, "cannot keep which way has worked where");
                }
            });
        }
    }

    /// The gateway behind this rung does not let this device in, over whichever of its rungs.
    pub(super) fn refused(&self, by: &Endpoint, why: &str) {
        let mut state = self.state();
        for (rung, endpoint) in self.0.endpoints.iter().enumerate() {
            if endpoint.pins == by.pins {
                state.note(rung, why.to_owned());
            }
        }
    }

    /// The gateway at this address answers, and wants another request than it got.
    pub(super) fn answered(&self, address: &Address) {
        for candidate in self.candidates(std::slice::from_ref(address)) {
            self.state().ladder.answered(candidate);
        }
    }

    /// A gateway was asked for a tunnel over this connection. Where no answer comes through, the next
    /// one is soon asked over another rung.
    pub(super) fn asked(&self, (endpoint, _): &Address, answer: &Result<Answer, DialError>) {
        let (Err(error), Some(rung)) = (answer, self.place(endpoint)) else { return };
        let mut state = self.state();
        state.ladder.cut_off(Instant::now(), rung);
        state.note(rung, error.to_string());
    }

    /// The names of the profile lead to other addresses than before.
    pub(crate) fn forget_address(&self) {
        self.state().ladder.forget_address();
    }

    /// The connection in use may be dead: others are tried beside it.
    pub(crate) fn suspect(&self) {
        self.state().ladder.suspect(Instant::now());
    }

    /// It has come back to life.
    pub(crate) fn alive(&self) {
        self.state().ladder.alive();
    }

    /// It has carried so many bytes.
    pub(crate) fn carried(&self, bytes: u64) {
        self.state().ladder.carried(Instant::now(), bytes);
    }

    /// It has failed.
    pub(crate) fn lost(&self, why: &str) {
        let mut state = self.state();
        state.ladder.lost(Instant::now());
        if let Some(rung) = state.in_use.take() {
            state.note(rung, why.to_owned());
        }
    }

    /// It was ended for the sake of a climb to this rung, which then brought nothing.
    pub(crate) fn swallowed(&self, endpoint: &Endpoint) {
        let mut state = self.state();
        state.in_use = None;
        match self.place(endpoint) {
            Some(rung) => {
                state.ladder.swallowed(Instant::now(), rung);
                state.note(rung, "takes the session, but then nothing comes through".to_owned());
            }
            None => state.ladder.ended(),
        }
    }

    /// It was ended, which is nothing against its rung.
    pub(crate) fn ended(&self) {
        let mut state = self.state();
        state.ladder.ended();
        state.in_use = None;
    }

    /// A rung was tried in vain.
    pub(super) fn failed(&self, endpoint: &Endpoint, why: String) {
        if let Some(rung) = self.place(endpoint) {
            tracing::debug!(rung = endpoint_name(endpoint), why, "in vain");
            self.state().note(rung, why);
        }
    }

    /// A rung has no address, which is nothing against it while it is in use.
    pub(super) fn unresolved(&self, endpoint: &Endpoint, why: String) {
        let Some(rung) = self.place(endpoint) else { return };
        let mut state = self.state();
        if state.in_use != Some(rung) {
            state.note(rung, why);
        }
    }

    /// As front ends are told, best first.
    pub(crate) fn shown(&self) -> Vec<daemon::Rung> {
        let state = self.state();
        let climb = state.ladder.climb_at();
        let climb = climb.map(|at| at.saturating_duration_since(Instant::now()));
        let rung = |(place, endpoint): (usize, &Endpoint)| {
            let failure = state.failures.get(place).cloned().flatten();
            let is_better = state.in_use.is_some_and(|in_use| place < in_use);
            daemon::Rung {
                host: endpoint.host.clone(),
                port: endpoint.port,
                transport: endpoint.transport.name().to_owned(),
                in_use: state.in_use == Some(place),
                failed_at: failure.as_ref().map(|failure| unix_s(failure.at)),
                why: failure.map(|failure| failure.why),
                next_try: climb.filter(|_| is_better).map(|wait| unix_s(SystemTime::now() + wait)),
            }
        };
        self.0.endpoints.iter().enumerate().map(rung).collect()
    }

    fn candidates(&self, addresses: &[Address]) -> Vec<Candidate> {
        let all = &self.0.endpoints;
        let gateway = |endpoint: &Endpoint| all.iter().position(|it| it.pins == endpoint.pins);
        let candidate = |(endpoint, address): &(Endpoint, SocketAddr)| Candidate {
            // one that is not in the profile cannot be; it would be the last
            rung: self.place(endpoint).unwrap_or(all.len()),
            gateway: gateway(endpoint).unwrap_or(all.len()),
            transport: endpoint.transport,
            address: *address,
        };
        addresses.iter().map(candidate).collect()
    }

    fn place(&self, endpoint: &Endpoint) -> Option<usize> {
        self.0.endpoints.iter().position(|known| known == endpoint)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, rung: usize, why: String) {
        if let Some(failure) = self.failures.get_mut(rung) {
            *failure = Some(Failure { why, at: SystemTime::now() });
        }
    }
}

fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use cipherwall_netcfg::NetworkPath;
    use cipherwall_proto::invitation::{Invitation, Transport};

    use super::*;
    use crate::profile::Profile;

    fn profile() -> Profile {
        let endpoint = |(port, transport)| Endpoint {
            host: "192.0.2.1".into(),
            port,
            transport,
            pins: [[1; 32], [2; 32]],
        };
        let ways = [(8443, Transport::Tls), (443, Transport::Tls), (443, Transport::Kcp)];
        let invitation = Invitation {
            endpoints: ways.map(endpoint).to_vec(),
            user: "alice".into(),
            salt: [3; 16],
            door_key: [4; 32],
            enrol_secret: [5; 16],
            expires: 0,
            sni: vec![],
        };
        Profile::from_invitation("home".into(), invitation).expect("random bytes")
    }

    fn addresses(profile: &Profile) -> Vec<Address> {
        let endpoints = profile.endpoints.iter();
        endpoints.map(|it| (it.clone(), ([192, 0, 2, 1], it.port).into())).collect()
    }

    fn network(profile: &Profile, router: u8) -> Network {
        let path = NetworkPath { interface: 1, router: None, source: None, carrier: true };
        Network::new(profile, &path, Some(&[router]))
    }

    #[tokio::test]
    async fn it_is_told_which_rung_is_in_use_and_why_not_the_others() {
        let profile = profile();
        let rungs = Rungs::new(profile.endpoints.clone(), None);
        let all = addresses(&profile);
        rungs.failed(&all[0].0, "no answer".into());
        rungs.connected(&all[2], false);
        let [best, other, kcp] = &rungs.shown()[..] else { panic!("{:?}", rungs.shown()) };
        assert_eq!((best.why.as_deref(), best.in_use), (Some("no answer"), false));
        assert!(best.failed_at.is_some() && best.next_try.is_some(), "{best:?}");
        assert_eq!((other.why.as_deref(), other.next_try.is_some()), (None, true));
        assert!(kcp.in_use && kcp.transport == "kcp" && kcp.next_try.is_none(), "{kcp:?}");
        assert_eq!(rungs.better(&all, false), all[..2]);

        rungs.connected(&all[0], true);
        let [best, _, kcp] = &rungs.shown()[..] else { panic!("{:?}", rungs.shown()) };
        assert!(best.in_use && best.why.is_none(), "{best:?}");
        assert_eq!((kcp.in_use, kcp.why.as_deref(), kcp.next_try), (false, None, None));
        assert_eq!(rungs.climb_at(), None);
        rungs.lost("the gateway fell silent");
        assert_eq!(rungs.shown()[0].why.as_deref(), Some("the gateway fell silent"));
    }

    #[tokio::test]
    async fn a_climb_that_brings_nothing_is_noted_and_waits_longer() {
        let (profile, minute) = (profile(), Duration::from_secs(50));
        let rungs = Rungs::new(profile.endpoints.clone(), None);
        let all = addresses(&profile);
        let wait = || rungs.climb_at().expect("a climb").duration_since(Instant::now());
        rungs.connected(&all[2], false);
        assert!(wait() < minute && !rungs.better_by_name(true), "no name");
        rungs.swallowed(&all[0].0);
        assert!(rungs.shown()[0].why.is_some() && !rungs.shown()[2].in_use);
        rungs.connected(&all[2], false);
        assert!(wait() > minute, "{:?}", wait());

        let named = Endpoint { host: "gw.example".into(), ..profile.endpoints[0].clone() };
        let rungs = Rungs::new([named, all[2].0.clone()].to_vec(), None);
        rungs.connected(&all[2], false);
        assert!(rungs.better_by_name(false));
    }

    #[tokio::test]
    async fn what_worked_is_there_for_the_next_process_on_the_same_network() {
        let (dir, profile) = (tempfile::tempdir().expect("a directory"), profile());
        let profiles = Profiles::new(dir.path());
        profiles.save(&profile).expect("saved");
        let process =
            || Rungs::new(profile.endpoints.clone(), Some((profiles.clone(), "home".to_owned())));
        let all = addresses(&profile);
        let first = |rungs: &Rungs| rungs.order(&all)[0].0.clone();
        let rungs = process();
        rungs.enter(network(&profile, 1));
        assert_eq!(first(&rungs), all[0]);
        rungs.connected(&all[2], false);
        while profiles.memory("home").expect("read") == Memory::default() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let next = process();
        next.enter(network(&profile, 2));
        assert_eq!(first(&next), all[0], "another network");
        next.enter(network(&profile, 1));
        assert_eq!(first(&next), all[2]);
    }
}
