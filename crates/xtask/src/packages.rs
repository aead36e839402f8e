//! The Debian packages that the developer commands need. This is the only list.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{run, succeeds};

/// A package, the program or file by which one sees that it is there, and the service that Debian would
/// start and enable on the host together with it.
struct Package {
    name: &'static str,
    program: &'static str,
    service: Option<&'static str>,
}

const fn package(name: &'static str, program: &'static str) -> Package {
    Package { name, program, service: None }
}

/// What building takes beside Rust.
const BUILD: [Package; 2] = [package("build-essential", "cc"), package("cmake", "cmake")];

/// What the laboratory takes.
const LABORATORY: [Package; 11] = [
    package("bind9-dnsutils", "dig"),
    package("conntrack", "conntrack"),
    package("curl", "curl"),
    package("dnsmasq-base", "dnsmasq"),
    package("iperf3", "iperf3"),
    package("iproute2", "ip"),
    package("iputils-ping", "ping"),
    package("nftables", "nft"),
    package("tcpdump", "tcpdump"),
    package("util-linux", "nsenter"),
    Package { name: "nginx-light", program: "nginx", service: Some("nginx") },
];

/// What only the tests take.
const TESTS: [Package; 16] = [
    package("busybox", "busybox"),
    package("chromium", "chromium"),
    package("dbus-daemon", "dbus-daemon"),
    package("e2fsprogs", "mkfs.ext4"),
    package("faketime", "faketime"),
    package("gnome-keyring", "gnome-keyring-daemon"),
    package("nghttp2-client", "nghttp"),
    package("nmap", "nmap"),
    package("openssh-client", "ssh"),
    Package { name: "openssh-server", program: "sshd", service: Some("ssh") },
    package("openssl", "openssl"),
    package("python3", "python3"),
    // it has no program: that of another implementation of static mode uses it
    package("python3-cryptography", "/usr/lib/python3/dist-packages/cryptography/__init__.py"),
    // it has no program either: trees that try to tell the gateway from nginx
    package("python3-sklearn", "/usr/lib/python3/dist-packages/sklearn/__init__.py"),
    package("sqlite3", "sqlite3"),
    package("strace", "strace"),
];

/// The other VPNs of `cargo xtask bench`, and what sets them up.
const PEERS: [Package; 5] = [
    package("openconnect", "openconnect"),
    package("openssl", "openssl"),
    package("wireguard-tools", "wg"),
    Package { name: "ocserv", program: "ocserv", service: Some("ocserv") },
    Package { name: "openvpn", program: "openvpn", service: Some("openvpn") },
];

/// Which packages a command needs.
#[derive(Clone, Copy)]
pub(crate) enum Needs {
    /// To build.
    Build,
    /// To build and to make a laboratory.
    Laboratory,
    /// To build and to run all tests.
    Tests,
    /// To measure other VPNs beside ours.
    Peers,
}

/// Installs what is missing and says what. With `may_install` false, missing packages are an error
/// that names them.
pub(crate) fn install(needs: Needs, may_install: bool) -> Result<()> {
    let (laboratory, more): (&[Package], &[Package]) = match needs {
        Needs::Build => (&[], &[]),
        Needs::Laboratory => (&LABORATORY, &[]),
        Needs::Tests => (&LABORATORY, &TESTS),
        Needs::Peers => (&LABORATORY, &PEERS),
    };
    let all = BUILD.iter().chain(laboratory).chain(more);
    let missing: Vec<&Package> = all.filter(|package| !is_there(package.program)).collect();
    if missing.is_empty() {
        println!("no Debian packages to install");
        return Ok(());
    }
    let names = missing.iter().map(|package| package.name).collect::<Vec<_>>();
    if !may_install {
        bail!("missing Debian packages: install them with `apt-get install {}`", names.join(" "));
    }
    println!("installing Debian packages: {}", names.join(" "));
    without_services(&missing, || {
        let mut update = Command::new("apt-get");
        run(update.args(["update", "-qq"]))?;
        let mut install = Command::new("apt-get");
        install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&names);
        run(install.env("DEBIAN_FRONTEND", "noninteractive"))
    })
}

/// Whether this program is installed.
pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path.split(':').chain(["/usr/sbin", "/sbin"]);
    dirs.into_iter().any(|dir| Path::new(dir).join(program).is_file())
}

/// Keeps Debian from starting the packages' services on this machine, now (`policy-rc.d`) and at
/// the next boot.
fn without_services(missing: &[&Package], install: impl FnOnce() -> Result<()>) -> Result<()> {
    let policy_path = Path::new("/usr/sbin/policy-rc.d");
    let is_ours = !policy_path.exists();
    if is_ours {
        fs::write(policy_path, "#!/bin/sh\nexit 101\n").context("cannot write policy-rc.d")?;
        fs::set_permissions(policy_path, fs::Permissions::from_mode(0o755))?;
    }
    let installed = install();
    if is_ours {
        fs::remove_file(policy_path).context("cannot remove policy-rc.d")?;
    }
    installed.context("cannot install packages")?;
    for service in missing.iter().filter_map(|package| package.service) {
        if succeeds(Command::new("systemctl").args(["disable", "--now", service])) {
            println!("the service {service} stays off on this machine");
        }
    }
    Ok(())
}
