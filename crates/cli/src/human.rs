//! Numbers, durations and tables as people write and read them.

use std::time::Duration;

/// Ten years: nothing that a person gives as a duration is meant to last longer.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Reads a duration with its unit, such as `30m`, `24h`, `7d` or `1h 30m`; for `clap`'s
/// `value_parser`.
///
/// # Errors
/// No unit, not a duration, zero, or more than ten years.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write for example 30m, 24h or 7d"))?;
    if duration.is_zero() {
        return Err("must be longer than zero".to_owned());
    }
    if duration > LONGEST {
        return Err("must not exceed ten years".to_owned());
    }
    Ok(duration)
}

/// Writes a duration in its two largest units: `5s`, `3m 20s`, `2h 5m`, `4d 1h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d {}h", hours % 24),
        () if hours > 0 => format!("{hours}h {}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m {}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// Writes a number of bytes with a binary unit: `512 B`, `1.5 KiB`, `20.0 GiB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1,023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Writes a rate in bits per second with a decimal unit, as networks are measured: `640 bit/s`,
/// `94.1 Mbit/s`, `1.5 Gbit/s`.
pub fn bit_rate(bits_per_s: f64) -> String {
    const UNITS: [&str; 4] = ["kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    if bits_per_s < 999.5 {
        return format!("{bits_per_s:.0} bit/s");
    }
    let mut value = bits_per_s / 1e3;
    let mut unit = 0;
    // 999.95 would be shown as 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1e3;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Left-aligned columns under their heads, as wide as they need to be.
pub fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let rows = [["ada".to_owned(), "1".to_owned()], ["björn-åke".to_owned(), String::new()]];
        assert_eq!(table(["USER", "N"], &rows), "USER       N\nada        1\nbjörn-åke");
    }

    #[test]
    fn durations_are_read_with_units_only() {
        assert_eq!(parse_duration("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "24", "h", "-1h", "0s", "1000y", "soon"] {
            let error = parse_duration(wrong).expect_err(wrong);
            assert!(!error.is_empty());
        }
        assert!(parse_duration("24").expect_err("no unit").contains("24h"));
    }

    #[test]
    fn durations_are_written_in_two_units() {
        let written = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(written(0), "0s");
        assert_eq!(written(200), "3m 20s");
        assert_eq!(written(7500), "2h 5m");
        assert_eq!(written(4 * 86_400 + 3600), "4d 1h");
    }

    #[test]
    fn rates_are_written_with_decimal_units() {
        assert_eq!(bit_rate(0.0), "0 bit/s");
        assert_eq!(bit_rate(999.4), "999 bit/s");
        assert_eq!(bit_rate(999.9), "1.0 kbit/s");
        assert_eq!(bit_rate(94_123_456.0), "94.1 Mbit/s");
        assert_eq!(bit_rate(999_999_999.0), "1.0 Gbit/s");
        assert_eq!(bit_rate(3.2e15), "3200.0 Tbit/s");
    }

    #[test]
    fn bytes_are_written_with_binary_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(20 << 30), "20.0 GiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }
}
