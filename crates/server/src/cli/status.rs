//! `cipherwall-server status`: how the gateway is.

use std::time::Duration;

use cipherwall_cli::{human, print};

use super::place::{Place, unexpected};
use crate::admin::{self, AdminReply, AdminRequest, LiveStatus, StatusInfo, Strangers};

/// Show whether the gateway runs, and its counters
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// A JSON object: running, version, users, devices, networks, pool_size; while running also
    /// since (Unix seconds), sessions, strangers, rx_bytes, tx_bytes and drops
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options, place: &Place) -> anyhow::Result<()> {
    let AdminReply::Status(status) = place.ask(AdminRequest::Status).await? else {
        return unexpected();
    };
    if options.json {
        return print(serde_json::to_string(&status)?);
    }
    print(describe(&status, admin::unix_now()))
}

/// A few aligned lines.
fn describe(status: &StatusInfo, now: u64) -> String {
    let line = |label: &str, value: String| format!("{:12}{value}", format!("{label}:"));
    let networks: Vec<_> = status.networks.iter().map(ToString::to_string).collect();
    let mut lines = vec![line("Inside", networks.join(", "))];
    lines.push(line("Users", format!("{} with {} devices", status.users, status.devices)));
    match &status.live {
        None => lines.insert(0, line("State", "not running".to_owned())),
        Some(live) => {
            let time = Duration::from_secs(now.saturating_sub(live.since));
            lines.insert(0, line("State", format!("running for {}", human::duration(time))));
            lines.push(line("Sessions", format!("{} of {}", live.sessions, status.pool_size)));
            lines.push(line("Datagrams", datagrams(live)));
            lines.push(line("KCP", kcp(live)));
            let Strangers { connections, gave_way } = live.strangers;
            let strangers = format!("{connections} connections, {gave_way} had to make room");
            lines.push(line("Strangers", strangers));
            lines.push(line("Received", human::bytes(live.rx_bytes)));
            lines.push(line("Sent", human::bytes(live.tx_bytes)));
            let drops = live.drops;
            lines.push(line(
                "Dropped",
                format!(
                    "{} with a foreign source, {} to other clients, {} malformed, {} to nobody, \
                     {} too fast for a client",
                    drops.spoofed_source,
                    drops.client_to_client,
                    drops.malformed,
                    drops.no_session,
                    drops.congested
                ),
            ));
        }
    }
    lines.join("\n")
}

fn datagrams(live: &LiveStatus) -> String {
    match &live.datagram_ports {
        None => "off".to_owned(),
        Some(ports) => {
            let (sessions, foreign) = (live.datagram_sessions, live.drops.foreign_datagrams);
            format!("UDP {ports}, {sessions} sessions, {foreign} of nobody's dropped")
        }
    }
}

fn kcp(live: &LiveStatus) -> String {
    match live.kcp_port {
        None => "off".to_owned(),
        Some(port) => format!("UDP {port}, {} sessions", live.kcp_sessions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Drops;

    #[test]
    fn a_running_and_a_stopped_gateway() {
        let mut status = StatusInfo {
            running: false,
            version: "0.1.0".into(),
            users: 2,
            devices: 3,
            networks: vec!["10.8.0.1/24".parse().unwrap(), "fd12::1/64".parse().unwrap()],
            pool_size: 253,
            live: None,
        };
        assert_eq!(
            describe(&status, 0),
            "State:      not running\nInside:     10.8.0.1/24, fd12::1/64\n\
             Users:      2 with 3 devices"
        );
        let drops = Drops { spoofed_source: 1, ..Drops::default() };
        status.live = Some(LiveStatus {
            since: 10,
            sessions: 1,
            tx_bytes: 2048,
            drops,
            strangers: Strangers { connections: 7, gave_way: 8 },
            ..LiveStatus::default()
        });
        let text = describe(&status, 70);
        assert!(text.starts_with("State:      running for 1m 0s\n"), "{text}");
        assert!(text.contains("Sessions:   1 of 253\n"), "{text}");
        assert!(text.contains("Strangers:  7 connections, 8 had to make room\n"), "{text}");
        assert!(text.contains("Datagrams:  off\nKCP:        off\n"), "{text}");
        if let Some(live) = &mut status.live {
            live.datagram_ports = Some("1194".into());
            live.datagram_sessions = 2;
            (live.kcp_port, live.kcp_sessions) = (Some(443), 1);
        }
        let with = describe(&status, 70);
        assert!(
            with.contains("Datagrams:  UDP 1194, 2 sessions, 0 of nobody's dropped\n"),
            "{with}"
        );
        assert!(with.contains("KCP:        UDP 443, 1 sessions\n"), "{with}");
        assert!(text.contains("Dropped:    1 with a foreign source, 0 to other"), "{text}");
    }
}
