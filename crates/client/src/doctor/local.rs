//! What is left on this host by a process that died, and keeps it from the network.

use std::path::Path;

use cipherwall_netcfg::Host;

use super::finding::{Cause, Finding};
use crate::engine::Lockdown;

/// One kind of thing that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// The packet policy.
    Policy,
    /// Addresses, routes, DNS.
    Settings,
    /// The policy, on purpose.
    Lockdown,
}

impl Leftover {
    /// What is there while no process runs that could use it.
    pub(crate) fn all(host: &Host, state_dir: &Path) -> Vec<Leftover> {
        let lockdown = Lockdown::load(state_dir).is_on();
        let policy = host.is_protected() && !lockdown;
        let kinds = [
            (lockdown, Leftover::Lockdown),
            (policy, Leftover::Policy),
            (host.has_leftovers(), Leftover::Settings),
        ];
        kinds.into_iter().filter(|(is_there, _)| *is_there).map(|(_, kind)| kind).collect()
    }

    /// For people.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Leftover::Policy => "a process that died still blocks the network, as it should",
            Leftover::Settings => "a process that died has left its network settings",
            Leftover::Lockdown => "lockdown is on, and nothing runs that could connect",
        }
    }
}

/// All of them, for people.
pub(super) fn describe(leftovers: &[Leftover]) -> String {
    leftovers.iter().map(|kind| kind.describe()).collect::<Vec<_>>().join("; ")
}

pub(super) fn finding(leftovers: &[Leftover]) -> Option<Finding> {
    if leftovers.is_empty() {
        return None;
    }
    let finding = Finding::new(Cause::Leftovers, describe(leftovers));
    let lockdown = "sudo systemctl start cipherwall, then connect; to be without protection: sudo \
                    cipherwall lockdown off";
    Some(match leftovers.contains(&Leftover::Lockdown) {
        true => finding.with_remedy(lockdown),
        false => finding,
    })
}
