//! Exit codes of the errors that commands share.

use cipherwall_cli::{Failure, exit};
use cipherwall_ipc::{BindError, ConnectError};
use cipherwall_static_mode::{KeyFileError, StateFileError};

use crate::dial::DialError;
use crate::files::FileError;
use crate::profile::ProfileError;

/// An error that knows its exit code.
pub(crate) trait WithCode {
    /// One of [`exit`].
    fn code(&self) -> u8;
}

/// For `map_err`: the error's whole message, with its exit code.
pub(crate) fn coded<E>(error: E) -> anyhow::Error
where
    E: WithCode + std::error::Error + Send + Sync + 'static,
{
    let code = error.code();
    Failure::new(code, format!("{:#}", anyhow::Error::new(error))).into()
}

impl WithCode for FileError {
    fn code(&self) -> u8 {
        match self {
            FileError::NotPermitted { .. } => exit::NOT_PERMITTED,
            FileError::Io { .. } | FileError::Content { .. } => exit::FAILED,
        }
    }
}

impl WithCode for ProfileError {
    fn code(&self) -> u8 {
        match self {
            ProfileError::BadName(_) => exit::USAGE,
            ProfileError::Missing { .. }
            | ProfileError::Exists(_)
            | ProfileError::NotNamed { .. }
            | ProfileError::Random(_) => exit::FAILED,
            ProfileError::File(error) => error.code(),
        }
    }
}

impl WithCode for ConnectError {
    fn code(&self) -> u8 {
        match self {
            ConnectError::NotRunning(_) => exit::NOT_REACHABLE,
            ConnectError::NotPermitted(_) => exit::NOT_PERMITTED,
            ConnectError::Io { .. } => exit::FAILED,
        }
    }
}

impl WithCode for BindError {
    fn code(&self) -> u8 {
        match self {
            BindError::NotPermitted(_) => exit::NOT_PERMITTED,
            BindError::InUse(_) | BindError::Io { .. } => exit::FAILED,
        }
    }
}

impl WithCode for cipherwall_netcfg::Error {
    fn code(&self) -> u8 {
        if matches!(self, Self::NotPermitted { .. }) { exit::NOT_PERMITTED } else { exit::FAILED }
    }
}

impl WithCode for DialError {
    fn code(&self) -> u8 {
        self.exit_code()
    }
}

impl WithCode for KeyFileError {
    fn code(&self) -> u8 {
        if self.is_not_permitted() { exit::NOT_PERMITTED } else { exit::FAILED }
    }
}

impl WithCode for StateFileError {
    fn code(&self) -> u8 {
        exit::FAILED
    }
}
