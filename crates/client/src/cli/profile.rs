//! `cipherwall profile`: the gateways that this computer knows.

mod endpoint;

use std::io::{IsTerminal, Write, stderr, stdin};

use anyhow::Context;
use cipherwall_cli::{Failure, human, print};
use cipherwall_ipc::Connection;
use cipherwall_ipc::daemon::{Endpoint, Profile, ProfileChange, Request};
use rustls::pki_types::DnsName;

use super::failure::coded;
use super::{Place, keyring, line, running};
use crate::profile::{self, ProfileError};
use crate::settings::Settings;

/// The gateways that this computer knows, one profile for each invitation
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List all profiles
    List {
        /// A JSON array of what `show --json` shows; of a profile that cannot be read, name and
        /// error
        #[arg(long)]
        json: bool,
    },
    /// Show a profile, without its secrets
    Show {
        /// The profile [default: the default profile, or the only one]
        profile: Option<String>,

        /// One JSON object: name, default, user, login (invitation or password), endpoints, sni
        /// and last_good_addresses
        #[arg(long)]
        json: bool,
    },
    Set(Changes),
    /// The ways to the gateways of a profile
    #[command(subcommand)]
    Endpoint(endpoint::Command),
    /// Forget a profile with all its secrets
    ///
    /// This computer cannot connect with it any more. Its invitation is used, so that coming back
    /// takes a new one.
    Remove {
        /// The profile
        profile: String,

        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Change a profile
#[derive(Debug, clap::Args)]
#[command(group(
    clap::ArgGroup::new("change")
        .args(["name", "default", "sni", "no_sni", "prefer"])
        .required(true)
        .multiple(true)
))]
pub(super) struct Changes {
    /// The profile
    profile: String,

    /// Give it another name
    #[arg(long)]
    name: Option<String>,

    /// Let `connect` take it when no profile is named
    #[arg(long)]
    default: bool,

    /// Give this name in the TLS hello, instead of the gateway's host name; may be repeated
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    sni: Vec<String>,

    /// Give the gateway's host name in the TLS hello
    #[arg(long, conflicts_with = "sni")]
    no_sni: bool,

    /// Try this endpoint first, as `show` has it
    #[arg(long, value_name = "[TRANSPORT:]HOST:PORT")]
    prefer: Option<String>,
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    let mut known = Known::find(place).await?;
    match command {
        Command::List { json } => list(json, &known.all(place).await?),
        Command::Show { profile, json } => {
            let shown = known.one(profile.as_deref(), place).await?;
            show(&shown, json)
        }
        Command::Set(changes) => known.change(changes.into(), place).await,
        Command::Endpoint(command) => known.change(command.try_into()?, place).await,
        Command::Remove { profile, yes } => known.remove(&profile, yes, place).await,
    }
}

/// Where profiles are to be had: from the running process, so that members of its group can, or, if
/// none runs, from the files.
struct Known(Option<Connection>);

impl Known {
    async fn find(place: &Place) -> anyhow::Result<Known> {
        Ok(Known(running::find(&place.paths).await?))
    }

    async fn all(&mut self, place: &Place) -> anyhow::Result<Vec<Profile>> {
        let Some(connection) = &mut self.0 else {
            let settings = Settings::load(&place.paths.config_path).map_err(coded)?;
            return profile::shown(&place.profiles, &settings).map_err(coded);
        };
        running::profiles(connection).await
    }

    /// The one that is meant.
    async fn one(&mut self, name: Option<&str>, place: &Place) -> anyhow::Result<Profile> {
        let all = self.all(place).await?;
        let known = all.iter().map(|profile| profile.name.clone()).collect();
        let found = match (name, all.as_slice()) {
            (Some(name), _) => all.iter().find(|profile| profile.name == name),
            (None, [only]) => Some(only),
            (None, _) => all.iter().find(|profile| profile.default),
        };
        match (found, name) {
            (Some(Profile { error: Some(error), .. }), _) => {
                Err(Failure::failed(error.clone()).into())
            }
            (Some(profile), _) => Ok(profile.clone()),
            (None, Some(name)) => {
                profile::check_name(name).map_err(coded)?;
                Err(coded(ProfileError::Missing { name: name.to_owned(), known }))
            }
            (None, None) => Err(coded(ProfileError::NotNamed { known })),
        }
    }

    async fn change(&mut self, change: ProfileChange, place: &Place) -> anyhow::Result<()> {
        let name = change.name.clone().unwrap_or_else(|| change.profile.clone());
        match &mut self.0 {
            Some(connection) => {
                let request = Request::ChangeProfile(change);
                running::have_done(connection, &request, running::ANSWER_TIME).await?;
            }
            None => profile::change(change, &place.profiles, &place.paths.config_path)?,
        }
        print(format_args!("changed profile {name}"))
    }

    async fn remove(&mut self, name: &str, yes: bool, place: &Place) -> anyhow::Result<()> {
        profile::check_name(name).map_err(coded)?;
        let all = self.all(place).await?;
        let Some(gone) = all.iter().find(|profile| profile.name == name) else {
            let known = all.into_iter().map(|profile| profile.name).collect();
            return Err(coded(ProfileError::Missing { name: name.to_owned(), known }));
        };
        if let Some(connection) = &mut self.0 {
            // before anybody is asked
            let status = running::status(connection).await?;
            if status.profile.as_deref() == Some(name) {
                return Err(profile::in_use(name));
            }
        }
        if !yes && !confirmed(name)? {
            return Err(Failure::failed("nothing was removed").into());
        }
        // the answer may have taken its time
        self.0 = running::find(&place.paths).await?;
        match &mut self.0 {
            Some(connection) => {
                let request = Request::RemoveProfile { name: name.to_owned() };
                running::have_done(connection, &request, running::ANSWER_TIME).await?;
            }
            None => profile::remove(name, &place.profiles, &place.paths.config_path)?,
        }
        keyring::forget(gone, &all).await;
        print(format_args!("removed profile {name}"))
    }
}

impl From<Changes> for ProfileChange {
    fn from(changes: Changes) -> Self {
        let changes_sni = changes.no_sni || !changes.sni.is_empty();
        Self {
            profile: changes.profile,
            name: changes.name,
            default: changes.default,
            sni: changes_sni.then_some(changes.sni),
            prefer: changes.prefer,
            ..Self::default()
        }
    }
}

fn list(json: bool, profiles: &[Profile]) -> anyhow::Result<()> {
    if json {
        let listed: Vec<_> = profiles.iter().map(listed).collect();
        return print(serde_json::to_string(&listed)?);
    }
    let row = |profile: &Profile| match &profile.error {
        None => [
            profile.name.clone(),
            profile.user.clone(),
            profile.endpoints.first().map(address).unwrap_or_default(),
            if profile.default { "default" } else { "" }.to_owned(),
        ],
        Some(error) => [profile.name.clone(), String::new(), String::new(), error.clone()],
    };
    let rows: Vec<_> = profiles.iter().map(row).collect();
    print(human::table(["PROFILE", "USER", "GATEWAY", ""], &rows))
}

/// Of one that cannot be read, nothing but its name and why.
fn listed(profile: &Profile) -> serde_json::Value {
    match &profile.error {
        Some(error) => serde_json::json!({ "name": profile.name, "error": error }),
        None => serde_json::json!(profile),
    }
}

fn show(profile: &Profile, json: bool) -> anyhow::Result<()> {
    if json {
        return print(serde_json::to_string(profile)?);
    }
    print(describe(profile))
}

/// A few aligned lines.
fn describe(shown: &Profile) -> String {
    let default = if shown.default { " (default)" } else { "" };
    let mut lines = vec![
        line("Profile", &format!("{}{default}", shown.name)),
        line("User", &shown.user),
        line("Log-in", &shown.login),
    ];
    let endpoints = shown
        .endpoints
        .iter()
        .map(|endpoint| format!("{} over {}", address(endpoint), endpoint.transport));
    lines.extend(labelled("Gateway", endpoints));
    lines.extend(labelled("TLS name", shown.sni.iter().cloned()));
    let good = shown.last_good_addresses.iter().map(ToString::to_string);
    lines.extend(labelled("Last good", good));
    lines.join("\n")
}

/// The first value behind the label, the others below it.
fn labelled(label: &str, values: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    let labels = std::iter::once(line(label, "")).chain(std::iter::repeat(" ".repeat(12)));
    labels.zip(values).map(|(label, value)| label + &value)
}

fn address(endpoint: &Endpoint) -> String {
    profile::address(&endpoint.host, endpoint.port)
}

fn server_name(name: &str) -> Result<String, String> {
    match DnsName::try_from(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err("no host name; write for example www.example.org".to_owned()),
    }
}

fn confirmed(name: &str) -> anyhow::Result<bool> {
    if !stdin().is_terminal() {
        let why = "there is no terminal to ask at: give --yes if you are sure";
        return Err(Failure::usage(why).into());
    }
    write!(
        stderr(),
        "Remove profile {name} with all its secrets? Coming back takes a new invitation. [y/N] "
    )?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str) -> Endpoint {
        Endpoint { host: host.into(), port: 8443, transport: "tls".into(), pins: Vec::new() }
    }

    #[test]
    fn the_lines_are_aligned() {
        let shown = Profile {
            name: "home".into(),
            default: true,
            user: "alice".into(),
            login: "invitation".into(),
            endpoints: vec![endpoint("gw.example"), endpoint("2001:db8::1")],
            sni: vec!["www.example".into()],
            ..Profile::default()
        };
        assert_eq!(
            describe(&shown),
            "Profile:    home (default)\n\
             User:       alice\n\
             Log-in:     invitation\n\
             Gateway:    gw.example:8443 over tls\n            \
             [2001:db8::1]:8443 over tls\n\
             TLS name:   www.example"
        );
    }
}
