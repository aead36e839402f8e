//! `cipherwall-server user`: who may come in.

use std::io::{BufRead, Read};

use anyhow::Context;
use cipherwall_cli::{Failure, print};
use zeroize::Zeroizing;

use super::place::{Place, unexpected};
use super::table::{date, table};
use crate::accounts::UserInfo;
use crate::admin::{AdminReply, AdminRequest};

/// No password is longer, in bytes.
const PASSWORD_MAX: u64 = 4096;

/// Users of this gateway
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Add a user
    ///
    /// Without a password the user enters by invitation only, and may choose a password then.
    Add {
        /// The user's name; it is kept in lower case and never changes
        name: String,

        /// Read a password from standard input: its first line
        #[arg(long)]
        password_stdin: bool,
    },
    /// List all users
    List {
        /// A JSON array: name, enabled, has_password, devices, created and last_seen (Unix seconds)
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    match command {
        Command::Add { name, password_stdin } => add(name, password_stdin, place).await,
        Command::List { json } => list(json, place).await,
    }
}

async fn add(name: String, password_stdin: bool, place: &Place) -> anyhow::Result<()> {
    let password = match password_stdin {
        true => Some(read_password(&mut std::io::stdin().lock())?),
        false => None,
    };
    let AdminReply::UserAdded { name } =
        place.ask(AdminRequest::UserAdd { name, password }).await?
    else {
        return unexpected();
    };
    print(format_args!("user {name} added"))
}

async fn list(json: bool, place: &Place) -> anyhow::Result<()> {
    let AdminReply::Users(users) = place.ask(AdminRequest::UserList).await? else {
        return unexpected();
    };
    if json {
        return print(serde_json::to_string(&users)?);
    }
    let row = |user: &UserInfo| {
        [
            user.name.clone(),
            if user.enabled { "enabled" } else { "disabled" }.to_owned(),
            if user.has_password { "yes" } else { "no" }.to_owned(),
            user.devices.to_string(),
            user.last_seen.map_or_else(|| "never".to_owned(), date),
        ]
    };
    let rows: Vec<_> = users.iter().map(row).collect();
    print(table(["USER", "STATE", "PASSWORD", "DEVICES", "LAST SEEN"], &rows))
}

/// The first line, without its line feed.
fn read_password(input: &mut impl BufRead) -> anyhow::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(256));
    input
        .take(PASSWORD_MAX)
        .read_line(&mut line)
        .context("cannot read the password from standard input")?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    if line.is_empty() {
        return Err(Failure::usage("the password on standard input is empty").into());
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line_as_it_stands() {
        for (input, password) in
            [("secret", "secret"), ("secret\r\nmore\n", "secret"), (" two words \n", " two words ")]
        {
            assert_eq!(*read_password(&mut input.as_bytes()).unwrap(), password);
        }
        assert!(read_password(&mut "\n".as_bytes()).is_err());
    }
}
