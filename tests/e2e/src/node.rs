//! A node of the laboratory: a network namespace with its own `/etc`, `/run` and `/sys`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::Process;

/// How long a command of a test may take unless it says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sets up the private mounts, then only keeps them alive: of the disk, if there is one, on the
/// node's directory, and an overlay on `/etc`, not a bind mount, so that programs may also replace
/// `/etc/resolv.conf` by a rename, and all others see it. Each start has a boot id of its own.
const HOLDER: &str = r#"
set -e
if [ -n "$2" ]; then
    mount -o loop,noatime,commit=600 "$2" "$1"
    mkdir -p "$1/etc" "$1/etc.work"
fi
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/etc.work" /etc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock /run/sshd
cat /proc/sys/kernel/random/uuid > /run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
echo up
exec sleep infinity > /dev/null 2>&1
"#;

/// A host or router in the laboratory. Cheap to clone; the [`crate::Lab`] owns what is behind it.
#[derive(Clone, Debug)]
pub struct Node {
    namespace: String,
    dir: PathBuf,
    holder_pid: u32,
    /// Commands also see the processes of the holder.
    booted: bool,
}

impl Node {
    /// Makes the namespace `ID-NAME`, with loopback up and `resolver` in its `/etc/resolv.conf`.
    /// The second value keeps the private mounts alive.
    pub(crate) fn new(
        id: &str,
        lab_dir: &Path,
        name: &str,
        resolver: &str,
    ) -> Result<(Node, Child)> {
        Node::new_with(id, lab_dir, name, resolver, None)
    }

    /// As [`Node::new`], with `/etc` and its directory on this disk, an image of a file system.
    pub(crate) fn new_with(
        id: &str,
        lab_dir: &Path,
        name: &str,
        resolver: &str,
        disk_path: Option<&Path>,
    ) -> Result<(Node, Child)> {
        let dir = lab_dir.join(name);
        for part in ["etc", "etc.work", "log"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let (node, holder) = Node::boot(&format!("{id}-{name}"), &dir, disk_path)?;
        node.write_file("/etc/resolv.conf", &format!("nameserver {resolver}\n"))?;
        node.write_file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")?;
        Ok((node, holder))
    }

    /// Starts a node with the files that are there, in a new namespace, with loopback up.
    pub(crate) fn boot(
        namespace: &str,
        dir: &Path,
        disk_path: Option<&Path>,
    ) -> Result<(Node, Child)> {
        host_command(&["ip", "netns", "add", namespace])?;
        let mut holder = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{namespace}"))
            .args(["unshare", "--mount", "--propagation", "private", "sh", "-c", HOLDER, "sh"])
            .arg(dir)
            .args(disk_path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start nsenter (package util-linux)")?;
        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        ensure!(line == "up\n", "cannot mount the private /etc, /sys and /run of {namespace}");
        let (namespace, dir) = (namespace.to_owned(), dir.to_owned());
        let node = Node { namespace, dir, holder_pid: holder.id(), booted: false };
        node.ip(&["link", "set", "lo", "up"])?;
        Ok((node, holder))
    }

    /// The same network, as a machine that was booted in it sees it: its files and its processes.
    /// `init_pid` is its first process.
    #[must_use]
    pub fn inside(&self, init_pid: u32) -> Node {
        Node { holder_pid: init_pid, booted: true, ..self.clone() }
    }

    /// The name of its network namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its directory in the laboratory: state, and logs in `log/`. Visible under the same path
    /// inside and outside.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The words of a command line that opens a shell in this node.
    pub fn enter_command(&self) -> String {
        let pids = if self.booted { " --pid" } else { "" };
        format!("nsenter --target {} --net --mount{pids}", self.holder_pid)
    }

    /// A command that will run in this node.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder_pid));
        if self.booted {
            command.arg(format!("--pid=/proc/{}/ns/pid", self.holder_pid));
        }
        command.arg("--").args(words);
        command
    }

    /// Moves the calling thread into this node's network for good. Threads that it starts, and
    /// sockets that it opens, are there as well.
    pub fn enter_network(&self) -> Result<()> {
        let path = format!("/run/netns/{}", self.namespace);
        let namespace = File::open(&path).context(path)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter {}", self.namespace))
    }

    /// Runs a command to its end, 30 s at most. Only failing to run it is an error here.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        self.run_with(words, "", PATIENCE)
    }

    /// As [`Node::run`], with standard input and another limit.
    pub fn run_with(&self, words: &[&str], input: &str, patience: Duration) -> Result<Ran> {
        let seconds = format!("{:.3}", patience.as_secs_f64());
        let mut all = vec!["timeout", "--kill-after=2", &seconds];
        all.extend(words);
        let mut command = self.command(&all);
        run(&mut command, words, input, &self.namespace)
    }

    /// Runs a command that has to succeed; returns its standard output.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        self.run(words)?.ok()
    }

    /// Starts a program in the background; logs go to the node's `log` directory.
    pub fn spawn(&self, name: &str, words: &[&str]) -> Result<Process> {
        Process::start(name, &self.dir.join("log"), self.command(words))
    }

    /// Writes a file as the node sees it (its own `/etc`).
    pub fn write_file(&self, path: &str, content: &str) -> Result<()> {
        self.run_with(&["tee", path], content, PATIENCE)?.ok().map(drop)
    }

    /// Reads a file as the node sees it.
    pub fn read_file(&self, path: &str) -> Result<String> {
        self.ok(&["cat", path])
    }

    /// `ip ...` in this node.
    pub fn ip(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["ip"];
        all.extend(words);
        self.ok(&all)
    }

    /// `nft -f` with these lines.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.run_with(&["nft", "-f", "-"], rules, PATIENCE)?.ok().map(drop)
    }

    /// Sets entries below `/proc/sys`, as `net/ipv4/ip_forward=1`.
    pub fn sysctl(&self, settings: &[&str]) -> Result<()> {
        let script: String = settings
            .iter()
            .filter_map(|setting| setting.split_once('='))
            .map(|(key, value)| format!("echo {value} > /proc/sys/{key} && "))
            .collect();
        self.ok(&["sh", "-c", &format!("{script} true")]).map(drop)
    }
}

/// A finished command.
#[derive(Debug)]
pub struct Ran {
    /// What was run and where, for messages.
    pub command: String,
    /// How it ended; 124 means that it took too long.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// The exit code; -1 after a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Standard output, or an error with everything if it did not succeed.
    pub fn ok(self) -> Result<String> {
        ensure!(self.status.success(), "{self}");
        Ok(self.stdout)
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ran { command, status, stdout, stderr } = self;
        write!(f, "{command}: {status}\n stdout: {}\n stderr: {}", stdout.trim(), stderr.trim())
    }
}

/// Runs a command on the host itself that has to succeed.
pub(crate) fn host_command(words: &[&str]) -> Result<String> {
    let Some((program, arguments)) = words.split_first() else { bail!("empty command") };
    run(Command::new(program).args(arguments), words, "", "host")?.ok()
}

fn run(command: &mut Command, words: &[&str], input: &str, place: &str) -> Result<Ran> {
    let line = words.join(" ");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{place}: cannot run {line}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // a program that does not read its input closes the pipe: no error of ours
        thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    }
    let output = child.wait_with_output()?;
    Ok(Ran {
        command: format!("[{place}] {line}"),
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
