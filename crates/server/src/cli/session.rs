//! `cipherwall-server session`: who is connected.

use cipherwall_cli::{human, print};

use super::place::{Place, unexpected};
use super::table::{date, table};
use crate::admin::{AdminReply, AdminRequest, SessionInfo};

/// Sessions of clients
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the open sessions
    ///
    /// A session of a client that is away is open until its token expires, so that the client can
    /// come back.
    List {
        /// A JSON array: id, user, device, inner_v4, inner_v6, opened (Unix seconds); of connected
        /// clients also peer, transport, cipher, since (Unix seconds), rx_bytes, tx_bytes
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    let Command::List { json } = command;
    let AdminReply::Sessions(sessions) = place.ask(AdminRequest::SessionList).await? else {
        return unexpected();
    };
    if json {
        return print(serde_json::to_string(&sessions)?);
    }
    let rows: Vec<_> = sessions.iter().map(row).collect();
    print(table(["USER", "DEVICE", "INSIDE", "FROM", "SINCE", "RECEIVED", "SENT", "CIPHER"], &rows))
}

fn row(session: &SessionInfo) -> [String; 8] {
    let live = session.live.as_ref();
    [
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
