//! What a person would try: open a page, ping, ask DNS, measure with iperf3.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::node::{Node, Ran};

/// Repeats `attempt` until it gives a value; fails with its last error, naming `what`.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let outcome = attempt();
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if Instant::now() > deadline {
            let message = format!("waited {patience:?} in vain for {what}");
            return match outcome {
                Err(error) => Err(error.context(message)),
                Ok(_) => bail!("{message}"),
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The SHA-256 of a file as `node` sees it, in hexadecimal digits.
pub(crate) fn sha256(node: &Node, path: &str) -> Result<String> {
    let line = node.ok(&["sha256sum", path])?;
    Ok(line.split_whitespace().next().context("sha256sum printed nothing")?.to_owned())
}

/// A page or file fetched by curl.
#[derive(Debug)]
pub struct Page {
    /// The body, where it was kept.
    pub body: String,
    /// HTTP status.
    pub status: u16,
    /// From the start of curl's work to the first byte of the answer.
    pub first_byte: Duration,
    /// Mean rate in bytes per second, of the direction that was asked for.
    pub rate: f64,
}

impl Page {
    /// Opens a page; anything but status 200 is an error.
    pub fn open(node: &Node, url: &str) -> Result<Page> {
        Page::fetch(node, &["--max-time", "10", url], "%{speed_download}")
    }

    /// Downloads `url` and returns the transfer with the SHA-256 of what arrived.
    pub fn download(node: &Node, url: &str) -> Result<(Page, String)> {
        let path = node.dir().join("download");
        let path = path.to_str().context("path is not UTF-8")?;
        let page = Page::fetch(node, &["--output", path, url], "%{speed_download}")?;
        Ok((page, sha256(node, path)?))
    }

    /// Uploads `size` random bytes to `url` by PUT; returns the transfer and their SHA-256.
    pub fn upload(node: &Node, url: &str, size: u64) -> Result<(Page, String)> {
        let path = node.dir().join("upload");
        let path = path.to_str().context("path is not UTF-8")?;
        node.ok(&["sh", "-c", &format!("head -c {size} /dev/urandom > {path}")])?;
        let page = Page::fetch(node, &["--upload-file", path, url], "%{speed_upload}")?;
        Ok((page, sha256(node, path)?))
    }

    fn fetch(node: &Node, words: &[&str], rate: &str) -> Result<Page> {
        let figures = format!("\n%{{http_code}} %{{time_starttransfer}} {rate}");
        let mut all = vec!["curl", "--silent", "--show-error", "--noproxy", "*"];
        all.extend(["--write-out", &figures]);
        all.extend(words);
        let text = node.run_with(&all, "", Duration::from_secs(600))?.ok()?;
        let (body, figures) = text.rsplit_once('\n').context("curl printed no figures")?;
        let mut figures = figures.split(' ');
        let mut number =
            || -> Result<f64> { figures.next().unwrap_or("").parse().context("curl's figures") };
        let page = Page {
            body: body.to_owned(),
            status: number()? as u16,
            first_byte: Duration::from_secs_f64(number()?),
            rate: number()?,
        };
        ensure!((200..300).contains(&page.status), "{}: status {}", words.join(" "), page.status);
        Ok(page)
    }
}

/// A finished series of echo requests.
#[derive(Debug)]
pub struct Ping {
    /// How many were answered.
    pub received: usize,
    /// The middle one of the round trip times.
    pub median: Duration,
    /// The round trip time that one in twenty exceeds.
    pub percentile95: Duration,
}

impl Ping {
    /// Sends `count` echo requests 20 ms apart, each waited for 1 s. No answer is not an error.
    pub fn send(node: &Node, target: IpAddr, count: u16) -> Result<Ping> {
        Ping::send_with(node, target, count, &[])
    }

    /// As [`Ping::send`], with more options of `ping`.
    pub fn send_with(node: &Node, target: IpAddr, count: u16, options: &[&str]) -> Result<Ping> {
        let patience = Duration::from_secs(30) + Duration::from_millis(20) * count.into();
        let (count, target) = (count.to_string(), target.to_string());
        let mut words = vec!["ping", "-n", "-i", "0.02", "-W", "1", "-c", &count];
        words.extend(options);
        words.push(&target);
        let ran = node.run_with(&words, "", patience)?;
        // 1 means no answers; 2 is a failure of ping, but also "no route", which is an answer
        ensure!(ran.code() <= 1 || ran.stderr.contains("unreachable"), "{ran}");
        Ok(Ping::parse(&ran))
    }

    fn parse(ran: &Ran) -> Ping {
        let times = ran.stdout.split("time=").skip(1);
        let mut times: Vec<f64> = times
            .filter_map(|rest| rest.split_whitespace().next())
            .filter_map(|number| number.parse().ok())
            .collect();
        times.sort_by(f64::total_cmp);
        let at = |index: usize| {
            Duration::from_secs_f64(times.get(index).copied().unwrap_or_default() / 1000.0)
        };
        let received = times.len();
        Ping { received, median: at(received / 2), percentile95: at(received * 95 / 100) }
    }
}

/// One direction of an iperf3 run.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// TCP from the client.
    Up,
    /// TCP to the client.
    Down,
    /// UDP from the client, at this rate in bits per second.
    UdpUp(u64),
    /// UDP to the client, at this rate in bits per second.
    UdpDown(u64),
}

impl Stream {
    /// Runs iperf3 in `node` against `server`; returns received bits per second and the share of
    /// datagrams lost (0 to 1; always 0 for TCP).
    pub fn run(self, node: &Node, server: IpAddr, seconds: u32) -> Result<(f64, f64)> {
        self.run_with(node, server, seconds, &[])
    }

    /// As [`Stream::run`], with more options of `iperf3`. The rate is that of all streams together.
    pub fn run_with(
        self,
        node: &Node,
        server: IpAddr,
        seconds: u32,
        options: &[&str],
    ) -> Result<(f64, f64)> {
        let patience = Duration::from_secs(u64::from(seconds) + 60);
        let (server, seconds) = (server.to_string(), seconds.to_string());
        let mut words = vec!["iperf3", "--json", "--client", &server, "--time", &seconds];
        let rate = match self {
            Stream::Up | Stream::Down => String::new(),
            Stream::UdpUp(rate) | Stream::UdpDown(rate) => rate.to_string(),
        };
        if !rate.is_empty() {
            words.extend(["--udp", "--bitrate", &rate, "--length", "1200"]);
        }
        if matches!(self, Stream::Down | Stream::UdpDown(_)) {
            words.push("--reverse");
        }
        words.extend(options);
        let ran = node.run_with(&words, "", patience)?;
        let report: Value =
            serde_json::from_str(&ran.stdout).with_context(|| format!("iperf3's report: {ran}"))?;
        ensure!(ran.status.success(), "iperf3: {}", report["error"]);
        if rate.is_empty() {
            let received = report["end"]["sum_received"]["bits_per_second"].as_f64();
            return Ok((received.context("iperf3 measured nothing")?, 0.0));
        }
        let sum = &report["end"]["sum"];
        let bits = sum["bits_per_second"].as_f64().context("iperf3 measured nothing")?;
        let lost = sum["lost_percent"].as_f64().context("iperf3 counted nothing")? / 100.0;
        Ok((bits * (1.0 - lost), lost))
    }
}
