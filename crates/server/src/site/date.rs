//! Times as HTTP writes them (RFC 9110, 5.6.7).

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The time of an answer.
pub(super) fn now() -> String {
    format(OffsetDateTime::now_utc().unix_timestamp())
}

/// From Unix seconds.
pub(super) fn format(unix: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(unix).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let day = DAYS[usize::from(time.weekday().number_days_from_sunday())];
    let month = MONTHS[usize::from(u8::from(time.month())) - 1];
    let (date, year) = (time.day(), time.year());
    let (hour, minute, second) = time.to_hms();
    format!("{day}, {date:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// To Unix seconds; the form that browsers send.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split([' ', '-', ':']);
    let day = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let month = Month::try_from(u8::try_from(month + 1).ok()?).ok()?;
    let year = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse().ok();
    let time = Time::from_hms(number()?, number()?, number()?).ok()?;
    let date = Date::from_calendar_date(year, month, day).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(parse(b"Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for wrong in ["", "Sun", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            assert_eq!(parse(wrong.as_bytes()), None);
        }
    }
}
