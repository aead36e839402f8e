//! `cipherwall login`: a user name and password for a profile.

use std::io::{BufRead, IsTerminal, Read};

use anyhow::Context;
use cipherwall_cli::{Failure, exit, print, print_error};
use cipherwall_proto::credential;
use zeroize::Zeroizing;

use super::Place;
use super::failure::{WithCode, coded};
use crate::keyring::{self, Account};
use crate::profile::Profile;
use crate::secret::Secret;
use crate::settings::Settings;
use crate::{dial, progress};

/// No password is longer, in bytes.
const PASSWORD_MAX: u64 = 4096;

/// Log in with a password and keep that for the next connections
///
/// What is kept is not the password but what the gateway wants to see instead of it: in your keyring
/// or, where there is none, with the profile, readable by root only. Ends with exit code 5 if the
/// gateway rejects name or password.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The user's name
    #[arg(value_name = "NAME")]
    user: String,

    /// Read the password from standard input: its first line
    #[arg(long)]
    password_stdin: bool,

    /// The profile to log in with [default: the default profile, or the only one]
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
}

pub(super) async fn run(options: Options, place: &Place) -> anyhow::Result<()> {
    let user = credential::normalise_user(&options.user)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let settings = Settings::load(&place.paths.config_path).map_err(coded)?;
    let profile = place
        .profiles
        .choose(options.profile.as_deref(), settings.default_profile.as_deref())
        .map_err(coded)?;
    place.profiles.prepare().map_err(coded)?;
    let password = read_password(&user, options.password_stdin)?;

    let work = log_in(&profile, &user, &password);
    let (salt, prehash) = progress::tell_of_gateway("logging in at", &profile, work).await?;
    let account = Account::of(&Profile { user: user.clone(), ..profile.clone() });
    let in_keyring = account.store(&keyring::written(&prehash)).await;
    let keep = place.profiles.update(&profile.name, |profile| {
        profile.user.clone_from(&user);
        profile.salt = salt;
        profile.keyring = in_keyring.is_ok();
        profile.prehash = in_keyring.is_err().then_some(prehash);
    });
    keep.map_err(coded)?;
    // this log-in has taken its place
    place.profiles.forget_session(&profile.name).map_err(coded)?;
    match in_keyring {
        Ok(()) => print_error("what stands for the password is in your keyring"),
        Err(error) => print_error(format_args!(
            "what stands for the password is with the profile, readable by root only: {:#}",
            anyhow::Error::new(error)
        )),
    }
    print(format_args!("logged in as {user} with profile {}", profile.name))
}

/// What takes the password's place, once the gateway has taken it.
async fn log_in(
    profile: &Profile,
    user: &str,
    password: &str,
) -> anyhow::Result<(Secret<16>, Secret<32>)> {
    let salt = match user == profile.user {
        true => profile.salt.clone(),
        false => dial::salt(profile, user).await.map_err(coded)?.into(),
    };
    let prehash = Secret::from(credential::prehash(password, &salt));
    dial::login(profile, user, &prehash).await.map_err(|error| rejected(user, error))?;
    Ok((salt, prehash))
}

fn read_password(user: &str, stdin: bool) -> anyhow::Result<Zeroizing<String>> {
    let password = if stdin {
        first_line(&mut std::io::stdin().lock())
            .context("cannot read the password from standard input")?
    } else if std::io::stdin().is_terminal() {
        let typed = rpassword::prompt_password(format!("Password of {user}: "));
        Zeroizing::new(typed.context("cannot read the password from the terminal")?)
    } else {
        let why = "there is no terminal to ask for the password: give it with --password-stdin";
        return Err(Failure::usage(why).into());
    };
    if password.is_empty() {
        return Err(Failure::usage("the password is empty").into());
    }
    Ok(password)
}

/// Without its line feed.
fn first_line(input: &mut impl BufRead) -> std::io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(256));
    input.take(PASSWORD_MAX).read_line(&mut line)?;
    let len = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(len);
    Ok(line)
}

fn rejected(user: &str, error: dial::DialError) -> anyhow::Error {
    if error.code() != exit::REJECTED {
        return coded(error);
    }
    coded(error).context(format!(
        "the gateway rejected {user} with this password: check both and try again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line_as_it_stands() {
        for (input, password) in [
            ("secret", "secret"),
            ("secret\n", "secret"),
            ("secret\r\nmore\n", "secret"),
            (" two words \n", " two words "),
            ("\n", ""),
        ] {
            let line = first_line(&mut input.as_bytes()).expect("read");
            assert_eq!(line.as_str(), password);
        }
        assert!(first_line(&mut &b"\xff\n"[..]).is_err(), "a password is UTF-8");
    }
}
