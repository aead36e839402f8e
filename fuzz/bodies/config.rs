//! The gateway's `server.yaml`: written by its owner, so that it must be explained, not survived.

use std::path::Path;

use crate::config::{Config, ConfigError, template};

/// The text of the file.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new("server.yaml");
    match Config::parse(path, text) {
        Ok(config) => {
            // a second `init` with the same endpoint changes nothing
            let same = template::updated(path, text, &config.endpoint, config.uplink.as_deref());
            assert_eq!(same.ok().as_deref(), Some(text));
        }
        Err(ConfigError::Wrong { line, message, .. }) => {
            assert!(line >= 1 && !message.is_empty());
        }
        Err(error @ (ConfigError::Missing { .. } | ConfigError::Unreadable { .. })) => {
            panic!("there is no file to read: {error}");
        }
    }
}
