//! `cipherwall daemon` in the laboratory, started as systemd would.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use super::{ClientNode, PATIENCE, Transport};

impl ClientNode {
    /// `daemon`, in the background, until it answers.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.process = None;
        let starter: Vec<&str> = self.starter.iter().map(String::as_str).collect();
        let process = self.node.spawn("daemon", &[starter, self.words(&["daemon"])].concat())?;
        let process = self.process.insert(process);
        process.wait_for_line("ready", PATIENCE)?;
        self.status().map(drop)
    }

    /// `connect` by the running daemon, until the transport carries packets.
    pub fn connect_by_daemon(&self, options: &[&str]) -> Result<()> {
        let transport = match self.transport {
            Transport::Udp if !options.contains(&"--transport") => &["--transport", "udp"][..],
            Transport::Kcp if !options.contains(&"--transport") => &["--transport", "kcp"],
            Transport::Udp | Transport::Kcp | Transport::Tls => &[],
        };
        self.run(&[&["connect"], transport, options].concat())?.ok()?;
        self.wait_for_state("connected", PATIENCE)?;
        if !options.contains(&"--transport") {
            self.wait_for_transport(self.transport, PATIENCE)?;
        }
        Ok(())
    }

    /// From now on the program is a copy of this one, which [`ClientNode::replace_program`] replaces.
    pub fn use_copy(&mut self) -> Result<()> {
        let original = std::mem::replace(
            &mut self.program,
            self.node.dir().join("cipherwall").display().to_string(),
        );
        fs::copy(original, &self.program).map(drop).context("cannot copy the program")
    }

    /// Puts a new file into the place of the program, as an update does. What runs goes on.
    pub fn replace_program(&self) -> Result<()> {
        let new = format!("{}.new", self.program);
        fs::copy(&self.program, &new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        fs::rename(&new, &self.program).context("cannot replace the program")
    }
}
