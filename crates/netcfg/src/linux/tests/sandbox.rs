//! A place where a test may change the host: it runs once more, as a process of its own in new
//! network and mount namespaces, which the kernel removes with it.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::linux::command;

/// Set for the process inside.
const INSIDE: &str = "CIPHERWALL_TEST_INSIDE";

/// Runs the test of this name (its path in this crate) in new namespaces.
pub(super) fn run(test: &str, inside: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        prepare();
        return inside();
    }
    if !rustix::process::geteuid().is_root() || command::find("nft").is_none() {
        print_note(&format!("{test}: not run, it needs root and nftables"));
        return;
    }
    let output = Command::new("/usr/bin/unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "inside:\n{out}\n{err}");
}

/// Scratch directories over `/run` and `/etc`, so that nothing outside is touched.
fn prepare() {
    sh("mount -t tmpfs tmpfs /run && mkdir /run/netns /run/etc && cp -a /etc/. /run/etc/ \
        && mount --bind /run/etc /etc");
    fs::write("/etc/resolv.conf", "search lan\nnameserver 192.0.2.53\n").unwrap();
    fs::set_permissions("/etc/resolv.conf", fs::Permissions::from_mode(0o644)).unwrap();
    sh("ip link set lo up");
}

/// Runs shell commands that must succeed; returns what they printed.
pub(super) fn sh(commands: &str) -> String {
    let output = try_sh(commands);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{commands}\n{out}{err}");
    out.into_owned()
}

/// Runs shell commands.
pub(super) fn try_sh(commands: &str) -> Output {
    Command::new("/bin/sh").args(["-ec", commands]).output().unwrap()
}

/// Whether shell commands succeed.
pub(super) fn works(commands: &str) -> bool {
    try_sh(commands).status.success()
}

/// Runs a function in a named network namespace.
pub(super) fn in_namespace<T: Send>(name: &str, function: impl FnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(format!("/run/netns/{name}")).unwrap();
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).unwrap();
            function()
        });
        inside.join().unwrap()
    })
}

/// The packets that a rule of ours with this comment counted.
pub(super) fn counted(comment: &str) -> u64 {
    let rules = sh("nft list ruleset");
    rules
        .lines()
        .filter(|line| line.contains(&format!("comment \"{comment}\"")))
        .filter_map(|line| {
            line.split("counter packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}

/// Everything that must be the same before and after, byte for byte.
pub(super) fn snapshot() -> String {
    let mut text = sh("nft list ruleset; ip rule; ip -6 rule; ip route show table all; \
         ip -6 route show table all; ip addr | sed -E 's/ qdisc [a-z_]+//'; stat -c '%A %U %G %N' /etc/resolv.conf; \
         cat /etc/resolv.conf; ls -A /etc");
    let mut settings = vec![PathBuf::from("/proc/sys/net/ipv4/ip_forward")];
    for family in ["ipv4", "ipv6"] {
        list(Path::new(&format!("/proc/sys/net/{family}/conf")), &mut settings);
    }
    settings.sort();
    for setting in settings {
        let value = fs::read_to_string(&setting).unwrap_or_default();
        text += &format!("{} = {value}", setting.display());
    }
    text
}

/// Fails with the lines that differ.
pub(super) fn assert_same(before: &str, after: &str, when: &str) {
    if before != after {
        let differ = |a: &str, b: &str, sign: &str| -> String {
            a.lines()
                .filter(|l| !b.lines().any(|m| m == *l))
                .map(|l| format!("{sign} {l}\n"))
                .collect()
        };
        panic!("{when}:\n{}{}", differ(before, after, "-"), differ(after, before, "+"));
    }
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            list(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the note of a test that could not run")]
fn print_note(note: &str) {
    eprintln!("{note}");
}
