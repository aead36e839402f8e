//! `cipherwall settings`: what holds for all connections.

use cipherwall_cli::{Failure, print};
use cipherwall_ipc::Connection;
use cipherwall_ipc::daemon::{Reply, Request, Settings as Shown};
use serde_json::Value;

use super::failure::coded;
use super::{Place, running};
use crate::settings::Settings;

/// Show and change what holds for all connections
///
/// What concerns connections counts from the next one on.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show all settings
    Show {
        /// One JSON object, as in client.json
        #[arg(long)]
        json: bool,
    },
    /// Change settings
    ///
    /// For example: `settings set allow_lan=false`, `settings set direct=192.0.2.0/24,198.51.100.7`,
    /// `settings set mtu=` for the default.
    Set {
        /// A key of `settings show --json` and its value; a list has commas, and nothing stands for
        /// the default
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = pair)]
        changes: Vec<(String, String)>,
    },
}

pub(super) async fn run(command: Command, place: &Place) -> anyhow::Result<()> {
    let mut connection = running::find(&place.paths).await?;
    let mut settings = load(&mut connection, place).await?;
    match command {
        Command::Show { json: true } => print(serde_json::to_string(&settings)?),
        Command::Show { json: false } => print(describe(&settings)?),
        Command::Set { changes } => {
            for (key, value) in &changes {
                settings = changed(&settings, key, value)?;
            }
            save(settings, &mut connection, place).await?;
            print("changed; what concerns connections counts from the next one on")
        }
    }
}

/// From the running process, so that members of its group can, or from the file.
async fn load(connection: &mut Option<Connection>, place: &Place) -> anyhow::Result<Shown> {
    let Some(connection) = connection else {
        return Ok((&Settings::load(&place.paths.config_path).map_err(coded)?).into());
    };
    let reply = running::ask(connection, &Request::Settings, running::ANSWER_TIME).await?;
    if let Reply::Settings(settings) = reply { Ok(settings) } else { Err(running::misfit()) }
}

async fn save(
    settings: Shown,
    connection: &mut Option<Connection>,
    place: &Place,
) -> anyhow::Result<()> {
    match connection {
        Some(connection) => {
            let request = Request::SetSettings(settings);
            running::have_done(connection, &request, running::ANSWER_TIME).await
        }
        None => Settings::try_from(&settings)?.save(&place.paths.config_path).map_err(coded),
    }
}

/// One line for each key.
fn describe(settings: &Shown) -> anyhow::Result<String> {
    let Value::Object(keys) = serde_json::to_value(settings)? else { return Ok(String::new()) };
    let value = |value: &Value| match value {
        Value::Null => "default".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "none".to_owned(),
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
    };
    let width = keys.keys().map(String::len).max().unwrap_or_default();
    let lines = keys.iter().map(|(key, it)| format!("{key:width$}  {}", value(it)));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The settings with one key changed, to a value of the kind that it has.
fn changed(settings: &Shown, key: &str, value: &str) -> anyhow::Result<Shown> {
    let mut json = serde_json::to_value(settings)?;
    let default = serde_json::to_value(Shown::default())?;
    let Some(kind) = default.get(key) else {
        let known = default.as_object().into_iter().flat_map(|keys| keys.keys().cloned());
        let known = known.collect::<Vec<_>>().join(", ");
        return Err(
            Failure::usage(format!("there is no setting {key:?}; there is: {known}")).into()
        );
    };
    json[key] = match kind {
        _ if value.is_empty() => kind.clone(),
        Value::Array(_) => value.split(',').map(|one| Value::from(one.trim())).collect(),
        Value::String(_) => Value::from(value),
        // true, false, a number; or else a name
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) => {
            serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))
        }
    };
    serde_json::from_value(json)
        .map_err(|error| Failure::usage(format!("{key}={value}: {error}")).into())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_kind_of_their_key() {
        let mut settings = Shown::default();
        for (key, value) in [
            ("allow_lan", "false"),
            ("cipher", "aes-256-gcm"),
            ("mtu", "1400"),
            ("default_profile", "home"),
            ("direct", "192.0.2.0/24, 198.51.100.7"),
        ] {
            settings = changed(&settings, key, value).expect(key);
        }
        let expected = Shown {
            allow_lan: false,
            cipher: "aes-256-gcm".into(),
            mtu: Some(1400),
            default_profile: Some("home".into()),
            direct: vec!["192.0.2.0/24".into(), "198.51.100.7".into()],
            ..Shown::default()
        };
        assert_eq!(settings, expected);
        let back = changed(&settings, "mtu", "").expect("the default");
        assert_eq!(changed(&back, "direct", "").expect("none").direct, [""; 0]);
        assert_eq!(back.mtu, None);
    }

    #[test]
    fn wrong_keys_and_values_are_wrong_usage() {
        let settings = Shown::default();
        let error = changed(&settings, "lan", "yes").expect_err("unknown").to_string();
        assert!(error.contains("allow_lan, cipher"), "{error}");
        assert!(changed(&settings, "allow_lan", "maybe").is_err());
        assert!(changed(&settings, "mtu", "x").is_err());
        assert!(pair("allow_lan").is_err());
    }

    #[test]
    fn each_key_has_a_line() {
        let text = describe(&Shown::default()).expect("lines");
        assert!(text.contains("allow_lan        true\n"), "{text}");
        assert!(text.contains("mtu              default"), "{text}");
    }
}
