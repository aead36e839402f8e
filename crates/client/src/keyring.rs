//! What stands for a password at the gateway, in the keyring of the person who logged in (A31).
//!
//! A keyring is a person's own: other users cannot open it, nor can root while the person is away.
//! Commands that run under sudo therefore do this work in another process, as that person.

use std::{collections::HashMap, path::PathBuf, process::Stdio, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use cipherwall_cli::Failure;
use secret_service::{EncryptionType, Item, SecretService};
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{error::Elapsed, timeout},
};
use zeroize::Zeroizing;

use crate::{profile::Profile, secret::Secret};

/// How long it may take: the person may have to be asked for the password of the keyring.
const TIME: Duration = Duration::from_secs(60);
/// How long a keyring may take to say that it is there, which asks nobody for anything. Some are
/// installed, and never start where there is no desktop.
const START: Duration = Duration::from_secs(10);
const SCHEMA: &str = "org.cipherwall.Login";

/// How a profile whose log-in is there is shown.
pub(crate) const IN_KEYRING: &str = "keyring";

/// Which secret is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// One name of the gateway, the same whatever the order of its endpoints.
    pub(crate) gateway: String,
    /// The user there.
    pub(crate) user: String,
}

/// Why the keyring is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyringError {
    /// There is none, or it stays locked.
    #[error("there is no keyring that can be opened: {0}")]
    Unavailable(#[from] secret_service::Error),
    /// Nobody has unlocked it.
    #[error("the keyring was not unlocked within {} s", TIME.as_secs())]
    Late(#[from] Elapsed),
    /// One is installed, and does not start.
    #[error("the keyring does not start")]
    Dead,
    /// The process that runs as the person who called sudo has failed.
    #[error("{0}")]
    Person(String),
    /// That process cannot be started.
    #[error("cannot run as the person who called sudo: {0}")]
    Start(#[from] std::io::Error),
}

impl Account {
    /// Of this profile.
    pub(crate) fn of(profile: &Profile) -> Account {
        let hosts = profile.endpoints.iter().map(|endpoint| endpoint.host.as_str());
        Account::new(hosts, &profile.user)
    }

    /// Of a user at a gateway with these names.
    pub(crate) fn new<'a>(hosts: impl Iterator<Item = &'a str>, user: &str) -> Account {
        Account { gateway: hosts.min().unwrap_or_default().to_owned(), user: user.to_owned() }
    }

    fn attributes(&self) -> HashMap<&str, &str> {
        [("xdg:schema", SCHEMA), ("gateway", &self.gateway), ("user", &self.user)].into()
    }

    /// Puts a secret there, in place of the one that may be there.
    ///
    /// # Errors
    /// There is no keyring, or nobody unlocks it.
    pub(crate) async fn store(&self, secret: &str) -> Result<(), KeyringError> {
        match Person::behind_sudo() {
            Some(person) => person.run("store", self, secret).await.map(drop),
            None => timeout(TIME, self.store_here(secret)).await?,
        }
    }

    /// The secret, if it is there.
    ///
    /// # Errors
    /// As [`Account::store`].
    pub(crate) async fn find(&self) -> Result<Option<Zeroizing<String>>, KeyringError> {
        let found = match Person::behind_sudo() {
            Some(person) => person.run("find", self, "").await?,
            None => timeout(TIME, self.find_here()).await??,
        };
        Ok(Some(found).filter(|found| !found.is_empty()))
    }

    /// Takes it away, if it is there.
    ///
    /// # Errors
    /// As [`Account::store`].
    pub(crate) async fn forget(&self) -> Result<(), KeyringError> {
        match Person::behind_sudo() {
            Some(person) => person.run("forget", self, "").await.map(drop),
            None => timeout(TIME, self.forget_here()).await?,
        }
    }

    async fn store_here(&self, secret: &str) -> Result<(), KeyringError> {
        let service = service().await?;
        let collection = service.get_default_collection().await?;
        if collection.is_locked().await? {
            collection.unlock().await?;
        }
        let label = format!("CipherWall: {} at {}", self.user, self.gateway);
        let (secret, replace) = (secret.as_bytes(), true);
        collection.create_item(&label, self.attributes(), secret, replace, "text/plain").await?;
        Ok(())
    }

    async fn find_here(&self) -> Result<Zeroizing<String>, KeyringError> {
        let service = service().await?;
        let found = service.search_items(self.attributes()).await?;
        let Some(item) = found.unlocked.first().or(found.locked.first()) else {
            return Ok(Zeroizing::default());
        };
        unlock(item).await?;
        let secret = Zeroizing::new(item.get_secret().await?);
        Ok(Zeroizing::new(String::from_utf8_lossy(&secret).into_owned()))
    }

    async fn forget_here(&self) -> Result<(), KeyringError> {
        let service = service().await?;
        let found = service.search_items(self.attributes()).await?;
        for item in found.unlocked.iter().chain(&found.locked) {
            unlock(item).await?;
            item.delete().await?;
        }
        Ok(())
    }
}

/// A pre-hash as it is in the keyring.
pub(crate) fn written(prehash: &Secret<32>) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(**prehash))
}

/// The pre-hash that was written so.
///
/// # Errors
/// It was not.
pub(crate) fn secret(written: &str) -> anyhow::Result<Secret<32>> {
    let bytes = STANDARD.decode(written).map(Zeroizing::new).ok();
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
    let odd = "what is in the keyring is no log-in of this program: log in anew";
    Ok(bytes.ok_or_else(|| Failure::failed(odd))?.into())
}

async fn service() -> Result<SecretService<'static>, KeyringError> {
    let service = timeout(START, SecretService::connect(EncryptionType::Dh)).await;
    Ok(service.map_err(|_| KeyringError::Dead)??)
}

async fn unlock(item: &Item<'_>) -> Result<(), KeyringError> {
    if item.is_locked().await? {
        item.unlock().await?;
    }
    Ok(())
}

/// Who has called sudo.
struct Person {
    uid: u32,
    gid: u32,
}

impl Person {
    fn behind_sudo() -> Option<Person> {
        let id = |name: &str| std::env::var(name).ok()?.parse().ok().filter(|id| *id != 0);
        let is_root = rustix::process::geteuid().is_root();
        is_root.then(|| Some(Person { uid: id("SUDO_UID")?, gid: id("SUDO_GID")? })).flatten()
    }

    /// Runs `cipherwall keyring WHAT` as this person; gives what it prints.
    async fn run(
        &self,
        what: &str,
        account: &Account,
        input: &str,
    ) -> Result<Zeroizing<String>, KeyringError> {
        let run_dir = PathBuf::from(format!("/run/user/{}", self.uid));
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["keyring", what, &account.gateway, &account.user])
            .uid(self.uid)
            .gid(self.gid)
            .current_dir("/")
            .env_clear()
            .env("XDG_RUNTIME_DIR", &run_dir)
            .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}/bus", run_dir.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = timeout(TIME * 2, child.wait_with_output()).await??;
        let (said, found) = (String::from_utf8_lossy(&output.stderr), output.stdout);
        if !output.status.success() {
            return Err(KeyringError::Person(said.trim().trim_start_matches("error: ").to_owned()));
        }
        let found = Zeroizing::new(found);
        Ok(Zeroizing::new(String::from_utf8_lossy(&found).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_the_same_whatever_the_order_of_the_endpoints() {
        let account = |hosts: [&str; 2]| Account::new(hosts.into_iter(), "alice");
        assert_eq!(account(["b.example", "a.example"]), account(["a.example", "b.example"]));
        assert_eq!(account(["b.example", "a.example"]).gateway, "a.example");
    }
}
