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
use cipherwall_ipc::{Listener, daemon::State};
use cipherwall_netcfg::{
    ClientNetwork, Error as HostError, Host, MARK_DEFAULT, TABLE_DEFAULT, Wanted, default_routes,
};
use cipherwall_proto::datagram::static_mode::{self, Policy, Role, StaticKey};
use cipherwall_static_mode::{Live as Traffic, Network, Running, StateFile, Tunnel};
use cipherwall_transport::socket::SocketFactory;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use crate::engine::{Asked, Live, host_error, open_tun_named, serve_front_ends};

/// The port of CipherWall datagrams (B1).
const PORT: u16 = 1194;
/// The longest inside packet over IPv4, in bytes: 1,500 less the headers of IPv4, UDP and ours (76),
/// and a little air.
const MTU_V4: u16 = 1_420;
/// The same over IPv6, whose header is 20 bytes longer.
const MTU_V6: u16 = 1_400;

const RESOLVE_TIME: Duration = Duration::from_secs(10);
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
    pub(crate) server: SocketAddr,
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

/// The address of `HOST[:PORT]`. IPv4 comes first, on which gateways listen by default.
///
/// # Errors
/// It is no host and port, or the name cannot be resolved.
pub(crate) async fn resolve(server: &str) -> anyhow::Result<SocketAddr> {
    let (host, port) = split_port(server)?;
    let found = timeout(RESOLVE_TIME, tokio::net::lookup_host((host, port))).await;
    let addresses = found.unwrap_or_else(|elapsed| Err(elapsed.into())).with_context(|| {
        format!("cannot find the gateway {host}; check the name and this computer's network")
    })?;
    let address = addresses.min_by_key(SocketAddr::is_ipv6);
    address.with_context(|| format!("the gateway's name {host} has no address; check it"))
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

/// Runs until `stop` resolves or a front end asks to disconnect. Then nothing is left of the tunnel
/// on this host, whose settings were recovered before.
///
/// # Errors
/// It cannot start, the TUN device is gone, or the host cannot be put back as it was.
pub(crate) async fn run(
    options: Options,
    mut host: Host,
    listener: Listener,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let live = Live::of_static_mode();
    let (disconnect, disconnects) = mpsc::channel(1);
    let mut front_ends = JoinSet::new();
    let accept = front_ends.spawn(serve_front_ends(listener, live.clone(), disconnect));

    live.enter(State::Connecting);
    let (ended, asked) = match start(&options, &mut host, &live).await {
        Ok(running) => serve(running, &options, &live, stop, disconnects).await,
        Err(error) => (Err(error), None),
    };
    live.enter(State::Disconnecting);
    let undone = host.reset().await.map_err(host_error);
    let ended = match (ended, undone) {
        (Err(error), undone) => {
            if let Err(also) = undone {
                tracing::error!("{also:#}");
            }
            Err(error)
        }
        (Ok(()), undone) => undone.map(|report| {
            report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }),
    };
    // the next instance can start before whoever asked to disconnect is told
    accept.abort();
    while front_ends.join_next().await.is_some() {}
    if let Some(asked) = asked {
        asked.answer(&ended).await;
    }
    ended
}

/// Sets the host up and lets packets flow.
async fn start(options: &Options, host: &mut Host, live: &Live) -> anyhow::Result<Running> {
    let state_file = options.state_file.clone();
    let stored = state_file.load()?;
    let socket = SocketFactory { mark: Some(MARK_DEFAULT) }
        .udp_for(options.server)
        .with_context(|| format!("a socket for {}", options.server))?;
    let tun = Arc::new(open_tun_named(&options.tun)?);
    let mtu = options.mtu.unwrap_or(if options.server.is_ipv6() { MTU_V6 } else { MTU_V4 });
    let wanted = ClientNetwork {
        interface: tun.name().to_owned(),
        addresses: vec![options.net.client().into()],
        mtu: mtu.into(),
        mark: MARK_DEFAULT,
        table: TABLE_DEFAULT,
        routes: default_routes(),
        allow_lan: options.allow_lan,
        dns: options.dns.clone(),
    };
    let report = host.apply(&Wanted::Client(wanted)).await.map_err(network_error)?;
    report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));

    let inside = options.net.inside();
    let (sealer, opener) =
        static_mode::start(&options.key, Role::Client, inside, options.replay, stored, unix_ms())?;
    live.up(tun.name(), options.server, TRANSPORT, CIPHER, inside.client.into());
    let tunnel = Tunnel {
        tun,
        socket,
        role: Role::Client,
        inside,
        mtu: mtu.into(),
        peer: Some(options.server),
        sealer,
        opener,
        state_file,
    };
    Ok(tunnel.start()?)
}

/// Until the device fails or somebody wants it to end, who may wait for that.
async fn serve(
    mut running: Running,
    options: &Options,
    live: &Live,
    stop: impl Future<Output = ()> + Send,
    mut disconnects: mpsc::Receiver<Asked>,
) -> (anyhow::Result<()>, Option<Asked>) {
    let traffic = running.live();
    let watch = async {
        tokio::select! {
            error = announce(&traffic, options, live) => error,
            never = measure(&traffic, live) => match never {},
        }
    };
    let ended = tokio::select! {
        error = running.failed() => {
            let why = "the tunnel's network device is gone; did another program remove it?";
            (Err(anyhow::Error::from(error).context(why)), None)
        }
        error = watch => (Err(error), None),
        Some(asked) = disconnects.recv() => (Ok(()), Some(asked)),
        () = stop => (Ok(()), None),
    };
    running.stop().await;
    ended
}

/// The line that scripts wait for, once something has come back. Gives an error if nobody reads it.
async fn announce(traffic: &Traffic, options: &Options, live: &Live) -> anyhow::Error {
    let peer = tokio::select! {
        peer = traffic.heard() => peer,
        never = complain(options.server) => match never {},
    };
    live.enter(State::Connected);
    let (inner, peer) = (options.net.inside().client, peer.unwrap_or(options.server));
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
