//! NetworkManager, where it writes the resolver file: it leaves the file alone while we are
//! connected, and writes what is right for the network of then when we are not any more.
//!
//! The note is in its directory for settings that do not outlive a reboot.

use std::{fs, io, os::unix::fs::DirBuilderExt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    linux::{change::Undone, command},
};

const RUN_DIR: &str = "/run/NetworkManager";
const CONF_DIR: &str = "/run/NetworkManager/conf.d";
const CONF_PATH: &str = "/run/NetworkManager/conf.d/cipherwall.conf";
const CONF: &str = "# By CipherWall while it is connected.\n[main]\nrc-manager=unmanaged\n";

/// NetworkManager leaves the resolver file alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::linux) struct NetworkManager {
    /// The program that controls it, `nmcli`.
    pub program: PathBuf,
    /// Its directory for such notes is not there.
    pub new_dir: bool,
}

impl NetworkManager {
    /// `None` where it does not run.
    pub(super) async fn running() -> Option<NetworkManager> {
        // asked only where it has run since boot, in this namespace
        let program = command::find("nmcli").filter(|_| fs::metadata(RUN_DIR).is_ok())?;
        let manager = NetworkManager { program, new_dir: fs::metadata(CONF_DIR).is_err() };
        manager.runs().await.then_some(manager)
    }

    pub(in crate::linux) fn in_place() -> bool {
        fs::read(CONF_PATH).is_ok_and(|text| text == CONF.as_bytes())
    }

    pub(in crate::linux) async fn make(&self) -> Result<(), Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(CONF_DIR)
            .and_then(|()| fs::write(CONF_PATH, CONF))
            .map_err(|error| failed("write", error))?;
        self.reload("tell NetworkManager to leave the resolver file alone").await
    }

    /// Told again even where the note is gone: we may have been cut off in between.
    pub(in crate::linux) async fn undo(&self) -> Result<Undone, Error> {
        let removed = match fs::remove_file(CONF_PATH) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed("remove", error)),
        };
        if self.new_dir {
            // another program may have put something there
            fs::remove_dir(CONF_DIR).ok();
        }
        if self.runs().await {
            self.reload("give the resolver file back to NetworkManager").await?;
        }
        if !removed {
            return Ok(Undone::Nothing);
        }
        Ok(Undone::Done("NetworkManager writes the resolver file again".into()))
    }

    async fn runs(&self) -> bool {
        let args = ["--terse", "--fields", "RUNNING", "general"];
        let said = command::run("ask for NetworkManager", &self.program, &args, "").await;
        said.is_ok_and(|said| said.trim() == "running")
    }

    async fn reload(&self, what: &str) -> Result<(), Error> {
        command::run(what, &self.program, &["general", "reload", "conf"], "").await.map(drop)
    }
}

fn failed(what: &'static str, source: io::Error) -> Error {
    Error::ResolverFile { what, path: CONF_PATH.into(), source }
}
