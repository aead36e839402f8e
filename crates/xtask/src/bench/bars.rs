//! What a figure has to be, and whether it is.

use super::report::{Section, Spread, value};

/// A demand on a figure of CipherWall, often in proportion to another path's.
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// `None` if it was not measured in this run, or what it is compared with was not.
    pub(crate) measured: Option<Spread>,
    pub(crate) must: Option<Limit>,
    pub(crate) goal: Option<Limit>,
}

/// The median decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    pub(crate) fn is_reached(self, measured: Spread) -> bool {
        match self {
            Limit::AtLeast(limit) => measured.median >= limit,
            Limit::AtMost(limit) => measured.median <= limit,
        }
    }
}

impl Bar {
    pub(crate) fn new(
        what: String,
        unit: &'static str,
        measured: Option<Spread>,
        must: Option<Limit>,
        goal: Option<Limit>,
    ) -> Bar {
        Bar { what, unit, measured, must, goal }
    }
}

/// In % of one.
pub(crate) fn percent(ratio: Option<Spread>) -> Option<Spread> {
    ratio.map(|ratio| ratio.divided_by(0.01))
}

/// A bar for what is to be large: must, and goal.
pub(crate) fn at_least(
    what: String,
    unit: &'static str,
    measured: Option<Spread>,
    (must, goal): (f64, f64),
) -> Bar {
    let (must, goal) = (Some(Limit::AtLeast(must)), Some(Limit::AtLeast(goal)));
    Bar::new(what, unit, measured, must, goal)
}

/// A bar for what is to be small: must, and goal.
pub(crate) fn at_most(
    what: String,
    unit: &'static str,
    measured: Option<Spread>,
    (must, goal): (f64, f64),
) -> Bar {
    let (must, goal) = (Some(Limit::AtMost(must)), Some(Limit::AtMost(goal)));
    Bar::new(what, unit, measured, must, goal)
}

/// A path's figure divided by another path's, in each round.
pub(crate) fn ratio(section: &Section, path: &str, other: &str, figure: &str) -> Option<Spread> {
    section
        .spread_by_round(|round| Some(value(round, path, figure)? / value(round, other, figure)?))
}

/// A path's figure minus another figure of the same path, in each round.
pub(crate) fn rise(section: &Section, path: &str, figure: &str, above: &str) -> Option<Spread> {
    section.spread_by_round(|round| Some(value(round, path, figure)? - value(round, path, above)?))
}

/// The peers with the medians of this figure, the smallest first.
pub(crate) fn peers_by<'a>(section: &'a Section, figure: &str) -> Vec<(&'a str, f64)> {
    let mut peers: Vec<(&str, f64)> = section
        .paths
        .iter()
        .filter(|path| path.is_peer)
        .filter_map(|path| Some((path.name.as_str(), section.spread(&path.name, figure)?.median)))
        .collect();
    peers.sort_by(|a, b| a.1.total_cmp(&b.1));
    peers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Described, Figures, Origin};

    fn section(rounds: &[[(&str, f64); 3]]) -> Section {
        let origin = Origin {
            date: String::new(),
            commit: String::new(),
            machine: String::new(),
            kernel: String::new(),
        };
        let mut section = Section::new(origin, 1);
        for (name, is_peer) in [("direct", false), ("slow", true), ("quick", true)] {
            let (version, settings) = (String::new(), String::new());
            section.paths.push(Described { name: name.to_owned(), is_peer, version, settings });
        }
        for round in rounds {
            section.rounds.push(Default::default());
            for (path, rate) in round {
                section.add(path, Figures::from([("up".to_owned(), *rate)]));
            }
        }
        section
    }

    #[test]
    fn figures_are_compared_within_a_round() {
        let section = section(&[
            [("direct", 10.0), ("slow", 1.0), ("quick", 5.0)],
            [("direct", 100.0), ("slow", 2.0), ("quick", 50.0)],
        ]);
        let spread = ratio(&section, "quick", "direct", "up").unwrap();
        assert_eq!((spread.smallest, spread.largest), (0.5, 0.5));
        assert!(Limit::AtLeast(0.5).is_reached(spread) && !Limit::AtLeast(0.6).is_reached(spread));
        assert_eq!(peers_by(&section, "up"), [("slow", 1.5), ("quick", 27.5)]);
        assert_eq!(ratio(&section, "quick", "absent", "up"), None);
    }
}
