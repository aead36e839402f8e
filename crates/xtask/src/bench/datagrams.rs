//! What CipherWall over UDP is measured by: WireGuard in user space, and OpenVPN with the same
//! cipher.

use super::bars::{self, Bar, Limit, at_least};
use super::ours::Ours;
use super::peers::Peer;
use super::report::{Section, Spread, value};
use super::throughput::DIRECT;

const GCM: Ours = Ours::Udp("aes-256-gcm");
const CHACHA20: Ours = Ours::Udp("chacha20-poly1305");
const CFB: Ours = Ours::Udp("aes-256-cfb-hmac-sha256");

/// All ways to carry packets in datagrams.
pub(crate) const OURS: [Ours; 4] = [GCM, CHACHA20, CFB, Ours::Static];

const WIREGUARDS: [Peer; 2] = [Peer::WireguardGo, Peer::GotaTun];

/// Of one TCP stream in each direction, and of the idle path.
pub(crate) fn bars(section: &Section) -> Vec<Bar> {
    let mut all = Vec::new();
    for way in ["up", "down"] {
        let figure = format!("{way}_bps");
        let best = wireguards_by(section, &figure).pop().map(|(name, _)| name);
        for (ours, limits) in [(GCM, (1.0, 1.5)), (CHACHA20, (0.9, 1.2))] {
            all.push(times(section, ours, way, best.unwrap_or("best WireGuard"), limits));
        }
        for ours in [CFB, Ours::Static] {
            all.push(times(section, ours, way, Peer::OpenvpnUdpCfb.title(), (2.0, 3.0)));
        }
    }
    all.extend(OURS.map(|ours| round_trip(section, ours)));
    all
}

fn times(section: &Section, ours: Ours, way: &str, other: &str, limits: (f64, f64)) -> Bar {
    let ours = ours.name();
    let times = bars::ratio(section, &ours, other, &format!("{way}_bps"));
    at_least(format!("{ours}, {way}, of {other}"), "times", times, limits)
}

/// Below WireGuard's must be, below every peer's is the goal.
fn round_trip(section: &Section, ours: Ours) -> Bar {
    let ours = ours.name();
    let added = section.spread_by_round(|round| {
        Some(value(round, &ours, "idle_ms")? - value(round, DIRECT, "idle_ms")?)
    });
    let direct = section.spread(DIRECT, "idle_ms").map_or(0.0, |spread| spread.median);
    let smallest = |peers: Vec<(&str, f64)>| {
        Spread::of(peers.into_iter().map(|(_, median)| median - direct).collect())
            .map(|spread| Limit::AtMost(spread.smallest))
    };
    let must = smallest(wireguards_by(section, "idle_ms"));
    let goal = smallest(bars::peers_by(section, "idle_ms"));
    Bar::new(format!("{ours}, round trip added, idle"), "ms", added, must, goal)
}

/// Those in user space with the medians of this figure, the smallest first.
fn wireguards_by<'a>(section: &'a Section, figure: &str) -> Vec<(&'a str, f64)> {
    let mut peers = bars::peers_by(section, figure);
    peers.retain(|(name, _)| WIREGUARDS.iter().any(|peer| peer.title() == *name));
    peers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Described, Figures, Origin};

    #[test]
    fn each_is_judged_by_its_own_peers() {
        let origin = Origin {
            date: String::new(),
            commit: String::new(),
            machine: String::new(),
            kernel: String::new(),
        };
        let mut section = Section::new(origin, 1);
        section.rounds.push(Default::default());
        let mut add = |name: &str, is_peer: bool, rate: f64, idle: f64| {
            let (version, settings) = (String::new(), String::new());
            section.paths.push(Described { name: name.to_owned(), is_peer, version, settings });
            let figures = [("up_bps", rate), ("idle_ms", idle)];
            let figures = figures.map(|(figure, value)| (figure.to_owned(), value));
            section.add(name, Figures::from(figures));
        };
        add(DIRECT, false, 50.0, 1.0);
        add(&GCM.name(), false, 6.0, 1.2);
        add(&CFB.name(), false, 1.5, 1.3);
        add(Peer::GotaTun.title(), true, 4.0, 1.25);
        add(Peer::WireguardGo.title(), true, 3.0, 1.3);
        add(Peer::OcservDtls.title(), true, 9.0, 1.1);
        add(Peer::OpenvpnUdpCfb.title(), true, 0.5, 2.0);
        let bars = bars(&section);
        let find = |what: &str| bars.iter().find(|bar| bar.what == what).unwrap();
        let gcm = find("CipherWall udp aes-256-gcm, up, of GotaTun").measured.unwrap();
        assert_eq!(gcm.median, 1.5);
        let cfb = find("CipherWall udp aes-256-cfb-hmac-sha256, up, of OpenVPN UDP CFB");
        assert_eq!((cfb.measured.unwrap().median, cfb.goal), (3.0, Some(Limit::AtLeast(3.0))));
        let round_trip = find("CipherWall udp aes-256-gcm, round trip added, idle");
        assert!(round_trip.must.unwrap().is_reached(round_trip.measured.unwrap()));
        assert!(!round_trip.goal.unwrap().is_reached(round_trip.measured.unwrap()));
        assert!(find("CipherWall static, up, of OpenVPN UDP CFB").measured.is_none());
    }
}
