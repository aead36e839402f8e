//! Our own table, put in place and removed as a whole.

use serde::{Deserialize, Serialize};

use super::{list, transaction};
use crate::{Error, linux::change::Undone};

/// A table of the `inet` family that is ours alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::linux) struct Table {
    pub name: String,
    /// Its chains.
    pub text: String,
}

impl Table {
    /// Puts the table in place, instead of one that is there, in one transaction.
    pub(in crate::linux) async fn make(&self) -> Result<(), Error> {
        let Table { name, text } = self;
        // "add" first, because "delete" fails where there is no table.
        let text = format!(
            "add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n{text}}}\n"
        );
        transaction("set up the packet filter", &text).await
    }

    pub(in crate::linux) async fn undo(&self) -> Result<Undone, Error> {
        let name = &self.name;
        if !self.exists().await? {
            return Ok(Undone::Nothing);
        }
        let text = format!("add table inet {name}\ndelete table inet {name}\n");
        transaction("remove the packet filter", &text).await?;
        Ok(Undone::Done(format!("packet filter table inet {name} is removed")))
    }

    pub(in crate::linux) async fn exists(&self) -> Result<bool, Error> {
        let tables = list("look for the packet filter", &["list", "tables"]).await?;
        let ours = format!("table inet {}", self.name);
        Ok(tables.lines().any(|line| line == ours))
    }
}
