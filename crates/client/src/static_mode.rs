//! Static mode on the client (B1, B2, B5): a shared key file, no log-in.
//!
//! There are no states as in [`crate::state`]: the tunnel stands from the start, and whether the
//! gateway is there shows in whether something comes back.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow};
use cipherwall_cli::{Failure, exit};
use cipherwall_ipc::daemon::State;
use cipherwall_netcfg::{
    ClientNetwork, Error as HostError, MARK_DEFAULT, Protocol, TABLE_DEFAULT, default_routes,
};
use cipherwall_proto::datagram::static_mode::{self, Policy, Role, StaticKey};
use cipherwall_static_mode::{Live as Traffic, Network, Running, StateFile, Tunnel};
use cipherwall_transport::{resolver::Resolver, socket::SocketFactory};
use tokio::time::{interval, sleep};

use crate::engine::{Exceptions, Live, Service, host_error, open_tun_named, opening, warn};

/// The port of CipherWall datagrams (B1).
const PORT: u16 = 1194;
/// The longest inside packet over IPv4, in bytes: 1,500 less the headers of IPv4, UDP and ours (76),
/// and a little air.
const MTU_V4: u16 = 1_420;
/// The same over IPv6, whose header is 20 bytes longer.
const MTU_V6: u16 = 1_400;

/// If nothing has come back for so long, something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often front ends get new figures.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

const CIPHER: &str = "aes-256-cfb-hmac-sha256";
const TRANSPORT: &str = "udp";

/// What the command line says.
pub(crate) struct Options {
    /// The key that both ends have.
    pub(crate) key: StaticKey,
    /// Where the gateway is.
    pub(crate) server: Server,
    /// The inside network.
    pub(crate) net: Network,
    /// The name of the TUN device.
    pub(crate) tun: String,
    /// DNS servers, inside the tunnel; none leaves the host's DNS as it is.
    pub(crate) dns: Vec<IpAddr>,
    /// The longest inside packet, in bytes.
    pub(crate) mtu: Option<u16>,
    /// Whether the local network stays reachable.
    pub(crate) allow_lan: bool,
    /// How replayed packets are recognised.
    pub(crate) replay: Policy,
    /// Where run numbers are kept.
    pub(crate) state_file: StateFile,
}

/// The gateway's name or address, and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    host: String,
    port: u16,
}

impl Server {
    /// From `HOST[:PORT]`.
    ///
    /// # Errors
    /// It is no host and port (wrong usage).
    pub(crate) fn parse(server: &str) -> anyhow::Result<Server> {
        let (host, port) = split_port(server)?;
        Ok(Server { host: host.to_owned(), port })
    }
}

fn split_port(server: &str) -> anyhow::Result<(&str, u16)> {
    // a bare IPv6 address has colons, but no port
    if server.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((server, PORT));
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !server.ends_with(']') => (host, port.parse().ok()),
        _ => (server, Some(PORT)),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match port {
        Some(port) if port > 0 && !host.is_empty() => Ok((host, port)),
        _ => {
            let message = format!("--server {server}: give HOST, HOST:PORT or [IPV6]:PORT");
            Err(Failure::new(exit::USAGE, message).into())
        }
    }
}

/// Runs until somebody wants an end of it. Then no routes and no DNS settings of it are left on this
/// host; the packet policy is the caller's.
///
/// # Errors
/// It cannot start, the TUN device is gone, or the host cannot be put back as it was.
pub(crate) async fn run(options: Options, service: &mut Service) -> anyhow::Result<()> {
    let live = service.live.clone();
    live.enter(State::Connecting);
    let ended = match start(&options, service).await {
        Ok((running, server)) => serve(running, server, &options, service).await,
        Err(error) => Err(error),
    };
    live.enter(State::Disconnecting);
    let undone = service.protection.take_back().await;
    match (ended, undone) {
        (Err(error), undone) => {
            if let Err(also) = undone {
                tracing::error!("{also:#}");
            }
            Err(error)
        }
        (Ok(()), undone) => undone.map(|report| warn(&report)),
    }
}

/// Sets the host up and lets packets flow.
async fn start(options: &Options, service: &mut Service) -> anyhow::Result<(Running, SocketAddr)> {
    let state_file = options.state_file.clone();
    let stored = state_file.load()?;
    let sockets = SocketFactory { mark: Some(MARK_DEFAULT) };
    let exceptions = Exceptions { allow_lan: options.allow_lan, ..Exceptions::default() };
    service.protection.close(exceptions).await?;
    service.show();
    let server = resolve(&options.server, sockets, service).await?;
    let socket = sockets.udp_for(server).with_context(|| format!("a socket for {server}"))?;
    let tun = Arc::new(open_tun_named(&options.tun)?);
    let mtu = options.mtu.unwrap_or(if server.is_ipv6() { MTU_V6 } else { MTU_V4 });
    let wanted = ClientNetwork {
        interface: tun.name().to_owned(),
        addresses: vec![options.net.client().into()],
        mtu: mtu.into(),
        mark: MARK_DEFAULT,
        table: TABLE_DEFAULT,
        routes: default_routes(),
        allow_lan: options.allow_lan,
        direct: Vec::new(),
        keep: Vec::new(),
        dns: options.dns.clone(),
    };
    service.protection.apply(wanted).await.map_err(network_error)?;
    let name = tun.name().to_owned();
    let opened = service.protection.flow(|flow| {
        flow.gateways = vec![opening(server, Protocol::Udp)];
        flow.tunnel = Some(name);
    });
    opened.await?;

    let inside = options.net.inside();
    let (sealer, opener) =
        static_mode::start(&options.key, Role::Client, inside, options.replay, stored, unix_ms())?;
    service.live.up(tun.name(), server, TRANSPORT, CIPHER, inside.client.into());
    let tunnel = Tunnel {
        tun,
        socket,
        role: Role::Client,
        inside,
        mtu: mtu.into(),
        peer: Some(server),
        sealer,
        opener,
        state_file,
    };
    Ok((tunnel.start()?, server))
}

/// The gateway's address. IPv4 comes first, on which gateways listen by default.
async fn resolve(
    Server { host, port }: &Server,
    sockets: SocketFactory,
    service: &mut Service,
) -> anyhow::Result<SocketAddr> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, *port));
    }
    service.protection.flow(|flow| flow.resolvers = true).await?;
    let resolver = Resolver::new(sockets, service.protection.outside_resolvers());
    let found = resolver.addresses(host).await;
    service.protection.flow(|flow| flow.resolvers = false).await?;
    let addresses = found.with_context(|| {
        format!("cannot find the gateway {host}; check the name and this computer's network")
    })?;
    let address = addresses.into_iter().min_by_key(IpAddr::is_ipv6);
    let address = address.map(|address| SocketAddr::new(address, *port));
    address.with_context(|| format!("the gateway's name {host} has no address; check it"))
}

/// Until the device fails or somebody wants it to end.
async fn serve(
    mut running: Running,
    server: SocketAddr,
    options: &Options,
    service: &mut Service,
) -> anyhow::Result<()> {
    let traffic = running.live();
    let live = service.live.clone();
    let watch = async {
        tokio::select! {
            error = announce(&traffic, server, options, &live) => error,
            never = measure(&traffic, &live) => match never {},
        }
    };
    let mut watch = std::pin::pin!(watch);
    let ended = loop {
        tokio::select! {
            error = running.failed() => {
                let why = "the tunnel's network device is gone; did another program remove it?";
                break Err(anyhow::Error::from(error).context(why));
            }
            error = &mut watch => break Err(error),
            wish = service.wish() => if service.heed(wish).await.is_some() {
                break Ok(());
            }
        }
    };
    running.stop().await;
    ended
}

/// The line that scripts wait for, once something has come back. Gives an error if nobody reads it.
async fn announce(
    traffic: &Traffic,
    server: SocketAddr,
    options: &Options,
    live: &Live,
) -> anyhow::Error {
    let peer = tokio::select! {
        peer = traffic.heard() => peer,
        never = complain(server) => match never {},
    };
    live.enter(State::Connected);
    let (inner, peer) = (options.net.inside().client, peer.unwrap_or(server));
    let line = format_args!("connected: {inner} through {peer} ({TRANSPORT}, {CIPHER})");
    match cipherwall_cli::print(line) {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

async fn complain(server: SocketAddr) -> Infallible {
    sleep(PATIENCE).await;
    tracing::warn!(
        "nothing has come back from {server} yet: is the gateway started there, with the same key \
         file, and does its firewall let UDP through? Waiting on"
    );
    std::future::pending().await
}

/// Keeps front ends up to date.
async fn measure(traffic: &Traffic, live: &Live) -> Infallible {
    let mut ticks = interval(MEASURE_EVERY);
    loop {
        ticks.tick().await;
        live.measured(traffic.traffic(), None);
        if let Some(peer) = traffic.peer() {
            live.moved(peer);
        }
    }
}

/// With the remedy that this mode has.
fn network_error(error: HostError) -> anyhow::Error {
    if let HostError::NetworkInUse { network, address, interface } = &error {
        return anyhow!(
            "the inside network {network} overlaps with {address} on {interface}; choose another \
             one with --net, the same on both sides"
        );
    }
    host_error(error)
}

fn unix_ms() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out() {
        for (server, expected) in [
            ("gateway.example", ("gateway.example", 1194)),
            ("gateway.example:5000", ("gateway.example", 5000)),
            ("203.0.113.2", ("203.0.113.2", 1194)),
            ("203.0.113.2:443", ("203.0.113.2", 443)),
            ("2001:db8::2", ("2001:db8::2", 1194)),
            ("[2001:db8::2]", ("2001:db8::2", 1194)),
            ("[2001:db8::2]:443", ("2001:db8::2", 443)),
        ] {
            assert_eq!(split_port(server).expect(server), expected);
        }
        for bad in ["", ":1194", "host:", "host:0", "host:99999", "host:port", "[]:1"] {
            let error = split_port(bad).expect_err(bad).to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
