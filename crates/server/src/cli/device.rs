//! `cipherwall-server device`: the devices of users.

use cipherwall_cli::print;

use super::place::{Place, unexpected};
use super::table::{date, table};
use super::user::ended;
use crate::accounts::DeviceInfo;
use crate::admin::{AdminReply, AdminRequest};

/// Devices of users
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List devices
    List {
        /// Of this user only
        user: Option<String>,

        /// A JSON array: id, user, name, inner_v4, inner_v6, created, last_seen (Unix seconds)
        #[arg(long)]
        json: bool,
    },
    /// Remove a device for good
    ///
    /// Its session ends at once, its inside address is free for others, and its key is not let in
    /// again, neither by its invitation nor with the user's password. With a new invitation the
    /// same computer is a new device.
    Remove {
        /// The device's number, as `device list` shows it
        #[arg(value_name = "ID")]
        id: i64,
    },
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    match command {
        Command::List { user, json } => {
            let request = AdminRequest::DeviceList { user };
            let AdminReply::Devices(devices) = place.ask(request).await? else {
                return unexpected();
            };
            match json {
                true => print(serde_json::to_string(&devices)?),
                false => print(table_of(&devices)),
            }
        }
        Command::Remove { id } => {
            let (user, sessions) = place.change(AdminRequest::DeviceRemove { id }).await?;
            print(format_args!("device {id} of {user} removed{}", ended(sessions)))
        }
    }
}

pub(super) fn table_of(devices: &[DeviceInfo]) -> String {
    let row = |device: &DeviceInfo| {
        [
            device.id.to_string(),
            device.user.clone(),
            device.name.clone(),
            device.inner_v4.map_or_else(|| "-".to_owned(), |address| address.to_string()),
            date(device.created),
            date(device.last_seen),
        ]
    };
    let rows: Vec<_> = devices.iter().map(row).collect();
    table(["ID", "USER", "DEVICE", "INSIDE", "ADDED", "LAST SEEN"], &rows)
}
