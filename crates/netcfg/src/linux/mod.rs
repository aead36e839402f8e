//! Linux: rtnetlink for links, addresses, routes and rules; `nft` for packet filter and NAT;
//! `/proc/sys`; systemd-resolved or the resolver file for DNS.

mod change;
mod client;
mod command;
mod dns;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gateway;
mod guard;
mod netlink;
mod nft;
mod plan;
mod policy;
mod sysctl;
#[cfg(test)]
mod tests;
mod uplink;
mod watch;

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt, path::Path};

use rustix::thread::{CapabilitySet, capabilities};

use self::{
    change::{Change, Undone},
    netlink::Netlink,
    plan::Plan,
    policy::InForce,
};
pub use guard::Guard;
pub use uplink::has_ipv6_uplink;
pub use watch::{NetworkPath, NetworkWatch};

use crate::{
    Error, Report, Role, Wanted,
    journal::{Journal, Left, Origin},
};

/// The settings of this host for one role, held by one process at a time.
#[derive(Debug)]
pub struct Host {
    role: Role,
    journal: Journal<Change>,
    netlink: Netlink,
    /// What a dead process left and nobody undid yet.
    left: Option<Left>,
    /// The client's packet policy, which outlives the rest.
    in_force: Option<InForce>,
    /// Called after each step; tests end the process in it.
    after: fn(Step),
}

/// A moment at which the process may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Journaled,
    Made,
    Undone,
}

impl Host {
    /// Takes the lock and reads the journal in `state_dir`; changes nothing on the host. The lock is
    /// held until the `Host` is dropped. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process holds the lock, [`Error::NotPermitted`] or
    /// [`Error::Journal`] when the journal cannot be used.
    #[expect(clippy::unused_async, reason = "opening needs a runtime to run in")]
    pub async fn open(state_dir: &Path, role: Role) -> Result<Host, Error> {
        Host::open_with(state_dir, role, |_| {})
    }

    fn open_with(state_dir: &Path, role: Role, after: fn(Step)) -> Result<Host, Error> {
        let name = match role {
            Role::Client => "netcfg-client",
            Role::Gateway => "netcfg-gateway",
        };
        let (journal, left) = Journal::open(state_dir, name, origin())?;
        let in_force = match role {
            Role::Client => Some(InForce::open(state_dir)?),
            Role::Gateway => None,
        };
        let left = (!journal.changes().is_empty() || left.unreadable > 0).then_some(left);
        Ok(Host { role, journal, netlink: Netlink::open()?, left, in_force, after })
    }

    /// Whether a process that was killed has left something other than the packet policy
    /// ([`Host::is_protected`]), which nobody has undone yet.
    #[must_use]
    pub fn has_leftovers(&self) -> bool {
        self.left.is_some()
    }

    /// Undoes what a process left that was killed. Does nothing where everything was undone. The
    /// packet policy stays, as the report says.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; [`Error::Journal`]. Other things that cannot be undone are warnings
    /// of the report and stay in the journal, for the next try.
    pub async fn recover(&mut self) -> Result<Report, Error> {
        self.recover_but(|_| false).await
    }

    /// As [`Host::recover`] before an [`Host::apply`] that follows at once: packet filter and NAT
    /// stay until then. Without NAT, the kernel would answer packets of the clients' connections
    /// with a reset.
    ///
    /// # Errors
    /// As [`Host::recover`].
    pub async fn recover_for_restart(&mut self) -> Result<Report, Error> {
        self.recover_but(|change| matches!(change, Change::Table(_))).await
    }

    async fn recover_but(&mut self, stays: fn(&Change) -> bool) -> Result<Report, Error> {
        let mut report = Report::default();
        if let Some(in_force) = &mut self.in_force {
            in_force.recover(&mut report)?;
        }
        let Some(left) = self.left.take() else { return Ok(report) };
        if left.unreadable > 0 {
            report.warnings.push(format!(
                "{} entries of the journal are damaged and could not be undone; compare the host's \
                 settings with docs/network-changes.md",
                left.unreadable
            ));
        }
        let mut changes = self.journal.changes().to_vec();
        let mut kept = Vec::new();
        if left.elsewhere {
            changes.retain(Change::survives_reboot);
        } else {
            (kept, changes) = changes.into_iter().partition(stays);
        }
        let remaining = self.undo(&changes, &mut report).await;
        self.journal.replace([kept, remaining.changes].concat())?;
        remaining.denied.map_or(Ok(report), Err)
    }

    /// Makes the host as wanted. May be called again with the same state, which repairs what
    /// others changed, or with another one. Undoes first what a killed process left.
    ///
    /// The report holds what the user should know, such as firewall rules to set by hand.
    ///
    /// # Errors
    /// Any; everything done until then, by earlier calls too, is undone.
    pub async fn apply(&mut self, wanted: &Wanted) -> Result<Report, Error> {
        let mut report = self.recover().await?;
        match self.try_apply(wanted, &mut report).await {
            Ok(()) => {
                report.warnings.dedup();
                Ok(report)
            }
            Err(error) => {
                match self.reset().await {
                    Ok(undone) => {
                        undone.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                    }
                    Err(undo) => tracing::error!("cannot undo the network settings: {undo}"),
                }
                Err(error)
            }
        }
    }

    /// Undoes everything but the packet policy ([`Host::unprotect`]).
    ///
    /// # Errors
    /// As [`Host::recover`].
    pub async fn reset(&mut self) -> Result<Report, Error> {
        let mut report = self.recover().await?;
        let changes = self.journal.changes().to_vec();
        let remaining = self.undo(&changes, &mut report).await;
        self.journal.replace(remaining.changes)?;
        remaining.denied.map_or(Ok(report), Err)
    }

    async fn try_apply(&mut self, wanted: &Wanted, report: &mut Report) -> Result<(), Error> {
        require_rights()?;
        let plan = self.plan(wanted).await?;
        report.warnings.extend(plan.warnings);
        let missing: Vec<_> = plan.steps.iter().filter(|step| !step.in_place).collect();
        self.journal_all(missing.iter().map(|step| &step.change))?;
        (self.after)(Step::Journaled);
        for step in missing {
            match step.change.make(&self.netlink, report).await {
                Err(error) if !step.needed => report.warnings.push(error.to_string()),
                result => result?,
            }
            (self.after)(Step::Made);
        }

        let wanted: HashSet<String> = plan.steps.iter().map(|step| step.change.key()).collect();
        let (kept, stale): (Vec<_>, Vec<_>) = self
            .journal
            .changes()
            .iter()
            .cloned()
            .partition(|change| wanted.contains(&change.key()));
        if !stale.is_empty() {
            let remaining = self.undo(&stale, report).await;
            self.journal.replace([kept, remaining.changes].concat())?;
        }
        Ok(())
    }

    async fn plan(&self, wanted: &Wanted) -> Result<Plan, Error> {
        let journaled = self.journal.changes();
        match (wanted, self.role) {
            (Wanted::Client(wanted), Role::Client) => {
                client::plan(wanted, &self.netlink, journaled).await
            }
            (Wanted::Gateway(wanted), Role::Gateway) => {
                gateway::plan(wanted, &self.netlink, journaled).await
            }
            (Wanted::Gateway(_), Role::Client) => Err(Error::WrongRole { role: "client" }),
            (Wanted::Client(_), Role::Gateway) => Err(Error::WrongRole { role: "gateway" }),
        }
    }

    /// Journals what is about to be made. What is in the journal already stays as it is there,
    /// with the value from before our first change.
    fn journal_all<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) -> Result<(), Error> {
        let mut journaled = self.journal.changes().to_vec();
        let mut new = Vec::new();
        let mut renewed = false;
        for change in changes {
            match journaled.iter_mut().find(|known| known.key() == change.key()) {
                // Another program wrote its own content over ours: that is what returns at the end.
                // Other servers inside are not taken for servers outside.
                Some(
                    known @ (Change::ResolverFile(_)
                    | Change::Table(_)
                    | Change::Resolved(_)
                    | Change::Openresolv(_)),
                ) => {
                    *known = change.clone();
                    renewed = true;
                }
                Some(_) => {}
                None => new.push(change.clone()),
            }
        }
        if renewed {
            self.journal.replace([journaled, new].concat())
        } else {
            self.journal.add(&new)
        }
    }

    /// Undoes changes, the last first, going on after errors.
    async fn undo(&self, changes: &[Change], report: &mut Report) -> Remaining {
        let mut remaining = Remaining::default();
        for change in changes.iter().rev() {
            match change.undo(&self.netlink).await {
                Ok(Undone::Done(what)) => report.undone.push(what),
                Ok(Undone::Nothing) => {}
                Ok(Undone::LeftAlone(why)) => report.warnings.push(why),
                Err(error) => {
                    remaining.changes.insert(0, change.clone());
                    report.warnings.push(format!("not undone yet: {error}; run `repair` again"));
                    if let Error::NotPermitted { .. } = error {
                        remaining.denied = Some(error);
                    }
                }
            }
            (self.after)(Step::Undone);
        }
        remaining
    }
}

/// What could not be undone.
#[derive(Debug, Default)]
struct Remaining {
    changes: Vec<Change>,
    denied: Option<Error>,
}

/// Found out beforehand, so that nothing has to be undone without the rights for it.
fn require_rights() -> Result<(), Error> {
    let allowed = capabilities(None)
        .is_ok_and(|capabilities| capabilities.effective.contains(CapabilitySet::NET_ADMIN));
    if allowed {
        return Ok(());
    }
    Err(Error::NotPermitted { what: "change the network settings".into() })
}

/// The kernel state that changes made now belong to.
fn origin() -> Origin {
    Origin {
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_default(),
        net_namespace: fs::metadata("/proc/thread-self/ns/net").map_or(0, |ns| ns.ino()),
    }
}
