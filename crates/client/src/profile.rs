//! Profiles: what the client knows about one gateway and how it proves itself there. One file
//! each, `profiles/NAME.json` in the state directory, readable by root only.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cipherwall_proto::invitation::{self, Endpoint, Invitation};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};
use crate::secret::Secret;

mod editing;
mod endpoints;
mod memory;
mod pending;
mod session;

pub(crate) use editing::{address, change, in_use, login, remove, shown};
pub(crate) use endpoints::of_invitation;
pub(crate) use memory::{Memory, Network, name as endpoint_name};
pub(crate) use pending::Pending;
pub(crate) use session::Session;

/// The longest name of a profile.
const NAME_MAX: usize = 64;

/// One gateway, one user, one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// The profile's name, also that of its file.
    pub(crate) name: String,
    /// Where the gateway can be reached, best first: the rungs of its ladder.
    #[serde(deserialize_with = "invitation::known_endpoints")]
    pub(crate) endpoints: Vec<Endpoint>,
    /// The user, normalised.
    pub(crate) user: String,
    /// The user's salt.
    pub(crate) salt: Secret<16>,
    /// The door key.
    pub(crate) door_key: Secret<32>,
    /// The invitation's secret, which enrolled this device.
    pub(crate) enrol_secret: Secret<16>,
    /// Names for the TLS hello; empty: the endpoint's host.
    pub(crate) sni: Vec<String>,
    /// The Ed25519 key of this device.
    pub(crate) device_seed: Secret<32>,
    /// The password's pre-hash, after `login`.
    #[serde(default)]
    pub(crate) prehash: Option<Secret<32>>,
    /// Whether that is in the keyring of the person who logged in, and so not here on disk (A31).
    #[serde(default)]
    pub(crate) keyring: bool,
    /// Addresses that worked, best first, for when names cannot be resolved.
    #[serde(default)]
    pub(crate) last_good_addresses: Vec<SocketAddr>,
}

/// Why there is no such profile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// No file of this name.
    #[error("there is no profile {name:?}; {}", list(.known))]
    Missing { name: String, known: Vec<String> },
    /// There is one of this name already.
    #[error("there is a profile {0:?} already")]
    Exists(String),
    /// None was named, and none can be guessed.
    #[error("no profile was named; {}", list(.known))]
    NotNamed { known: Vec<String> },
    /// Not a name.
    #[error(
        "{0:?} is no profile name: use up to {NAME_MAX} of a-z, 0-9, '.', '_' and '-', not '.' first"
    )]
    BadName(String),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// No key can be made.
    #[error("this computer has no random bytes to give")]
    Random(#[from] getrandom::Error),
}

fn list(known: &[String]) -> String {
    match known {
        [] => "import an invitation first: cipherwall import LINK".to_owned(),
        names => format!("there is: {}", names.join(", ")),
    }
}

impl Profile {
    /// A profile for an invitation, with a new device key.
    ///
    /// # Errors
    /// The operating system has no random bytes to give.
    pub(crate) fn from_invitation(
        name: String,
        invitation: Invitation,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            name,
            endpoints: invitation.endpoints,
            user: invitation.user,
            salt: invitation.salt.into(),
            door_key: invitation.door_key.into(),
            enrol_secret: invitation.enrol_secret.into(),
            sni: invitation.sni,
            device_seed: Secret::random()?,
            prehash: None,
            keyring: false,
            last_good_addresses: Vec::new(),
        })
    }
}

/// A name for a profile, from the gateway's host name or address.
pub(crate) fn name_from_host(host: &str) -> String {
    let allowed = |c: char| if is_name_char(c) { c } else { '-' };
    let name: String = host.to_lowercase().chars().map(allowed).take(NAME_MAX).collect();
    match name.trim_matches(['-', '.']) {
        "" => "gateway".to_owned(),
        name => name.to_owned(),
    }
}

/// # Errors
/// The name is not fit for a file.
pub(crate) fn check_name(name: &str) -> Result<(), ProfileError> {
    let good = !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.starts_with('.')
        && name.chars().all(is_name_char);
    if good { Ok(()) } else { Err(ProfileError::BadName(name.to_owned())) }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-')
}

/// All profiles of one state directory.
#[derive(Debug, Clone)]
pub(crate) struct Profiles {
    dir: PathBuf,
}

impl Profiles {
    /// Looks at nothing yet.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("profiles") }
    }

    /// The names of all profiles, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn names(&self) -> Result<Vec<String>, ProfileError> {
        let failed = || FileError::io("read", &self.dir);
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed()(error).into()),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file_name = entry.map_err(failed())?.file_name();
            let name = file_name.to_str().and_then(|name| name.strip_suffix(".json"));
            names.extend(name.filter(|name| check_name(name).is_ok()).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// The profile to use: the one named, else the default one, else the only one.
    ///
    /// # Errors
    /// There is no such profile, or it cannot be read.
    pub(crate) fn choose(
        &self,
        named: Option<&str>,
        default: Option<&str>,
    ) -> Result<Profile, ProfileError> {
        if let Some(name) = named.or(default) {
            return self.load(name);
        }
        match self.names()?.as_slice() {
            [only] => self.load(only),
            known => Err(ProfileError::NotNamed { known: known.to_vec() }),
        }
    }

    /// # Errors
    /// There is no such profile, or it cannot be read.
    pub(crate) fn load(&self, name: &str) -> Result<Profile, ProfileError> {
        let path = self.path(name)?;
        match files::read_json(&path)? {
            // The file's name counts, so that a copied profile is one of its own.
            Some(profile) => Ok(Profile { name: name.to_owned(), ..profile }),
            None => Err(ProfileError::Missing { name: name.to_owned(), known: self.names()? }),
        }
    }

    /// # Errors
    /// The name is not fit for a file.
    pub(crate) fn exists(&self, name: &str) -> Result<bool, ProfileError> {
        Ok(self.path(name)?.exists())
    }

    /// Makes sure, before anything irreversible is done, that a profile can be saved.
    ///
    /// # Errors
    /// The directory cannot be made or is not writable.
    pub(crate) fn prepare(&self) -> Result<(), ProfileError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(FileError::io("create", &self.dir))?;
        let probe = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.dir);
        probe.map_err(FileError::io("write", &self.dir))?;
        Ok(())
    }

    /// Writes a profile, whether or not it exists.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn save(&self, profile: &Profile) -> Result<(), ProfileError> {
        self.prepare()?;
        let _lock = self.lock()?;
        Ok(files::write_json(&self.path(&profile.name)?, profile, 0o600)?)
    }

    /// Changes a profile as it is on disk now, so that two processes (the one that keeps the
    /// tunnel up, and `login`) do not undo each other's changes.
    ///
    /// # Errors
    /// The profile is gone, or cannot be read or written.
    pub(crate) fn update(
        &self,
        name: &str,
        change: impl FnOnce(&mut Profile),
    ) -> Result<(), ProfileError> {
        let _lock = self.lock()?;
        let mut profile = self.load(name)?;
        change(&mut profile);
        Ok(files::write_json(&self.path(name)?, &profile, 0o600)?)
    }

    /// Gives a profile another name.
    ///
    /// # Errors
    /// It is gone, the new name is taken or unfit, or the directory is not writable.
    pub(crate) fn rename(&self, name: &str, new_name: &str) -> Result<(), ProfileError> {
        let _lock = self.lock()?;
        let profile = self.load(name)?;
        if self.exists(new_name)? {
            return Err(ProfileError::Exists(new_name.to_owned()));
        }
        let renamed = Profile { name: new_name.to_owned(), ..profile };
        files::write_json(&self.path(new_name)?, &renamed, 0o600)?;
        self.rename_session(name, new_name)?;
        self.rename_memory(name, new_name)?;
        Ok(files::remove(&self.path(name)?)?)
    }

    /// Forgets a profile with its secrets, readable or not.
    ///
    /// # Errors
    /// There is none of this name, or the directory is not writable.
    pub(crate) fn remove(&self, name: &str) -> Result<(), ProfileError> {
        if !self.exists(name)? {
            return Err(ProfileError::Missing { name: name.to_owned(), known: self.names()? });
        }
        let _lock = self.lock()?;
        self.forget_session(name)?;
        self.forget_memory(name)?;
        Ok(files::remove(&self.path(name)?)?)
    }

    fn lock(&self) -> Result<File, ProfileError> {
        let lock = || -> io::Result<File> {
            let dir = File::open(&self.dir)?;
            flock(&dir, FlockOperation::LockExclusive)?;
            Ok(dir)
        };
        Ok(lock().map_err(FileError::io("lock", &self.dir))?)
    }

    fn path(&self, name: &str) -> Result<PathBuf, ProfileError> {
        check_name(name)?;
        Ok(self.dir.join(format!("{name}.json")))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use cipherwall_proto::invitation::Transport;
    use tempfile::TempDir;

    use super::*;

    pub(super) fn store() -> (TempDir, Profiles) {
        let dir = tempfile::tempdir().expect("a directory");
        let profiles = Profiles::new(&dir.path().join("state"));
        (dir, profiles)
    }

    pub(super) fn invitation() -> Invitation {
        let endpoint = Endpoint {
            host: "gw.example".into(),
            port: 8443,
            transport: Transport::Tls,
            pins: [[1; 32], [2; 32]],
        };
        Invitation {
            endpoints: vec![endpoint],
            user: "alice".into(),
            salt: [3; 16],
            door_key: [4; 32],
            enrol_secret: [5; 16],
            expires: 0,
            sni: vec!["www.example".into()],
        }
    }

    fn profile(name: &str) -> Profile {
        Profile::from_invitation(name.into(), invitation()).expect("random bytes")
    }

    #[test]
    fn what_is_saved_is_loaded_and_private() {
        let (dir, profiles) = store();
        let profile = profile("home");
        profiles.save(&profile).expect("saved");
        assert_eq!(profiles.load("home").expect("loaded"), profile);
        let mode = |path: &str| {
            let metadata = fs::metadata(dir.path().join(path)).expect("there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode("state/profiles"), 0o700);
        assert_eq!(mode("state/profiles/home.json"), 0o600);
    }

    #[test]
    fn an_update_keeps_what_others_wrote() {
        let (_dir, profiles) = store();
        profiles.save(&profile("home")).expect("saved");
        profiles.update("home", |profile| profile.prehash = Some([6; 32].into())).expect("done");
        let address: SocketAddr = ([192, 0, 2, 1], 8443).into();
        profiles.update("home", |profile| profile.last_good_addresses.push(address)).expect("done");
        let loaded = profiles.load("home").expect("loaded");
        assert_eq!(loaded.prehash, Some([6; 32].into()));
        assert_eq!(loaded.last_good_addresses, [address]);
    }

    #[test]
    fn the_profile_to_use_is_the_named_the_default_or_the_only_one() {
        let (_dir, profiles) = store();
        let error = profiles.choose(None, None).expect_err("none").to_string();
        assert!(error.contains("import LINK"), "{error}");
        profiles.save(&profile("b")).expect("saved");
        assert_eq!(profiles.choose(None, None).expect("the only one").name, "b");
        profiles.save(&profile("a")).expect("saved");
        let error = profiles.choose(None, None).expect_err("two").to_string();
        assert!(error.contains("there is: a, b"), "{error}");
        assert_eq!(profiles.choose(None, Some("b")).expect("default").name, "b");
        assert_eq!(profiles.choose(Some("a"), Some("b")).expect("named").name, "a");
        let error = profiles.choose(Some("c"), None).expect_err("unknown").to_string();
        assert!(error.contains("no profile \"c\"; there is: a, b"), "{error}");
    }

    #[test]
    fn a_profile_is_renamed_and_removed_whole() {
        let (dir, profiles) = store();
        profiles.save(&profile("home")).expect("saved");
        profiles.save(&profile("work")).expect("saved");
        assert!(matches!(profiles.rename("home", "work"), Err(ProfileError::Exists(_))));
        assert!(matches!(profiles.rename("gone", "new"), Err(ProfileError::Missing { .. })));
        profiles.rename("home", "cabin").expect("renamed");
        assert_eq!(profiles.names().expect("listed"), ["cabin", "work"]);
        assert_eq!(profiles.load("cabin").expect("loaded").name, "cabin");

        assert!(matches!(profiles.remove("home"), Err(ProfileError::Missing { .. })));
        profiles.remove("cabin").expect("removed");
        fs::write(dir.path().join("state/profiles/work.json"), "{").expect("damaged");
        profiles.remove("work").expect("removed though unreadable");
        let left = fs::read_dir(dir.path().join("state/profiles")).expect("listed").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn names_stay_within_the_directory() {
        let (_dir, profiles) = store();
        for bad in ["", "..", "../x", "a/b", ".hidden", "Über", &"a".repeat(65)] {
            assert!(matches!(profiles.load(bad), Err(ProfileError::BadName(_))), "{bad:?}");
        }
        for (host, name) in [
            ("GW.Example.org", "gw.example.org"),
            ("2001:db8::1", "2001-db8--1"),
            ("::1", "1"),
            ("..", "gateway"),
            ("bücher.example", "b-cher.example"),
        ] {
            assert_eq!(name_from_host(host), name);
            check_name(&name_from_host(host)).expect("a good name");
        }
        check_name(&name_from_host(&"a".repeat(300))).expect("a good name");
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", profile("home"));
        assert!(shown.contains("gw.example"), "{shown}");
        assert!(shown.contains("device_seed: Secret(..)"), "{shown}");
        assert!(!shown.contains("4, 4, 4"), "{shown}");
    }
}
