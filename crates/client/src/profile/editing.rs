//! Profiles as front ends see and change them.

use std::path::Path;

use cipherwall_cli::Failure;
use cipherwall_ipc::daemon;
use cipherwall_proto::invitation::Endpoint;
use rustls::pki_types::DnsName;
use serde::Deserialize;

use super::{Profile, ProfileError, Profiles};
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
fn endpoint(endpoint: &Endpoint) -> Option<daemon::Endpoint> {
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
    let old = change.profile;
    let profile = profiles.load(&old).map_err(coded)?;
    if let Some(bad) =
        change.sni.iter().flatten().find(|name| DnsName::try_from(name.as_str()).is_err())
    {
        return Err(Failure::usage(format!(
            "{bad:?} is no host name; write for example www.example.org"
        ))
        .into());
    }
    let endpoints = match &change.prefer {
        Some(prefer) => preferring(profile.endpoints, prefer)?,
        None => profile.endpoints,
    };
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

/// The endpoints with the one that is meant in front.
fn preferring(mut endpoints: Vec<Endpoint>, prefer: &str) -> anyhow::Result<Vec<Endpoint>> {
    let written = |endpoint: &Endpoint| address(&endpoint.host, endpoint.port);
    let Some(at) = endpoints.iter().position(|endpoint| written(endpoint) == prefer) else {
        let known: Vec<_> = endpoints.iter().map(written).collect();
        let known = known.join(", ");
        return Err(Failure::usage(format!("{prefer:?} is not of this profile: {known}")).into());
    };
    endpoints[..=at].rotate_right(1);
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use cipherwall_proto::invitation::Transport;

    use super::*;

    #[test]
    fn the_preferred_endpoint_comes_first_and_the_others_keep_their_order() {
        let endpoint = |host: &str| {
            let pins = [[1; 32], [2; 32]];
            Endpoint { host: host.into(), port: 8443, transport: Transport::Tls, pins }
        };
        let hosts = |prefer: &str| {
            let all = ["a.example", "2001:db8::1", "c.example"].map(endpoint).to_vec();
            let sorted = preferring(all, prefer).expect("known");
            sorted.into_iter().map(|endpoint| endpoint.host).collect::<Vec<_>>()
        };
        assert_eq!(hosts("c.example:8443"), ["c.example", "a.example", "2001:db8::1"]);
        assert_eq!(hosts("[2001:db8::1]:8443"), ["2001:db8::1", "a.example", "c.example"]);
        let error = preferring(vec![endpoint("a.example")], "a.example:1").expect_err("unknown");
        assert!(error.to_string().contains("a.example:8443"), "{error}");
        let shown = super::endpoint(&endpoint("a.example")).expect("the same fields");
        assert_eq!((shown.port, shown.transport.as_str(), shown.pins.len()), (8443, "tls", 2));
    }
}
