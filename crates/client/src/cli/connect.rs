//! `cipherwall connect`: all traffic of this host through the gateway.

use cipherwall_cli::{Failure, print_error, require_root};
use cipherwall_netcfg::{Host, Role};

use super::failure::coded;
use super::{Place, running};
use crate::engine;
use crate::settings::{CipherChoice, Settings, TransportChoice};

/// Send all traffic of this computer through the gateway
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The profile to use [default: the default profile, or the only one]
    #[arg(value_name = "PROFILE")]
    profile: Option<String>,

    /// Keep the tunnel up in this process, without a daemon, until it is interrupted or
    /// `cipherwall disconnect` is called
    ///
    /// Prints one line `connected` once traffic flows.
    #[arg(long)]
    pub(super) foreground: bool,

    /// The cipher of the tunnel [default: the setting, or auto]
    #[arg(long, value_name = "CIPHER")]
    cipher: Option<CipherChoice>,

    /// What carries packets [default: the setting, or auto, which is tls]
    ///
    /// With `udp` they go in datagrams as soon as these get through, and over TLS otherwise.
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<TransportChoice>,

    /// Keep this computer away from the local network, too
    #[arg(long)]
    no_lan: bool,

    /// Say as TLS early data which session it is, to a gateway that takes it: shows in the TLS hello,
    /// and saves the gateway a look-up, but no round trip
    #[arg(long)]
    early_data: bool,
}

pub(super) async fn run(options: Options, place: Place) -> anyhow::Result<()> {
    refuse_if_running(&place).await?;
    if !options.foreground {
        return Err(Failure::not_reachable(
            "no daemon is running: connect in this terminal with: \
             sudo cipherwall connect --foreground",
        )
        .into());
    }
    require_root("connecting")?;
    let settings = Settings::load(&place.paths.config_path).map_err(coded)?;
    let cipher = options.cipher.unwrap_or(settings.cipher);
    let transport = options.transport.unwrap_or(settings.transport);
    if !cipher.goes_with(transport) {
        return Err(Failure::usage(
            "aes-256-cfb-hmac-sha256 is a cipher for datagrams only: leave --transport tls out, or \
             choose another cipher",
        )
        .into());
    }
    let profile = place
        .profiles
        .choose(options.profile.as_deref(), settings.default_profile.as_deref())
        .map_err(coded)?;

    let stop = stop_signal()?;
    let listener = running::become_the_only_one(&place.paths).await?;
    let host = recovered_host(&place).await?;
    engine::run(
        engine::Options {
            profile,
            profiles: place.profiles,
            cipher,
            transport,
            allow_lan: settings.allow_lan && !options.no_lan,
            mtu: settings.mtu,
            early_data: settings.early_data || options.early_data,
            host,
            listener,
        },
        stop,
    )
    .await
}

pub(super) async fn refuse_if_running(place: &Place) -> anyhow::Result<()> {
    let Some(mut connection) = running::find(&place.paths).await? else { return Ok(()) };
    let status = running::status(&mut connection).await?;
    let profile = status.profile.as_deref().unwrap_or("another profile");
    let state = status.state.name();
    Err(Failure::failed(format!(
        "already {state} with {profile}: cipherwall disconnect ends that connection"
    ))
    .into())
}

/// The host settings, rid of what a killed process left.
pub(super) async fn recovered_host(place: &Place) -> anyhow::Result<Host> {
    let mut host = Host::open(&place.paths.state_dir, Role::Client).await.map_err(coded)?;
    let report = host.recover().await.map_err(coded)?;
    if !report.is_empty() {
        print_error(report.to_string().trim_end());
    }
    Ok(host)
}

/// Resolves at SIGINT (Ctrl-C), SIGTERM or SIGHUP (the terminal is gone), from now on.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}
