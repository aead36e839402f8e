//! `cipherwall-server cert`: what clients recognise this gateway by (A15).

use cipherwall_cli::print;
use serde_json::json;
use time::OffsetDateTime;

use super::Place;
use super::failure::coded;
use super::place::unexpected;
use super::table::date;
use crate::admin::{AdminReply, AdminRequest};
use crate::identity::CertificateInfo;

/// The gateway's certificate and keys
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the certificate, and the public keys that clients accept
    Show {
        /// A JSON object: path, names, not_before, not_after, renews (Unix seconds; null if
        /// somebody else renews it), pins
        #[arg(long)]
        json: bool,
    },
    /// Make a new certificate with the same key now
    ///
    /// Never needed: the gateway does it by itself at two thirds of the validity. Clients do not
    /// notice, and connections stay.
    Renew,
    /// Print a request for a certificate of the gateway's own key
    ///
    /// For a certificate authority. With `certificate.file` in server.yaml set to what it returns, clients
    /// notice nothing, since the key is the same. Keep the key at renewals, too.
    Request {
        /// Names it is to be for, in place of the endpoint's host
        names: Vec<String>,
    },
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    match command {
        Command::Show { json } => show(json, place),
        Command::Renew => {
            let info = renew(place).await?;
            let end = date(info.not_after.unsigned_abs());
            let renews = info.renews.map(|time| date(time.unsigned_abs())).unwrap_or_default();
            print(format_args!("new certificate until {end}, with the same key; renews {renews}"))
        }
        Command::Request { names } => {
            let identity = place.identity(&place.config()?)?;
            let names = if names.is_empty() { vec![identity.host().to_owned()] } else { names };
            print(identity.request(names).map_err(coded)?.trim_end())
        }
    }
}

fn show(json: bool, place: &Place) -> anyhow::Result<()> {
    let identity = place.identity(&place.config()?)?;
    let certificate = identity.describe().map_err(coded)?;
    let [pin, spare] = identity.pins().map(|pin| hex(&pin));
    if json {
        let mut value = serde_json::to_value(&certificate)?;
        value["pins"] = json!([pin, spare]);
        return print(value);
    }
    let [from, to] =
        [certificate.not_before, certificate.not_after].map(|time| date(time.unsigned_abs()));
    let renews = match certificate.renews {
        Some(time) => format!("{}, by itself while the gateway runs", date(time.unsigned_abs())),
        None => "by whoever writes the file; a running gateway reads it again".to_owned(),
    };
    print(format_args!(
        "Certificate:   {}\n\
         For:           {}\n\
         Valid:         {from} to {to}\n\
         Renews:        {renews}\n\
         Key in use:    {pin}\n\
         Spare key:     {spare}\n\
         Keys are SHA-256 of the public key (SPKI). Clients accept both, and go by nothing else.",
        certificate.path.display(),
        certificate.names.join(", "),
    ))
}

/// By the running gateway, which uses it at once, else in the files alone.
async fn renew(place: &Place) -> anyhow::Result<CertificateInfo> {
    if place.running().await?.is_some() {
        let AdminReply::Certificate(info) = place.ask(AdminRequest::CertRenew).await? else {
            return unexpected();
        };
        return Ok(info);
    }
    let mut identity = place.identity(&place.config()?)?;
    identity.renew(OffsetDateTime::now_utc()).map_err(coded)?;
    identity.describe().map_err(coded)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
