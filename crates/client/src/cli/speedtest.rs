//! `cipherwall speedtest`: how fast the tunnel is, to the gateway itself (A28).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use cipherwall_cli::{Failure, exit, human, print};
use cipherwall_ipc::daemon::{State, Status};
use cipherwall_speedtest::{
    DEFAULT_PORT, Latency, MAX_SECONDS, MAX_STREAMS, Outcome, Phase, Progress, TestError,
    run as test,
};
use serde::Serialize;

use super::failure::{WithCode, coded};
use super::{Place, line, running};
use crate::progress::ChangingLine;

/// Measure how fast the tunnel is, to the gateway and back
///
/// Bandwidth each way, and the latency of small messages, both with nothing else going on and during
/// the transfers. Nothing goes further than the gateway, so that a slow web site does not matter.
/// It moves as much data as the line can carry. Needs a connection: without one it ends with exit
/// code 4.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Seconds for each direction
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_SECONDS)))]
    seconds: u8,

    /// Connections through the tunnel at a time
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_STREAMS)))]
    streams: u8,

    /// The gateway's port for this (`speedtest` in its server.yaml)
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT,
          value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// One line of JSON and no progress: gateway, transport, cipher, seconds, streams, idle,
    /// download and upload
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options, place: &Place) -> anyhow::Result<()> {
    let status = connected(place).await?;
    let gateway = SocketAddr::new(gateway_inside(&status)?, options.port);
    let progress = ChangingLine::new(!options.json);
    progress.show(format_args!("asking the gateway at {gateway} ..."));
    let asked =
        cipherwall_speedtest::Options { seconds: options.seconds, streams: options.streams };
    let outcome = tokio::select! {
        outcome = test(gateway, asked, |now| progress.show(describe_progress(now))) => {
            outcome.map_err(coded)
        }
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Err(Failure::failed("interrupted").into())
        }
    };
    drop(progress);
    let report = Report {
        gateway,
        transport: status.transport,
        cipher: status.cipher,
        seconds: options.seconds,
        streams: options.streams,
        outcome: outcome?,
    };
    print(if options.json { serde_json::to_string(&report)? } else { describe(&report) })
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    gateway: SocketAddr,
    transport: Option<String>,
    cipher: Option<String>,
    seconds: u8,
    streams: u8,
    #[serde(flatten)]
    outcome: Outcome,
}

/// The running connection.
async fn connected(place: &Place) -> anyhow::Result<Status> {
    let connect = "connect first, with: cipherwall connect";
    let Some(mut connection) = running::find(&place.paths).await? else {
        return Err(Failure::not_reachable(format!("not connected: {connect}")).into());
    };
    let status = running::status(&mut connection).await?;
    let remedy = match status.state {
        State::Connected => return Ok(status),
        State::Connecting | State::Reconnecting => {
            "try again when `cipherwall status` says connected"
        }
        State::Disconnected | State::Disconnecting | State::Blocked => connect,
    };
    let state = status.state.name();
    Err(Failure::not_reachable(format!("not connected, but {state}: {remedy}")).into())
}

/// The gateway's address inside: the first of the network. How far this device's one is from there
/// is what its IPv6 address ends with.
fn gateway_inside(status: &Status) -> anyhow::Result<IpAddr> {
    let (Some(IpAddr::V4(v4)), Some(IpAddr::V6(v6))) =
        (status.inner_address, status.inner_address_v6)
    else {
        return Err(Failure::failed(
            "the running process does not say its inside addresses: it may be of another version; \
             start it again",
        )
        .into());
    };
    let [.., a, b, c, d] = v6.octets();
    let host = u32::from_be_bytes([a, b, c, d]);
    Ok(Ipv4Addr::from(u32::from(v4).wrapping_sub(host).wrapping_add(1)).into())
}

impl WithCode for TestError {
    fn code(&self) -> u8 {
        match self {
            TestError::NotOffered { .. } | TestError::Lost(_) => exit::NOT_REACHABLE,
            TestError::Busy | TestError::AlreadyTesting | TestError::Refused => exit::FAILED,
        }
    }
}

fn describe_progress(now: Progress) -> String {
    let rate = now.bits_per_s.map(|rate| format!("  {}", human::bit_rate(rate)));
    format!("{:10}{:3.0}%{}", name(now.phase), now.done * 100.0, rate.unwrap_or_default())
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "idle",
        Phase::Download => "download",
        Phase::Upload => "upload",
    }
}

/// A head line and a table.
fn describe(report: &Report) -> String {
    let over: Vec<_> =
        [&report.transport, &report.cipher].into_iter().flatten().map(String::as_str).collect();
    let Outcome { idle, download, upload } = &report.outcome;
    let row = |phase, rate: Option<f64>, latency: &Option<Latency>| {
        let ms = |of: fn(&Latency) -> f64| {
            latency.as_ref().map_or_else(|| "-".to_owned(), |it| format!("{:.1} ms", of(it)))
        };
        [
            name(phase).to_owned(),
            rate.map_or_else(|| "-".to_owned(), human::bit_rate),
            ms(|it| it.median_ms),
            ms(|it| it.min_ms),
            ms(|it| it.max_ms),
            ms(|it| it.jitter_ms),
        ]
    };
    let rows = [
        row(Phase::Idle, None, idle),
        row(Phase::Download, Some(download.bits_per_s), &download.latency),
        row(Phase::Upload, Some(upload.bits_per_s), &upload.latency),
    ];
    let heads = ["", "SPEED", "LATENCY", "MIN", "MAX", "JITTER"];
    format!(
        "{}\n\n{}",
        line("Gateway", &format!("{} over {}", report.gateway, over.join(", "))),
        human::table(heads, &rows)
    )
}

#[cfg(test)]
mod tests {
    use cipherwall_speedtest::Transfer;

    use super::*;

    fn report() -> Report {
        let latency = |median_ms| Latency {
            median_ms,
            min_ms: median_ms - 1.0,
            max_ms: median_ms + 10.0,
            jitter_ms: 0.25,
            samples: 30,
        };
        let transfer =
            |bits_per_s, latency| Transfer { bits_per_s, bytes: 1000, seconds: 8.0, latency };
        Report {
            gateway: ([10, 8, 0, 1], 8474).into(),
            transport: Some("tls".into()),
            cipher: Some("aes-256-gcm".into()),
            seconds: 10,
            streams: 4,
            outcome: Outcome {
                idle: Some(latency(12.0)),
                download: transfer(94.1e6, Some(latency(18.5))),
                upload: transfer(640.0, None),
            },
        }
    }

    #[test]
    fn people_get_a_table() {
        assert_eq!(
            describe(&report()),
            "Gateway:    10.8.0.1:8474 over tls, aes-256-gcm\n\n\
             \u{20}         SPEED        LATENCY  MIN      MAX      JITTER\n\
             idle      -            12.0 ms  11.0 ms  22.0 ms  0.2 ms\n\
             download  94.1 Mbit/s  18.5 ms  17.5 ms  28.5 ms  0.2 ms\n\
             upload    640 bit/s    -        -        -        -"
        );
        let progress = Progress { phase: Phase::Upload, done: 0.25, bits_per_s: Some(1.5e9) };
        assert_eq!(describe_progress(progress), "upload     25%  1.5 Gbit/s");
    }

    #[test]
    fn the_json_that_scripts_read_is_fixed() {
        assert_eq!(
            serde_json::to_string(&report()).expect("JSON"),
            concat!(
                r#"{"gateway":"10.8.0.1:8474","transport":"tls","cipher":"aes-256-gcm","#,
                r#""seconds":10,"streams":4,"#,
                r#""idle":{"median_ms":12.0,"min_ms":11.0,"max_ms":22.0,"jitter_ms":0.25,"#,
                r#""samples":30},"#,
                r#""download":{"bits_per_s":94100000.0,"bytes":1000,"seconds":8.0,"#,
                r#""latency":{"median_ms":18.5,"min_ms":17.5,"max_ms":28.5,"jitter_ms":0.25,"#,
                r#""samples":30}},"#,
                r#""upload":{"bits_per_s":640.0,"bytes":1000,"seconds":8.0,"latency":null}}"#,
            )
        );
    }

    #[test]
    fn the_gateway_is_the_first_address_of_the_inside_network() {
        let inside = |v4: [u8; 4], v6: &str| {
            let status = Status {
                inner_address: Some(v4.into()),
                inner_address_v6: Some(v6.parse().expect("an address")),
                ..Status::default()
            };
            gateway_inside(&status).expect("an address").to_string()
        };
        assert_eq!(inside([10, 8, 0, 2], "fd59:265d:ef68::2"), "10.8.0.1");
        assert_eq!(inside([10, 8, 3, 7], "fd00::307"), "10.8.0.1");
        assert_eq!(inside([10, 77, 255, 254], "fd00::4d:fffe"), "10.0.0.1");
        assert!(gateway_inside(&Status::default()).is_err());
    }
}
