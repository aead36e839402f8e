//! Running cargo and other programs from a developer command.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::Programs;

/// The root of the workspace.
pub(crate) fn workspace_dir() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.ancestors().nth(2).context("crates/xtask has moved")?.to_owned())
}

/// The cargo that runs us, in the workspace.
pub(crate) fn cargo(words: &[&str]) -> Result<Command> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.args(words).current_dir(workspace_dir()?);
    Ok(command)
}

/// Runs a command with its output on the terminal; it has to succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("cannot run {line}"))?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

/// True if the command succeeds; its output is not shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// How a person would have typed it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Both programs, built with optimisation; those in `CIPHERWALL_BIN_DIR` as they are, if it is set.
pub(crate) fn release_programs() -> Result<Programs> {
    Programs::in_dir(release_dir()?)
}

/// The folder of [`release_programs`].
pub(crate) fn release_dir() -> Result<PathBuf> {
    if let Some(bin_dir) = std::env::var_os("CIPHERWALL_BIN_DIR") {
        return std::path::absolute(bin_dir).context("CIPHERWALL_BIN_DIR");
    }
    let words = ["build", "--release", "--locked", "-p", "cipherwall", "-p", "cipherwall-server"];
    run(&mut cargo(&words)?)?;
    Ok(target_dir()?.join("release"))
}

/// Where cargo builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    // this program is target/debug/xtask
    let here = std::env::current_exe()?;
    Ok(here.ancestors().nth(2).context("xtask runs outside a target folder")?.to_owned())
}

/// The commit at hand, and whether it is all that was tested.
pub(crate) fn commit() -> Result<String> {
    let commit = printed("git", &["rev-parse", "--short", "HEAD"])?;
    let changes =
        printed("git", &["status", "--porcelain", "--", "crates", "tests", "Cargo.lock"])?;
    let mut said = commit;
    if !changes.is_empty() {
        said += " with changes";
    }
    if std::env::var_os("CIPHERWALL_BIN_DIR").is_some() {
        said += ", programs built before";
    }
    Ok(said)
}

/// What a program prints when run in the workspace; it has to succeed.
pub(crate) fn printed(program: &str, words: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(words).current_dir(workspace_dir()?);
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{}: {}", line(&command), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Refuses to go on as an ordinary user.
pub(crate) fn require_root(command: &str) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "{command} needs root, for network namespaces and packages: \
         run `sudo env \"PATH=$PATH\" cargo xtask {command}`"
    );
    Ok(())
}
