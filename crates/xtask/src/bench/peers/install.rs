//! Where the peers are, and how they get there. Nothing but `cargo xtask bench --install-peers`
//! builds or fetches them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::packages::{self, Needs};
use crate::shell::{self, cargo, run};

const HOW: &str = "run `cargo xtask bench --install-peers`";
/// The release of Debian whose wireguard-go is measured.
const SUITE: &str = "trixie";
const WIREGUARD_GO: &str = "wireguard-go";

/// Builds and fetches whatever is missing.
pub(crate) fn install(may_install: bool) -> Result<()> {
    packages::install(Needs::Peers, may_install)?;
    if gotatun_version().is_err() {
        install_gotatun()?;
    }
    if wireguard_go_version().is_err() {
        install_wireguard_go()?;
    }
    println!("peers: {}, {}", gotatun_version()?, wireguard_go_version()?);
    Ok(())
}

/// What is built and unpacked apart.
fn peers_dir() -> Result<PathBuf> {
    Ok(shell::target_dir()?.join("bench-peers"))
}

pub(super) fn gotatun_path() -> Result<String> {
    program_path("bin/gotatun")
}

pub(super) fn wireguard_go_path() -> Result<String> {
    program_path("wireguard-go/usr/bin/wireguard-go")
}

fn program_path(path: &str) -> Result<String> {
    let path = peers_dir()?.join(path);
    ensure!(path.is_file(), "not installed: {HOW}");
    Ok(path.display().to_string())
}

pub(super) fn gotatun_version() -> Result<String> {
    let shown = shell::printed(&gotatun_path()?, &["--version"])?;
    Ok(format!("GotaTun {}", shown.split_whitespace().last().unwrap_or_default()))
}

/// The package's version, since the program tells the one of another year.
pub(super) fn wireguard_go_version() -> Result<String> {
    wireguard_go_path()?;
    let version = fs::read_to_string(peers_dir()?.join("wireguard-go/version"))
        .with_context(|| format!("not installed: {HOW}"))?;
    Ok(format!("wireguard-go {}", version.trim()))
}

/// The versions of installed packages whose programs have the same names.
pub(super) fn debian_version(names: &[&str]) -> Result<String> {
    let mut versions = Vec::new();
    for name in names {
        ensure!(packages::is_there(name), "not installed: {HOW}");
        let version = shell::printed("dpkg-query", &["-W", "-f", "${Version}", name]);
        versions.push(format!("{name} {}", version.unwrap_or_default()));
    }
    Ok(versions.join(", "))
}

/// In a target folder of its own, with no more load on this machine than must be.
fn install_gotatun() -> Result<()> {
    println!("building GotaTun (takes some minutes, once)");
    let peers_dir = peers_dir()?;
    let mut command = cargo(&["install", "--locked", "gotatun-cli", "--root"])?;
    command.arg(&peers_dir).env("CARGO_TARGET_DIR", peers_dir.join("build"));
    run(&mut command)
}

/// Takes the package from where this machine has its own, with the release's name changed, through
/// lists and caches apart: the machine's own sources stay as they are.
fn install_wireguard_go() -> Result<()> {
    println!("fetching wireguard-go of Debian {SUITE}");
    let peers_dir = peers_dir()?;
    let work_dir = peers_dir.join("apt");
    for dir in ["lists/partial", "cache/archives/partial", "sources"] {
        fs::create_dir_all(work_dir.join(dir))?;
    }
    copy_sources(&work_dir.join("sources"))?;
    run(apt(&work_dir).arg("update"))?;
    run(apt(&work_dir).args(["download", WIREGUARD_GO]))?;
    let package = fs::read_dir(&work_dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download has left no package")?;
    let unpacked_dir = peers_dir.join("wireguard-go");
    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked_dir))?;
    let package = package.to_str().context("path is not UTF-8")?;
    let version = shell::printed("dpkg-deb", &["-f", package, "Version"])?;
    fs::write(unpacked_dir.join("version"), version)?;
    fs::remove_dir_all(&work_dir).context("cannot remove the lists of packages")
}

fn apt(work_dir: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.current_dir(work_dir);
    let places = [
        ("Dir::Etc::sourcelist", "sources/sources.list"),
        ("Dir::Etc::sourceparts", "sources"),
        ("Dir::State::lists", "lists"),
        ("Dir::Cache", "cache"),
    ];
    for (option, place) in places {
        command.arg("-o").arg(format!("{option}={}", work_dir.join(place).display()));
    }
    command
}

/// The machine's package sources, for [`SUITE`] in place of its own release.
fn copy_sources(to: &Path) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release")?;
    let own = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let own = own.context("/etc/os-release names no release: is this Debian?")?;
    let mut copied = 0;
    let sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    for path in sources.map(Path::new) {
        let text = fs::read_to_string(path).unwrap_or_default();
        if let Some(name) = path.file_name().filter(|_| text.contains(own)) {
            fs::write(to.join(name), text.replace(own, SUITE))?;
            copied += 1;
        }
    }
    if copied == 0 {
        bail!("no package sources for {own} in {}", sources.join(" and "));
    }
    Ok(())
}
