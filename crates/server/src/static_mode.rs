//! Static mode on the gateway (B1, B2, B6): one client with the same key file, no users.
//!
//! Host settings, DNS forwarder and signals are those of [`crate::gateway`]; the packets are
//! `cipherwall_static_mode`'s.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use cipherwall_cli::Paths;
use cipherwall_netcfg::{
    CONNECTIONS_EACH_DEFAULT, Error as HostError, GatewayNetwork, Host, Role, Wanted,
};
use cipherwall_proto::datagram::static_mode::{self, Policy, StaticKey};
use cipherwall_static_mode::{Network, Running, StateFile, Tunnel};
use cipherwall_transport::socket::SocketFactory;
use cipherwall_tun::Device;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    dns::{Forwarder, host_resolvers},
    gateway::{RESOLV_CONF, log_report, not_permitted, open_failed},
};

/// What 1,500 bytes hold less the headers of IPv4, UDP and ours (76), and a little air.
const MTU_V4: u16 = 1_420;
/// As over IPv4, whose header is 20 bytes shorter.
const MTU_V6: u16 = 1_400;

/// What the command line says.
pub struct Options {
    /// The key that both ends have.
    pub key: StaticKey,
    /// Where packets are taken.
    pub listen: SocketAddr,
    /// The inside network.
    pub net: Network,
    /// The name of the TUN device.
    pub tun: String,
    /// The interface to the internet, if it must be one.
    pub uplink: Option<String>,
    /// The longest inside packet, in bytes.
    pub mtu: Option<u16>,
    /// How replayed packets are recognised.
    pub replay: Policy,
}

/// Runs the gateway until it is told to stop (SIGTERM, SIGINT), and undoes what it changed.
///
/// # Errors
/// It cannot start; then nothing is left behind. Or the TUN device is gone.
pub async fn run(options: Options, paths: &Paths) -> anyhow::Result<()> {
    let state_file = StateFile::open(&paths.state_dir, &options.key, static_mode::Role::Gateway)?;
    let mut host = Host::open(&paths.state_dir, Role::Gateway).await.map_err(not_permitted)?;
    log_report(&host.recover_for_restart().await.map_err(not_permitted)?);
    let ended = run_on(&mut host, options, state_file).await;
    let undone = host.reset().await.map_err(not_permitted);
    ended?;
    log_report(&undone?);
    Ok(())
}

async fn run_on(host: &mut Host, options: Options, state_file: StateFile) -> anyhow::Result<()> {
    // everything that can fail for a simple reason comes before the host is changed
    let socket = SocketFactory::default().udp_listen(options.listen).context("--listen")?;
    let stored = state_file.load()?;
    let tun = Arc::new(Device::open(&options.tun).map_err(open_failed)?);
    let mtu = options.mtu.unwrap_or(if options.listen.is_ipv6() { MTU_V6 } else { MTU_V4 });
    let wanted = Wanted::Gateway(network(&options, mtu, tun.name()));
    log_report(&host.apply(&wanted).await.map_err(host_error)?);

    let (role, inside) = (static_mode::Role::Gateway, options.net.inside());
    let (sealer, opener) =
        static_mode::start(&options.key, role, inside, options.replay, stored, unix_ms())?;
    let mtu = mtu.into();
    let tunnel = Tunnel { tun, socket, role, inside, mtu, peer: None, sealer, opener, state_file };
    serve(tunnel.start()?, &options).await
}

/// Until the device fails or somebody wants it to end.
async fn serve(mut running: Running, options: &Options) -> anyhow::Result<()> {
    let _dns = start_dns(options).inspect_err(|error| {
        tracing::warn!(%error, "no DNS for the client, which has to use --dns");
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    cipherwall_cli::print("ready")?;
    // outside of systemd there is nobody to tell
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(listen = %options.listen, "static mode takes the client's packets");
    let ended = tokio::select! {
        error = running.failed() => Err(anyhow::Error::from(error).context("the TUN device failed")),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    tracing::info!("the gateway stops");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    running.stop().await;
    ended
}

fn start_dns(options: &Options) -> io::Result<Forwarder> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    Forwarder::start(vec![options.net.inside().gateway.into()], host_resolvers(&text))
}

/// The wanted state of the host.
fn network(options: &Options, mtu: u16, interface: &str) -> GatewayNetwork {
    let port = options.listen.port();
    GatewayNetwork {
        interface: interface.to_owned(),
        addresses: vec![options.net.gateway().into()],
        mtu: mtu.into(),
        networks: vec![options.net.network().into()],
        uplink: options.uplink.clone(),
        allow_private: Vec::new(),
        listen_tcp: Vec::new(),
        listen_udp: vec![port..=port],
        inside_tcp: Vec::new(),
        connections_each: Some(CONNECTIONS_EACH_DEFAULT),
        // there is none inside, so the client is told at once
        ipv6_uplink: false,
    }
}

/// With the remedy that this mode has.
fn host_error(error: HostError) -> anyhow::Error {
    if let HostError::NetworkInUse { network, address, interface } = &error {
        return anyhow::anyhow!(
            "the inside network {network} overlaps with {address} on {interface}; choose another \
             one with --net, the same on both sides"
        );
    }
    not_permitted(error)
}

fn unix_ms() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
