//! Profiles as front ends see and change them.

use std::path::Path;

use cipherwall_cli::Failure;
use cipherwall_ipc::daemon;
use cipherwall_proto::invitation::Endpoint;
use rustls::pki_types::DnsName;
use serde::Deserialize;

use super::{Profile, ProfileError, Profiles, endpoints};
use crate::{cli::coded, keyring::IN_KEYRING, settings::Settings};

/// All profiles, without their secrets; of those that cannot be read, why.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn shown(
    profiles: &Profiles,
    settings: &Settings,
) -> Result<Vec<daemon::Profile>, ProfileError> {
    let show = |name: String| match profiles.load(&name) {
        Ok(profile) => of(profile, settings),
        Err(error) => {
            daemon::Profile { name, error: Some(error.to_string()), ..Default::default() }
        }
    };
    Ok(profiles.names()?.into_iter().map(show).collect())
}

/// What a person may see of it.
fn of(profile: Profile, settings: &Settings) -> daemon::Profile {
    daemon::Profile {
        default: settings.default_profile.as_ref() == Some(&profile.name),
        login: login(&profile).to_owned(),
        name: profile.name,
        user: profile.user,
        endpoints: profile.endpoints.iter().filter_map(endpoint).collect(),
        sni: profile.sni,
        last_good_addresses: profile.last_good_addresses,
        error: None,
    }
}

/// How it logs in: without, with a password, or with one in a keyring.
pub(crate) fn login(profile: &Profile) -> &'static str {
    match (profile.keyring, &profile.prehash) {
        (true, _) => IN_KEYRING,
        (false, Some(_)) => "password",
        (false, None) => "invitation",
    }
}

/// In the same JSON.
pub(super) fn endpoint(endpoint: &Endpoint) -> Option<daemon::Endpoint> {
    daemon::Endpoint::deserialize(serde_json::to_value(endpoint).ok()?).ok()
}

/// `HOST:PORT`
pub(crate) fn address(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Changes a profile, and the settings where they name it.
///
/// # Errors
/// There is no such profile or endpoint, the new name is taken, or a file cannot be written.
pub(crate) fn change(
    change: daemon::ProfileChange,
    profiles: &Profiles,
    config_path: &Path,
) -> anyhow::Result<()> {
    let mut settings = Settings::load(config_path).map_err(coded)?;
    let old = change.profile.clone();
    let profile = profiles.load(&old).map_err(coded)?;
    if let Some(bad) =
        change.sni.iter().flatten().find(|name| DnsName::try_from(name.as_str()).is_err())
    {
        return Err(Failure::usage(format!(
            "{bad:?} is no host name; write for example www.example.org"
        ))
        .into());
    }
    let endpoints = endpoints::edited(&profile, &change)?;
    let name = match change.name {
        Some(new) if new != old => {
            profiles.rename(&old, &new).map_err(coded)?;
            new
        }
        Some(_) | None => old.clone(),
    };
    let kept = profiles.update(&name, |profile| {
        profile.endpoints = endpoints;
        if let Some(sni) = change.sni {
            profile.sni = sni;
        }
    });
    kept.map_err(coded)?;
    if change.default || settings.default_profile.as_ref() == Some(&old) {
        settings.default_profile = Some(name);
        settings.save(config_path).map_err(coded)?;
    }
    Ok(())
}

/// Forgets a profile with its secrets.
///
/// # Errors
/// There is none of this name, or a file cannot be written.
pub(crate) fn remove(name: &str, profiles: &Profiles, config_path: &Path) -> anyhow::Result<()> {
    let mut settings = Settings::load(config_path).map_err(coded)?;
    profiles.remove(name).map_err(coded)?;
    if settings.default_profile.as_deref() == Some(name) {
        settings.default_profile = None;
        settings.save(config_path).map_err(coded)?;
    }
    Ok(())
}

/// Why a profile cannot go away or have another name now.
pub(crate) fn in_use(name: &str) -> anyhow::Error {
    let why = "is in use: end that connection first with: cipherwall disconnect";
    Failure::failed(format!("profile {name} {why}")).into()
}
