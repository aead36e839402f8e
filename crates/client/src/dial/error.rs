//! Why there is no connection, and what follows from that.

use std::{io, net::SocketAddr, time::Duration};

use cipherwall_cli::exit;
use cipherwall_proto::{
    client::OpeningError,
    message::{RefusalCode, Refused},
};
use cipherwall_transport::tls::TlsError;

/// No gateway is that busy.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Why the gateway was not reached or did not accept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The gateway's name has no address.
    #[error(
        "cannot find the address of {host}: {cause}; check this computer's internet connection \
         and DNS"
    )]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// No address accepted a connection.
    #[error(
        "cannot reach the gateway at {address}: {cause}; check this computer's internet \
         connection, and that the gateway is running and its port open"
    )]
    Unreachable {
        /// The last address tried.
        address: SocketAddr,
        /// Why it failed.
        cause: io::Error,
    },
    /// The key is not the gateway's.
    #[error(
        "{address} holds another key than this gateway's: somebody intercepts the connection, or \
         the gateway was set up anew; nothing was sent to it. If it was set up anew, ask its owner \
         for a new invitation"
    )]
    WrongPin {
        /// The address.
        address: SocketAddr,
    },
    /// The TLS handshake failed.
    #[error("no encrypted connection to {address}: {cause}; something on the way may alter it")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        cause: TlsError,
    },
    /// The gateway answered as it should not.
    #[error("the gateway at {address}: {cause}")]
    Opening {
        /// The address.
        address: SocketAddr,
        /// What was wrong.
        cause: OpeningError,
    },
    /// The gateway closed the connection, or did not answer in time.
    #[error(
        "the gateway at {address} did not answer; try again, and look into its log. If that does \
         not help, it may not know this invitation any more: ask for a new one"
    )]
    NoAnswer {
        /// The address.
        address: SocketAddr,
    },
    /// There is a password, but it is not here.
    #[error(
        "the password of {user} is in the keyring of the person who logged in: connect as that \
         person, or log in anew: sudo cipherwall login {user}"
    )]
    NoPassword {
        /// The user.
        user: String,
    },
    /// The gateway said no; if there are several, the one that gave the session, or all of them.
    #[error(transparent)]
    Refused(Refused),
    /// One of several gateways said no, and the others cannot be asked.
    #[error("the gateway {gateway}: {refused}; no other gateway of this profile can be asked now")]
    OneRefused {
        /// Which one.
        gateway: String,
        /// What it said.
        refused: Refused,
    },
}

impl DialError {
    /// The exit code of a command that failed with this.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            DialError::Resolve { .. }
            | DialError::Unreachable { .. }
            | DialError::NoAnswer { .. } => exit::NOT_REACHABLE,
            DialError::Refused(refused) | DialError::OneRefused { refused, .. }
                if is_final(refused.code) =>
            {
                exit::REJECTED
            }
            DialError::WrongPin { .. }
            | DialError::Tls { .. }
            | DialError::Opening { .. }
            | DialError::NoPassword { .. }
            | DialError::OneRefused { .. }
            | DialError::Refused(_) => exit::FAILED,
        }
    }

    /// Whether trying again makes no sense before somebody does something.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            DialError::Refused(refused) => {
                is_final(refused.code) || refused.code == RefusalCode::Version
            }
            DialError::NoPassword { .. } => true,
            DialError::Resolve { .. }
            | DialError::Unreachable { .. }
            | DialError::WrongPin { .. }
            | DialError::Tls { .. }
            | DialError::Opening { .. }
            | DialError::OneRefused { .. }
            | DialError::NoAnswer { .. } => false,
        }
    }

    /// Whether the gateway may have done what it was asked for without our knowing.
    pub(crate) fn is_lost_answer(&self) -> bool {
        match self {
            DialError::NoAnswer { .. } | DialError::Tls { .. } => true,
            // it answered, but as somebody who does not know this invitation
            DialError::Opening { .. }
            | DialError::Resolve { .. }
            | DialError::Unreachable { .. }
            | DialError::WrongPin { .. }
            | DialError::NoPassword { .. }
            | DialError::OneRefused { .. }
            | DialError::Refused(_) => false,
        }
    }

    /// How long the gateway wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let (DialError::Refused(refused) | DialError::OneRefused { refused, .. }) = self else {
            return None;
        };
        refused.retry_after.map(|seconds| Duration::from_secs(seconds.into()).min(RETRY_AFTER_MAX))
    }
}

fn is_final(code: RefusalCode) -> bool {
    match code {
        RefusalCode::Rejected
        | RefusalCode::Expired
        | RefusalCode::Revoked
        | RefusalCode::Superseded
        | RefusalCode::Used => true,
        RefusalCode::Busy | RefusalCode::Full | RefusalCode::Version | RefusalCode::Unknown => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: RefusalCode) -> DialError {
        DialError::Refused(Refused::new(code))
    }

    #[test]
    fn another_protocol_version_is_final_and_says_which_side_to_update() {
        for (versions, side) in [((2, 3), "update this program"), ((0, 0), "update the gateway")] {
            let refused =
                Refused { versions: Some(versions), ..Refused::new(RefusalCode::Version) };
            let error = DialError::Refused(refused);
            assert!(error.is_final());
            assert_eq!(error.exit_code(), exit::FAILED);
            assert!(error.to_string().ends_with(side), "{error}");
        }
    }

    #[test]
    fn a_busy_gateway_is_no_rejection_and_says_when_to_come_back() {
        let busy = Refused { retry_after: Some(40), ..Refused::new(RefusalCode::Busy) };
        let error = DialError::Refused(busy);
        assert!(!error.is_final());
        assert_eq!(error.exit_code(), exit::FAILED);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(40)));
        assert!(error.to_string().contains("busy; try again in 40 seconds"), "{error}");
        let endless = Refused { retry_after: Some(u32::MAX), ..Refused::new(RefusalCode::Busy) };
        assert_eq!(DialError::Refused(endless).retry_after(), Some(RETRY_AFTER_MAX));
        assert_eq!(refused(RefusalCode::Full).retry_after(), None);
    }

    #[test]
    fn a_rejected_device_is_final_with_its_own_exit_code() {
        for code in
            [RefusalCode::Rejected, RefusalCode::Expired, RefusalCode::Revoked, RefusalCode::Used]
        {
            assert!(refused(code).is_final());
            assert_eq!(refused(code).exit_code(), exit::REJECTED);
        }
    }
}
