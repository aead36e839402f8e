//! A power cut at a client: what was written and not synced is lost, everything in the kernel is
//! gone, and it starts again with the rest.
//!
//! Its files are on a file system of their own, in an image. That one is shut down, as by pulling
//! the plug, and the next start mounts what had reached the image.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lab::{Lab, configure_client};
use crate::node::{Node, host_command};
use crate::run_dir;

/// Large enough for a journal.
const DISK_SIZE: &str = "64M";

/// `ioctl(EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH)`: from now on nothing reaches the disk.
const PULL_THE_PLUG: &str = "import fcntl, os, struct, sys\n\
                             fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, \
                             struct.pack('I', 2))\n";

/// Makes an empty disk.
pub(crate) fn make_disk(lab_dir: &Path) -> Result<PathBuf> {
    let path = disk_path(lab_dir, 0);
    let file = path.to_str().context("path is not UTF-8")?;
    host_command(&["truncate", "--size", DISK_SIZE, file])?;
    host_command(&["mkfs.ext4", "-q", file])?;
    Ok(path)
}

fn disk_path(lab_dir: &Path, boot: usize) -> PathBuf {
    lab_dir.join(format!("client1-{boot}.disk"))
}

impl Lab {
    /// Cuts the first client's power and starts it again. It has no link yet, see
    /// [`Lab::plug_in`]; whoever keeps a copy of its [`Node`] needs the new one.
    pub fn cut_power(&mut self) -> Result<()> {
        let (old, router) = (self.clients[0].clone(), self.routers[0].clone());
        let (namespace, dir) = (old.namespace().to_owned(), old.dir().to_owned());
        let dir_text = dir.to_str().context("path is not UTF-8")?;
        old.ok(&["python3", "-c", PULL_THE_PLUG, dir_text]).context("pulling the plug")?;
        // the cable stays in the router, where a capture may go on
        move_link(old.namespace(), "eth0", router.namespace(), "unplugged")?;
        run_dir::end_processes(std::slice::from_ref(&namespace));
        host_command(&["ip", "netns", "delete", &namespace])?;
        // a copy: the kernel may hold on to the old one for a while
        let boots = (0..).find(|boot| disk_path(&self.dir, *boot).exists()).context("no disk")?;
        let (disk, next) = (disk_path(&self.dir, boots), disk_path(&self.dir, boots + 1));
        let copy = [&disk, &next].map(|path| path.display().to_string());
        host_command(&["cp", "--sparse=always", &copy[0], &copy[1]])?;
        fs::remove_file(&disk)?;
        let (node, holder) = Node::boot(&namespace, &dir, Some(&next))?;
        self.clients[0] = node;
        self.holders.push(holder);
        Ok(())
    }

    /// The first client's link comes up, with its addresses and routes.
    pub fn plug_in(&self) -> Result<()> {
        let client = &self.clients[0];
        let router = self.routers[0].namespace();
        move_link(router, "unplugged", client.namespace(), "eth0")?;
        configure_client(client, 0, true)
    }
}

fn move_link(from: &str, link: &str, to: &str, new_name: &str) -> Result<()> {
    let words = ["ip", "-n", from, "link", "set", link, "netns", to, "name", new_name];
    host_command(&words).map(drop)
}
