//! What was seen, and what that means.

use std::net::IpAddr;

use cipherwall_ipc::daemon::State;
use cipherwall_proto::message::{RefusalCode, Refused};

use super::{
    Seeing,
    account::{Account, Udp},
    finding::{Cause, Finding},
    gateway::{Outcome, Seen, Source},
    local,
    names::NameSeen,
    portal::Portal,
};
use crate::dial::DialError;

/// What is wrong, the cause before its consequences.
pub(super) fn findings(seeing: &Seeing) -> Vec<Finding> {
    let mut findings: Vec<_> = leftovers(seeing).into_iter().collect();
    match no_way_out(seeing) {
        // nothing else says anything then
        Some(finding) => findings.push(finding),
        None => {
            findings.extend(inside(seeing));
            findings.extend(dns(seeing));
            findings.extend(gateway(seeing));
            findings.extend(account(seeing));
        }
    }
    findings
}

/// What blocks this host by itself.
fn leftovers(seeing: &Seeing) -> Option<Finding> {
    if let Some(finding) = local::finding(&seeing.leftovers) {
        return Some(finding);
    }
    let status = seeing.running.as_ref().filter(|status| status.state == State::Blocked)?;
    let why = match &status.error {
        Some(error) => error,
        None if status.lockdown => "lockdown is on",
        None => "it was told to protect this computer",
    };
    let detail = format!("CipherWall lets nothing out of this computer: {why}");
    let remedy = match status.lockdown {
        true => "sudo cipherwall connect; to be without protection: sudo cipherwall lockdown off",
        false => "sudo cipherwall connect; to be without protection: sudo cipherwall disconnect",
    };
    Some(Finding::new(Cause::Leftovers, detail).with_remedy(remedy))
}

fn no_way_out(seeing: &Seeing) -> Option<Finding> {
    if let Some(detail) = seeing.network.as_ref().and_then(|network| network.problem()) {
        return Some(Finding::new(Cause::NoNetwork, detail));
    }
    if let Some(Portal::Found(location)) = &seeing.portal {
        let detail = match location {
            Some(location) => format!("web pages lead to {location} instead"),
            None => "another page comes in the place of web pages".to_owned(),
        };
        return Some(Finding::new(Cause::CaptivePortal, detail));
    }
    is_dead_end(seeing).then(|| {
        let detail = "this computer is in a network, but nothing outside of it answers";
        Finding::new(Cause::NoNetwork, detail)
    })
}

/// Nothing at all answers, neither the gateway nor the rest of the internet. A router on the local
/// network may answer questions by itself, which says nothing of what is behind it.
fn is_dead_end(seeing: &Seeing) -> bool {
    let silent = matches!(seeing.portal, Some(Portal::Silent(_)));
    let outside = |name: &NameSeen| name.is_answered_by(|server| !is_local(server));
    silent
        && !seeing.gateway.is_empty()
        && !seeing.gateway.iter().any(is_sign_of_life)
        && !seeing.names.iter().any(outside)
}

fn is_sign_of_life(seen: &Seen) -> bool {
    match &seen.outcome {
        Outcome::Silent { alive } => *alive,
        Outcome::NoWay(_) => false,
        Outcome::Good
        | Outcome::Refused
        | Outcome::Altered(_)
        | Outcome::NameBlocked(_)
        | Outcome::MtuHole
        | Outcome::WrongPin => true,
    }
}

/// A connection that is there, and what is not as it should be with it.
fn inside(seeing: &Seeing) -> Option<Finding> {
    let inside = seeing.inside.as_ref()?;
    if inside.name.addresses.is_empty() {
        let detail = format!("connected, but names are not found: {}", inside.name.describe());
        let remedy = "ask the gateway's owner to look at its DNS servers (dns.upstreams in \
                      server.yaml); or disconnect and connect again";
        return Some(Finding::new(Cause::DnsBroken, detail).with_remedy(remedy));
    }
    if let Portal::Silent(detail) = &inside.page {
        let remedy = "ask the gateway's owner to look at the gateway's internet connection and \
                      firewall: sudo cipherwall-server status";
        let detail = format!("connected, but nothing answers through the tunnel: {detail}");
        return Some(Finding::new(Cause::NoNetwork, detail).with_remedy(remedy));
    }
    let notice = seeing.running.as_ref().and_then(|status| status.notice.clone());
    notice.map(|notice| Finding::new(Cause::UdpBlocked, notice))
}

fn dns(seeing: &Seeing) -> Option<Finding> {
    seeing.names.iter().find_map(|name| match name.addresses.as_slice() {
        [] => Some(not_found(name, seeing)),
        [..] => lie(name, seeing),
    })
}

fn not_found(name: &NameSeen, seeing: &Seeing) -> Finding {
    const DENIED: &str = "check the name with the gateway's owner: it may have expired or changed; \
                          if it is right, enter another DNS server in this computer's network \
                          settings, such as 9.9.9.9 or 1.1.1.1";
    if !name.is_denied() {
        return Finding::new(Cause::DnsBroken, name.describe());
    }
    match good(seeing) {
        Some(good) => {
            let detail = format!("{}; but the gateway is at {}", name.describe(), good.address);
            Finding::new(Cause::DnsLying, detail)
        }
        None => Finding::new(Cause::DnsBroken, name.describe()).with_remedy(DENIED),
    }
}

/// All addresses that DNS gives for a name lead elsewhere.
fn lie(name: &NameSeen, seeing: &Seeing) -> Option<Finding> {
    let given = |seen: &&Seen| seen.endpoint.host == name.host && seen.source == Source::Dns;
    let mut given = seeing.gateway.iter().filter(given).peekable();
    given.peek()?;
    let lies = given.all(|seen| is_elsewhere(seen, seeing));
    lies.then(|| {
        let at = good(seeing).map(|good| format!("; but the gateway is at {}", good.address));
        Finding::new(Cause::DnsLying, name.describe() + &at.unwrap_or_default())
    })
}

/// Whether an address from DNS is not the gateway's, which is known to have been at another one.
fn is_elsewhere(seen: &Seen, seeing: &Seeing) -> bool {
    let ip = seen.address.ip();
    let is_tried = match &seen.outcome {
        // without IPv6, for example
        Outcome::Good | Outcome::NoWay(_) => false,
        Outcome::Silent { .. }
        | Outcome::Refused
        | Outcome::Altered(_)
        | Outcome::NameBlocked(_)
        | Outcome::MtuHole
        | Outcome::WrongPin => true,
    };
    let mut others = seeing.gateway.iter().filter(|it| it.source != Source::Dns);
    let was_elsewhere = others.clone().any(|it| !is_local(it.address.ip()));
    let is_elsewhere = others.any(|it| it.outcome == Outcome::Good);
    let is_nobody = ip.is_unspecified() || ip.is_loopback();
    let is_odd = is_local(ip) || seen.outcome == Outcome::WrongPin;
    seen.source == Source::Dns
        && (is_nobody || is_tried && is_elsewhere || was_elsewhere && is_odd)
        && seen.outcome != Outcome::Good
}

fn good(seeing: &Seeing) -> Option<&Seen> {
    seeing.gateway.iter().find(|seen| seen.outcome == Outcome::Good)
}

/// Addresses that are not of the internet; filters give them in the place of others.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_unspecified() || v4.is_loopback() || v4.is_private() || v4.is_link_local()
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}

/// Why none of the gateway's own addresses works: what is nearest to working says most.
fn gateway(seeing: &Seeing) -> Option<Finding> {
    if good(seeing).is_some() {
        return None;
    }
    let own = seeing.gateway.iter().filter(|seen| !is_elsewhere(seen, seeing));
    let (_, mut finding) = own.map(of_address).min_by_key(|(distance, _)| *distance)?;
    if seeing.is_busy() {
        finding.detail += "; only the gateway's own port can be asked while CipherWall protects \
                           this computer, more is found after: cipherwall disconnect";
    }
    Some(finding)
}

/// With how far from working that is.
fn of_address(seen: &Seen) -> (u8, Finding) {
    let address = seen.address;
    let (ip, port) = (address.ip(), address.port());
    match &seen.outcome {
        Outcome::Good | Outcome::WrongPin => {
            let detail = format!("{address} holds another key than the gateway's");
            (0, Finding::new(Cause::WrongPin, detail))
        }
        Outcome::MtuHole => {
            let detail = format!("{address} answers in short packets only; long ones are lost");
            (1, Finding::new(Cause::MtuHole, detail))
        }
        Outcome::NameBlocked(name) => {
            let detail = format!(
                "connections to {address} that show the name {name} are cut, others are not"
            );
            let remedy = "show another name: sudo cipherwall profile set PROFILE --sni \
                          www.example.org";
            (2, Finding::new(Cause::TlsAltered, detail).with_remedy(remedy))
        }
        Outcome::Altered(error) => {
            let detail = format!("{address} accepts connections, but then: {error}");
            (3, Finding::new(Cause::TlsAltered, detail))
        }
        Outcome::Silent { alive: true } => {
            let detail =
                format!("the machine {ip} answers, but nothing comes from its port {port}");
            (4, Finding::new(Cause::PortBlocked, detail))
        }
        Outcome::Refused => {
            let detail =
                format!("the machine {ip} answers, but refuses connections to port {port}");
            let remedy = "ask the gateway's owner to start it, and whether it listens on this \
                          port: sudo cipherwall-server status";
            (5, Finding::new(Cause::GatewayUnreachable, detail).with_remedy(remedy))
        }
        Outcome::Silent { alive: false } => {
            let detail = format!("nothing answers at {ip}");
            (6, Finding::new(Cause::GatewayUnreachable, detail))
        }
        Outcome::NoWay(error) => {
            (7, Finding::new(Cause::GatewayUnreachable, format!("no way to {ip}: {error}")))
        }
    }
}

fn account(seeing: &Seeing) -> Option<Finding> {
    match seeing.account.as_ref()? {
        Account::NotTried(_) => None,
        Account::Good { udp: Udp::Blocked(address), .. } => {
            let detail = format!("datagrams to {address} are not answered");
            Some(Finding::new(Cause::UdpBlocked, detail))
        }
        Account::Good { udp: Udp::Works | Udp::NotOffered, .. } => None,
        Account::Failed(error) => Some(not_let_in(error)),
    }
}

fn not_let_in(error: &DialError) -> Finding {
    match error {
        DialError::Refused(refused) | DialError::OneRefused { refused, .. } => refusal(refused),
        DialError::Opening { .. } => Finding::new(Cause::Account, error.to_string())
            .with_remedy("ask the gateway's owner for a new invitation"),
        DialError::Tls { .. } | DialError::NoAnswer { .. } => {
            let detail = format!("the connection breaks within the log-in: {error}");
            Finding::new(Cause::TlsAltered, detail)
        }
        DialError::NoPassword { user } => Finding::new(Cause::Account, error.to_string())
            .with_remedy(format!("sudo cipherwall login {user}")),
        DialError::WrongPin { .. } => Finding::new(Cause::WrongPin, error.to_string()),
        DialError::Resolve { .. } | DialError::Unreachable { .. } => {
            Finding::new(Cause::GatewayUnreachable, error.to_string())
        }
    }
}

fn refusal(refused: &Refused) -> Finding {
    let finding = Finding::new(Cause::Account, refused.to_string());
    match refused.code {
        RefusalCode::Busy => finding.with_remedy("wait as long as it says, and try again"),
        RefusalCode::Full => {
            finding.with_remedy("ask the gateway's owner to enlarge the address pool (networks.v4)")
        }
        RefusalCode::Version | RefusalCode::Unknown => {
            finding.with_remedy("install the newest version on both sides")
        }
        RefusalCode::Rejected
        | RefusalCode::Expired
        | RefusalCode::Revoked
        | RefusalCode::Superseded
        | RefusalCode::Used => finding,
    }
}

#[cfg(test)]
mod tests;
