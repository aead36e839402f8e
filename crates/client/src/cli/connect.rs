//! `cipherwall connect`: all traffic of this host through the gateway.

use std::time::Duration;

use cipherwall_cli::{Failure, print, print_error, require_root};
use cipherwall_ipc::Connection;
use cipherwall_ipc::daemon::{Connect, Kept, Profile, Reply, Request, State, Status};

use super::failure::coded;
use super::{Place, keyring, process, running, ssh};
use crate::daemon;
use crate::engine::{self, Ended, Wanted};
use crate::profile;
use crate::progress::ChangingLine;
use crate::settings::{CipherChoice, Settings, TransportChoice, name};
use crate::state::Over;

/// A log-in may take its time; nobody waits for one that takes longer.
const CONNECT_TIME: Duration = Duration::from_secs(120);

/// Send all traffic of this computer through the gateway
///
/// Returns once traffic flows. From the beginning until `cipherwall disconnect`, nothing leaves this
/// computer outside of the tunnel, whatever happens.
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

    /// What carries packets [default: the setting, or auto]
    ///
    /// With `auto`, tls or kcp: the best of the profile's endpoints that works. With `udp` packets go
    /// in datagrams as soon as these get through, and otherwise as with `auto`.
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<TransportChoice>,

    /// Keep this computer away from the local network, too
    #[arg(long)]
    no_lan: bool,

    /// Leave the ssh connection in which this command runs outside of the tunnel, so that it goes on
    #[arg(long)]
    keep_ssh: bool,

    /// Say as TLS early data which session it is, to a gateway that takes it: shows in the TLS hello,
    /// and saves the gateway a look-up, but no round trip
    #[arg(long)]
    early_data: bool,
}

pub(super) async fn run(options: Options, place: Place) -> anyhow::Result<()> {
    let running = running::find(&place.paths).await?;
    let foreground = options.foreground;
    match running {
        Some(connection) if foreground => Err(refuse_running(connection).await),
        Some(mut connection) => {
            let profiles = running::profiles(&mut connection).await?;
            let request = options.request(&place, &profiles).await?;
            by_daemon(connection, request).await
        }
        None if foreground => in_foreground(options, place).await,
        None => Err(Failure::not_reachable(
            "no daemon is running: start it with systemctl start cipherwall, or connect in this \
             terminal with: sudo cipherwall connect --foreground",
        )
        .into()),
    }
}

impl Options {
    async fn request(self, place: &Place, profiles: &[Profile]) -> anyhow::Result<Connect> {
        // what the daemon reads once more; a user in the group may not be able to
        let settings = Settings::load(&place.paths.config_path).unwrap_or_default();
        let keep = kept(self.keep_ssh, settings.allow_lan && !self.no_lan)?;
        Ok(Connect {
            login: keyring::login(self.profile.as_deref(), profiles).await,
            profile: self.profile,
            cipher: self.cipher.map(name),
            transport: self.transport.map(name),
            no_lan: self.no_lan,
            early_data: self.early_data,
            keep,
        })
    }
}

/// The ssh connection to keep; a warning, if one will be cut.
fn kept(keep: bool, allow_lan: bool) -> anyhow::Result<Vec<Kept>> {
    let Some(connection) = ssh::connection() else {
        if keep {
            let why = "--keep-ssh: this command does not run in an ssh session";
            return Err(Failure::usage(why).into());
        }
        return Ok(Vec::new());
    };
    let stays = keep || allow_lan && ssh::is_local(&connection);
    if !stays {
        print_error(format_args!(
            "warning: this command runs in an ssh session from {}, which stops working as soon as \
             traffic goes through the tunnel; keep it with --keep-ssh",
            connection.peer
        ));
    }
    Ok(if keep { vec![connection] } else { Vec::new() })
}

async fn by_daemon(mut connection: Connection, request: Connect) -> anyhow::Result<()> {
    let progress = ChangingLine::new(true);
    let mut status = Status::default();
    let connect = async {
        connection.send(&Request::Connect(request)).await?;
        loop {
            let reply = running::next(&mut connection).await?;
            if let Some(Reply::Status(now)) = reply {
                progress.show(describe(&now));
                status = now;
            } else if reply == Some(Reply::Done) {
                return Ok(());
            } else if reply.is_none() {
                return Err(Failure::not_reachable("the daemon has ended").into());
            } else {
                return Err(running::misfit());
            }
        }
    };
    let connected = tokio::time::timeout(CONNECT_TIME, connect).await;
    drop(progress);
    connected.unwrap_or_else(|_| {
        let why = "not connected yet: the daemon goes on trying; see cipherwall status";
        Err(Failure::not_reachable(why).into())
    })?;
    let status = running::status(&mut connection).await.unwrap_or(status);
    print(connected_line(&status))
}

fn describe(status: &Status) -> String {
    let state = status.state.name();
    match (&status.profile, &status.error) {
        (_, Some(error)) => format!("{state}: {error}"),
        (Some(profile), None) => format!("{state}: {profile}"),
        (None, None) => state.to_owned(),
    }
}

/// The same line as of `--foreground`.
fn connected_line(status: &Status) -> String {
    let inner = status.inner_address.map(|address| address.to_string()).unwrap_or_default();
    let gateway = status.gateway.map(|address| address.to_string()).unwrap_or_default();
    let transport = status.transport.as_deref().unwrap_or_default();
    let cipher = status.cipher.as_deref().unwrap_or_default();
    format!("connected: {inner} through {gateway} ({transport}, {cipher})")
}

async fn in_foreground(options: Options, place: Place) -> anyhow::Result<()> {
    require_root("connecting")?;
    let settings = Settings::load(&place.paths.config_path).map_err(coded)?;
    let profiles = profile::shown(&place.profiles, &settings).map_err(coded)?;
    let request = options.request(&place, &profiles).await?;
    let wanted = Wanted::new(&request, &settings, &place.profiles)?;
    let mut process = process::start(&place, true).await?;
    // by a process that was killed
    let was_protected = process.service.protection.is_wanted();
    let Ended { over, was_up, .. } = engine::run(wanted, &mut process.service).await;
    let ended = match over {
        Over::Order(_) => Ok(()),
        Over::Failed(error) if was_protected && !was_up => {
            let error = error.context(
                "not connected again, and traffic stays blocked as it was (cipherwall repair opens)",
            );
            return process.give_up(Err(error)).await;
        }
        Over::Failed(error) => Err(error),
    };
    daemon::forget_target(&place.paths.state_dir);
    process.end(ended).await
}

pub(super) async fn refuse_if_running(place: &Place) -> anyhow::Result<()> {
    match running::find(&place.paths).await? {
        Some(connection) => Err(refuse_running(connection).await),
        None => Ok(()),
    }
}

/// Why there cannot be a second one.
async fn refuse_running(mut connection: Connection) -> anyhow::Error {
    let status = match running::status(&mut connection).await {
        Ok(status) => status,
        Err(error) => return error,
    };
    let why = match (status.state, status.profile) {
        (State::Disconnected | State::Blocked, _) => "the daemon is running: connect by it, \
             without --foreground, or stop it first with: systemctl stop cipherwall"
            .to_owned(),
        (state, profile) => {
            let profile = profile.as_deref().unwrap_or("another profile");
            let state = state.name();
            format!("already {state} with {profile}: cipherwall disconnect ends that connection")
        }
    };
    Failure::failed(why).into()
}
