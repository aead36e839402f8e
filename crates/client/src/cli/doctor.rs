//! `cipherwall doctor`: why this computer cannot connect, and what to do about it (C8).

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::{OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use cipherwall_cli::{Failure, print, print_error, require_root};
use cipherwall_ipc::daemon::{Reply, Request, Status};
use cipherwall_netcfg::{Error, Host, MARK_DEFAULT, Role};
use cipherwall_transport::socket::SocketFactory;

use super::failure::coded;
use super::{Place, running};
use crate::doctor::{self, Examination, Leftover, Patient};
use crate::keyring::{self, Account};
use crate::profile::{Profile, ProfileError};
use crate::progress;
use crate::settings::Settings;

/// How long the running process may take to give its log.
const LOG_TIME: Duration = Duration::from_secs(5);
/// Lines of log in a report.
const LOG_LINES: usize = 200;

/// Find out why this computer cannot connect, and what to do about it
///
/// Looks at everything from this computer to the gateway, and changes nothing. Takes a few seconds,
/// or up to a minute if things do not answer. Ends with exit code 1 if something keeps this computer
/// from connecting.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The profile that does not connect [default: the default profile, or the only one]
    #[arg(value_name = "PROFILE")]
    profile: Option<String>,

    /// One JSON object: `findings`, the cause first, each with cause, title, detail and remedy; and
    /// `checks`, each with check, result (ok, failed, unknown) and detail
    #[arg(long)]
    json: bool,

    /// Write a report for somebody who helps: all that is said here, and this computer's network
    /// settings, without names and public addresses [default file: cipherwall-report-TIME.txt]
    #[arg(long, value_name = "FILE")]
    report: Option<Option<PathBuf>>,
}

pub(super) async fn run(options: Options, place: &Place) -> anyhow::Result<()> {
    require_root("examining the network")?;
    let settings = Settings::load(&place.paths.config_path).map_err(coded)?;
    let patient = patient(&options, &settings, place).await?;
    let examine = doctor::examine(&patient);
    let examination = progress::tell("looking at the network", examine).await;
    if options.json {
        print(serde_json::to_string(&examination)?)?;
    } else {
        print(describe(&examination))?;
    }
    if let Some(file) = options.report {
        write_report(file, &examination, &patient, &settings, place).await?;
    }
    match examination.findings.iter().find(|finding| finding.cause.is_serious()) {
        Some(finding) => Err(Failure::failed(finding.title).into()),
        None => Ok(()),
    }
}

async fn patient(options: &Options, settings: &Settings, place: &Place) -> anyhow::Result<Patient> {
    let chosen =
        place.profiles.choose(options.profile.as_deref(), settings.default_profile.as_deref());
    let profile = match chosen {
        Ok(profile) => Some(with_login(profile).await),
        // there is something to look at all the same
        Err(ProfileError::NotNamed { known }) if known.is_empty() => None,
        Err(error) => return Err(coded(error)),
    };
    let running = status(place).await?;
    let mut leftovers = Vec::new();
    let mut servers = doctor::inside_servers();
    if running.is_none() {
        match Host::open(&place.paths.state_dir, Role::Client).await {
            Ok(host) => {
                leftovers = Leftover::all(&host, &place.paths.state_dir);
                servers = host.outside_resolvers();
            }
            // a command is at work, such as `repair`
            Err(Error::InUse { .. }) => {}
            Err(error) => return Err(coded(error)),
        }
    }
    Ok(Patient {
        profile,
        profiles: place.profiles.clone(),
        sockets: SocketFactory { mark: Some(MARK_DEFAULT) },
        servers,
        running,
        leftovers,
    })
}

/// What is in the keyring of whoever has called sudo, if it is there.
async fn with_login(mut profile: Profile) -> Profile {
    if profile.keyring
        && let Ok(Some(login)) = Account::of(&profile).find().await
    {
        profile.prehash = keyring::secret(&login).ok();
    }
    profile
}

async fn status(place: &Place) -> anyhow::Result<Option<Status>> {
    match running::find(&place.paths).await? {
        Some(mut connection) => running::status(&mut connection).await.map(Some),
        None => Ok(None),
    }
}

/// For people.
fn describe(examination: &Examination) -> String {
    let mut lines = Vec::new();
    for check in &examination.checks {
        lines.push(format!("{:9}{}: {}", check.result.name(), check.check, check.detail));
    }
    lines.push(String::new());
    if examination.findings.is_empty() {
        lines.push("Nothing wrong was found.".to_owned());
    }
    for finding in &examination.findings {
        lines.push(finding.title.to_owned());
        lines.push(format!("  Seen:       {}", finding.detail));
        lines.push(format!("  What to do: {}", finding.remedy));
    }
    lines.join("\n")
}

async fn write_report(
    file: Option<PathBuf>,
    examination: &Examination,
    patient: &Patient,
    settings: &Settings,
    place: &Place,
) -> anyhow::Result<()> {
    let names = place.profiles.names().unwrap_or_default();
    let profiles: Vec<Profile> =
        names.iter().filter_map(|name| place.profiles.load(name).ok()).collect();
    let about = doctor::About {
        examination,
        profiles: &profiles,
        settings,
        status: patient.running.as_ref().map(serde_json::to_string_pretty).transpose()?,
        log: log(place).await.unwrap_or_default(),
    };
    let report = doctor::write_report(&about).await?;
    let path = file.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        format!("cipherwall-report-{now}.txt").into()
    });
    save(&path, &report).with_context(|| format!("cannot write {}", path.display()))?;
    print_error(format_args!("the report is in {}: read it before you send it", path.display()));
    Ok(())
}

/// Of the running process.
async fn log(place: &Place) -> Option<Vec<String>> {
    let mut connection = running::find(&place.paths).await.ok()??;
    let request = Request::Logs { lines: LOG_LINES, follow: false };
    let reply = running::ask(&mut connection, &request, LOG_TIME).await.ok()?;
    if let Reply::Log { lines } = reply { Some(lines) } else { None }
}

/// A new file, which belongs to whoever has called sudo.
fn save(path: &Path, report: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(report.as_bytes())?;
    let id = |name: &str| std::env::var(name).ok()?.parse().ok();
    fchown(&file, id("SUDO_UID"), id("SUDO_GID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_never_replaces_a_file_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("report.txt");
        save(&path, "one").expect("written");
        assert!(save(&path, "two").is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "one");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
