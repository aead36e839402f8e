//! `cipherwall-server user`: who may come in (C4).

use std::time::Duration;

use cipherwall_cli::{human, print};
use serde_json::json;

use super::device;
use super::password::{confirmed, from_stdin, from_terminal};
use super::place::{Place, unexpected};
use super::table::{date, lines, table};
use crate::accounts::{DeviceInfo, UserInfo};
use crate::admin::{AdminReply, AdminRequest, unix_now};

/// Users of this gateway
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Add a user
    ///
    /// Without a password the user enters by invitation only.
    Add {
        /// The user's name; it is kept in lower case and never changes
        name: String,

        /// Read a password from standard input: its first line
        #[arg(long)]
        password_stdin: bool,

        /// When the account ends, such as 30d, by the gateway's clock [default: never]
        #[arg(long, value_name = "TIME", value_parser = human::parse_duration)]
        expires: Option<Duration>,
    },
    /// List all users
    List {
        /// A JSON array: name, enabled, has_password, devices, created, expires and last_seen (Unix
        /// seconds)
        #[arg(long)]
        json: bool,
    },
    /// Show a user with the user's devices
    Show {
        /// The user's name
        name: String,

        /// A JSON object: as in `user list`, and device_list as in `device list`
        #[arg(long)]
        json: bool,
    },
    /// Give a user a password, or another one
    ///
    /// Sessions go on. Devices that were enrolled by invitation and have never logged in with the
    /// old password need none; the others have to log in again (`cipherwall login`).
    Passwd {
        /// The user's name
        name: String,

        /// Read the password from standard input: its first line
        #[arg(long)]
        password_stdin: bool,
    },
    /// Change when an account ends
    Set {
        /// The user's name
        name: String,

        /// When it ends from now, such as 30d, by the gateway's clock; or never
        ///
        /// Sessions of the user end within seconds of that moment.
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Expiry,
    },
    /// Let a user in no more, on any device, until enabled again
    ///
    /// The user's sessions end at once. Devices, invitations and the password are kept.
    Disable {
        /// The user's name
        name: String,
    },
    /// Let a disabled user in again, on the same devices
    Enable {
        /// The user's name
        name: String,
    },
    /// Remove a user with all devices, invitations and sessions
    ///
    /// The sessions end at once. There is no way back: a user of the same name needs new
    /// invitations.
    Remove {
        /// The user's name
        name: String,

        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// When an account ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    Never,
    In(Duration),
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    match command {
        Command::Add { name, password_stdin, expires } => {
            let password = password_stdin.then(from_stdin).transpose()?;
            let lifetime_s = expires.map(seconds);
            let request = AdminRequest::UserAdd { name, password, lifetime_s };
            print(format_args!("user {} added", place.change(request).await?.0))
        }
        Command::List { json } => list(json, place).await,
        Command::Show { name, json } => show(name, json, place).await,
        Command::Passwd { name, password_stdin } => passwd(name, password_stdin, place).await,
        Command::Set { name, expires: Expiry::Never } => {
            let request = AdminRequest::UserLifetime { name, lifetime_s: None };
            let (user, _) = place.change(request).await?;
            print(format_args!("the account of {user} does not end"))
        }
        Command::Set { name, expires: Expiry::In(time) } => {
            let lifetime_s = Some(seconds(time));
            let (user, _) = place.change(AdminRequest::UserLifetime { name, lifetime_s }).await?;
            let end = date(unix_now().saturating_add(seconds(time)));
            print(format_args!("the account of {user} ends {end}"))
        }
        Command::Disable { name } => {
            let request = AdminRequest::UserEnable { name, enabled: false };
            let (user, sessions) = place.change(request).await?;
            print(format_args!("user {user} disabled{}", ended(sessions)))
        }
        Command::Enable { name } => {
            let (user, _) = place.change(AdminRequest::UserEnable { name, enabled: true }).await?;
            print(format_args!("user {user} enabled"))
        }
        Command::Remove { name, yes } => remove(name, yes, place).await,
    }
}

/// For the end of a message.
pub(super) fn ended(sessions: u64) -> String {
    match sessions {
        0 => String::new(),
        1 => "; one session ended".to_owned(),
        more => format!("; {more} sessions ended"),
    }
}

fn seconds(time: Duration) -> u64 {
    time.as_secs().max(1)
}

fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    human::parse_duration(text).map(Expiry::In).map_err(|error| format!("{error}; or never"))
}

async fn list(json: bool, place: &Place) -> anyhow::Result<()> {
    let AdminReply::Users(users) = place.ask(AdminRequest::UserList).await? else {
        return unexpected();
    };
    if json {
        return print(serde_json::to_string(&users)?);
    }
    let now = unix_now();
    let row = |user: &UserInfo| {
        [
            user.name.clone(),
            state(user, now).to_owned(),
            if user.has_password { "yes" } else { "no" }.to_owned(),
            user.devices.to_string(),
            user.last_seen.map_or_else(|| "never".to_owned(), date),
            user.expires.map_or_else(|| "never".to_owned(), date),
        ]
    };
    let rows: Vec<_> = users.iter().map(row).collect();
    print(table(["USER", "STATE", "PASSWORD", "DEVICES", "LAST SEEN", "EXPIRES"], &rows))
}

fn state(user: &UserInfo, now: u64) -> &'static str {
    match user.expires {
        _ if !user.enabled => "disabled",
        Some(end) if end <= now => "expired",
        Some(_) | None => "enabled",
    }
}

async fn show(name: String, json: bool, place: &Place) -> anyhow::Result<()> {
    let (user, devices) = look_up(name, place).await?;
    if json {
        let mut value = serde_json::to_value(&user)?;
        value["device_list"] = json!(devices);
        return print(value);
    }
    let or_never = |time: Option<u64>| time.map_or_else(|| "never".to_owned(), date);
    print(lines(&[
        ("User", user.name.clone()),
        ("State", state(&user, unix_now()).to_owned()),
        ("Password", if user.has_password { "yes" } else { "no, by invitation only" }.to_owned()),
        ("Added", date(user.created)),
        ("Expires", or_never(user.expires)),
        ("Last seen", or_never(user.last_seen)),
    ]))?;
    if !devices.is_empty() {
        print(format_args!("\n{}", device::table_of(&devices)))?;
    }
    Ok(())
}

async fn look_up(name: String, place: &Place) -> anyhow::Result<(UserInfo, Vec<DeviceInfo>)> {
    let request = AdminRequest::UserShow { name };
    let AdminReply::Users(mut users) = place.ask(request).await? else { return unexpected() };
    let Some(user) = users.pop() else { return unexpected() };
    let request = AdminRequest::DeviceList { user: Some(user.name.clone()) };
    let AdminReply::Devices(devices) = place.ask(request).await? else { return unexpected() };
    Ok((user, devices))
}

async fn passwd(name: String, password_stdin: bool, place: &Place) -> anyhow::Result<()> {
    let password = match password_stdin {
        true => from_stdin()?,
        // first whether there is such a user, then the questions
        false => from_terminal(&look_up(name.clone(), place).await?.0.name)?,
    };
    let (user, _) = place.change(AdminRequest::UserPassword { name, password }).await?;
    print(format_args!("the password of {user} is changed"))
}

async fn remove(name: String, yes: bool, place: &Place) -> anyhow::Result<()> {
    let user = look_up(name, place).await?.0;
    let question = format!(
        "Remove user {} with {} devices? They cannot connect any more.",
        user.name, user.devices
    );
    confirmed(&question, yes)?;
    let (user, sessions) = place.change(AdminRequest::UserRemove { name: user.name }).await?;
    print(format_args!("user {user} removed{}", ended(sessions)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_or_never() {
        assert_eq!(expiry("never"), Ok(Expiry::Never));
        assert_eq!(expiry("30d"), Ok(Expiry::In(Duration::from_secs(30 * 86_400))));
        assert!(expiry("soon").is_err_and(|error| error.contains("never")));
    }

    #[test]
    fn the_state_of_an_account_is_judged_by_the_clock() {
        let mut user = UserInfo {
            name: "ada".into(),
            enabled: true,
            has_password: false,
            devices: 0,
            created: 1,
            expires: Some(100),
            last_seen: None,
        };
        assert_eq!((state(&user, 99), state(&user, 100)), ("enabled", "expired"));
        user.enabled = false;
        assert_eq!(state(&user, 100), "disabled");
    }
}
