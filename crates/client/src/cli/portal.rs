//! `cipherwall portal`: through the log-in page of a café or a hotel.

use cipherwall_cli::print;
use cipherwall_ipc::daemon::Request;

use super::{Place, running};

/// Let names and web pages outside of the tunnel for five minutes, to log in at a captive portal
///
/// For networks that let nothing through before one has accepted their terms on a web page. Open any
/// page with http:// in a browser then. It ends by itself after five minutes, or as soon as the
/// tunnel is up; meanwhile the network sees which names and pages all programs ask for.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// End it before its time is up
    #[arg(long)]
    close: bool,
}

pub(super) async fn run(options: Options, place: &Place) -> anyhow::Result<()> {
    let mut connection = running::found(&place.paths).await?;
    let request = Request::Portal { open: !options.close };
    running::have_done(&mut connection, &request, running::ANSWER_TIME).await?;
    if options.close {
        return print("the portal is closed: nothing leaves outside of the tunnel");
    }
    let minutes = crate::engine::PORTAL_TIME.as_secs() / 60;
    print(format_args!(
        "for {minutes} minutes, names and web pages leave outside of the tunnel: open \
         http://neverssl.com in a browser and log in; the tunnel comes up by itself then. End it \
         before that with: cipherwall portal --close"
    ))
}
