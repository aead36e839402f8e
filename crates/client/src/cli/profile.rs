//! `cipherwall profile`: the gateways that this computer knows.

use std::io::{IsTerminal, Write, stderr, stdin};

use anyhow::Context;
use cipherwall_cli::{Failure, human, print};
use cipherwall_proto::invitation::Endpoint;
use rustls::pki_types::DnsName;
use serde::Serialize;

use super::failure::coded;
use super::{Place, line, running};
use crate::profile::{Profile, ProfileError};
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

    /// Try this one of the gateway's addresses first, as `show` has it
    #[arg(long, value_name = "HOST:PORT")]
    prefer: Option<String>,
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    let settings = Settings::load(&place.paths.config_path).map_err(coded)?;
    match command {
        Command::List { json } => list(json, &settings, place),
        Command::Show { profile, json } => show(profile.as_deref(), json, &settings, place),
        Command::Set(changes) => set(changes, settings, place).await,
        Command::Remove { profile, yes } => remove(&profile, yes, settings, place).await,
    }
}

/// What a person may see of a profile.
#[derive(Serialize)]
struct Shown {
    name: String,
    default: bool,
    user: String,
    login: &'static str,
    endpoints: Vec<Endpoint>,
    sni: Vec<String>,
    last_good_addresses: Vec<std::net::SocketAddr>,
}

impl Shown {
    fn new(profile: Profile, settings: &Settings) -> Self {
        Self {
            default: settings.default_profile.as_ref() == Some(&profile.name),
            login: if profile.prehash.is_some() { "password" } else { "invitation" },
            name: profile.name,
            user: profile.user,
            endpoints: profile.endpoints,
            sni: profile.sni,
            last_good_addresses: profile.last_good_addresses,
        }
    }
}

/// In a list.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed {
    Good(Shown),
    Damaged { name: String, error: String },
}

fn list(json: bool, settings: &Settings, place: &Place) -> anyhow::Result<()> {
    let listed = |name: String| match place.profiles.load(&name) {
        Ok(profile) => Listed::Good(Shown::new(profile, settings)),
        Err(error) => Listed::Damaged { name, error: error.to_string() },
    };
    let names = place.profiles.names().map_err(coded)?;
    let profiles: Vec<_> = names.into_iter().map(listed).collect();
    if json {
        return print(serde_json::to_string(&profiles)?);
    }
    let row = |profile: &Listed| match profile {
        Listed::Good(profile) => [
            profile.name.clone(),
            profile.user.clone(),
            profile.endpoints.first().map(address).unwrap_or_default(),
            if profile.default { "default" } else { "" }.to_owned(),
        ],
        Listed::Damaged { name, error } => {
            [name.clone(), String::new(), String::new(), error.clone()]
        }
    };
    let rows: Vec<_> = profiles.iter().map(row).collect();
    print(human::table(["PROFILE", "USER", "GATEWAY", ""], &rows))
}

fn show(name: Option<&str>, json: bool, settings: &Settings, place: &Place) -> anyhow::Result<()> {
    let profile = place.profiles.choose(name, settings.default_profile.as_deref());
    let shown = Shown::new(profile.map_err(coded)?, settings);
    if json {
        return print(serde_json::to_string(&shown)?);
    }
    print(describe(&shown))
}

/// A few aligned lines.
fn describe(shown: &Shown) -> String {
    let default = if shown.default { " (default)" } else { "" };
    let mut lines = vec![
        line("Profile", &format!("{}{default}", shown.name)),
        line("User", &shown.user),
        line("Log-in", shown.login),
    ];
    let endpoints = shown
        .endpoints
        .iter()
        .map(|endpoint| format!("{} over {}", address(endpoint), endpoint.transport.name()));
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
    match endpoint.host.contains(':') {
        true => format!("[{}]:{}", endpoint.host, endpoint.port),
        false => format!("{}:{}", endpoint.host, endpoint.port),
    }
}

async fn set(changes: Changes, mut settings: Settings, place: &Place) -> anyhow::Result<()> {
    let old = changes.profile;
    let profile = place.profiles.load(&old).map_err(coded)?;
    let endpoints = match &changes.prefer {
        Some(prefer) => preferring(profile.endpoints, prefer)?,
        None => profile.endpoints,
    };
    let name = match changes.name {
        Some(new) if new != old => {
            refuse_if_in_use(&old, place).await?;
            place.profiles.rename(&old, &new).map_err(coded)?;
            new
        }
        Some(_) | None => old.clone(),
    };
    let keep = place.profiles.update(&name, |profile| {
        profile.endpoints = endpoints;
        if changes.no_sni || !changes.sni.is_empty() {
            profile.sni = changes.sni;
        }
    });
    keep.map_err(coded)?;
    if changes.default || settings.default_profile.as_ref() == Some(&old) {
        settings.default_profile = Some(name.clone());
        settings.save(&place.paths.config_path).map_err(coded)?;
    }
    print(format_args!("changed profile {name}"))
}

/// The endpoints with the one that is meant in front.
fn preferring(mut endpoints: Vec<Endpoint>, prefer: &str) -> anyhow::Result<Vec<Endpoint>> {
    let Some(at) = endpoints.iter().position(|endpoint| address(endpoint) == prefer) else {
        let known: Vec<_> = endpoints.iter().map(address).collect();
        let known = known.join(", ");
        return Err(Failure::usage(format!("{prefer:?} is not of this profile: {known}")).into());
    };
    endpoints[..=at].rotate_right(1);
    Ok(endpoints)
}

fn server_name(name: &str) -> Result<String, String> {
    match DnsName::try_from(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err("no host name; write for example www.example.org".to_owned()),
    }
}

async fn remove(
    name: &str,
    yes: bool,
    mut settings: Settings,
    place: &Place,
) -> anyhow::Result<()> {
    if !place.profiles.exists(name).map_err(coded)? {
        let known = place.profiles.names().map_err(coded)?;
        return Err(coded(ProfileError::Missing { name: name.to_owned(), known }));
    }
    refuse_if_in_use(name, place).await?;
    if !yes && !confirmed(name)? {
        return Err(Failure::failed("nothing was removed").into());
    }
    place.profiles.remove(name).map_err(coded)?;
    if settings.default_profile.as_deref() == Some(name) {
        settings.default_profile = None;
        settings.save(&place.paths.config_path).map_err(coded)?;
    }
    print(format_args!("removed profile {name}"))
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

/// The process that keeps the tunnel up needs the profile to come back after a loss.
async fn refuse_if_in_use(name: &str, place: &Place) -> anyhow::Result<()> {
    let Some(mut connection) = running::find(&place.paths).await? else { return Ok(()) };
    let status = running::status(&mut connection).await?;
    if status.profile.as_deref() != Some(name) {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "profile {name} is in use: end that connection first with: cipherwall disconnect"
    ))
    .into())
}

#[cfg(test)]
mod tests {
    use cipherwall_proto::invitation::Transport;

    use super::*;

    fn endpoint(host: &str) -> Endpoint {
        let pins = [[1; 32], [2; 32]];
        Endpoint { host: host.into(), port: 8443, transport: Transport::Tls, pins }
    }

    #[test]
    fn the_preferred_endpoint_comes_first_and_the_others_keep_their_order() {
        let hosts = |prefer: &str| {
            let all = ["a.example", "2001:db8::1", "c.example"].map(endpoint).to_vec();
            let sorted = preferring(all, prefer).expect("known");
            sorted.into_iter().map(|endpoint| endpoint.host).collect::<Vec<_>>()
        };
        assert_eq!(hosts("c.example:8443"), ["c.example", "a.example", "2001:db8::1"]);
        assert_eq!(hosts("[2001:db8::1]:8443"), ["2001:db8::1", "a.example", "c.example"]);
        let error = preferring(vec![endpoint("a.example")], "a.example:1").expect_err("unknown");
        assert!(error.to_string().contains("a.example:8443"), "{error}");
    }

    #[test]
    fn the_lines_are_aligned() {
        let shown = Shown {
            name: "home".into(),
            default: true,
            user: "alice".into(),
            login: "invitation",
            endpoints: vec![endpoint("gw.example"), endpoint("2001:db8::1")],
            sni: vec!["www.example".into()],
            last_good_addresses: Vec::new(),
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
