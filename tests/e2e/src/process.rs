//! Programs in the background: logs in files, ended by id, always ended on drop.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

const POLL: Duration = Duration::from_millis(2);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout_path: PathBuf,
    stderr_path: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `NAME.out` and `NAME.err` in `log_dir`.
    pub(crate) fn start(name: &str, log_dir: &Path, mut command: Command) -> Result<Process> {
        let stdout_path = log_dir.join(format!("{name}.out"));
        let stderr_path = log_dir.join(format!("{name}.err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout_path)?)
            .stderr(File::create(&stderr_path)?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Process { name: name.to_owned(), child, stdout_path, stderr_path })
    }

    /// The process id; the program itself, not a wrapper.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a complete line of standard output contains `text`; returns that line.
    /// Fails with the logs if the program ends first or `timeout` passes.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let stdout_path = self.stdout_path.clone();
        self.wait_for_line_in(&stdout_path, text, timeout)
    }

    /// As [`Process::wait_for_line`], on standard error.
    pub fn wait_for_error_line(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let stderr_path = self.stderr_path.clone();
        self.wait_for_line_in(&stderr_path, text, timeout)
    }

    fn wait_for_line_in(&mut self, path: &Path, text: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            let ended = self.child.try_wait()?;
            let log = read(path);
            let complete = log.rfind('\n').map_or("", |end| &log[..end]);
            if let Some(line) = complete.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) before it said {text:?}{}", self.name, self.logs());
            }
            if Instant::now() > deadline {
                bail!("{} did not say {text:?} within {timeout:?}{}", self.name, self.logs());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for the end of the program; fails with the logs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {timeout:?}{}", self.name, self.logs());
            }
            std::thread::sleep(POLL);
        }
    }

    /// True as long as the program has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, then SIGKILL if it has not ended within `timeout`, which is an error.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        let waited = self.wait(timeout);
        if waited.is_err() {
            self.kill9();
        }
        waited.with_context(|| format!("{} did not stop on SIGTERM", self.name))
    }

    /// SIGTERM without waiting.
    pub fn start_terminating(&mut self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP.
    pub fn hang_up(&mut self) {
        self.signal(Signal::HUP);
    }

    /// SIGSTOP, then SIGCONT.
    pub fn suspend(&mut self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        self.signal(Signal::STOP);
        let done = meanwhile();
        self.signal(Signal::CONT);
        done
    }

    /// SIGKILL: a crash. Returns when the process is gone.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it run on after this value and this program have gone.
    pub fn detach(self) {
        std::mem::forget(self);
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout_path)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr_path)
    }

    /// Resident memory in bytes; the highest value so far with `VmHWM`, the current one with
    /// `VmRSS`.
    pub fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no field")?;
        let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        Ok(kib.parse::<u64>().context("memory figure")? * 1024)
    }

    /// The end of both logs, for an error message.
    pub fn logs(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n  ")
        };
        let (stdout, stderr) = (tail(self.stdout()), tail(self.stderr()));
        format!("\n {} stdout:\n  {stdout}\n {} stderr:\n  {stderr}", self.name, self.name)
    }

    fn signal(&mut self, signal: Signal) {
        // try_wait first: after the program was reaped its id may belong to somebody else
        if self.is_running()
            && let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
