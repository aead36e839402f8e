//! `cargo xtask bench --compare OLD.json`: what has changed between two reports.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::report::{Report, Section};

/// The medians of all figures that both reports have, and their ratios, as text.
pub(crate) fn table(old: &Report, new: &Report) -> String {
    let mut text = String::new();
    for (name, new) in &new.sections {
        let Some(old) = old.sections.get(name) else { continue };
        let _ = writeln!(text, "{name}: {} -> {}", said(old), said(new));
        let _ = writeln!(
            text,
            "  {:<32} {:<26} {:>14} {:>14} {:>9}",
            "path", "figure", "old", "new", "new/old"
        );
        for path in &new.paths {
            for figure in figures(new, &path.name) {
                let before = old.spread(&path.name, figure).map(|spread| spread.median);
                let after = new.spread(&path.name, figure).map(|spread| spread.median);
                if let (Some(before), Some(after)) = (before, after) {
                    let ratio = after / before;
                    let (before, after) = (short(before), short(after));
                    let _ = writeln!(
                        text,
                        "  {:<32} {figure:<26} {before:>14} {after:>14} {ratio:>9.3}",
                        path.name
                    );
                }
            }
        }
    }
    if text.is_empty() {
        text.push_str("the reports have no section in common\n");
    }
    text
}

/// Rates and sizes in millions.
fn short(value: f64) -> String {
    if value >= 1e6 { format!("{:.1} M", value / 1e6) } else { format!("{value:.3}") }
}

fn said(section: &Section) -> String {
    format!("{} ({}, {} rounds)", section.origin.commit, section.origin.date, section.rounds.len())
}

fn figures<'a>(section: &'a Section, path: &str) -> BTreeSet<&'a str> {
    let figures = section.rounds.iter().filter_map(|round| round.get(path));
    figures.flat_map(|figures| figures.keys().map(String::as_str)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rate: f64) -> Report {
        let text = format!(
            r#"{{"sections": {{"throughput": {{
                "origin": {{"date": "", "commit": "c{rate}", "machine": "", "kernel": ""}},
                "seconds": 1,
                "paths": [{{"name": "direct", "is_peer": false, "version": "", "settings": ""}}],
                "missing": {{}}, "failed": {{}}, "noise": [],
                "rounds": [{{"direct": {{"up_bps": {rate}}}}}]
            }}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_comparison_shows_the_ratio_of_the_medians() {
        let text = table(&report(2.0), &report(3.0));
        assert!(text.starts_with("throughput: c2 (, 1 rounds) -> c3 "), "{text}");
        let line = text.lines().find(|line| line.contains("up_bps")).unwrap();
        assert!(line.ends_with("2.000          3.000     1.500"), "{line}");
    }
}
