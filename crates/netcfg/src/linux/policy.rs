//! The packet policy in force: put in place, kept when the process dies, removed.
//!
//! It has a journal of its own, because it outlives the other settings: [`Host::reset`] and
//! [`Host::recover`] leave it alone, so that a host stays closed while its routes and resolvers are
//! given back.

use std::path::Path;

use super::{
    Host, Step,
    change::Undone,
    nft::{self, table::Table},
    origin, require_rights,
};
use crate::{Error, Policy, Report, journal::Journal};

/// Whether a policy is in force, and the journal that says so to the next process.
#[derive(Debug)]
pub(super) struct InForce {
    journal: Journal<String>,
    yes: bool,
    /// What a process left that died, until it was looked after.
    left: Option<Left>,
}

#[derive(Debug)]
enum Left {
    /// A policy that is in force.
    Policy,
    /// Only the journal, of another boot.
    Journal,
}

impl Host {
    /// Puts the policy in force, instead of the one that is, in one transaction: at no moment does
    /// any packet meet neither. Repairs what other programs removed. If it fails, what was in force
    /// before still is.
    ///
    /// The policy stays until [`Host::unprotect`] or a reboot, whatever becomes of this process.
    ///
    /// # Errors
    /// [`Error::ProgramMissing`] without `nft`; [`Error::NotPermitted`]; [`Error::NoInterface`] for
    /// a name that no interface can have; [`Error::WrongRole`] on a gateway; [`Error::Program`].
    /// A journal that cannot be written is a warning only: it must not keep a host open.
    pub async fn protect(&mut self, policy: &Policy) -> Result<Report, Error> {
        let after = self.after;
        let in_force = self.in_force()?;
        require_rights()?;
        nft::require("and without it nothing keeps traffic from leaving outside the tunnel")?;
        let table = nft::policy::table(policy)?;
        let mut report = Report::default();
        if !in_force.yes {
            if let Err(error) = in_force.journal.replace(vec![table.name.clone()]) {
                let warning = format!("{error} (the packet policy is in force all the same)");
                report.warnings.push(warning);
            }
            after(Step::Journaled);
        }
        if let Err(error) = table.make().await {
            if !in_force.yes {
                in_force.end(after).await.ok();
            }
            return Err(error);
        }
        in_force.yes = true;
        after(Step::Made);
        Ok(report)
    }

    /// Removes the policy, also one that no journal knows of: this is the way back from any lock.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::Program`], [`Error::ProgramMissing`]: it is still in force.
    /// [`Error::Journal`]: it is not, but the next process will be told so.
    pub async fn unprotect(&mut self) -> Result<Report, Error> {
        let after = self.after;
        self.in_force()?.end(after).await
    }

    /// Whether a policy is in force: ours, or one that a process left that died. The journal says
    /// so; somebody may have removed it from the kernel meanwhile, which [`Host::protect`] repairs.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.in_force.as_ref().is_some_and(|in_force| in_force.yes)
    }

    fn in_force(&mut self) -> Result<&mut InForce, Error> {
        self.in_force.as_mut().ok_or(Error::WrongRole { role: "gateway" })
    }
}

impl InForce {
    pub(super) fn open(state_dir: &Path) -> Result<InForce, Error> {
        let (journal, left) = Journal::open(state_dir, "netcfg-policy", origin())?;
        // nothing but a policy is ever in it, so a damaged one speaks of one too
        let written = !journal.changes().is_empty() || left.unreadable > 0;
        let left = match (written, left.elsewhere) {
            (true, false) => Some(Left::Policy),
            (true, true) => Some(Left::Journal),
            (false, _) => None,
        };
        Ok(InForce { journal, yes: matches!(left, Some(Left::Policy)), left })
    }

    /// Looks after what a process left: says that its policy is in force, once, and forgets one
    /// that is gone with its kernel.
    pub(super) fn recover(&mut self, report: &mut Report) -> Result<(), Error> {
        match self.left.take() {
            Some(Left::Policy) => report.kept.push(
                "the packet policy of the last run is in force: nothing leaves outside the tunnel"
                    .into(),
            ),
            Some(Left::Journal) if !self.yes => self.journal.replace(Vec::new())?,
            Some(Left::Journal) | None => {}
        }
        Ok(())
    }

    async fn end(&mut self, after: fn(Step)) -> Result<Report, Error> {
        let mut report = Report::default();
        if self.yes || nft::installed() {
            let table = Table { name: nft::policy::NAME.into(), text: String::new() };
            if let Undone::Done(what) = table.undo().await? {
                report.undone.push(what);
            }
        }
        after(Step::Undone);
        self.journal.replace(Vec::new())?;
        self.yes = false;
        self.left = None;
        Ok(report)
    }
}
