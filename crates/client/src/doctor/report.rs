//! What a person can hand on who asks for help: the examination, and how this host is set up, without
//! what says who and where they are. One text, so that it can be read before it is sent.

use std::{fmt::Write, fs, net::IpAddr, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{Examination, redact::Redactor};
use crate::{
    profile::{self, Profile},
    settings::Settings,
};

/// How long a command may take.
const COMMAND_TIME: Duration = Duration::from_secs(5);
/// The most that is taken of one section, in bytes.
const SECTION_MAX: usize = 32 * 1024;
const FILES: [&str; 3] = ["/etc/os-release", "/etc/resolv.conf", "/etc/nsswitch.conf"];
const COMMANDS: [&[&str]; 9] = [
    &["uname", "-srm"],
    &["ip", "address"],
    &["ip", "rule"],
    &["ip", "-6", "rule"],
    &["ip", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
    &["nft", "list", "tables"],
    &["nft", "list", "table", "inet", "cipherwall"],
    &["nft", "list", "table", "inet", "cipherwall-policy"],
];

/// What the report is about.
pub(crate) struct About<'a> {
    /// What was found.
    pub(crate) examination: &'a Examination,
    /// All profiles; they are named in it, without their secrets.
    pub(crate) profiles: &'a [Profile],
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The status of the running process, in JSON.
    pub(crate) status: Option<String>,
    /// The last lines of its log.
    pub(crate) log: Vec<String>,
}

/// The report.
pub(crate) async fn write(about: &About<'_>) -> anyhow::Result<String> {
    let mut redactor = redactor(about);
    let mut report = format!(
        "CipherWall report, version {}\n\
         Names, public addresses and identifiers are replaced by labels such as <address-1>.\n\
         Read it before you send it.\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut add = |title: &str, text: &str| {
        let end = text.floor_char_boundary(SECTION_MAX);
        let _ = write!(report, "\n== {title}\n{}", redactor.redact(&text[..end]));
    };
    add("examination", &serde_json::to_string_pretty(about.examination)?);
    add("status", about.status.as_deref().unwrap_or("nothing is running"));
    add("settings", &serde_json::to_string_pretty(about.settings)?);
    for profile in about.profiles {
        add("profile", &describe(profile));
    }
    for path in FILES {
        add(path, &fs::read_to_string(path).unwrap_or_else(|error| error.to_string()));
    }
    for words in COMMANDS {
        add(&words.join(" "), &run(words).await);
    }
    add("log", &about.log.join("\n"));
    Ok(report)
}

/// Knows all names that must not be in it.
fn redactor(about: &About<'_>) -> Redactor {
    let mut redactor = Redactor::default();
    for profile in about.profiles {
        for endpoint in &profile.endpoints {
            redactor.hide("gateway", &endpoint.host);
        }
        profile.sni.iter().for_each(|name| redactor.hide("tls-name", name));
        redactor.hide("user", &profile.user);
        redactor.hide("profile", &profile.name);
    }
    let host = rustix::system::uname();
    redactor.hide("host", &host.nodename().to_string_lossy());
    for name in ["SUDO_USER", "USER", "LOGNAME"] {
        let name = std::env::var(name).unwrap_or_default();
        if name != "root" {
            redactor.hide("person", &name);
        }
    }
    redactor
}

/// Without its secrets.
fn describe(profile: &Profile) -> String {
    let mut text = format!("name: {}\nuser: {}\n", profile.name, profile.user);
    for endpoint in &profile.endpoints {
        let kind = if endpoint.host.parse::<IpAddr>().is_ok() { "address" } else { "name" };
        let (host, port) = (&endpoint.host, endpoint.port);
        let _ = writeln!(text, "endpoint: {kind} {host} port {port} {}", endpoint.transport.name());
    }
    let login = profile::login(profile);
    let _ = writeln!(text, "login: {login}\nnames for TLS: {}", profile.sni.join(", "));
    for address in &profile.last_good_addresses {
        let _ = writeln!(text, "last good: {address}");
    }
    text
}

async fn run(words: &[&str]) -> String {
    let Some((program, arguments)) = words.split_first() else { return String::new() };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(COMMAND_TIME, command.output()).await {
        Ok(Ok(output)) => {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).into_owned()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "takes too long".to_owned(),
    }
}
