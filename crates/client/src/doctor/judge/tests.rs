//! Which finding comes first.

use std::net::SocketAddr;

use cipherwall_ipc::daemon::Status;
use cipherwall_proto::{
    client::OpeningError,
    invitation::{Endpoint, Transport},
};
use cipherwall_transport::resolver::{Opinion, ServerError};

use super::*;
use crate::doctor::local::Leftover;

const GATEWAY: &str = "203.0.113.2:8443";

fn seen(address: &str, source: Source, outcome: Outcome) -> Seen {
    let endpoint = Endpoint {
        host: "gw.example".into(),
        port: 8443,
        transport: Transport::Tls,
        pins: [[0; 32]; 2],
    };
    Seen { endpoint, address: address.parse().unwrap(), source, outcome }
}

fn by_name(answer: Result<&str, ServerError>) -> NameSeen {
    let server: SocketAddr = "192.168.1.1:53".parse().unwrap();
    let addresses = answer.map(|address| vec![address.parse().unwrap()]);
    NameSeen {
        host: "gw.example".into(),
        addresses: addresses.as_ref().ok().cloned().unwrap_or_default(),
        opinions: vec![Opinion { server, addresses }],
        error: None,
    }
}

/// With a network, and an internet behind it.
fn seeing(names: Vec<NameSeen>, gateway: Vec<Seen>) -> Seeing {
    Seeing { portal: Some(Portal::None), names, gateway, has_profile: true, ..Seeing::default() }
}

fn causes(seeing: &Seeing) -> Vec<Cause> {
    findings(seeing).iter().map(|finding| finding.cause).collect()
}

fn of_gateway(outcome: Outcome) -> Vec<Cause> {
    causes(&seeing(Vec::new(), vec![seen(GATEWAY, Source::Profile, outcome)]))
}

#[test]
fn each_outcome_at_the_gateway_has_its_cause() {
    for (outcome, cause) in [
        (Outcome::Silent { alive: false }, Cause::GatewayUnreachable),
        (Outcome::NoWay("no route".into()), Cause::GatewayUnreachable),
        (Outcome::Refused, Cause::GatewayUnreachable),
        (Outcome::Silent { alive: true }, Cause::PortBlocked),
        (Outcome::Altered("reset".into()), Cause::TlsAltered),
        (Outcome::NameBlocked("gw.example".into()), Cause::TlsAltered),
        (Outcome::MtuHole, Cause::MtuHole),
        (Outcome::WrongPin, Cause::WrongPin),
    ] {
        assert_eq!(of_gateway(outcome.clone()), [cause], "{outcome:?}");
    }
    assert_eq!(of_gateway(Outcome::Good), []);
}

#[test]
fn an_address_that_works_is_enough_and_else_the_nearest_to_working_counts() {
    let v6 = || seen("[2001:db8::2]:8443", Source::Dns, Outcome::NoWay("no route".into()));
    let with = |outcome| seeing(Vec::new(), vec![v6(), seen(GATEWAY, Source::Dns, outcome)]);
    assert_eq!(causes(&with(Outcome::Good)), []);
    assert_eq!(causes(&with(Outcome::MtuHole)), [Cause::MtuHole]);
    assert_eq!(causes(&with(Outcome::Silent { alive: true })), [Cause::PortBlocked]);
}

#[test]
fn what_blocks_this_computer_comes_before_everything() {
    let mut all = seeing(Vec::new(), vec![seen(GATEWAY, Source::Profile, Outcome::Refused)]);
    all.leftovers = vec![Leftover::Settings];
    assert_eq!(causes(&all), [Cause::Leftovers, Cause::GatewayUnreachable]);
    assert!(findings(&all)[0].remedy.contains("repair"));
    all.leftovers.push(Leftover::Lockdown);
    assert!(findings(&all)[0].remedy.contains("lockdown off"));

    let status =
        Status { state: State::Blocked, error: Some("refused".into()), ..Status::default() };
    let blocked = Seeing { running: Some(status), ..Seeing::default() };
    let finding = findings(&blocked).remove(0);
    assert_eq!(finding.cause, Cause::Leftovers);
    assert!(finding.detail.contains("refused") && finding.remedy.contains("disconnect"));
}

#[test]
fn a_portal_hides_everything_behind_it() {
    let silent = seen(GATEWAY, Source::Profile, Outcome::Silent { alive: false });
    let mut all = seeing(vec![by_name(Err(ServerError::Silent))], vec![silent]);
    all.portal = Some(Portal::Found(Some("http://login.example/".into())));
    assert_eq!(causes(&all), [Cause::CaptivePortal]);
    assert!(findings(&all)[0].detail.contains("http://login.example/"));
}

#[test]
fn where_nothing_answers_it_is_the_network() {
    let silent = || seen(GATEWAY, Source::Earlier, Outcome::Silent { alive: false });
    let silence = || Some(Portal::Silent("no answer".into()));
    // a router that still knows the address makes no internet
    for name in [by_name(Err(ServerError::Silent)), by_name(Ok("203.0.113.2"))] {
        let dead = Seeing { portal: silence(), ..seeing(vec![name], vec![silent()]) };
        assert_eq!(causes(&dead), [Cause::NoNetwork]);
    }
    let alive = seen(GATEWAY, Source::Earlier, Outcome::Good);
    let name = by_name(Err(ServerError::Silent));
    let no_dns = Seeing { portal: silence(), ..seeing(vec![name], vec![alive]) };
    assert_eq!(causes(&no_dns), [Cause::DnsBroken]);
    let mut asked_outside = by_name(Err(ServerError::Silent));
    asked_outside.opinions.push(Opinion {
        server: "9.9.9.9:53".parse().unwrap(),
        addresses: Err(ServerError::NotFound),
    });
    let alive = Seeing { portal: silence(), ..seeing(vec![asked_outside], vec![silent()]) };
    assert_eq!(causes(&alive), [Cause::DnsBroken, Cause::GatewayUnreachable]);
}

#[test]
fn dns_lies_if_it_leads_elsewhere_than_to_the_gateway() {
    let given = |address: &str, outcome| seen(&format!("{address}:8443"), Source::Dns, outcome);
    let earlier = |outcome| seen(GATEWAY, Source::Earlier, outcome);
    let says = |address: &str, all| seeing(vec![by_name(Ok(address))], all);
    let silent = Outcome::Silent { alive: false };

    let lie =
        says("10.10.34.34", vec![given("10.10.34.34", silent.clone()), earlier(Outcome::Good)]);
    assert_eq!(causes(&lie), [Cause::DnsLying]);
    let detail = &findings(&lie)[0].detail;
    assert!(detail.contains("10.10.34.34") && detail.contains(GATEWAY), "{detail}");
    // a filter's page, while the gateway is filtered, too
    let lie =
        says("192.0.2.9", vec![given("192.0.2.9", Outcome::WrongPin), earlier(silent.clone())]);
    assert_eq!(causes(&lie), [Cause::DnsLying, Cause::GatewayUnreachable]);
    // the name is said not to be, but the gateway is there
    let name = by_name(Err(ServerError::NotFound));
    assert_eq!(causes(&seeing(vec![name], vec![earlier(Outcome::Good)])), [Cause::DnsLying]);

    // it has moved, and does not run: nothing says that this is a lie
    let moved =
        says("192.0.2.9", vec![given("192.0.2.9", silent.clone()), earlier(silent.clone())]);
    assert_eq!(causes(&moved), [Cause::GatewayUnreachable]);
    // somebody answers in its place
    let caught = says("203.0.113.2", vec![given("203.0.113.2", Outcome::WrongPin)]);
    assert_eq!(causes(&caught), [Cause::WrongPin]);
    // a gateway at home, which does not run
    let home = says("192.168.1.9", vec![given("192.168.1.9", Outcome::Refused)]);
    assert_eq!(causes(&home), [Cause::GatewayUnreachable]);
}

#[test]
fn the_account_is_judged_by_what_the_gateway_says() {
    let of = |account| {
        let good = seen(GATEWAY, Source::Profile, Outcome::Good);
        let seeing = Seeing { account: Some(account), ..seeing(Vec::new(), vec![good]) };
        findings(&seeing).pop()
    };
    let address = GATEWAY.parse().unwrap();
    let cause = |account| of(account).map(|finding| finding.cause);
    let rejected = DialError::Refused(Refused::new(RefusalCode::Rejected));
    assert_eq!(cause(Account::Failed(rejected)), Some(Cause::Account));
    let unknown = DialError::Opening { address, cause: OpeningError::OtherSession };
    assert_eq!(cause(Account::Failed(unknown)), Some(Cause::Account));
    assert_eq!(cause(Account::Failed(DialError::NoAnswer { address })), Some(Cause::TlsAltered));
    let blocked = of(Account::Good { ahead: 0, udp: Udp::Blocked(address) }).expect("a finding");
    assert_eq!((blocked.cause, blocked.cause.is_serious()), (Cause::UdpBlocked, false));
    for udp in [Udp::Works, Udp::NotOffered] {
        assert_eq!(cause(Account::Good { ahead: 0, udp }), None);
    }
}
