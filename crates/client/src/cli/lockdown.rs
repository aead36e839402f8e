//! `cipherwall lockdown`: nothing outside of the tunnel, connected or not, from the computer's start.

use cipherwall_cli::{print, require_root};
use cipherwall_ipc::daemon::Request;

use super::{Place, process, running};
use crate::engine::Lockdown;
use crate::settings::Settings;

/// Block all traffic outside of the tunnel always, also while not connected and from the start of
/// the computer on
///
/// Nothing but `lockdown off` ends that. Without it, traffic is blocked from `connect` until
/// `disconnect`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Block from now on
    On,
    /// Block only while connected
    Off,
    /// Show whether it is on
    Status {
        /// One line of JSON: {"on": true}
        #[arg(long)]
        json: bool,
    },
    /// Block now if it is on: for the unit that runs before the network comes up
    #[command(hide = true)]
    Enforce,
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    match command {
        Command::On => set(true, place).await,
        Command::Off => set(false, place).await,
        Command::Status { json } => status(json, place).await,
        Command::Enforce => enforce(place).await,
    }
}

async fn set(on: bool, place: &Place) -> anyhow::Result<()> {
    if let Some(mut connection) = running::find(&place.paths).await? {
        let request = Request::Lockdown { on };
        running::have_done(&mut connection, &request, running::ANSWER_TIME).await?;
    } else {
        require_root("lockdown")?;
        // held until the end, so that no connection begins meanwhile
        let _only_one = running::become_the_only_one(&place.paths).await?;
        let mut protection = process::take_host(place).await?;
        protection.set_lockdown(on, allow_lan(place)).await?;
    }
    if on {
        print(
            "lockdown is on: nothing leaves this computer outside of the tunnel, until you run: \
             cipherwall lockdown off",
        )
    } else {
        print("lockdown is off")
    }
}

async fn status(json: bool, place: &Place) -> anyhow::Result<()> {
    let on = match running::find(&place.paths).await? {
        Some(mut connection) => running::status(&mut connection).await?.lockdown,
        None => Lockdown::load(&place.paths.state_dir).is_on(),
    };
    if json {
        return print(serde_json::json!({ "on": on }));
    }
    print(if on { "lockdown is on" } else { "lockdown is off" })
}

async fn enforce(place: &Place) -> anyhow::Result<()> {
    require_root("lockdown")?;
    if !Lockdown::load(&place.paths.state_dir).is_on() {
        return Ok(());
    }
    // one that runs has done it already
    if running::find(&place.paths).await?.is_some() {
        return Ok(());
    }
    let mut protection = process::take_host(place).await?;
    protection.set_allow_lan(allow_lan(place)).await
}

/// As the settings say; no, where they cannot be read.
fn allow_lan(place: &Place) -> bool {
    Settings::load(&place.paths.config_path).is_ok_and(|settings| settings.allow_lan)
}
