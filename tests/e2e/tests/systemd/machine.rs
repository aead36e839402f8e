//! A client's machine that boots: a Debian root in the network of a lab's client, with systemd, and
//! what it starts.
//!
//! The root is made once and kept in a cache; each machine writes into a layer of its own, which
//! outlives a reboot and goes with the laboratory.

use std::fs;
use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{ClientNode, Lab, Node, Process, Programs, address, until};
use rustix::process::{Pid, Signal, kill_process};

const CACHE_DIR: &str = "/var/cache/cipherwall-lab";
/// Another number, whenever `make-root.sh` changes.
const ROOT: &str = "bookworm-1";
const MAKE_ROOT: &str = include_str!("make-root.sh");

const BOOT_TIME: Duration = Duration::from_secs(45);

/// Layers the root, then boots it in a control group of its own, where the systemd of another
/// machine finds no process that it does not know: ROOT_DIR DIR GROUP NSPAWN...
const START: &str = r#"
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    [ -e "$tree/cgroup.procs" ] || continue
    mkdir -p "$tree/$3"
    echo $$ > "$tree/$3/cgroup.procs"
done
shift 3
exec "$@"
"#;

/// Removes the control groups of a machine that is off: GROUP
const REMOVE_GROUP: &str = r#"
for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    [ ! -d "$tree/$1" ] || find "$tree/$1" -depth -type d -exec rmdir {} +
done
"#;

/// What a kernel that starts anew does not know any more.
const FORGET: &str = "nft flush ruleset
    ip address flush dev eth0
    for family in -4 -6; do
        ip $family rule flush
        ip $family rule add priority 32766 table main
        ip $family route flush table 25463 2> /dev/null || true
    done
    ip -4 rule add priority 32767 table default
    echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark
    echo 0 > /proc/sys/net/ipv4/conf/all/arp_ignore";

/// Files that every machine has: the link is NetworkManager's, by DHCP and with a fixed IPv6 address.
const FILES: [(&str, &str); 3] = [
    (
        "/etc/NetworkManager/conf.d/lab.conf",
        "[main]\nplugins=keyfile\n[keyfile]\nunmanaged-devices=none\n",
    ),
    (
        "/etc/NetworkManager/system-connections/wired.nmconnection",
        "[connection]\nid=wired\ntype=ethernet\ninterface-name=eth0\n\
         [ipv4]\nmethod=auto\ndhcp-timeout=20\n\
         [ipv6]\nmethod=manual\naddress1=2001:db8:c:1::2/64,2001:db8:c:1::1\n",
    ),
    ("/etc/hostname", "machine\n"),
];

/// The machine, booted or not.
pub(crate) struct Machine {
    /// Inside, as soon as it has booted.
    pub(crate) node: Node,
    outside: Node,
    dir: PathBuf,
    program: String,
    booted: Option<(Process, Pid)>,
    /// DHCP, by the router.
    _dhcp: Process,
}

impl Machine {
    /// In place of the lab's first client; not booted yet. The link is down.
    pub(crate) fn new(lab: &Lab, programs: &Programs) -> Result<Machine> {
        let outside = lab.clients[0].clone();
        let dir = outside.dir().join("machine");
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let program = ClientNode::new(lab, 0, programs)?.words(&[])[0].to_owned();
        outside.ip(&["address", "flush", "dev", "eth0"])?;
        outside.ip(&["link", "set", "eth0", "down"])?;
        let machine = Machine {
            node: outside.clone(),
            outside,
            dir,
            program,
            booted: None,
            _dhcp: start_dhcp(lab)?,
        };
        for (path, content) in FILES {
            machine.write(path, content)?;
        }
        Ok(machine)
    }

    /// Writes a file, for programs of root only, before the machine boots.
    pub(crate) fn write(&self, path: &str, content: &str) -> Result<()> {
        let path = self.layer(path)?;
        fs::write(&path, content)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
    }

    /// Makes a link, before the machine boots.
    pub(crate) fn link(&self, path: &str, target: &str) -> Result<()> {
        Ok(symlink(target, self.layer(path)?)?)
    }

    /// A unit does not start, whoever wants it.
    pub(crate) fn mask(&self, unit: &str) -> Result<()> {
        self.link(&format!("/etc/systemd/system/{unit}"), "/dev/null")
    }

    /// It may start again.
    pub(crate) fn unmask(&self, unit: &str) -> Result<()> {
        Ok(fs::remove_file(self.layer(&format!("/etc/systemd/system/{unit}"))?)?)
    }

    /// As if systemd-resolved were not installed: the resolver file is a file.
    pub(crate) fn without_resolved(&self) -> Result<()> {
        self.mask("systemd-resolved.service")?;
        self.write("/etc/resolv.conf", "")?;
        // a program that is found is used; this one belongs to systemd-resolved
        self.link("/usr/sbin/resolvconf", "/nowhere")
    }

    fn layer(&self, path: &str) -> Result<PathBuf> {
        let path = self.dir.join("upper").join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().context("no folder")?)?;
        Ok(path)
    }

    /// Boots it, until systemd has started everything.
    pub(crate) fn boot(&mut self) -> Result<()> {
        self.start_booting()?;
        let state =
            self.node.run_with(&["systemctl", "is-system-running", "--wait"], "", BOOT_TIME)?;
        let is_up = matches!(state.stdout.trim(), "running" | "degraded");
        ensure!(
            is_up,
            "{state}{}",
            self.booted.as_ref().map_or_else(String::new, |(process, _)| process.logs())
        );
        Ok(())
    }

    /// Boots it, until commands can be given.
    pub(crate) fn start_booting(&mut self) -> Result<()> {
        let words = self.nspawn()?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let process = self.outside.spawn("machine", &words)?;
        let init = until("the machine's first process", BOOT_TIME, || first_process_of(&process))
            .with_context(|| process.logs())?;
        self.node = self.outside.inside(init.as_raw_nonzero().get().unsigned_abs());
        let (process, _) = self.booted.insert((process, init));
        let ask = ["systemctl", "show", "--property=Version"];
        let answers = || Ok((self.node.run(&ask)?.code() == 0).then_some(()));
        until("systemd to answer", BOOT_TIME, answers).with_context(|| process.logs())
    }

    /// The power fails: the processes are gone, and what the kernel knew.
    pub(crate) fn cut_power(&mut self) -> Result<()> {
        self.outside.ip(&["link", "set", "eth0", "down"])?;
        let booted = self.booted.take().context("the machine is off")?;
        halt(booted)?;
        self.node = self.outside.clone();
        self.node.ok(&["sh", "-ec", FORGET]).map(drop)
    }

    /// Puts the units in place as a package would, to be started at boot.
    pub(crate) fn install(&self) -> Result<()> {
        let packaging_dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging"));
        for entry in fs::read_dir(packaging_dir.join("systemd")).context("no units")? {
            let path = entry?.path();
            let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
            self.write(&format!("/usr/lib/systemd/system/{name}"), &fs::read_to_string(&path)?)?;
            let wanted = if name.contains("lockdown") { "sysinit" } else { "multi-user" };
            let link = format!("/etc/systemd/system/{wanted}.target.wants/{name}");
            self.link(&link, &format!("/usr/lib/systemd/system/{name}"))?;
        }
        let group = fs::read_to_string(packaging_dir.join("sysusers.d/cipherwall.conf"))?;
        self.write("/usr/lib/sysusers.d/cipherwall.conf", &group)
    }

    fn nspawn(&self) -> Result<Vec<String>> {
        let root_dir = debian_root()?;
        // the mounts of this program: those of the lab's node lack the control groups
        let here = format!("--mount=/proc/{}/ns/mnt", std::process::id());
        let mut words =
            vec!["nsenter", &here, "--", "unshare", "--mount", "--propagation", "private"]
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>();
        words.extend(["sh", "-c", START, "sh"].map(str::to_owned));
        let (dir, group) = (self.dir.display().to_string(), self.outside.namespace().to_owned());
        words.extend([root_dir.display().to_string(), dir, group, program()?]);
        let lab_dir = self.outside.dir().display();
        words.extend([
            format!("--directory={}/root", self.dir.display()),
            format!("--network-namespace-path=/run/netns/{}", self.outside.namespace()),
            format!("--bind={lab_dir}"),
            format!("--bind-ro={}:/usr/bin/cipherwall", self.program),
        ]);
        words.extend(
            [
                "--boot",
                "--register=no",
                "--keep-unit",
                "--machine=machine",
                "--console=pipe",
                "--resolv-conf=off",
                "--timezone=off",
                "--capability=CAP_NET_ADMIN",
                "--bind=/dev/net/tun",
            ]
            .map(str::to_owned),
        );
        Ok(words)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // whatever fails here, the laboratory ends its processes
        let _ = self.booted.take().map(halt);
        let group = self.outside.namespace();
        let _ = Command::new("sh").args(["-c", REMOVE_GROUP, "sh", group]).status();
    }
}

/// With the first process, all of them end; systemd-nspawn alone would leave them running.
fn halt((mut nspawn, init): (Process, Pid)) -> Result<()> {
    kill_process(init, Signal::KILL)?;
    nspawn.wait(BOOT_TIME).map(drop)
}

fn start_dhcp(lab: &Lab) -> Result<Process> {
    let (client, router) = (address::client(0), address::router(0));
    let leases = format!("--dhcp-leasefile={}", lab.routers[0].dir().join("leases").display());
    let range = format!("--dhcp-range={client},{client},255.255.255.0,10m");
    let options = [format!("--dhcp-option=3,{router}"), format!("--dhcp-option=6,{router}")];
    let fixed = ["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=lan0"];
    let mut words = vec!["dnsmasq"];
    words.extend(fixed);
    words.extend(["--bind-interfaces", "--dhcp-authoritative", "--no-ping", "--user=root"]);
    words.extend(["--pid-file=", "--log-facility=-", &leases, &range, &options[0], &options[1]]);
    lab.routers[0].spawn("dhcp", &words)
}

/// The first process in the process namespace that systemd-nspawn has made.
fn first_process_of(nspawn: &Process) -> Result<Option<Pid>> {
    let parent = nspawn.pid();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    for child in children.split_whitespace() {
        let status = fs::read_to_string(format!("/proc/{child}/status"))?;
        let ids = status.lines().find(|line| line.starts_with("NSpid:")).unwrap_or_default();
        let ids: Vec<&str> = ids.split_whitespace().skip(1).collect();
        if ids.len() > 1 && ids.last() == Some(&"1") {
            return Ok(Pid::from_raw(child.parse()?));
        }
    }
    Ok(None)
}

/// systemd-nspawn, of the host or of the cache.
fn program() -> Result<String> {
    ["/usr/bin/systemd-nspawn".to_owned(), format!("{CACHE_DIR}/tools/usr/bin/systemd-nspawn")]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .context("systemd-nspawn is missing: apt-get install systemd-container")
}

/// The root that all machines share; made when it is missing, which takes a minute.
fn debian_root() -> Result<PathBuf> {
    fs::create_dir_all(CACHE_DIR)?;
    let lock = File::create(Path::new(CACHE_DIR).join("lock"))?;
    lock.lock().context("cannot lock the cache")?;
    let root_dir = Path::new(CACHE_DIR).join(ROOT);
    if !root_dir.is_dir() {
        let made =
            Command::new("sh").args(["-c", MAKE_ROOT, "sh", CACHE_DIR]).arg(&root_dir).output()?;
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        ensure!(made.status.success(), "cannot make a Debian root (it needs apt):\n{said}");
    }
    Ok(root_dir)
}
