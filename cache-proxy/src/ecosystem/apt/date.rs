//! The dates of Release files: `Sat, 21 Nov 2026 19:30:00 UTC`.

use jiff::Timestamp;
use jiff::civil::DateTime;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads a date.
///
/// > "The format is [...] Day, DD Mon YYYY HH:MM:SS TZ. [...] clients may accept [...] only
/// > +0000, UTC, GMT or Z" (apt's reading of RFC 1123)
pub fn parse(text: &str) -> Option<Timestamp> {
    let mut words = text.split_ascii_whitespace();
    let mut first = words.next()?;
    if first.ends_with(',') {
        first = words.next()?;
    }
    let day: i8 = first.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? as i8 + 1;
    let year: i16 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(str::parse::<i8>);
    let mut next = || clock.next()?.ok();
    let (hour, minute, second) = (next()?, next()?, next()?);
    let zone = words.next().unwrap_or("UTC");
    if !["UTC", "GMT", "Z", "+0000"].iter().any(|known| known.eq_ignore_ascii_case(zone)) {
        return None;
    }
    let civil = DateTime::new(year, month, day, hour, minute, second.min(59), 0).ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let table = [
            ("Sat, 21 Nov 2026 19:30:00 UTC", Some(1_795_289_400)),
            ("Sat, 21 Nov 2026 19:30:00 +0000", Some(1_795_289_400)),
            ("21 Nov 2026 9:30:00 GMT", Some(1_795_253_400)),
            ("Sat, 21 Nov 2026 19:30:60", Some(1_795_289_459)),
            ("Sat, 21 Nov 2026 19:30:00 +0100", None),
            ("Sat, 31 Feb 2026 19:30:00 UTC", None),
            ("Sat, 21 Nov 2026", None),
            ("99999999999 Nov 2026 1:1:1", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).map(Timestamp::as_second), expected, "{text}");
        }
    }
}
