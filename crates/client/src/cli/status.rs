//! `cipherwall status`: how the connection is.

use std::io::{IsTerminal, stdout};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cipherwall_cli::{Failure, human, print};
use cipherwall_ipc::daemon::{Reply, Request, Rung, State, Status};

use super::{Place, line, running};
use crate::{engine::Lockdown, profile};

/// Show whether and how this computer is connected
///
/// With nothing running it shows `disconnected` and ends with exit code 4; with a running process
/// that is in any state it ends with 0.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// One line of JSON: state, profile, transport, cipher, inner_address, gateway, rx_bytes,
    /// tx_bytes, since (Unix seconds), rtt_ms, ladder and more; only {"state":"disconnected"} if nothing
    /// is running
    #[arg(long)]
    json: bool,

    /// Go on with each change, until it is interrupted or the process ends
    #[arg(long, short)]
    watch: bool,
}

pub(super) async fn run(options: Options, place: &Place) -> anyhow::Result<()> {
    let Some(mut connection) = running::find(&place.paths).await? else {
        let state = State::Disconnected.name();
        print(if options.json {
            serde_json::json!({ "state": state }).to_string()
        } else {
            line("State", state)
        })?;
        return Err(Failure::not_reachable(not_running(place)).into());
    };
    if options.watch {
        let show = |reply| {
            let Reply::Status(status) = reply else { return Err(running::misfit()) };
            options.show_next(&status)
        };
        return running::follow(&mut connection, &Request::Watch, show).await;
    }
    options.show(&running::status(&mut connection).await?)
}

/// A process that was killed leaves its journal, and traffic blocked.
fn not_running(place: &Place) -> &'static str {
    if Lockdown::load(&place.paths.state_dir).is_on() {
        return "no cipherwall process is running; lockdown is on, so traffic is blocked";
    }
    if place.paths.state_dir.join("netcfg-policy.json").exists() {
        return "no cipherwall process is running; one that was killed may have left traffic blocked: \
                connect again, or open it with cipherwall repair";
    }
    "no cipherwall process is running"
}

impl Options {
    fn show(&self, status: &Status) -> anyhow::Result<()> {
        if self.json {
            return print(serde_json::to_string(status)?);
        }
        print(describe(status, SystemTime::now()))
    }

    /// On a terminal, in the place of the one before; else behind it.
    fn show_next(&self, status: &Status) -> anyhow::Result<()> {
        if self.json {
            return self.show(status);
        }
        let (before, behind) =
            if stdout().is_terminal() { ("\x1b[H\x1b[J", "") } else { ("", "\n") };
        print(format_args!("{before}{}{behind}", describe(status, SystemTime::now())))
    }
}

/// A few aligned lines.
fn describe(status: &Status, now: SystemTime) -> String {
    let mut lines = vec![line("State", &state(status, now))];
    let mut add = |label, value: Option<String>| lines.extend(value.map(|it| line(label, &it)));
    add("Profile", status.profile.clone());
    add(
        "Gateway",
        status.gateway.map(|gateway| match &status.transport {
            Some(transport) => format!("{gateway} over {transport}"),
            None => gateway.to_string(),
        }),
    );
    add("Cipher", status.cipher.clone());
    let inside = [status.inner_address, status.inner_address_v6];
    let inside: Vec<_> = inside.iter().flatten().map(ToString::to_string).collect();
    add("Inside", (!inside.is_empty()).then(|| inside.join(", ")));
    add("Device", status.interface.clone());
    if status.since.is_some() {
        add("Received", Some(human::bytes(status.rx_bytes)));
        add("Sent", Some(human::bytes(status.tx_bytes)));
    }
    add("Outside", outside(status, now));
    add("Note", status.notice.clone());
    lines.extend(ladder(status, now));
    let mut add = |label, value: Option<String>| lines.extend(value.map(|it| line(label, &it)));
    add("Round trip", status.rtt_ms.map(|rtt| format!("{rtt:.1} ms")));
    add("Reason", status.error.clone());
    let at = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let lost = status.lost_at.and_then(at).and_then(|at| now.duration_since(at).ok());
    add("Lost", lost.map(|ago| format!("{} ago", human::duration(ago))));
    if status.state == State::Reconnecting {
        let next = status.next_try.and_then(at).and_then(|at| at.duration_since(now).ok());
        let next = next.map(|wait| format!("in {}", human::duration(wait)));
        add("Next try", Some(next.unwrap_or_else(|| "now".to_owned())));
    }
    lines.join("\n")
}

/// The ways to the gateways, where there are several, and why each is not taken.
fn ladder(status: &Status, now: SystemTime) -> Vec<String> {
    if status.ladder.len() < 2 {
        return Vec::new();
    }
    let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let describe = |rung: &Rung| {
        let place = profile::address(&rung.host, rung.port);
        let mut text = format!("{place} over {}: ", rung.transport);
        match &rung.why {
            Some(why) => text += why,
            None if rung.in_use => text += "in use",
            None if rung.next_try.is_some() => text += "not tried yet",
            None => text += "not needed",
        }
        let ago = rung.failed_at.and_then(time).and_then(|at| now.duration_since(at).ok());
        if let Some(ago) = ago {
            text += &format!(" ({} ago)", human::duration(ago));
        }
        let next = rung.next_try.and_then(time);
        if let Some(wait) = next.map(|at| at.duration_since(now).unwrap_or_default()) {
            text += &format!(", tried in {}", human::duration(wait));
        }
        text
    };
    let labels = std::iter::once(line("Ladder", "")).chain(std::iter::repeat(" ".repeat(12)));
    labels.zip(&status.ladder).map(|(label, rung)| label + &describe(rung)).collect()
}

/// What may flow outside of the tunnel.
fn outside(status: &Status, now: SystemTime) -> Option<String> {
    if !status.protected {
        return None;
    }
    let blocked = if status.lockdown { "blocked always (lockdown)" } else { "blocked" };
    let mut but = Vec::new();
    if status.allow_lan {
        but.push("the local network".to_owned());
    }
    if !status.direct.is_empty() {
        but.push(status.direct.join(", "));
    }
    if !status.only.is_empty() {
        but.push(format!("everything except {}", status.only.join(", ")));
    }
    let until = status.portal_until.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at)));
    if let Some(left) = until.and_then(|until| until.duration_since(now).ok()) {
        let left = human::duration(left);
        but.push(format!("names and web pages for another {left} (cipherwall portal)"));
    }
    Some(match but.is_empty() {
        true => blocked.to_owned(),
        false => format!("{blocked}, but for {}", but.join(", and ")),
    })
}

fn state(status: &Status, now: SystemTime) -> String {
    let name = status.state.name();
    let since = status.since.and_then(|since| UNIX_EPOCH.checked_add(Duration::from_secs(since)));
    match since.and_then(|since| now.duration_since(since).ok()) {
        Some(time) => format!("{name} (session of {})", human::duration(time)),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_aligned_and_only_what_is_known_is_shown() {
        let status = Status {
            state: State::Connected,
            profile: Some("home".into()),
            transport: Some("tls".into()),
            gateway: Some(([192, 0, 2, 1], 8443).into()),
            inner_address: Some([10, 8, 0, 2].into()),
            rx_bytes: 3 << 20,
            tx_bytes: 100,
            since: Some(1000),
            rtt_ms: Some(12.34),
            ..Status::default()
        };
        assert_eq!(
            describe(&status, UNIX_EPOCH + Duration::from_secs(8500)),
            "State:      connected (session of 2h 5m)\n\
             Profile:    home\n\
             Gateway:    192.0.2.1:8443 over tls\n\
             Inside:     10.8.0.2\n\
             Received:   3.0 MiB\n\
             Sent:       100 B\n\
             Round trip: 12.3 ms"
        );
        let connecting = Status {
            state: State::Connecting,
            error: Some("the gateway does not answer".into()),
            ..Status::default()
        };
        assert_eq!(
            describe(&connecting, UNIX_EPOCH),
            "State:      connecting\nReason:     the gateway does not answer"
        );
        let lost = Status {
            state: State::Reconnecting,
            error: Some("the gateway is busy".into()),
            lost_at: Some(100),
            next_try: Some(112),
            ..Status::default()
        };
        assert_eq!(
            describe(&lost, UNIX_EPOCH + Duration::from_secs(104)),
            "State:      reconnecting\n\
             Reason:     the gateway is busy\n\
             Lost:       4s ago\n\
             Next try:   in 8s"
        );
        let trying = Status { next_try: None, lost_at: None, error: None, ..lost };
        assert_eq!(describe(&trying, UNIX_EPOCH), "State:      reconnecting\nNext try:   now");
    }

    #[test]
    fn a_ladder_says_which_rung_is_in_use_and_why_not_the_others() {
        let rung = |port, transport: &str| Rung {
            host: "gw.example".into(),
            port,
            transport: transport.into(),
            ..Rung::default()
        };
        let failed = Rung {
            why: Some("no answer".into()),
            failed_at: Some(88),
            next_try: Some(118),
            ..rung(8443, "tls")
        };
        let mut status = Status { ladder: vec![failed], ..Status::default() };
        let said = |status: &Status| ladder(status, UNIX_EPOCH + Duration::from_secs(100));
        assert_eq!(said(&status), [""; 0], "nothing to choose from");
        let in_use = Rung { in_use: true, ..rung(443, "kcp") };
        status.ladder.extend([in_use, rung(9443, "tls")]);
        assert_eq!(
            said(&status),
            [
                "Ladder:     gw.example:8443 over tls: no answer (12s ago), tried in 18s",
                "            gw.example:443 over kcp: in use",
                "            gw.example:9443 over tls: not needed",
            ]
        );
    }

    #[test]
    fn what_may_flow_outside_is_said_in_one_line() {
        let status = |lockdown, allow_lan, portal_until| Status {
            protected: true,
            lockdown,
            allow_lan,
            portal_until,
            ..Status::default()
        };
        let said = |status: &Status| outside(status, UNIX_EPOCH).expect("said");
        assert_eq!(said(&status(false, false, None)), "blocked");
        assert_eq!(
            said(&status(true, true, Some(250))),
            "blocked always (lockdown), but for the local network, and names and web pages for \
             another 4m 10s (cipherwall portal)"
        );
        let split = Status { only: vec!["192.0.2.0/24".into()], ..status(false, false, None) };
        assert_eq!(said(&split), "blocked, but for everything except 192.0.2.0/24");
        assert_eq!(outside(&Status::default(), UNIX_EPOCH), None);
    }
}
