//! `cipherwall-server static`: a gateway for one client with a shared key file.

use std::net::SocketAddr;
use std::path::PathBuf;

use cipherwall_cli::require_root;
use cipherwall_proto::datagram::static_mode::Policy;
use cipherwall_static_mode::{Network, load_key_file};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::Place;
use super::failure::coded;
use crate::static_mode;

/// Run a gateway in static mode: one client, a shared key file, no users
///
/// Needs no `init` and no configuration. Prints the line `ready` once it takes the client's
/// packets. Ends on SIGTERM or SIGINT, and undoes what it changed on this host.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The key file, the same as on the client; made by `keygen`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// The UDP address and port to take packets on
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:1194")]
    listen: SocketAddr,

    /// The inside network, the same as on the client; its first address is the gateway's, the
    /// second one the client's
    #[arg(long, value_name = "NETWORK", default_value = Network::DEFAULT)]
    net: Network,

    /// The name of the TUN device
    #[arg(long, value_name = "NAME", default_value = "cw%d")]
    tun: String,

    /// The interface that leads to the internet [default: whichever the host's routes choose]
    #[arg(long, value_name = "IFACE")]
    uplink: Option<String>,

    /// The longest inside packet, in bytes [default: 1420, over IPv6 1400]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(576..=9000))]
    mtu: Option<u16>,

    /// How replayed packets are recognised: by the counter in CipherWall's own packets, by
    /// remembering what was seen, not at all, or by whichever the client turns out to allow
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = policies())]
    replay: Policy,
}

pub(super) async fn run(options: Options, place: &Place) -> anyhow::Result<()> {
    require_root("running the gateway")?;
    let Options { key, listen, net, tun, uplink, mtu, replay } = options;
    let key = load_key_file(&key).map_err(coded)?;
    let gateway = static_mode::Options { key, listen, net, tun, uplink, mtu, replay };
    static_mode::run(gateway, &place.paths).await
}

fn policies() -> impl TypedValueParser<Value = Policy> {
    let names = PossibleValuesParser::new(Policy::ALL.map(|(name, _)| name));
    names.map(|given| {
        let known = Policy::ALL.into_iter().find(|(name, _)| *name == given);
        known.map_or(Policy::default(), |(_, policy)| policy)
    })
}
