//! `cipherwall logs`: what the process that keeps the tunnel up has logged.

use cipherwall_cli::print;
use cipherwall_ipc::daemon::{LOG_LINES, Reply, Request};

use super::{Place, running};

/// So that a message with them never gets too long.
const LINES_MAX: u64 = LOG_LINES as u64;

/// Show the last lines of the running process's log
///
/// Of earlier processes, systemd has the log: journalctl -u cipherwall
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// How many lines
    #[arg(long, short = 'n', value_name = "COUNT", default_value = "100",
          value_parser = clap::value_parser!(u64).range(1..=LINES_MAX))]
    lines: u64,

    /// Go on with each new line
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn run(options: Options, place: &Place) -> anyhow::Result<()> {
    let mut connection = running::found(&place.paths).await?;
    let lines = usize::try_from(options.lines)?;
    let request = Request::Logs { lines, follow: options.follow };
    connection.send(&request).await?;
    loop {
        let reply = running::next(&mut connection).await?;
        if let Some(Reply::Log { lines }) = reply {
            lines.into_iter().try_for_each(print)?;
        } else if reply.is_none_or(|reply| reply == Reply::Done) {
            return Ok(());
        } else {
            return Err(running::misfit());
        }
    }
}
