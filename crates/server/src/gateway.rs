//! The running gateway: what its parts share, how they start and how they end.

mod inside;
mod signals;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use cipherwall_cli::{Failure, Paths};
use cipherwall_ipc::Listener;
use cipherwall_netcfg::{GatewayNetwork, Host, Role, Wanted, has_ipv6_uplink};
use cipherwall_proto::{
    frame::KickReason,
    liveness::Keepalive,
    rekey::{Limits, Policy},
};
use cipherwall_transport::{
    hardware,
    socket::{ListenError, SocketFactory},
    udp::UdpSocket,
};
use cipherwall_tun::{Device, OpenError};
use ipnet::IpNet;
use time::OffsetDateTime;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    accounts::Accounts,
    admin::{self, Live, LiveSession, LiveStatus, unix_now},
    config::{self, Config},
    datagrams::{self, Datagrams},
    identity::{CertificateInfo, Identity, IdentityError, Serving},
    kcp::{self, Kcp},
    limits, listener,
    lobby::Lobby,
    metrics::Counters,
    places::Places,
    quiet::Quiet,
    router::Router,
    sessions::Sessions,
    site::Site,
};

use inside::{start_dns, start_speed_test};
use signals::{Signals, notify_end};

/// How often the data base is told which sessions are in use.
const EXTEND_EVERY: Duration = Duration::from_secs(600);
/// How often accounts are looked for that have ended while a client was connected.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// How long clients get to hear that the gateway stops.
const FAREWELL: Duration = Duration::from_millis(200);
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What the parts of a running gateway share.
pub struct Gateway {
    /// As configured.
    pub config: Config,
    /// Users, devices, addresses.
    pub accounts: Accounts,
    /// Keys and certificate.
    pub identity: Serving,
    /// What strangers see.
    pub site: Site,
    /// Whether AES is fast here.
    pub aes_hardware: bool,
    /// The inside.
    pub tun: Arc<Device>,
    /// Who is connected.
    pub sessions: Arc<Sessions>,
    /// What has passed.
    pub counters: Arc<Counters>,
    /// Who may connect.
    pub places: Arc<Places>,
    /// Where they are worked on until they are let in.
    pub lobby: Lobby,
    /// Log lines about those who are not.
    pub quiet: Quiet,
    /// Datagrams beside the streams, unless they are off.
    pub datagrams: Option<Datagrams>,
    /// Clients over KCP, unless it is off.
    pub kcp: Option<Kcp>,
    since: u64,
}

impl Gateway {
    /// How patient the gateway is.
    pub fn keepalive(&self) -> Keepalive {
        Keepalive {
            interval: Duration::from_secs(self.config.keepalive.interval_s.into()),
            silence: Duration::from_secs(self.config.keepalive.timeout_s.into()),
        }
    }

    /// When connections get new keys.
    pub fn rekey_policy(&self) -> Policy {
        let config::Rekey { interval, volume_mib, records } = self.config.rekey;
        let (records, bytes) = (u64::from(records), u64::from(volume_mib) << 20);
        // a record holds more than a datagram; by default both are at the protocol's own limits
        let limits = Limits { records, bytes, datagrams: 4 * records, ..Limits::default() };
        Policy { interval, limits }
    }
}

impl Live for Gateway {
    fn status(&self) -> LiveStatus {
        let sessions = self.sessions.all();
        let by_datagram = sessions.iter().filter(|session| session.sender.datagrams().is_some());
        LiveStatus {
            since: self.since,
            datagram_sessions: by_datagram.count() as u64,
            datagram_ports: self.datagrams.as_ref().map(Datagrams::ports),
            kcp_sessions: sessions.iter().filter(|s| s.sender.carrier().is_kcp()).count() as u64,
            kcp_port: self.kcp.as_ref().map(Kcp::port),
            sessions: sessions.len() as u64,
            strangers: self.places.strangers(),
            rx_bytes: self.counters.received.value(),
            tx_bytes: self.counters.sent.value(),
            drops: self.counters.drops(),
        }
    }

    fn sessions(&self) -> HashMap<[u8; 16], LiveSession> {
        self.sessions.all().iter().map(|s| (s.id, LiveSession::from(&**s))).collect()
    }

    fn kick(&self, session_ids: &[[u8; 16]], reason: KickReason) {
        for session in self.sessions.all() {
            if session_ids.contains(&session.id) {
                session.kick(reason);
            }
        }
    }

    fn renew_certificate(&self) -> Result<CertificateInfo, IdentityError> {
        self.identity.renew(OffsetDateTime::now_utc())
    }
}

/// Why a gateway has ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop (SIGTERM, SIGINT).
    Stopped,
    /// It was told to start anew (SIGHUP), with whatever is configured then.
    Reload,
}

/// Runs the gateway until it is told to stop or to start anew. Undoes what it changed, unless it
/// starts anew: as after a crash, NAT stays meanwhile, so that the clients' connections survive.
///
/// # Errors
/// It cannot start; then nothing is left behind. Or the TUN device is gone.
pub async fn run(
    config: Config,
    paths: Paths,
    identity: Identity,
    accounts: Accounts,
    admin: Listener,
) -> anyhow::Result<Ended> {
    let mut host = Host::open(&paths.state_dir, Role::Gateway).await.map_err(not_permitted)?;
    log_report(&host.recover_for_restart().await.map_err(not_permitted)?);
    let ended = run_on(&mut host, config, &paths.config_path, identity, accounts, admin).await;
    if let Ok(Ended::Reload) = ended {
        return ended;
    }
    let undone = host.reset().await.map_err(not_permitted);
    let ended = ended?;
    log_report(&undone?);
    Ok(ended)
}

async fn run_on(
    host: &mut Host,
    config: Config,
    config_path: &Path,
    identity: Identity,
    accounts: Accounts,
    admin: Listener,
) -> anyhow::Result<Ended> {
    // everything that can fail for a simple reason comes before the host is changed
    let identity = Serving::new(identity, config.tls.early_data)
        .context("the gateway's certificate and key")?;
    let site = Site::new(&config.site, config_path).context("the site (`site` in server.yaml)")?;
    let factory = SocketFactory::default();
    let lobby = Lobby::open().context("threads for connections")?;
    let listeners = listen(&config, factory, &lobby)?;
    let datagrams = Datagrams::new(&config)?;
    let sockets = match &datagrams {
        Some(datagrams) => datagrams
            .listen(&config)
            .context("datagrams (set another `datagrams.port` in server.yaml, or off)")?,
        None => Vec::new(),
    };
    let kcp = Kcp::new(&config);
    let kcp_sockets = match &kcp {
        Some(kcp) => {
            kcp.listen(&config).context("KCP (set another `kcp.port` in server.yaml, or off)")?
        }
        None => Vec::new(),
    };
    let tun = Arc::new(Device::open(&config.interface).map_err(open_failed)?);

    for hint in limits::kernel_hints() {
        tracing::warn!("{hint}");
    }
    let wanted = Wanted::Gateway(network(&config, &accounts, tun.name()));
    log_report(&host.apply(&wanted).await.map_err(not_permitted)?);
    let gateway = Arc::new(Gateway {
        places: Places::new(limits::for_descriptors(config.limits)),
        lobby,
        quiet: Quiet::default(),
        identity,
        site,
        aes_hardware: hardware::aes(),
        tun,
        sessions: Arc::default(),
        counters: Arc::default(),
        datagrams,
        kcp,
        since: unix_now(),
        config,
        accounts,
    });
    let sockets = Sockets { tcp: listeners, datagrams: sockets, kcp: kcp_sockets };
    serve(&gateway, sockets, admin, config_path).await
}

/// What clients come to.
struct Sockets {
    tcp: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    kcp: Vec<UdpSocket>,
}

/// Listens for clients, at the door.
fn listen(
    config: &Config,
    factory: SocketFactory,
    lobby: &Lobby,
) -> Result<Vec<TcpListener>, ListenError> {
    let _door = lobby.door().enter();
    config.listen.iter().map(|address| factory.listen(*address)).collect()
}

/// Runs all parts until one fails or the gateway is told to end.
async fn serve(
    gateway: &Arc<Gateway>,
    sockets: Sockets,
    admin: Listener,
    config_path: &Path,
) -> anyhow::Result<Ended> {
    let _dns = start_dns(gateway)?;
    let _speed_test = start_speed_test(gateway);
    let (sessions, counters) = (gateway.sessions.clone(), gateway.counters.clone());
    let router = tokio::spawn(Router::new(gateway.tun.clone(), sessions, counters).run());
    let mut tasks = JoinSet::new();
    tasks.spawn(admin::serve(admin, gateway.accounts.clone(), gateway.clone()));
    tasks.spawn(extend_sessions(gateway.clone()));
    tasks.spawn(end_expired(gateway.clone()));
    let renewing = gateway.clone();
    tasks.spawn(async move { renewing.identity.keep_fresh().await });
    for listener in sockets.tcp {
        tasks.spawn_on(listener::run(listener, gateway.clone()), gateway.lobby.door());
    }
    for socket in sockets.datagrams {
        tasks.spawn(datagrams::receive(gateway.clone(), Arc::new(socket)));
    }
    for socket in sockets.kcp {
        tasks.spawn(kcp::receive(gateway.clone(), Arc::new(socket)));
    }
    let mut signals = Signals::new()?;
    cipherwall_cli::print("ready")?;
    // outside of systemd there is nobody to tell
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(endpoint = %gateway.config.endpoint, "the gateway accepts clients");

    let ended = tokio::select! {
        ended = router => Err(match ended? {
            Ok(()) => anyhow::anyhow!("the TUN device was closed"),
            Err(error) => anyhow::Error::from(error).context("the TUN device failed"),
        }),
        ended = signals.wait(config_path) => Ok(ended),
    };
    tracing::info!(reload = matches!(ended, Ok(Ended::Reload)), "the gateway stops");
    notify_end(&ended);
    // nobody is let in any more, to be sent away at once
    tasks.shutdown().await;
    let connected = gateway.sessions.all();
    for session in &connected {
        session.kick(KickReason::Stopping);
    }
    if !connected.is_empty() {
        tokio::time::sleep(FAREWELL).await;
    }
    ended
}

/// Tells the data base now and then which sessions are in use, so that their tokens and inside
/// addresses are kept.
async fn extend_sessions(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(EXTEND_EVERY).await;
        let ids: Vec<[u8; 16]> = gateway.sessions.all().iter().map(|s| s.id).collect();
        gateway.accounts.extend_sessions(&ids, unix_now()).await;
    }
}

/// Ends the sessions of users whose accounts end.
async fn end_expired(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(EXPIRE_EVERY).await;
        match gateway.accounts.end_expired(unix_now()).await {
            Ok(ended) => gateway.kick(&ended, KickReason::Revoked),
            Err(error) => tracing::error!(%error, "cannot end the sessions of expired accounts"),
        }
    }
}

/// The wanted state of the host.
fn network(config: &Config, accounts: &Accounts, interface: &str) -> GatewayNetwork {
    let pool = accounts.pool();
    let inside = |address: IpAddr, bits| IpNet::new_assert(address, bits);
    GatewayNetwork {
        interface: interface.to_owned(),
        addresses: vec![
            inside(pool.gateway_v4().into(), pool.v4().prefix_len()),
            inside(pool.gateway_v6().into(), pool.v6().prefix_len()),
        ],
        mtu: config.mtu.into(),
        networks: vec![pool.v4().trunc().into(), pool.v6().trunc().into()],
        uplink: config.uplink.clone(),
        allow_private: config.allow_private.clone(),
        listen_tcp: config.listen.iter().map(SocketAddr::port).collect(),
        listen_udp: config
            .datagrams
            .offered()
            .into_iter()
            .chain(config.kcp_port().map(|port| port..=port))
            .collect(),
        inside_tcp: config.speedtest.into_iter().collect(),
        connections_each: config.connections_each,
        ipv6_uplink: has_ipv6_uplink(),
    }
}

pub(crate) fn log_report(report: &cipherwall_netcfg::Report) {
    for undone in &report.undone {
        tracing::info!("put back: {undone}");
    }
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
}

pub(crate) fn not_permitted(error: cipherwall_netcfg::Error) -> anyhow::Error {
    if matches!(error, cipherwall_netcfg::Error::NotPermitted { .. }) {
        Failure::not_permitted(error.to_string()).into()
    } else {
        error.into()
    }
}

pub(crate) fn open_failed(error: OpenError) -> anyhow::Error {
    if matches!(error, OpenError::NotPermitted) {
        Failure::not_permitted(error.to_string()).into()
    } else {
        error.into()
    }
}
