//! One directory per laboratory under `/var/lib/cipherwall-lab`: logs, state, and the note of who
//! owns it, so that the next start can remove what a killed test left.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

const BASE_DIR: &str = "/var/lib/cipherwall-lab";

/// Makes a directory with an unused id; returns the id and the directory.
pub(crate) fn claim() -> Result<(String, PathBuf)> {
    let base_dir = Path::new(BASE_DIR);
    DirBuilder::new().recursive(true).mode(0o700).create(base_dir).context(BASE_DIR)?;
    let _lock = lock(base_dir)?;
    for _ in 0..16 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).context("random numbers")?;
        let id = format!("cw{:02x}{:02x}", random[0], random[1]);
        let dir = base_dir.join(&id);
        if DirBuilder::new().mode(0o700).create(&dir).is_ok() {
            let pid = std::process::id();
            let start = start_time(pid).context("own start time in /proc")?;
            fs::write(dir.join("owner"), format!("{pid} {start}"))?;
            return Ok((id, dir));
        }
    }
    bail!("no unused laboratory name under {BASE_DIR}")
}

/// From now on the laboratory outlives this process; [`remove_kept`] ends it.
pub(crate) fn keep(dir: &Path) -> Result<()> {
    fs::write(dir.join("kept"), "").context("cannot mark the laboratory as kept")
}

/// Removes the laboratories whose owner is dead and that were not kept; returns their names.
pub fn remove_stale() -> Result<Vec<String>> {
    remove_where(|dir| !dir.join("kept").exists() && !owner_lives(dir))
}

/// Removes the laboratories that were kept (`cargo xtask demo --keep`); returns their names.
pub fn remove_kept() -> Result<Vec<String>> {
    remove_where(|dir| dir.join("kept").exists())
}

fn remove_where(is_wanted: impl Fn(&Path) -> bool) -> Result<Vec<String>> {
    let base_dir = Path::new(BASE_DIR);
    let Ok(entries) = fs::read_dir(base_dir) else { return Ok(Vec::new()) };
    let _lock = lock(base_dir)?;
    let mut removed = Vec::new();
    for entry in entries.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if id.starts_with("cw") && entry.path().is_dir() && is_wanted(&entry.path()) {
            remove(&id);
            removed.push(id);
        }
    }
    Ok(removed)
}

/// Ends every process in the laboratory's namespaces, by id, then removes namespaces and directory.
/// Goes on where a step fails: this also runs while a test panics.
pub(crate) fn remove(id: &str) {
    let names = namespaces(id);
    end_processes(&names);
    for name in &names {
        let _ = Command::new("ip").args(["netns", "delete", name]).output();
    }
    let _ = fs::remove_dir_all(Path::new(BASE_DIR).join(id));
}

/// Ends every process in these namespaces.
pub(crate) fn end_processes(namespaces: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let pids: Vec<Pid> = namespaces.iter().flat_map(|name| processes_in(name)).collect();
        if pids.is_empty() || Instant::now() > deadline {
            break;
        }
        for pid in pids {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn namespaces(id: &str) -> Vec<String> {
    let prefix = format!("{id}-");
    let Ok(entries) = fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// The living processes of a namespace (zombies have left it already).
fn processes_in(namespace: &str) -> Vec<Pid> {
    let Ok(listed) = Command::new("ip").args(["netns", "pids", namespace]).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines().filter_map(|line| line.trim().parse().ok()).filter_map(Pid::from_raw).collect()
}

/// One laboratory is made or removed at a time, across processes.
fn lock(base_dir: &Path) -> Result<File> {
    let file = File::create(base_dir.join("lock")).context("cannot create the lock file")?;
    file.lock().context("cannot lock the laboratory directory")?;
    Ok(file)
}

fn owner_lives(dir: &Path) -> bool {
    let Ok(owner) = fs::read_to_string(dir.join("owner")) else { return false };
    let Some((pid, start)) = owner.split_once(' ') else { return false };
    pid.parse().ok().and_then(start_time).is_some_and(|now| now == start)
}

/// Field 22 of `/proc/PID/stat`; with it a reused process id is told apart.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}
