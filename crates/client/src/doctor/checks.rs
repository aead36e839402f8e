//! What was looked at, in a line each.

use cipherwall_ipc::daemon::State;
use serde::Serialize;

use super::{
    Seeing,
    account::{Account, Udp},
    gateway::{Outcome, Seen},
    local,
    portal::Portal,
};

/// A clock that is so far off gives wrong ideas of when things expire.
const CLOCK_OFF_S: u64 = 300;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Its name.
    pub(crate) check: &'static str,
    /// How it came out.
    pub(crate) result: CheckResult,
    /// What was seen.
    pub(crate) detail: String,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckResult {
    /// Well.
    Ok,
    /// Not well.
    Failed,
    /// It was not tried, or says nothing.
    Unknown,
}

impl CheckResult {
    /// As in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CheckResult::Ok => "ok",
            CheckResult::Failed => "failed",
            CheckResult::Unknown => "unknown",
        }
    }
}

impl Check {
    fn new(check: &'static str, result: CheckResult, detail: impl Into<String>) -> Self {
        Self { check, result, detail: detail.into() }
    }
}

fn ok_if(good: bool) -> CheckResult {
    if good { CheckResult::Ok } else { CheckResult::Failed }
}

/// In the order of looking.
pub(super) fn checks(seeing: &Seeing) -> Vec<Check> {
    let mut checks = vec![leftovers(seeing)];
    checks.extend(running(seeing));
    if let Some(inside) = &seeing.inside {
        let found = !inside.name.addresses.is_empty();
        checks.push(Check::new("dns in the tunnel", ok_if(found), inside.name.describe()));
        checks.push(page("internet in the tunnel", &inside.page));
        return checks;
    }
    if let Some(network) = &seeing.network {
        checks.push(Check::new("network", ok_if(network.problem().is_none()), network.describe()));
    }
    checks.extend(seeing.portal.as_ref().map(|portal| page("internet", portal)));
    for name in &seeing.names {
        checks.push(Check::new("dns", ok_if(!name.addresses.is_empty()), name.describe()));
    }
    checks.extend(seeing.gateway.iter().map(gateway));
    checks.extend(seeing.account.as_ref().into_iter().flat_map(account));
    if !seeing.has_profile {
        let detail = "no profile: import an invitation first (cipherwall import LINK)";
        checks.push(Check::new("gateway", CheckResult::Unknown, detail));
    }
    checks
}

fn leftovers(seeing: &Seeing) -> Check {
    match seeing.leftovers.as_slice() {
        [] => Check::new("leftovers", CheckResult::Ok, "nothing was left by a process that died"),
        all => Check::new("leftovers", CheckResult::Failed, local::describe(all)),
    }
}

fn running(seeing: &Seeing) -> Option<Check> {
    let status = seeing.running.as_ref()?;
    let reason = status.error.iter().chain(&status.notice);
    let detail = std::iter::once(status.state.name()).chain(reason.map(String::as_str));
    let detail = detail.collect::<Vec<_>>().join(": ");
    let connected = status.state == State::Connected;
    let result = if connected { CheckResult::Ok } else { CheckResult::Unknown };
    Some(Check::new("connection", result, detail))
}

fn page(check: &'static str, portal: &Portal) -> Check {
    match portal {
        Portal::None => Check::new(check, CheckResult::Ok, "answers"),
        Portal::Found(location) => {
            let detail =
                format!("web pages lead to {}", location.as_deref().unwrap_or("another one"));
            Check::new(check, CheckResult::Failed, detail)
        }
        Portal::Unknown(why) => Check::new(check, CheckResult::Unknown, why),
        Portal::Silent(why) => Check::new(check, CheckResult::Failed, why),
    }
}

fn gateway(seen: &Seen) -> Check {
    let what = match &seen.outcome {
        Outcome::Good => "answers, with the right key".to_owned(),
        Outcome::Silent { alive: true } => "the machine answers, this port does not".to_owned(),
        Outcome::Silent { alive: false } => "does not answer".to_owned(),
        Outcome::Refused => "refuses connections".to_owned(),
        Outcome::NoWay(error) => error.clone(),
        Outcome::Altered(error) => format!("breaks off: {error}"),
        Outcome::NameBlocked(name) => format!("breaks off where the name {name} is shown"),
        Outcome::MtuHole => "answers in short packets only".to_owned(),
        Outcome::WrongPin => "has another key".to_owned(),
    };
    let detail = format!("{}: {what}", seen.address);
    Check::new("gateway", ok_if(seen.outcome == Outcome::Good), detail)
}

fn account(account: &Account) -> Vec<Check> {
    let (ahead, udp) = match account {
        Account::NotTried(why) => {
            return vec![Check::new("account", CheckResult::Unknown, *why)];
        }
        Account::Failed(error) => {
            return vec![Check::new("account", CheckResult::Failed, error.to_string())];
        }
        Account::Good { ahead, udp } => (*ahead, udp),
    };
    let clock = match (ahead.unsigned_abs(), ahead > 0) {
        (..CLOCK_OFF_S, _) => Check::new("clock", CheckResult::Ok, "as the gateway's"),
        (off, true) => {
            Check::new("clock", CheckResult::Unknown, format!("{off} s ahead of the gateway's"))
        }
        (off, false) => {
            Check::new("clock", CheckResult::Unknown, format!("{off} s behind the gateway's"))
        }
    };
    let udp = match udp {
        Udp::Works => Check::new("udp", CheckResult::Ok, "datagrams get through"),
        Udp::NotOffered => Check::new("udp", CheckResult::Unknown, "the gateway has none"),
        Udp::Blocked(address) => {
            Check::new("udp", CheckResult::Failed, format!("no answer from {address}"))
        }
    };
    vec![Check::new("account", CheckResult::Ok, "the gateway lets this device in"), clock, udp]
}
