//! The power is cut at every step: the kernel's state is gone, and of the files is there what had
//! reached the disk. The next start, or `repair`, gives back exactly the former host.
//!
//! `/etc` and the state directory are file systems of their own, in image files. What the image
//! holds at a moment is what a disk would hold; what was only in the kernel's memory is not in it.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::Path,
    process::Command,
};

use super::{
    client,
    faults::{self, block_on},
    sandbox::{run, sh},
};
use crate::{Host, Role};

/// Nothing is written by and by: only what is synced gets to the disk.
const MOUNT: &str = "mount -o loop,commit=3000,noauto_da_alloc";
const STATE: &str = "/run/disk/state";

#[test]
fn the_host_is_given_back_after_a_power_cut_at_every_step() {
    run("linux::tests::power::the_host_is_given_back_after_a_power_cut_at_every_step", || {
        make_disks();
        for step in 1.. {
            let cut = run_until(step);
            sh("cd /run/disk; cp --sparse=always etc.img etc-cut.img
                cp --sparse=always state.img state-cut.img");
            unmount();
            mount("etc-cut", "state-cut");
            assert!(!faults::there(), "the kernel's state is gone");
            let found = resolver_file();
            assert!(found.0.contains("nameserver "), "step {step}: {found:?}");
            come_back(step);
            unmount();
            if !cut {
                assert!(step > 30, "only {step} steps");
                break;
            }
        }
    });
}

/// Two disks: one for `/etc`, one for the state directory, so that nothing is synced along.
fn make_disks() {
    sh("mkdir -p /run/disk/etc /run/disk/state; cd /run/disk
        for disk in etc state; do truncate -s 8M $disk-new.img; mkfs.ext4 -q $disk-new.img; done
        mount -o loop etc-new.img etc
        cp -a /etc/resolv.conf /etc/passwd /etc/group /etc/nsswitch.conf etc; umount etc");
}

fn mount(etc: &str, state: &str) {
    sh(&format!(
        "cd /run/disk; {MOUNT} {etc}.img etc; {MOUNT} {state}.img state; mount --bind etc /etc"
    ));
}

fn unmount() {
    sh("umount /etc; cd /run/disk; umount etc; umount state");
}

/// Content, mode, owner; what else is in the directory.
fn resolver_file() -> (String, u32, u32, String) {
    let metadata = fs::symlink_metadata("/etc/resolv.conf").unwrap();
    let content = fs::read_to_string("/etc/resolv.conf").unwrap();
    (content, metadata.mode(), metadata.uid(), sh("ls -A /etc"))
}

/// Connects and disconnects on a computer of its own, whose power is cut at this step.
fn run_until(step: usize) -> bool {
    sh("cd /run/disk; for disk in etc state; do cp --sparse=always $disk-new.img $disk.img; done");
    mount("etc", "state");
    let set_up = format!("ip link set lo up; ip tuntap add cw0 mode tun; {}", client::UPLINK);
    let output = Command::new("/usr/bin/unshare")
        .args(["--net", "/bin/sh", "-ec", &format!("{set_up}\nexec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", faults::PROCESS, "--nocapture"])
        .env(faults::ORDER, format!("client:connect and disconnect:{step}:{STATE}"))
        .output()
        .unwrap();
    let cut = output.status.signal() == Some(9);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(cut || output.status.success(), "{said}");
    cut
}

fn come_back(step: usize) {
    block_on(async {
        let mut host = Host::open(Path::new(STATE), Role::Client).await.unwrap();
        assert!(!host.is_protected(), "step {step}: a policy of a kernel that is no more");
        let report = host.recover().await.unwrap();
        assert!(report.warnings.is_empty() && report.kept.is_empty(), "step {step}: {report}");
    });
    let before = "search lan\nnameserver 192.0.2.53\n";
    let (content, mode, uid, files) = resolver_file();
    assert_eq!((content.as_str(), mode, uid), (before, 0o100_644, 0), "step {step}");
    assert_eq!(files, "group\nlost+found\nnsswitch.conf\npasswd\nresolv.conf\n", "step {step}");
    let left = sh(&format!("ls -A {STATE}"));
    let left: Vec<&str> = left.lines().filter(|file| !file.ends_with(".lock")).collect();
    assert_eq!(left, ["lost+found"], "step {step}");
}
