//! `cipherwall import`: an invitation becomes a profile.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use cipherwall_cli::{Failure, exit, human, print, print_error};
use cipherwall_proto::invitation::{Invitation, InvitationError};
use zeroize::Zeroizing;

use super::Place;
use super::failure::{WithCode, coded};
use crate::profile::{self, Pending};
use crate::settings::Settings;
use crate::{dial, progress};

/// More than the longest link.
const INPUT_MAX: u64 = 64 * 1024;

/// Accept an invitation: enrol this device at the gateway and keep a profile for it
///
/// The invitation stays unused unless the gateway accepted this device.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The invitation, `cipherwall://...`; `-` reads it from standard input, so that it does not
    /// stand in the shell's history
    #[arg(value_name = "LINK")]
    link: String,

    /// Name of the profile [default: the gateway's host]
    #[arg(long)]
    name: Option<String>,

    /// Replace a profile of the same name
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(options: Options, place: &Place) -> anyhow::Result<()> {
    let invitation = read_invitation(options.link)?;
    let name = options.name.unwrap_or_else(|| default_name(&invitation));
    profile::check_name(&name).map_err(coded)?;
    place.profiles.prepare().map_err(coded)?;
    if !options.force && place.profiles.exists(&name).map_err(coded)? {
        return Err(Failure::failed(format!(
            "there is a profile {name:?} already: choose another name with --name, or replace it \
             with --force"
        ))
        .into());
    }
    let settings = Settings::load(&place.paths.config_path).map_err(coded)?;
    warn_if_expired(&invitation);

    let mut pending = place.profiles.begin_import(name, invitation).map_err(coded)?;
    enrol(&mut pending).await.context("importing the invitation failed")?;
    let profile = &pending.profile;
    place.profiles.save(profile).map_err(coded).context(
        "the gateway accepted this device, but the profile cannot be kept; import the same \
         invitation again when that is mended",
    )?;
    pending.forget().map_err(coded)?;
    make_default(settings, &profile.name, place)?;
    print(format_args!("imported profile {} for user {}", profile.name, profile.user))
}

/// When this fails the device's key stays on disk, unless the gateway certainly has not accepted
/// it.
async fn enrol(pending: &mut Pending) -> anyhow::Result<()> {
    let profile = &pending.profile;
    let enrolled = progress::tell_of_gateway("enrolling at", profile, dial::enrol(profile)).await;
    let error = match enrolled {
        Ok(address) => {
            pending.profile.last_good_addresses = vec![address];
            return Ok(());
        }
        Err(error) => error,
    };
    let not_asked = !pending.resumed && !error.is_lost_answer();
    if error.code() == exit::REJECTED || not_asked {
        pending.forget().map_err(coded)?;
        return Err(coded(error));
    }
    let code = error.code();
    Err(Failure::new(code, format!("{error}; the same invitation stays good for this computer"))
        .into())
}

fn read_invitation(link: String) -> anyhow::Result<Invitation> {
    let mut link = Zeroizing::new(link);
    if *link == "-" {
        link.clear();
        let input = std::io::stdin().lock().take(INPUT_MAX).read_to_string(&mut link);
        input.context("cannot read the invitation from standard input")?;
    }
    Invitation::from_link(&link).map_err(|error| {
        let code = match &error {
            InvitationError::Version(_) => exit::FAILED,
            InvitationError::NotAnInvitation
            | InvitationError::Damaged
            | InvitationError::Malformed(_) => exit::USAGE,
        };
        Failure::new(code, error.to_string()).into()
    })
}

fn default_name(invitation: &Invitation) -> String {
    let host = invitation.endpoints.first().map_or("", |endpoint| &endpoint.host);
    profile::name_from_host(host)
}

/// Only the gateway's clock decides; this one may be wrong.
fn warn_if_expired(invitation: &Invitation) {
    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(invitation.expires));
    let since = expires.and_then(|expires| SystemTime::now().duration_since(expires).ok());
    if let Some(since) = since {
        let ago = human::duration(since);
        print_error(format_args!(
            "warning: by this computer's clock the invitation expired {ago} ago; trying all the same"
        ));
    }
}

/// The first profile becomes the one that `connect` takes.
fn make_default(mut settings: Settings, name: &str, place: &Place) -> anyhow::Result<()> {
    if settings.default_profile.is_some() {
        return Ok(());
    }
    settings.default_profile = Some(name.to_owned());
    settings.save(&place.paths.config_path).map_err(coded)
}
