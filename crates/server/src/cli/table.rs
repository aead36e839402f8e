//! Columns for people, and times.

use time::OffsetDateTime;
use time::macros::format_description;

/// Left-aligned columns under their heads, as wide as they need to be.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let line = |cells: [&str; N]| {
        let padded = cells.iter().enumerate().map(|(n, cell)| format!("{cell:0$}", width(n)));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| line(std::array::from_fn(|n| row[n].as_str())));
    std::iter::once(line(heads)).chain(rows).collect::<Vec<_>>().join("\n")
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
    fn columns_are_aligned_without_trailing_blanks() {
        let rows = [["ada".to_owned(), "1".to_owned()], ["björn-åke".to_owned(), String::new()]];
        assert_eq!(table(["USER", "N"], &rows), "USER       N\nada        1\nbjörn-åke");
    }

    #[test]
    fn dates_are_in_utc() {
        assert_eq!(date(1_800_000_000), "2027-01-15 08:00 UTC");
        assert_eq!(date(u64::MAX), u64::MAX.to_string());
    }
}
