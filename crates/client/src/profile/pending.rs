//! Imports whose end is not known: the gateway may have accepted the device while its answer was
//! lost, or this program ended before it came. The invitation is then good for this device's key
//! only, so that the key is kept before the gateway hears of it, and used again when the same
//! invitation is imported again.

use std::fmt::Write;
use std::path::PathBuf;

use cipherwall_proto::invitation::Invitation;
use sha2::{Digest, Sha256};

use super::{Profile, ProfileError, Profiles};
use crate::files::{self, FileError};

/// An import that has begun.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The profile that it is to become.
    pub(crate) profile: Profile,
    /// Whether an earlier import of this invitation had begun already.
    pub(crate) resumed: bool,
    path: PathBuf,
}

impl Profiles {
    /// Keeps a profile for this invitation on disk, apart from the others, with the device key of
    /// an earlier attempt if there was one.
    ///
    /// # Errors
    /// It cannot be read or written, or there are no random bytes.
    pub(crate) fn begin_import(
        &self,
        name: String,
        invitation: Invitation,
    ) -> Result<Pending, ProfileError> {
        self.prepare()?;
        let _lock = self.lock()?;
        let path = self.dir.join(file_name(&invitation.enrol_secret));
        let mut profile = Profile::from_invitation(name, invitation)?;
        let earlier: Option<Profile> = files::read_json(&path)?;
        let resumed = earlier.is_some();
        if let Some(earlier) = earlier {
            profile.device_seed = earlier.device_seed;
        } else {
            files::write_json(&path, &profile, 0o600)?;
        }
        Ok(Pending { profile, resumed, path })
    }
}

impl Pending {
    /// The import has come to an end, one way or the other.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn forget(&self) -> Result<(), FileError> {
        files::remove(&self.path)
    }
}

/// Not a profile's, because of the dot; and without the invitation's secret in it.
fn file_name(enrol_secret: &[u8; 16]) -> String {
    let mut name = ".pending-".to_owned();
    for byte in &Sha256::digest(enrol_secret)[..16] {
        // writing to a string does not fail
        let _ = write!(name, "{byte:02x}");
    }
    name + ".json"
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::{invitation, store};
    use super::*;

    #[test]
    fn a_second_attempt_uses_the_first_ones_device_key() {
        let (_dir, profiles) = store();
        let first = profiles.begin_import("home".into(), invitation()).expect("begun");
        assert!(!first.resumed);
        let mode = fs::metadata(&first.path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(profiles.names().expect("listed"), Vec::<String>::new());

        let second = profiles.begin_import("work".into(), invitation()).expect("begun");
        assert!(second.resumed);
        assert_eq!(second.profile.device_seed, first.profile.device_seed);
        assert_eq!(second.profile.name, "work");

        second.forget().expect("removed");
        let third = profiles.begin_import("home".into(), invitation()).expect("begun");
        assert!(!third.resumed);
        assert_ne!(third.profile.device_seed, first.profile.device_seed);
    }

    #[test]
    fn invitations_do_not_share_a_key() {
        let (_dir, profiles) = store();
        let first = profiles.begin_import("home".into(), invitation()).expect("begun");
        let other = Invitation { enrol_secret: [9; 16], ..invitation() };
        let other = profiles.begin_import("home".into(), other).expect("begun");
        assert!(!other.resumed);
        assert_ne!(other.profile.device_seed, first.profile.device_seed);
    }
}
