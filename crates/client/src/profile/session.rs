//! The session of a profile, kept to go on with it (A4): one file beside the profile's, so that a
//! resume does not have to write the profile anew.

use std::path::PathBuf;

use cipherwall_proto::{
    VERSION,
    cipher::{CipherId, DatagramCipher},
    client::Resumable,
    invitation::Endpoint,
    message::Welcome,
};
use serde::{Deserialize, Serialize};

use super::{ProfileError, Profiles, check_name};
use crate::files;
use crate::secret::Secret;

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Whose session it is.
    pub(crate) user: String,
    /// The latest token.
    pub(crate) token: Secret<16>,
    id: Secret<16>,
    version: u8,
    cipher: u8,
    /// Of its datagrams, if it had any.
    #[serde(default)]
    datagram: Option<u8>,
    /// Over which the token came. Other gateways of the profile do not know it.
    #[serde(default)]
    endpoint: Option<Endpoint>,
}

impl Session {
    /// The session that this welcome, which came over this endpoint, begins or goes on with.
    pub(crate) fn new(user: &str, welcome: &Welcome, endpoint: &Endpoint) -> Self {
        Self {
            user: user.to_owned(),
            token: welcome.token.into_array().into(),
            id: welcome.session_id.into_array().into(),
            version: welcome.version,
            cipher: welcome.cipher,
            datagram: welcome.datagram.as_ref().map(|offer| offer.cipher),
            endpoint: Some(endpoint.clone()),
        }
    }

    /// Whether the gateway at this endpoint gave its token. A gateway may have changed one of its two
    /// keys since (A15); of old files it is not known, and this one may have.
    pub(crate) fn is_of(&self, endpoint: &Endpoint) -> bool {
        let is_shared = |known: &Endpoint| known.pins.iter().any(|pin| endpoint.pins.contains(pin));
        self.endpoint.as_ref().is_none_or(is_shared)
    }

    /// The cipher of its datagrams, if it had any.
    pub(crate) fn datagram_cipher(&self) -> Option<DatagramCipher> {
        self.datagram.and_then(DatagramCipher::from_wire)
    }

    /// What the protocol needs of it; `None` if this program does not speak its version, or not
    /// its cipher.
    pub(crate) fn resumable(&self) -> Option<Resumable> {
        (self.version == VERSION).then_some(Resumable {
            token: *self.token,
            session_id: *self.id,
            version: self.version,
            cipher: CipherId::from_wire(self.cipher)?,
        })
    }
}

impl Profiles {
    /// The session kept for a profile, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn session(&self, name: &str) -> Result<Option<Session>, ProfileError> {
        Ok(files::read_json(&self.session_path(name)?)?)
    }

    /// Keeps a session for a profile; once this has returned, it outlives a power cut.
    ///
    /// # Errors
    /// The profile is gone, or the directory is not writable.
    pub(crate) fn save_session(&self, name: &str, session: &Session) -> Result<(), ProfileError> {
        let _lock = self.lock()?;
        if !self.exists(name)? {
            return Err(ProfileError::Missing { name: name.to_owned(), known: self.names()? });
        }
        Ok(files::write_json(&self.session_path(name)?, session, 0o600)?)
    }

    /// Forgets a profile's session, if there is one.
    ///
    /// # Errors
    /// The directory is not writable.
    pub(crate) fn forget_session(&self, name: &str) -> Result<(), ProfileError> {
        let path = self.session_path(name)?;
        if path.exists() {
            files::remove(&path)?;
        }
        Ok(())
    }

    /// Moves a profile's session along with it, within the lock.
    pub(super) fn rename_session(&self, name: &str, new_name: &str) -> Result<(), ProfileError> {
        if let Some(session) = self.session(name)? {
            files::write_json(&self.session_path(new_name)?, &session, 0o600)?;
        }
        self.forget_session(name)
    }

    fn session_path(&self, name: &str) -> Result<PathBuf, ProfileError> {
        check_name(name)?;
        Ok(self.dir.join(format!("{name}.session")))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::Profile;
    use super::super::tests::{invitation, store};
    use super::*;

    fn session(token: u8) -> Session {
        Session {
            user: "alice".into(),
            token: [token; 16].into(),
            id: [2; 16].into(),
            version: VERSION,
            cipher: 1,
            datagram: None,
            endpoint: None,
        }
    }

    #[test]
    fn a_session_is_private_and_goes_with_its_profile() {
        let (dir, profiles) = store();
        let profile = Profile::from_invitation("home".into(), invitation()).expect("random bytes");
        profiles.save(&profile).expect("saved");
        assert_eq!(profiles.session("home").expect("none yet"), None);
        for token in [3, 4] {
            profiles.save_session("home", &session(token)).expect("saved");
            assert_eq!(profiles.session("home").expect("read"), Some(session(token)));
        }
        let path = dir.path().join("state/profiles/home.session");
        let mode = fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(profiles.names().expect("listed"), ["home"], "no profile of its own");

        profiles.rename("home", "cabin").expect("renamed");
        assert_eq!(profiles.session("cabin").expect("read"), Some(session(4)));
        assert_eq!(profiles.session("home").expect("gone"), None);
        profiles.remove("cabin").expect("removed");
        let left = fs::read_dir(dir.path().join("state/profiles")).expect("listed").count();
        assert_eq!(left, 0);
        let error = profiles.save_session("cabin", &session(5)).expect_err("no profile");
        assert!(matches!(error, ProfileError::Missing { .. }), "{error}");
    }

    #[test]
    fn a_token_is_of_the_gateway_that_gave_it_also_when_one_of_its_keys_is_another() {
        let mut endpoint = invitation().endpoints.remove(0);
        let session =
            |endpoint: &Endpoint| Session { endpoint: Some(endpoint.clone()), ..session(1) };
        let first = session(&endpoint);
        assert!(first.is_of(&endpoint));
        (endpoint.host, endpoint.pins) = ("other.example".into(), [[2; 32], [3; 32]]);
        assert!(first.is_of(&endpoint));
        endpoint.pins = [[3; 32], [4; 32]];
        assert!(!first.is_of(&endpoint));
        let old = Session { endpoint: None, ..first };
        assert!(old.is_of(&endpoint));
    }

    #[test]
    fn what_this_program_does_not_speak_is_not_resumed() {
        assert!(session(1).resumable().is_some());
        assert!(Session { version: VERSION + 1, ..session(1) }.resumable().is_none());
        assert!(Session { cipher: 99, ..session(1) }.resumable().is_none());
    }
}
