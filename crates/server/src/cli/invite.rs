//! `cipherwall-server invite`: one link that holds all a client needs (C1).

use std::io::IsTerminal;
use std::time::Duration;

use cipherwall_cli::{human, print, print_error};
use cipherwall_proto::invitation::{Endpoint, Invitation, Transport};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::json;

use super::place::{Place, unexpected};
use super::table::{date, table};
use crate::accounts::{InvitationInfo, InvitationState};
use crate::admin::{AdminReply, AdminRequest};

/// Invitations to this gateway
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make an invitation for one device of a user
    ///
    /// Prints the link, and a QR code of it on a terminal. Whoever has the link first can connect
    /// as that user: send it by a private way. A user who does not exist yet is made.
    Create {
        /// The user's name
        name: String,

        /// How long the link can be used, such as 30m, 24h or 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = human::parse_duration)]
        expires: Duration,

        /// A JSON object: link, user, expires (Unix seconds)
        #[arg(long)]
        json: bool,

        /// No QR code
        #[arg(long)]
        no_qr: bool,
    },
    /// List all invitations, the newest first
    List {
        /// A JSON array: id, user, state (open, used, expired or revoked), created, expires, used
        /// (Unix seconds)
        #[arg(long)]
        json: bool,
    },
    /// Make an invitation that nobody has used useless
    ///
    /// Whoever tries it is told so. A device that has used its invitation is shut out by `device
    /// remove`.
    Revoke {
        /// The invitation's number, as `invite list` shows it
        #[arg(value_name = "ID")]
        id: i64,
    },
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    match command {
        Command::Create { name, expires, json, no_qr } => {
            create(name, expires, json, no_qr, place).await
        }
        Command::List { json } => list(json, place).await,
        Command::Revoke { id } => {
            let (user, _) = place.change(AdminRequest::InviteRevoke { id }).await?;
            print(format_args!("invitation {id} for {user} revoked"))
        }
    }
}

async fn list(json: bool, place: &Place) -> anyhow::Result<()> {
    let AdminReply::Invitations(invitations) = place.ask(AdminRequest::InviteList).await? else {
        return unexpected();
    };
    if json {
        return print(serde_json::to_string(&invitations)?);
    }
    let row = |invitation: &InvitationInfo| {
        let state = match invitation.state {
            InvitationState::Open => "open",
            InvitationState::Used => "used",
            InvitationState::Expired => "expired",
            InvitationState::Revoked => "revoked",
        };
        [
            invitation.id.to_string(),
            invitation.user.clone(),
            state.to_owned(),
            date(invitation.created),
            date(invitation.expires),
            invitation.used.map_or_else(|| "-".to_owned(), date),
        ]
    };
    let rows: Vec<_> = invitations.iter().map(row).collect();
    print(table(["ID", "USER", "STATE", "MADE", "EXPIRES", "USED"], &rows))
}

async fn create(
    name: String,
    expires: Duration,
    json: bool,
    no_qr: bool,
    place: &Place,
) -> anyhow::Result<()> {
    let config = place.config()?;
    let identity = place.identity(&config)?;
    let request = AdminRequest::InviteCreate { name, lifetime_s: expires.as_secs().max(1) };
    let AdminReply::Invited(invited) = place.ask(request).await? else {
        return unexpected();
    };
    let endpoint = Endpoint {
        host: config.endpoint.host,
        port: config.endpoint.port,
        transport: Transport::Tls,
        pins: identity.pins(),
    };
    let (user, expires) = (invited.user, invited.expires);
    let link = Invitation {
        endpoints: vec![endpoint],
        user: user.clone(),
        salt: invited.salt,
        door_key: invited.door_key,
        enrol_secret: invited.enrol_secret,
        expires,
        sni: config.sni,
    }
    .to_link();
    if json {
        return print(json!({ "link": link, "user": user, "expires": expires }));
    }
    print(&link)?;
    // A script that reads the link wants nothing else.
    if !no_qr && std::io::stdout().is_terminal() {
        print(qr(&link)?)?;
    }
    let made = if invited.new_user { " (a new user)" } else { "" };
    print_error(format_args!(
        "for one device of {user}{made}, until {}; on it run: sudo cipherwall import LINK",
        date(expires)
    ));
    Ok(())
}

/// For terminals with light letters on dark, with the margin that scanners need.
fn qr(link: &str) -> anyhow::Result<String> {
    let code = QrCode::with_error_correction_level(link, EcLevel::L)?;
    let (ink, paper) = (Dense1x2::Light, Dense1x2::Dark);
    Ok(code.render::<Dense1x2>().dark_color(ink).light_color(paper).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_long_link_still_fits_a_terminal() {
        let link = format!("cipherwall://1/{}", "x".repeat(420));
        let code = qr(&link).unwrap();
        let width = code.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(width <= 85 && code.lines().count() <= 43, "{width} x {}", code.lines().count());
        assert!(code.lines().all(|line| line.chars().count() == width));
    }
}
