//! `cipherwall-server session`: who is connected, and the end of that.

use cipherwall_cli::{human, print};

use super::place::{Place, unexpected};
use super::table::{date, table};
use crate::admin::{AdminReply, AdminRequest, SessionInfo};

/// So much of an id is shown to people, who may type it back.
const SHOWN_DIGITS: usize = 8;

/// Sessions of clients
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the open sessions
    ///
    /// A session of a client that is away is open until its token expires, so that the client can
    /// come back.
    List {
        /// A JSON array: id, user, device_id, device, inner_v4, inner_v6, opened (Unix seconds); of connected
        /// clients also peer, transport, cipher, since (Unix seconds), rx_bytes, tx_bytes, rekeys
        #[arg(long)]
        json: bool,
    },
    /// End a session at once, or all of a user's
    ///
    /// The client is told, and stops. Its device may log in again: to keep it out, use `device
    /// remove` or `user disable`.
    #[command(group(clap::ArgGroup::new("which").required(true)))]
    Revoke {
        /// How the session's id begins, as `session list` shows it
        #[arg(value_name = "ID", group = "which")]
        id: Option<String>,

        /// All sessions of this user
        #[arg(long, value_name = "NAME", group = "which")]
        user: Option<String>,
    },
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    let request = match command {
        Command::List { json } => return list(json, place).await,
        Command::Revoke { id: Some(id), .. } => AdminRequest::SessionRevoke { id },
        Command::Revoke { user, .. } => {
            AdminRequest::SessionRevokeAll { user: user.unwrap_or_default() }
        }
    };
    match place.change(request).await? {
        (user, 0) => print(format_args!("{user} has no session")),
        (user, 1) => print(format_args!("one session of {user} ended")),
        (user, sessions) => print(format_args!("{sessions} sessions of {user} ended")),
    }
}

async fn list(json: bool, place: &Place) -> anyhow::Result<()> {
    let AdminReply::Sessions(sessions) = place.ask(AdminRequest::SessionList).await? else {
        return unexpected();
    };
    if json {
        return print(serde_json::to_string(&sessions)?);
    }
    let rows: Vec<_> = sessions.iter().map(row).collect();
    let heads = ["ID", "USER", "DEVICE", "INSIDE", "FROM", "SINCE", "RECEIVED", "SENT", "CIPHER"];
    print(table(heads, &rows))
}

fn row(session: &SessionInfo) -> [String; 9] {
    let live = session.live.as_ref();
    [
        session.id.chars().take(SHOWN_DIGITS).collect(),
        session.user.clone(),
        session.device.clone(),
        session.inner_v4.map_or_else(|| "-".to_owned(), |address| address.to_string()),
        live.map_or_else(|| "away".to_owned(), |live| live.peer.to_string()),
        date(live.map_or(session.opened, |live| live.since)),
        live.map_or_else(|| "-".to_owned(), |live| human::bytes(live.rx_bytes)),
        live.map_or_else(|| "-".to_owned(), |live| human::bytes(live.tx_bytes)),
        live.map_or_else(|| "-".to_owned(), |live| live.cipher.clone()),
    ]
}
