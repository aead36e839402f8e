//! `cipherwall static`: a tunnel with a shared key file, without log-in.

use std::net::IpAddr;
use std::path::PathBuf;

use cipherwall_cli::require_root;
use cipherwall_proto::datagram::static_mode::{Policy, Role};
use cipherwall_static_mode::{Network, StateFile, load_key_file};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::connect::refuse_if_running;
use super::failure::coded;
use super::{Place, process};
use crate::settings::Settings;
use crate::static_mode;

/// Send all traffic of this computer through a gateway in static mode, with a shared key file
/// instead of a log-in
///
/// Keeps the tunnel up in this process until it is interrupted or `cipherwall disconnect` is called.
/// Prints one line `connected` once something comes back from the gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The key file, the same as on the gateway; made by `keygen`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// The gateway's name or address, and its UDP port [default port: 1194]
    #[arg(long, value_name = "HOST[:PORT]")]
    server: String,

    /// The inside network, the same as on the gateway; its first address is the gateway's, the
    /// second one this computer's
    #[arg(long, value_name = "NETWORK", default_value = Network::DEFAULT)]
    net: Network,

    /// The name of the TUN device
    #[arg(long, value_name = "NAME", default_value = "cw%d")]
    tun: String,

    /// A DNS server to use, reached through the tunnel; may be given again [default: the gateway's
    /// inside address]
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,

    /// Leave this computer's DNS settings as they are
    #[arg(long, conflicts_with = "dns")]
    no_dns: bool,

    /// The longest inside packet, in bytes [default: 1420, over IPv6 1400]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(576..=9000))]
    mtu: Option<u16>,

    /// Keep the local network reachable [default: the setting, which is yes]
    #[arg(long, conflicts_with = "no_lan")]
    allow_lan: bool,

    /// Keep this computer away from the local network, too
    #[arg(long)]
    no_lan: bool,

    /// How replayed packets are recognised: by the counter in CipherWall's own packets, by
    /// remembering what was seen, not at all, or by whichever the gateway turns out to allow
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = policies())]
    replay: Policy,
}

pub(super) async fn run(options: Options, place: Place) -> anyhow::Result<()> {
    refuse_if_running(&place).await?;
    require_root("connecting")?;
    let settings = Settings::load(&place.paths.config_path).map_err(coded)?;
    let key = load_key_file(&options.key).map_err(coded)?;
    let server = static_mode::Server::parse(&options.server)?;
    let inside = options.net.inside();
    let dns = match (options.no_dns, options.dns) {
        (true, _) => Vec::new(),
        (false, dns) if dns.is_empty() => vec![inside.gateway.into()],
        (false, dns) => dns,
    };

    let state_file = StateFile::open(&place.paths.state_dir, &key, Role::Client).map_err(coded)?;
    let mut process = process::start(&place, true).await?;
    let options = static_mode::Options {
        key,
        server,
        net: options.net,
        tun: options.tun,
        dns,
        mtu: options.mtu,
        allow_lan: options.allow_lan || settings.allow_lan && !options.no_lan,
        replay: options.replay,
        state_file,
    };
    let ended = static_mode::run(options, &mut process.service).await;
    process.end(ended).await
}

fn policies() -> impl TypedValueParser<Value = Policy> {
    let names = PossibleValuesParser::new(Policy::ALL.map(|(name, _)| name));
    names.map(|given| {
        let known = Policy::ALL.into_iter().find(|(name, _)| *name == given);
        known.map_or(Policy::default(), |(_, policy)| policy)
    })
}
