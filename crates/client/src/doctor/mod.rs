//! `doctor`: finds out why this computer cannot connect, and what to do about it (C8).
//!
//! First everything is looked at ([`observe`]), from this host outwards; then [`judge`] says what
//! that means, the cause before its consequences. Looking changes nothing, and tells nobody outside
//! more than connecting does, but for one question for a name that all kinds of devices ask for
//! ([`portal`]). Used by the command line.

mod account;
mod checks;
mod finding;
mod gateway;
mod inside;
mod judge;
mod local;
mod names;
mod network;
mod portal;
mod redact;
mod report;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use cipherwall_ipc::daemon::{State, Status};
use cipherwall_proto::invitation::{Endpoint, Transport};
use cipherwall_transport::{resolver::Resolver, socket::SocketFactory};
use serde::Serialize;
use tokio::task::JoinSet;

pub(crate) use checks::Check;
pub(crate) use finding::Finding;
pub(crate) use inside::servers as inside_servers;
pub(crate) use local::Leftover;
pub(crate) use report::{About, write as write_report};

use self::{
    account::Account,
    gateway::{Outcome, Seen, Source},
    inside::InsideSeen,
    names::NameSeen,
    network::NetworkSeen,
    portal::Portal,
};
use crate::{
    dial,
    profile::{Profile, Profiles},
};

/// Whom to examine.
#[derive(Debug)]
pub(crate) struct Patient {
    /// The profile that does not connect; none if there is none yet.
    pub(crate) profile: Option<Profile>,
    /// Where it is kept.
    pub(crate) profiles: Profiles,
    /// What makes sockets outside the tunnel.
    pub(crate) sockets: SocketFactory,
    /// The DNS servers outside the tunnel.
    pub(crate) servers: Vec<SocketAddr>,
    /// How the process is that keeps the tunnel up, if there is one.
    pub(crate) running: Option<Status>,
    /// What a process that died has left on this host.
    pub(crate) leftovers: Vec<Leftover>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Examination {
    /// What is wrong; a cause comes before its consequences.
    pub(crate) findings: Vec<Finding>,
    /// What was looked at, in order.
    pub(crate) checks: Vec<Check>,
}

/// Everything that was seen.
#[derive(Debug, Default)]
struct Seeing {
    leftovers: Vec<Leftover>,
    running: Option<Status>,
    inside: Option<InsideSeen>,
    network: Option<NetworkSeen>,
    portal: Option<Portal>,
    names: Vec<NameSeen>,
    gateway: Vec<Seen>,
    account: Option<Account>,
    has_profile: bool,
}

impl Seeing {
    /// Whether a process is at work, and lets nothing out but its own attempts.
    fn is_busy(&self) -> bool {
        self.running.as_ref().is_some_and(|status| status.state != State::Disconnected)
    }
}

/// Takes up to a minute, a few seconds if all is well.
pub(crate) async fn examine(patient: &Patient) -> Examination {
    let seeing = observe(patient).await;
    tracing::debug!(?seeing, "examined");
    Examination { findings: judge::findings(&seeing), checks: checks::checks(&seeing) }
}

async fn observe(patient: &Patient) -> Seeing {
    let Patient { profile, running, leftovers, .. } = patient;
    let mut seeing = Seeing {
        leftovers: leftovers.clone(),
        running: running.clone(),
        has_profile: profile.is_some(),
        ..Seeing::default()
    };
    match running.as_ref().map(|status| status.state) {
        Some(State::Connected) => seeing.inside = Some(InsideSeen::look().await),
        // nothing gets out, whatever the network is like
        Some(State::Blocked) => {}
        Some(
            State::Disconnected | State::Connecting | State::Reconnecting | State::Disconnecting,
        )
        | None => {
            if leftovers.is_empty() {
                look_outside(patient, &mut seeing).await;
            }
        }
    }
    seeing
}

/// As far as the network lets it, step by step.
async fn look_outside(patient: &Patient, seeing: &mut Seeing) {
    let Patient { profile, sockets, .. } = patient;
    let gateways = profile.as_ref().map(known_addresses).unwrap_or_default();
    seeing.network = NetworkSeen::look(sockets.mark.unwrap_or_default(), &gateways).await;
    if seeing.network.as_ref().is_some_and(|network| network.problem().is_some()) {
        return;
    }
    // the process that is at work asks for names itself, and lets nobody else do so
    if !seeing.is_busy() {
        let resolver = Resolver::new(*sockets, patient.servers.clone());
        let names = look_at_names(&resolver, profile.as_ref());
        let (portal, names) = tokio::join!(portal::probe(&resolver, sockets), names);
        (seeing.portal, seeing.names) = (Some(portal), names);
    }
    if let (false, Some(profile)) = (matches!(seeing.portal, Some(Portal::Found(_))), profile) {
        look_at_gateway(patient, profile, seeing).await;
    }
}

async fn look_at_gateway(patient: &Patient, profile: &Profile, seeing: &mut Seeing) {
    let Patient { profiles, sockets, .. } = patient;
    let name = dial::shown_name(profile);
    seeing.gateway = gateway::look(*sockets, name, targets(profile, &seeing.names)).await;
    let good = seeing.gateway.iter().find(|seen| seen.outcome == Outcome::Good);
    if let Some(Seen { endpoint, address, .. }) = good {
        let address = (endpoint.clone(), *address);
        seeing.account = Some(match seeing.is_busy() {
            true => Account::NotTried("the running process is at it"),
            false => account::log_in(profile, profiles, *sockets, address).await,
        });
    }
}

/// The gateway's names, each once, all at the same time.
async fn look_at_names(resolver: &Resolver, profile: Option<&Profile>) -> Vec<NameSeen> {
    let endpoints = profile.iter().flat_map(|profile| &profile.endpoints);
    let hosts: BTreeSet<_> = endpoints.map(|endpoint| endpoint.host.clone()).collect();
    let mut looks = JoinSet::new();
    for host in hosts.into_iter().filter(|host| host.parse::<IpAddr>().is_err()) {
        let resolver = resolver.clone();
        looks.spawn(async move { NameSeen::look(&resolver, &host).await });
    }
    let mut names = looks.join_all().await;
    names.sort_by(|one, other| one.host.cmp(&other.host));
    names
}

fn known_addresses(profile: &Profile) -> Vec<IpAddr> {
    let written = profile.endpoints.iter().filter_map(|endpoint| endpoint.host.parse().ok());
    written.chain(profile.last_good_addresses.iter().map(SocketAddr::ip)).collect()
}

/// What is known of each endpoint for TLS over TCP, each address once.
fn targets(profile: &Profile, names: &[NameSeen]) -> Vec<gateway::Target> {
    let mut targets: Vec<gateway::Target> = Vec::new();
    let mut add = |endpoint: &Endpoint, address: IpAddr, source: Source| {
        let address = SocketAddr::new(address, endpoint.port);
        if !targets.iter().any(|(_, known, _)| *known == address) {
            targets.push((endpoint.clone(), address, source));
        }
    };
    let over_tcp = |endpoint: &&Endpoint| endpoint.transport == Transport::Tls;
    for endpoint in profile.endpoints.iter().filter(over_tcp) {
        if let Ok(address) = endpoint.host.parse() {
            add(endpoint, address, Source::Profile);
        }
        let name = names.iter().find(|name| name.host == endpoint.host);
        for address in name.iter().flat_map(|name| &name.addresses) {
            add(endpoint, *address, Source::Dns);
        }
    }
    for good in &profile.last_good_addresses {
        if let Some(endpoint) =
            profile.endpoints.iter().filter(over_tcp).find(|it| it.port == good.port())
        {
            add(endpoint, good.ip(), Source::Earlier);
        }
    }
    targets
}
