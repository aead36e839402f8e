//! `cipherwall-server init`: configuration, keys and database in one go (C1).

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv6Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use cipherwall_cli::{print, print_error};
use ipnet::Ipv6Net;

use super::Place;
use super::failure::{coded, coded_io};
use crate::accounts::Accounts;
use crate::config::{Config, HostPort, is_interface_name, template};
use crate::identity::Identity;

mod checks;

/// Set this machine up as a gateway
///
/// Makes the configuration, the keys and the database. Asks nothing, and can be run again: it then
/// keeps what is there, and changes only the endpoint and the uplink.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where clients find this gateway, by name or address; the port is 8443 if none is given
    #[arg(long, value_name = "HOST[:PORT]")]
    endpoint: HostPort,

    /// The interface to the internet [default: whichever has the default route]
    #[arg(long, value_name = "IFACE", value_parser = interface)]
    uplink: Option<String>,
}

/// What has become of something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Became {
    New,
    Changed,
    Kept,
}

pub(super) async fn run(options: Options, place: &Place) -> anyhow::Result<()> {
    let Options { endpoint, uplink } = options;
    let config_path = &place.paths.config_path;
    make_dir(config_path.parent().unwrap_or(Path::new("/")), 0o755)?;
    make_dir(&place.paths.state_dir, 0o700)?;
    let (config, config_became) = write_config(config_path, &endpoint, uplink.as_deref())?;
    let (_, new_keys) = Identity::init(&place.paths.state_dir, &endpoint.host).map_err(coded)?;
    let new_database = !place.database_path().exists();
    let accounts = Accounts::open(&place.database_path(), config.networks.0).await;
    accounts.map_err(coded)?.close().await;

    let (keys, database) = (Became::of_new(new_keys), Became::of_new(new_database));
    print(summary(place, &config, config_became, keys, database))?;
    for warning in checks::warnings(&config) {
        print_error(format_args!("warning: {warning}"));
    }
    if config_became == Became::Changed && place.running().await?.is_some() {
        print_error("the gateway is running: restart it to make the change take effect");
    }
    Ok(())
}

impl Became {
    fn of_new(new: bool) -> Became {
        if new { Became::New } else { Became::Kept }
    }

    fn word(self) -> &'static str {
        match self {
            Became::New => "new",
            Became::Changed => "changed",
            Became::Kept => "kept",
        }
    }
}

fn interface(name: &str) -> Result<String, String> {
    match is_interface_name(name) {
        true => Ok(name.to_owned()),
        false => Err("no interface has such a name; see `ip link`".to_owned()),
    }
}

/// Makes a directory that is missing; does not touch one that is there.
fn make_dir(dir: &Path, mode: u32) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(dir);
    made.map_err(coded_io("make the directory", dir))
}

fn write_config(
    path: &Path,
    endpoint: &HostPort,
    uplink: Option<&str>,
) -> anyhow::Result<(Config, Became)> {
    let old = match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(coded_io("read", path)(error)),
    };
    let new = match &old {
        Some(old) => template::updated(path, old, endpoint, uplink).map_err(coded)?,
        None => template::new_file(endpoint, uplink, random_ula()?),
    };
    let config = Config::parse(path, &new).map_err(coded)?;
    let became = match &old {
        None => Became::New,
        Some(old) if *old == new => return Ok((config, Became::Kept)),
        Some(_) => Became::Changed,
    };
    replace(path, &new).map_err(coded_io("write", path))?;
    Ok((config, became))
}

/// Writes a file whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut new_path = PathBuf::from(path).into_os_string();
    new_path.push(".new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&new_path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new_path, path)
}

/// A /64 of a random prefix: RFC 4193, section 3.2.
fn random_ula() -> anyhow::Result<Ipv6Net> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes[1..6]).context("no random numbers to be had")?;
    bytes[0] = 0xfd;
    Ok(Ipv6Net::new(Ipv6Addr::from(bytes), 64)?)
}

fn summary(
    place: &Place,
    config: &Config,
    config_became: Became,
    keys: Became,
    database: Became,
) -> String {
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    let pool = config.networks.0;
    let state_dir = place.paths.state_dir.display();
    let mut text = format!(
        "Endpoint:      {}\n\
         Listens on:    {}\n\
         Inside:        {}, {}\n\
         Configuration: {} ({})\n\
         Keys:          {state_dir}/gateway.key, {state_dir}/spare.key ({})\n\
         Database:      {} ({})\n",
        config.endpoint,
        listen.join(", "),
        pool.v4(),
        pool.v6(),
        place.paths.config_path.display(),
        config_became.word(),
        keys.word(),
        place.database_path().display(),
        database.word(),
    );
    let program = program(place);
    let _ = write!(
        text,
        "\nNext:\n  {program} run                 start the gateway\n  \
         {program} invite create NAME  let somebody in: a link and a QR code\n"
    );
    let port = config.endpoint.port;
    if !config.listen.iter().any(|address| address.port() == port) {
        let _ = writeln!(
            text,
            "\nThe gateway does not listen on the endpoint's port {port}: have the router in front \
             of it forward that port, or change `listen` in the configuration."
        );
    }
    text.trim_end().to_owned()
}

/// The command with the options that lead here.
fn program(place: &Place) -> String {
    let (paths, usual) = (&place.paths, cipherwall_cli::Paths::server(None, None));
    let mut program = "cipherwall-server".to_owned();
    if paths.state_dir != usual.state_dir {
        let _ = write!(program, " --state-dir {}", paths.state_dir.display());
    }
    let implied = cipherwall_cli::Paths::server(
        (paths.state_dir != usual.state_dir).then_some(paths.state_dir.as_path()),
        None,
    );
    if paths.config_path != implied.config_path {
        let _ = write!(program, " --config {}", paths.config_path.display());
    }
    program
}
