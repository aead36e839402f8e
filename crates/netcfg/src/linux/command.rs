//! Running the host's own programs (`nft`, `resolvectl`): by absolute path, without a shell, with a
//! clean environment and a time limit.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::Error;

const DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The program's path, if it is installed.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    DIRS.iter().map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

/// Runs a program to its end and returns what it printed; `what` says in errors what it was for.
pub(super) async fn run(
    what: &str,
    program: &Path,
    args: &[&str],
    input: &str,
) -> Result<String, Error> {
    let failed = |detail: String| Error::Program {
        what: what.to_owned(),
        program: std::iter::once(program.display().to_string())
            .chain(args.iter().map(|arg| (*arg).to_owned()))
            .collect::<Vec<_>>()
            .join(" "),
        detail,
    };
    let output = timeout(TIME_LIMIT, output(program, args, input))
        .await
        .map_err(|_| failed(format!("no answer within {} s", TIME_LIMIT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if detail.contains("Operation not permitted") || detail.contains("must be root") {
        return Err(Error::NotPermitted { what: format!("{what}: {detail}") });
    }
    Err(failed(if detail.is_empty() { output.status.to_string() } else { detail }))
}

async fn output(program: &Path, args: &[&str], input: &str) -> io::Result<std::process::Output> {
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", DIRS.join(":"))
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading its input says why on its standard error.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    child.wait_with_output().await
}
