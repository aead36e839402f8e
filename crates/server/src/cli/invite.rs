//! `cipherwall-server invite`: one link that holds all a client needs (C1).

use std::io::IsTerminal;
use std::time::Duration;

use cipherwall_cli::{human, print, print_error};
use cipherwall_proto::invitation::{Endpoint, Invitation, Transport};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::json;

use super::place::{Place, unexpected};
use super::table::date;
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
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    let Command::Create { name, expires, json, no_qr } = command;
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
