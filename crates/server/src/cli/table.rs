//! Columns for people, and times.

pub(super) use cipherwall_cli::human::table;
use time::OffsetDateTime;
use time::macros::format_description;

/// A label and its value a line, the values aligned.
pub(super) fn lines(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(label, _)| label.len()).max().unwrap_or_default() + 3;
    let line = |(label, value): &(&str, String)| format!("{:width$}{value}", format!("{label}:"));
    pairs.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Unix seconds as `2026-11-22 05:00 UTC`.
pub(super) fn date(unix: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    i64::try_from(unix)
        .ok()
        .and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok())
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_else(|| unix.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned() {
        let pairs = [("User", "ada".to_owned()), ("Last seen", "never".to_owned())];
        assert_eq!(lines(&pairs), "User:       ada\nLast seen:  never");
    }

    #[test]
    fn dates_are_in_utc() {
        assert_eq!(date(1_800_000_000), "2027-01-15 08:00 UTC");
        assert_eq!(date(u64::MAX), u64::MAX.to_string());
    }
}
