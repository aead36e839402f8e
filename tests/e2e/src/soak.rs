//! The two tiers of the tests: short by default, in full under `cargo xtask soak`.

use anyhow::{Context, Result};

/// The environment variable that asks for full sizes and durations, by any value.
pub const SOAK: &str = "CIPHERWALL_SOAK";
/// The environment variable that says how many MiB the large transfers move.
pub const SOAK_MIB: &str = "CIPHERWALL_SOAK_MIB";

/// What a line of [`figure`] begins with.
pub const FIGURE: &str = "figure: ";

/// One of two values: the first in a full run, the second otherwise.
pub fn full_or_short<T>(full: T, short: T) -> T {
    if std::env::var_os(SOAK).is_some() { full } else { short }
}

/// How many bytes the large transfers move: 1 GiB in a full run, otherwise 64 MiB, unless
/// [`SOAK_MIB`] says otherwise.
pub fn soak_bytes() -> Result<u64> {
    let mib = match std::env::var(SOAK_MIB) {
        Ok(text) => text.parse().with_context(|| format!("{SOAK_MIB} is not a number"))?,
        Err(_) => full_or_short(1024, 64),
    };
    Ok(mib * 1024 * 1024)
}

/// Prints something that was measured, as `cargo xtask soak` reads it.
#[expect(clippy::print_stdout, reason = "what tests print is kept by the test harness")]
pub fn figure(name: &str, value: f64, unit: &str) {
    println!("{FIGURE}{name} = {value:.1} {unit}");
}
