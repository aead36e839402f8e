//! `cipherwall keyring`: what other commands do with a person's keyring, as that person. Not for
//! people, and so not shown to them.

use std::io::Read;

use anyhow::Context;
use cipherwall_cli::{print, print_error};
use cipherwall_ipc::daemon::{Login, Profile};
use zeroize::Zeroizing;

use crate::keyring::{Account, IN_KEYRING};

/// No secret is longer, in bytes.
const SECRET_MAX: u64 = 4096;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Put the secret from standard input there
    Store(Names),
    /// Print the secret, or nothing
    Find(Names),
    /// Take it away
    Forget(Names),
}

#[derive(Debug, clap::Args)]
pub(super) struct Names {
    gateway: String,
    user: String,
}

impl From<Names> for Account {
    fn from(Names { gateway, user }: Names) -> Account {
        Account { gateway, user }
    }
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Store(names) => {
            let mut secret = Zeroizing::new(String::new());
            let input = std::io::stdin().lock().take(SECRET_MAX).read_to_string(&mut secret);
            input.context("cannot read the secret from standard input")?;
            Ok(Account::from(names).store(&secret).await?)
        }
        Command::Find(names) => {
            let found = Account::from(names).find().await?;
            print(found.unwrap_or_default().as_str())
        }
        Command::Forget(names) => Ok(Account::from(names).forget().await?),
    }
}

/// The account of a profile whose log-in is in a keyring.
pub(super) fn account(profile: &Profile) -> Option<Account> {
    let hosts = profile.endpoints.iter().map(|endpoint| endpoint.host.as_str());
    (profile.login == IN_KEYRING).then(|| Account::new(hosts, &profile.user))
}

/// What the one that is meant of these profiles needs of the keyring. Without it, a session that
/// is still good goes on all the same: so that is but a warning.
pub(super) async fn login(name: Option<&str>, profiles: &[Profile]) -> Option<Login> {
    let profile = match (name, profiles) {
        (Some(name), _) => profiles.iter().find(|profile| profile.name == name),
        (None, [only]) => Some(only),
        (None, _) => profiles.iter().find(|profile| profile.default),
    };
    match account(profile?)?.find().await {
        Ok(found) => found.map(|login| Login(login.to_string())),
        Err(error) => {
            let error = anyhow::Error::new(error);
            print_error(format_args!("warning: the password stays in the keyring: {error:#}"));
            None
        }
    }
}

/// A profile is gone: so is its log-in, unless another one needs it.
pub(super) async fn forget(gone: &Profile, others: &[Profile]) {
    let Some(account) = account(gone) else { return };
    let others = others.iter().filter(|profile| profile.name != gone.name);
    if others.filter_map(self::account).any(|other| other == account) {
        return;
    }
    if let Err(error) = account.forget().await {
        let error = anyhow::Error::new(error);
        print_error(format_args!("warning: its password is still in the keyring: {error:#}"));
    }
}
