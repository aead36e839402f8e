//! Exit codes of the errors that commands share.

use std::path::Path;

use cipherwall_cli::{Failure, exit};
use cipherwall_ipc::{BindError, ConnectError};
use cipherwall_static_mode::KeyFileError;

use crate::config::ConfigError;
use crate::identity::IdentityError;
use crate::store::StoreError;

/// Gives an error its exit code.
pub(super) trait WithCode {
    /// Whether the caller lacks rights.
    fn is_not_permitted(&self) -> bool;
}

/// For `map_err`: the error's whole message, with its exit code.
pub(super) fn coded<E>(error: E) -> anyhow::Error
where
    E: WithCode + std::error::Error + Send + Sync + 'static,
{
    let not_permitted = error.is_not_permitted();
    let message = format!("{:#}", anyhow::Error::new(error));
    let code = if not_permitted { exit::NOT_PERMITTED } else { exit::FAILED };
    Failure::new(code, message).into()
}

/// For `map_err` of a file operation.
pub(super) fn coded_io(doing: &str, path: &Path) -> impl FnOnce(std::io::Error) -> anyhow::Error {
    let what = format!("cannot {doing} {}", path.display());
    move |error| {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return Failure::not_permitted(format!("{what}: {error}; run it with sudo")).into();
        }
        Failure::failed(format!("{what}: {error}")).into()
    }
}

impl WithCode for ConfigError {
    fn is_not_permitted(&self) -> bool {
        self.is_not_permitted()
    }
}

impl WithCode for IdentityError {
    fn is_not_permitted(&self) -> bool {
        self.is_not_permitted()
    }
}

impl WithCode for StoreError {
    fn is_not_permitted(&self) -> bool {
        self.is_not_permitted()
    }
}

impl WithCode for ConnectError {
    fn is_not_permitted(&self) -> bool {
        matches!(self, ConnectError::NotPermitted(_))
    }
}

impl WithCode for BindError {
    fn is_not_permitted(&self) -> bool {
        matches!(self, BindError::NotPermitted(_))
    }
}

impl WithCode for cipherwall_netcfg::Error {
    fn is_not_permitted(&self) -> bool {
        matches!(self, Self::NotPermitted { .. })
    }
}

impl WithCode for KeyFileError {
    fn is_not_permitted(&self) -> bool {
        self.is_not_permitted()
    }
}
