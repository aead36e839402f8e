//! Processor time and memory, of programs with all their children, and of the whole machine.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long [`noise`] looks.
const LOOK: Duration = Duration::from_millis(250);

/// These processes and all their descendants.
pub(crate) fn with_descendants(pids: &[u32]) -> Vec<u32> {
    let mut all = pids.to_vec();
    let mut at = 0;
    while let Some(&pid) = all.get(at) {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            at += 1;
            continue;
        };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        at += 1;
    }
    all
}

/// Processor seconds that these processes have used so far, with the kernel's work in their name.
/// Those that have ended count nothing.
pub(crate) fn processor_seconds(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| ticks_of(*pid)).sum::<f64>() / tick_rate()
}

fn ticks_of(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name in parentheses may hold anything; utime and stime are fields 14 and 15
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().ok()).sum()
}

/// Processor seconds of the whole machine since boot, interrupts included, idle time not.
pub(crate) fn machine_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<f64> =
        line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at)).sum::<f64>();
    Ok(busy / tick_rate())
}

fn tick_rate() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// How many processors are busy right now, with whatever.
pub(crate) fn noise() -> Result<f64> {
    let (before, start) = (machine_seconds()?, Instant::now());
    std::thread::sleep(LOOK);
    Ok((machine_seconds()? - before) / start.elapsed().as_secs_f64())
}

/// Bytes of resident memory of these processes together: now (`VmRSS`) or at most so far (`VmHWM`).
pub(crate) fn memory(pids: &[u32], field: &str) -> Result<f64> {
    let mut kibibytes = 0.0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} has ended"))?;
        // one that has ended, and whose end its parent has not looked at yet, has no memory
        let Some(line) = status.lines().find_map(|line| line.strip_prefix(field)) else { continue };
        let number = line.trim_start_matches(':').split_whitespace().next().context("no value")?;
        kibibytes += number.parse::<f64>().context("memory figure")?;
    }
    Ok(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_uses_time_and_memory_and_the_machine_more() {
        let pids = with_descendants(&[std::process::id()]);
        // others may have the processors for a while
        let start = Instant::now();
        let mut own = 0.0;
        while own == 0.0 && start.elapsed() < Duration::from_secs(30) {
            own = processor_seconds(&pids);
        }
        assert!(own > 0.0 && own < machine_seconds().unwrap());
        // in this order: other tests of this process take memory meanwhile
        let now = memory(&pids, "VmRSS").unwrap();
        assert!(now > 0.0 && memory(&pids, "VmHWM").unwrap() >= now);
    }
}
