//! Killed at every step, of apply, of reset and of recover, of protect and unprotect: afterwards the
//! host is byte for byte as before, and until it is opened again it stays closed.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{
    client, gateway, policy,
    sandbox::{assert_same, run, sh, snapshot, works},
};
use crate::{ClientNetwork, Host, Role, Wanted};

/// Tells the process that is to be killed what to do: role, action, step.
pub(super) const ORDER: &str = "CIPHERWALL_TEST_KILLED";

/// The process that is to be killed.
pub(super) const PROCESS: &str = "linux::tests::faults::process_to_be_killed";

static STEPS_LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);

#[test]
fn client_is_undone_after_a_kill_at_every_step() {
    run("linux::tests::faults::client_is_undone_after_a_kill_at_every_step", || {
        sh(&format!("ip tuntap add cw0 mode tun; {}", client::UPLINK));
        sh("sysctl -qw net.ipv4.conf.all.rp_filter=1");
        walk("client");
    });
}

#[test]
fn client_is_undone_after_a_kill_where_the_resolver_file_is_mounted() {
    run(
        "linux::tests::faults::client_is_undone_after_a_kill_where_the_resolver_file_is_mounted",
        || {
            sh(&format!("ip tuntap add cw0 mode tun; {}", client::UPLINK));
            sh("cp /etc/resolv.conf /run/r; mount --bind /run/r /etc/resolv.conf");
            walk("client");
        },
    );
}

#[test]
fn client_is_undone_after_a_kill_where_networkmanager_writes_the_resolver_file() {
    run(
        "linux::tests::faults::client_is_undone_after_a_kill_where_networkmanager_writes_the_resolver_file",
        || {
            sh(&format!("ip tuntap add cw0 mode tun; {}", client::UPLINK));
            sh(NETWORK_MANAGER);
            walk("client");
            assert!(!Path::new("/run/NetworkManager/conf.d").exists());
            assert_eq!(fs::read_to_string("/run/file").unwrap(), "written\n", "told last");
        },
    );
}

/// Stands for NetworkManager: told to read its settings, it writes the resolver file unless they say
/// that it must not.
const NETWORK_MANAGER: &str = r#"
    mkdir /run/NetworkManager /run/bin; cp /etc/resolv.conf /run/bin/its-own
    cat > /run/bin/nmcli << 'END'
#!/bin/sh
case "$*" in
    *RUNNING*) echo running ;;
    *reload*) if grep -qs unmanaged /run/NetworkManager/conf.d/*; then echo left alone > /run/file
        else echo written > /run/file; cat /usr/bin/its-own > /etc/resolv.conf; fi ;;
esac
END
    chmod 755 /run/bin/nmcli; mount -t overlay overlay -o lowerdir=/run/bin:/usr/bin /usr/bin"#;

#[test]
fn gateway_is_undone_after_a_kill_at_every_step() {
    run("linux::tests::faults::gateway_is_undone_after_a_kill_at_every_step", || {
        sh(&format!("ip tuntap add cw0 mode tun; {}", gateway::UPLINK));
        // One interface forwards already, which switching forwarding on and off would forget.
        sh("sysctl -qw net.ipv4.conf.up0.forwarding=1 net.ipv6.conf.all.forwarding=0");
        fs::write("/run/others.nft", gateway::OTHER_FIREWALLS).unwrap();
        sh("nft -f /run/others.nft");
        walk("gateway");
    });
}

/// Kills a process at each step in turn and recovers.
fn walk(role: &str) {
    let dir = tempfile::tempdir_in("/run").unwrap();
    let before = snapshot();
    let mut changed = false;
    let mut closed = Vec::new();
    for step in 1.. {
        let killed = is_killed(role, "connect and disconnect", step, dir.path());
        changed |= snapshot() != before;
        closed.push(there());
        recover(role, dir.path());
        assert_same(&before, &snapshot(), &format!("{role} killed at step {step}"));
        assert_nothing_left(dir.path());
        if !killed {
            assert!(step > 20, "only {step} steps");
            break;
        }
    }
    assert!(changed, "nothing was changed at all");
    closed.dedup();
    let once: &[bool] = if role == "client" { &[false, true, false] } else { &[false] };
    assert_eq!(closed, once, "from the first change to the last, a client's host is closed");
    for step in 1.. {
        assert!(!is_killed(role, "connect", usize::MAX, dir.path()));
        let killed = is_killed(role, "recover", step, dir.path());
        assert_eq!(there(), role == "client", "step {step} of recover");
        recover(role, dir.path());
        assert_same(&before, &snapshot(), &format!("{role} killed at step {step} of recover"));
        assert_nothing_left(dir.path());
        if !killed {
            break;
        }
    }
}

fn is_killed(role: &str, action: &str, step: usize, dir: &Path) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", PROCESS, "--nocapture"])
        .env(ORDER, format!("{role}:{action}:{step}:{}", dir.display()))
        .output()
        .unwrap();
    let killed = output.status.signal() == Some(9);
    assert!(
        killed || output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    killed
}

fn recover(role: &str, dir: &Path) {
    block_on(async {
        let mut host = Host::open(dir, wanted(role).0).await.unwrap();
        let closed = there();
        assert!(host.is_protected() || !closed, "a policy that nobody knows of");
        let report = host.recover().await.unwrap();
        assert_eq!(report.warnings, Vec::<String>::new());
        assert_eq!(report.kept.is_empty(), !host.is_protected());
        if role == "client" {
            assert_eq!(there(), closed, "the host was opened");
            host.unprotect().await.unwrap();
        }
    });
}

/// Whether the packet policy is in force in the kernel.
pub(super) fn there() -> bool {
    works("nft list table inet cipherwall-policy")
}

fn assert_nothing_left(dir: &Path) {
    let files: Vec<_> = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(files.iter().all(|path| path.extension().unwrap() == "lock"), "{files:?}");
}

fn wanted(role: &str) -> (Role, Wanted) {
    match role {
        "client" => (Role::Client, Wanted::Client(client::wanted())),
        _ => (Role::Gateway, Wanted::Gateway(gateway::wanted())),
    }
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Not a test by itself: the process that [`is_killed`] starts.
#[test]
fn process_to_be_killed() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let [role, action, step, dir] = order.split(':').collect::<Vec<_>>().try_into().unwrap();
    STEPS_LEFT.store(step.parse().unwrap(), Ordering::Relaxed);
    let (role, wanted) = wanted(role);
    block_on(async {
        let mut host = Host::open_with(Path::new(dir), role, |_| {
            if STEPS_LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
                let me = rustix::process::getpid();
                rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
            }
        })
        .unwrap();
        let client = role == Role::Client;
        if action.starts_with("connect") {
            if client {
                host.protect(&policy::connecting()).await.unwrap();
                // the resolver file is a change that comes later
                let without = ClientNetwork { dns: Vec::new(), ..client::wanted() };
                host.apply(&Wanted::Client(without)).await.unwrap();
            }
            host.apply(&wanted).await.unwrap();
            if client {
                host.protect(&policy::connected()).await.unwrap();
            }
        }
        if action.ends_with("disconnect") {
            host.reset().await.unwrap();
            if client {
                host.unprotect().await.unwrap();
            }
        }
        if action == "recover" {
            host.recover().await.unwrap();
        }
    });
}
