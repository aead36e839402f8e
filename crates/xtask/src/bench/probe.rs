//! What is measured at a [`Site`]: time to connect, round trips, throughput with its price, memory.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use e2e::{Ping, Stream};

use super::path::Site;
use super::report::Figures;
use super::usage;

/// Pings on an idle path.
const IDLE_PINGS: u16 = 100;
/// Pings are sent so often under load.
const PINGS_PER_SECOND: f64 = 50.0;
const PATIENCE: Duration = Duration::from_secs(30);

impl Site {
    /// Connects and waits until it is as it is to be measured; returns the milliseconds from the
    /// start of the client's program to the first answer to a ping through the tunnel. `None` on
    /// the direct path, where there is nothing to connect.
    pub(crate) fn connect(&mut self) -> Result<Option<f64>> {
        let target = self.target.to_string();
        let client = self.client().clone();
        let Some(vpn) = &mut self.vpn else { return Ok(None) };
        let words = ["stdbuf", "-oL", "ping", "-n", "-D", "-i", "0.002", &target];
        let mut pings = client.spawn("first-ping", &words)?;
        pings.wait_for_line("PING", PATIENCE)?;
        let start = SystemTime::now().duration_since(UNIX_EPOCH)?;
        vpn.connect()?;
        let answer = pings.wait_for_line("bytes from", PATIENCE)?;
        drop(pings);
        vpn.settle()?;
        Ok(Some((arrival(&answer)? - start.as_secs_f64()) * 1000.0))
    }

    /// Ends the client, as a user would.
    pub(crate) fn disconnect(&mut self) -> Result<()> {
        self.vpn.as_mut().map_or(Ok(()), |vpn| vpn.disconnect())
    }

    /// The median round trip on the idle path, in milliseconds.
    pub(crate) fn idle_round_trip(&mut self) -> Result<f64> {
        self.look_at_noise()?;
        let ping = Ping::send(self.client(), self.target, IDLE_PINGS)?;
        ensure!(ping.received > usize::from(IDLE_PINGS) / 2, "only {} pongs", ping.received);
        Ok(milliseconds(ping.median))
    }

    /// A bulk transfer by iperf3, with pings beside it from `settled` after its start, or after what
    /// does not count, until its end. Figures, each behind `prefix`: `_bps`, `_vpn_s_per_gb`,
    /// `_machine_s_per_gb`, `_loaded_ms`, `_loaded_p95_ms`.
    pub(crate) fn load(
        &mut self,
        prefix: &str,
        load: Load,
        seconds: u32,
        settled: Duration,
    ) -> Result<Figures> {
        self.look_at_noise()?;
        let pids = usage::with_descendants(&self.pids());
        let left = f64::from(seconds) - settled.as_secs_f64() - 0.3;
        let pings = (left.max(0.3) * PINGS_PER_SECOND) as u16;
        let (client, target) = (self.client().clone(), self.target);
        let (before, rate, ping) = std::thread::scope(|scope| -> Result<_> {
            let beside = scope.spawn(|| -> Result<_> {
                std::thread::sleep(Duration::from_secs(load.omit.into()));
                let before = used(&pids)?;
                std::thread::sleep(settled);
                Ok((before, Ping::send(&client, target, pings)?))
            });
            let rate = self.stream(load, seconds);
            let beside = beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let (before, ping) = beside?;
            Ok((before, rate?, ping))
        })?;
        let after = used(&pids)?;
        let (vpn, machine) = (after.0 - before.0, after.1 - before.1);
        let gigabytes = rate * f64::from(seconds) / 8e9;
        let mut figures = Figures::new();
        let mut add = |name: &str, value: f64| figures.insert(format!("{prefix}_{name}"), value);
        add("bps", rate);
        add("machine_s_per_gb", machine / gigabytes);
        if !pids.is_empty() {
            add("vpn_s_per_gb", vpn / gigabytes);
        }
        if ping.received > 0 {
            add("loaded_ms", milliseconds(ping.median));
            add("loaded_p95_ms", milliseconds(ping.percentile95));
        }
        Ok(figures)
    }

    /// Bits per second of such a transfer.
    pub(crate) fn stream(&self, load: Load, seconds: u32) -> Result<f64> {
        let (streams, omit) = (load.streams.to_string(), load.omit.to_string());
        let options = ["--parallel", &streams, "--omit", &omit, "--congestion", self.inside];
        let (rate, _) = load.stream.run_with(self.client(), self.target, seconds, &options)?;
        ensure!(rate > 0.0, "iperf3 received nothing");
        Ok(rate)
    }

    /// Resident memory of both ends, in bytes: `client_rss`, `gateway_rss` now, `client_hwm`,
    /// `gateway_hwm` at most so far. Nothing on the direct path.
    pub(crate) fn memory(&self) -> Result<Figures> {
        let mut figures = Figures::new();
        let Some(vpn) = &self.vpn else { return Ok(figures) };
        for (end, pids) in [("client", vpn.client_pids()), ("gateway", vpn.gateway_pids())] {
            let pids = usage::with_descendants(&pids);
            for (name, field) in [("rss", "VmRSS"), ("hwm", "VmHWM")] {
                figures.insert(format!("{end}_{name}"), usage::memory(&pids, field)?);
            }
        }
        Ok(figures)
    }

    fn pids(&self) -> Vec<u32> {
        self.vpn.as_ref().map_or(Vec::new(), |vpn| [vpn.client_pids(), vpn.gateway_pids()].concat())
    }

    fn look_at_noise(&mut self) -> Result<()> {
        self.noise.push(usage::noise()?);
        Ok(())
    }
}

/// Processor seconds so far: of these processes, of the machine.
fn used(pids: &[u32]) -> Result<(f64, f64)> {
    Ok((usage::processor_seconds(pids), usage::machine_seconds()?))
}

/// A bulk transfer.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Its direction.
    pub(crate) stream: Stream,
    /// So many connections.
    pub(crate) streams: u32,
    /// So many seconds before the measurement begins.
    pub(crate) omit: u32,
}

impl Load {
    /// One connection, from its beginning.
    pub(crate) fn one(stream: Stream) -> Load {
        Load { stream, streams: 1, omit: 0 }
    }
}

/// The time at which a line of `ping -D` says that its answer came, in seconds since the epoch.
fn arrival(line: &str) -> Result<f64> {
    let stamp = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (stamp, _) = stamp.with_context(|| format!("no time in ping's line {line:?}"))?;
    stamp.parse().with_context(|| format!("no time in ping's line {line:?}"))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::arrival;

    #[test]
    fn the_arrival_is_read_from_pings_line() {
        let line = "[1700000000.250000] 64 bytes from 198.51.100.81: icmp_seq=1 ttl=62 time=2 ms";
        assert_eq!(arrival(line).unwrap(), 1_700_000_000.25);
        assert!(arrival("64 bytes from").is_err());
    }
}
