//! Killed at every step, of apply, of reset and of recover: afterwards the host is byte for byte as
//! before.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{
    client, gateway,
    sandbox::{assert_same, run, sh, snapshot},
};
use crate::{Host, Role, Wanted};

/// Tells the process that is to be killed what to do: role, action, step.
const ORDER: &str = "CIPHERWALL_TEST_KILLED";

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
    for step in 1.. {
        let killed = is_killed(role, "connect and disconnect", step, dir.path());
        changed |= snapshot() != before;
        recover(role, dir.path());
        assert_same(&before, &snapshot(), &format!("{role} killed at step {step}"));
        assert_nothing_left(dir.path());
        if !killed {
            assert!(step > 20, "only {step} steps");
            break;
        }
    }
    assert!(changed, "nothing was changed at all");
    for step in 1.. {
        assert!(!is_killed(role, "connect", usize::MAX, dir.path()));
        let killed = is_killed(role, "recover", step, dir.path());
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
        .args(["--exact", "linux::tests::faults::process_to_be_killed", "--nocapture"])
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
        let report = host.recover().await.unwrap();
        assert_eq!(report.warnings, Vec::<String>::new());
    });
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
        if action.starts_with("connect") {
            host.apply(&wanted).await.unwrap();
        }
        if action.ends_with("disconnect") {
            host.reset().await.unwrap();
        }
        if action == "recover" {
            host.recover().await.unwrap();
        }
    });
}
