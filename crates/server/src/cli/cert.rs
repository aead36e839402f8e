//! `cipherwall-server cert`: what clients recognise this gateway by (A15).

use cipherwall_cli::print;
use serde_json::json;

use super::Place;
use super::failure::coded;
use super::table::date;

/// The gateway's certificate and keys
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the certificate, and the public keys that clients accept
    Show {
        /// A JSON object: path, names, not_before, not_after (Unix seconds), pins
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    let Command::Show { json } = command;
    let identity = place.identity(&place.config()?)?;
    let certificate = identity.describe().map_err(coded)?;
    let [pin, spare] = identity.pins().map(|pin| hex(&pin));
    if json {
        let mut value = serde_json::to_value(&certificate)?;
        value["pins"] = json!([pin, spare]);
        return print(value);
    }
    let valid =
        [certificate.not_before, certificate.not_after].map(|time| date(time.unsigned_abs()));
    print(format_args!(
        "Certificate:   {}\n\
         For:           {}\n\
         Valid:         {} to {}, renewed by itself\n\
         Key in use:    {pin}\n\
         Spare key:     {spare}\n\
         Keys are SHA-256 of the public key (SPKI). Clients accept both, and go by nothing else.",
        certificate.path.display(),
        certificate.names.join(", "),
        valid[0],
        valid[1],
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
