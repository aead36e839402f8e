//! Where the programs keep their files.

use std::path::{Path, PathBuf};

const CONFIG_DIR: &str = "/etc/cipherwall";
const STATE_DIR: &str = "/var/lib/cipherwall";
const RUN_DIR: &str = "/run/cipherwall";

/// The files and directories of one instance, all absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `/etc/cipherwall/server.yaml` or `client.json`.
    pub config_path: PathBuf,
    /// `/var/lib/cipherwall`: data base, keys, profiles, journal.
    pub state_dir: PathBuf,
    /// `/run/cipherwall`: sockets.
    pub run_dir: PathBuf,
}

impl Paths {
    /// The gateway's paths. `state_dir` moves all of them, `config` only the configuration.
    pub fn server(state_dir: Option<&Path>, config: Option<&Path>) -> Self {
        Self::new("server.yaml", state_dir, config)
    }

    /// The client's paths. `state_dir` moves all of them, `config` only the configuration.
    pub fn client(state_dir: Option<&Path>, config: Option<&Path>) -> Self {
        Self::new("client.json", state_dir, config)
    }

    fn new(config_name: &str, state_dir: Option<&Path>, config: Option<&Path>) -> Self {
        let dir = |default: &str| state_dir.map_or_else(|| PathBuf::from(default), absolute);
        Self {
            config_path: config.map_or_else(|| dir(CONFIG_DIR).join(config_name), absolute),
            state_dir: dir(STATE_DIR),
            run_dir: dir(RUN_DIR),
        }
    }
}

/// Only an empty path or a vanished working directory has no absolute form; opening the path
/// as given then tells the reason.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_the_file_system_standard() {
        let paths = Paths::server(None, None);
        assert_eq!(paths.config_path, Path::new("/etc/cipherwall/server.yaml"));
        assert_eq!(paths.state_dir, Path::new("/var/lib/cipherwall"));
        assert_eq!(paths.run_dir, Path::new("/run/cipherwall"));
        let client = Paths::client(None, None);
        assert_eq!(client.config_path, Path::new("/etc/cipherwall/client.json"));
    }

    #[test]
    fn the_state_dir_moves_everything_and_config_wins() {
        let paths = Paths::client(Some(Path::new("/tmp/a")), None);
        assert_eq!(paths.config_path, Path::new("/tmp/a/client.json"));
        assert_eq!(paths.state_dir, Path::new("/tmp/a"));
        assert_eq!(paths.run_dir, Path::new("/tmp/a"));

        let paths = Paths::server(Some(Path::new("/tmp/a")), Some(Path::new("/srv/b.yaml")));
        assert_eq!(paths.config_path, Path::new("/srv/b.yaml"));
        assert_eq!(paths.state_dir, Path::new("/tmp/a"));
    }

    #[test]
    fn relative_paths_become_absolute() {
        assert!(Paths::client(Some(Path::new("lab")), None).state_dir.is_absolute());
    }
}
