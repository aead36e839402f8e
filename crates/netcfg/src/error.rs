//! What can go wrong, where, and what to do about it.

use std::{io, path::PathBuf};

use ipnet::IpNet;

/// An error of the host settings. [`Error::NotPermitted`] stands apart so that programs can exit
/// with their own code for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process lacks the rights.
    #[error("{what}: not permitted; run this as root")]
    NotPermitted {
        /// What was to be done.
        what: String,
    },
    /// Another process holds the journal.
    #[error(
        "another instance{}{} is using {}; stop it first",
        if pid.is_some() { ", pid " } else { "" },
        pid.map(|pid| pid.to_string()).unwrap_or_default(),
        state_dir.display()
    )]
    InUse {
        /// The process that holds it, where it is known.
        pid: Option<u32>,
        /// The state directory that it uses.
        state_dir: PathBuf,
    },
    /// The journal, without which nothing is changed, cannot be used.
    #[error("{what} {}: {source}; nothing was changed without it, check the disk and the directory's rights", path.display())]
    Journal {
        /// What was to be done.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// [`crate::Host`] was opened for the other side.
    #[error(
        "the wanted settings are not those of the {role} that these host settings were opened for"
    )]
    WrongRole {
        /// The side it was opened for.
        role: &'static str,
    },
    /// The TUN device is not there.
    #[error("there is no network interface {interface:?}; create the TUN device first")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// An inside network overlaps with one the gateway uses itself.
    #[error(
        "the inside network {network} overlaps with {address} on {interface}; \
         choose another address pool in the configuration"
    )]
    NetworkInUse {
        /// The inside network.
        network: IpNet,
        /// The address in use.
        address: IpNet,
        /// The interface that has it.
        interface: String,
    },
    /// A program is missing that is needed.
    #[error("the program `{program}` is missing, {why}; install it: apt-get install {package}")]
    ProgramMissing {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
        /// What for.
        why: String,
    },
    /// A program failed.
    #[error("{what}: `{program}` failed: {detail}")]
    Program {
        /// What was to be done.
        what: String,
        /// The program.
        program: String,
        /// What it said.
        detail: String,
    },
    /// A kernel setting cannot be changed.
    #[error("cannot set {key} to {value}: {source}{}", sysctl_remedy(key, value, source))]
    Sysctl {
        /// Its name as `sysctl` writes it.
        key: String,
        /// The value wanted.
        value: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused a change of link, address, route or rule.
    #[error("cannot {what}: {detail}")]
    Netlink {
        /// What was to be done.
        what: String,
        /// What the kernel said.
        detail: String,
    },
    /// The resolver file cannot be changed.
    #[error("cannot {what} {}: {source}; check that the file is not write-protected (lsattr) and the file system is not read-only", path.display())]
    ResolverFile {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn sysctl_remedy(key: &str, value: &str, source: &io::Error) -> String {
    if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
        return format!(
            "; in a container, set it from outside: podman or docker run --sysctl {key}={value}"
        );
    }
    String::new()
}
