//! What a change of the host did, in words for the user.

use std::fmt;

/// What was undone and what the user should know, one sentence each, for people to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was put back.
    pub undone: Vec<String>,
    /// What stays on purpose.
    pub kept: Vec<String>,
    /// What was left as it is or could not be set, why, and what to do about it.
    pub warnings: Vec<String>,
}

impl Report {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.undone.is_empty() && self.kept.is_empty() && self.warnings.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.undone {
            writeln!(f, "undone: {line}")?;
        }
        for line in &self.kept {
            writeln!(f, "kept: {line}")?;
        }
        for line in &self.warnings {
            writeln!(f, "warning: {line}")?;
        }
        Ok(())
    }
}
