//! `cipherwall-server invite`: one link that holds all a client needs (C1).

use std::io::IsTerminal;
use std::net::SocketAddr;
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
use crate::config::Config;

/// With more ports the QR code would not fit a terminal.
const TLS_MAX: usize = 3;

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
    let endpoints = endpoints(&config, identity.pins());
    let (user, expires) = (invited.user, invited.expires);
    let link = Invitation {
        endpoints,
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

/// All ways to this gateway, best first (C6): its endpoint, then the other ports on which it listens,
/// then KCP. Behind a router that forwards another port than the gateway's own, nothing is known of
/// the other ports.
fn endpoints(config: &Config, pins: [[u8; 32]; 2]) -> Vec<Endpoint> {
    let outside = config.listen.iter().filter(|address| !address.ip().is_loopback());
    let listens: Vec<u16> = outside.map(SocketAddr::port).collect();
    let mut tls = vec![config.endpoint.port];
    if listens.contains(&config.endpoint.port) {
        tls.extend(listens);
    }
    let mut ways: Vec<(u16, Transport)> = Vec::new();
    for way in tls.into_iter().map(|port| (port, Transport::Tls)) {
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    ways.truncate(TLS_MAX);
    ways.extend(config.kcp_port().map(|port| (port, Transport::Kcp)));
    let host = &config.endpoint.host;
    let endpoint = |(port, transport)| Endpoint { host: host.clone(), port, transport, pins };
    ways.into_iter().map(endpoint).collect()
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
        let host = "gateway-in-the-basement.example.org".to_owned();
        let endpoint = |(port, transport)| Endpoint {
            host: host.clone(),
            port,
            transport,
            pins: [[0xa7; 32], [0xd3; 32]],
        };
        let tls = [8443, 443, 9443].map(|port| (port, Transport::Tls));
        let ways = tls.into_iter().chain([(443, Transport::Kcp)]);
        let invitation = Invitation {
            endpoints: ways.map(endpoint).collect(),
            user: "alexandra".into(),
            salt: [3; 16],
            door_key: [4; 32],
            enrol_secret: [5; 16],
            expires: 1_900_000_000,
            sni: vec!["www.example.org".into()],
        };
        let link = invitation.to_link();
        let code = qr(&link).unwrap();
        let width = code.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(width <= 85 && code.lines().count() <= 43, "{width} x {}", code.lines().count());
        assert!(code.lines().all(|line| line.chars().count() == width));
    }

    #[test]
    fn an_invitation_has_the_ports_that_are_known_to_lead_here_and_kcp_last() {
        let ways = |text: &str| {
            let config = Config::parse(std::path::Path::new("server.yaml"), text).unwrap();
            let ways = endpoints(&config, [[1; 32], [2; 32]]).into_iter();
            ways.map(|it| format!("{}:{}", it.transport.name(), it.port)).collect::<Vec<_>>()
        };
        let networks = "networks:\n  v4: 10.8.0.0/24\n  v6: fd00::/64\n";
        let with = |more: &str| ways(&format!("endpoint: gw.example:8443\n{networks}{more}"));
        assert_eq!(with(""), ["tls:8443", "kcp:443"]);
        let listen = "listen: ['[::]:443', '0.0.0.0:8443', '[::]:8443', '127.0.0.1:80']\n";
        assert_eq!(with(listen), ["tls:8443", "tls:443", "kcp:443"]);
        assert_eq!(with("listen: ['[::]:443']\nkcp:\n  port: off\n"), ["tls:8443"], "forwarded");
    }
}
