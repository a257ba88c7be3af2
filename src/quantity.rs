//! Sizes and durations as people write them, on the command line and in the configuration.

use std::time::Duration;

use boatyard_builder::cache::Amount;
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

/// Reads a number with a unit: s, m, h or d. A bare number is of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write it as 30s, 10m, 2h or 7d");
    let (number, unit) = split(text);
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(unit)
        .filter(|seconds| *seconds < 1 << 40)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// Reads a number of bytes: `500MB` is of powers of ten as we print them, `512MiB` and docker's
/// `512m` of powers of two. A bare number is of bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write it as 500MB, 20GB, 512MiB or 512m");
    let (number, unit) = split(text);
    let unit = match unit.to_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(wrong)
}

/// Reads a number of bytes, or a part of the disk: `10%`.
pub fn parse_amount(text: &str) -> Result<Amount, String> {
    let wrong = || format!("`{text}` is no size: write it as 500MB, 20GB, 512MiB or 10%");
    match split(text) {
        (number, "%") => match number.parse() {
            Ok(percent @ 0..=100) => Ok(Amount::Percent(percent)),
            _ => Err(wrong()),
        },
        _ => parse_size(text).map(Amount::Bytes).map_err(|_| wrong()),
    }
}

fn split(text: &str) -> (&str, &str) {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

/// Writes a duration as it is read, in the largest unit that is exact.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(24 * 3600, "d"), (3600, "h"), (60, "m")];
    match units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// Writes a number of bytes as it is read, in the largest unit that is exact.
pub fn show_size(bytes: u64) -> String {
    let units =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB")];
    let binary = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let exact =
        units.into_iter().chain(binary).find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    exact.map_or_else(|| bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit))
}

fn show_amount(amount: Amount) -> String {
    match amount {
        Amount::Bytes(bytes) => show_size(bytes),
        Amount::Percent(percent) => format!("{percent}%"),
    }
}

/// What stands for no limit.
const UNLIMITED: &str = "none";

/// Defines how a key of the configuration is read and written, for serde's `with`.
macro_rules! key {
    ($(#[$doc:meta])* $name:ident: $type:ty, $read:expr, $write:expr) => {
        $(#[$doc])*
        pub mod $name {
            use super::*;

            /// Reads it.
            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let text = String::deserialize(from)?;
                let read: fn(&str) -> Result<$type, String> = $read;
                read(&text).map_err(D::Error::custom)
            }

            /// Writes it.
            pub fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                let write: fn(&$type) -> Option<String> = $write;
                write(value).serialize(to)
            }
        }
    };
}

key! {
    /// A duration.
    duration: Duration, parse_duration, |value| Some(show_duration(*value))
}
key! {
    /// A duration, or nothing.
    optional_duration: Option<Duration>,
    |text| parse_duration(text).map(Some),
    |value| value.map(show_duration)
}
key! {
    /// A size, or nothing.
    optional_size: Option<u64>, |text| parse_size(text).map(Some), |value| value.map(show_size)
}
key! {
    /// A duration or `none`.
    duration_or_none: Option<Duration>,
    |text| unless_none(text, parse_duration),
    |value| Some(value.map_or_else(|| UNLIMITED.to_owned(), show_duration))
}
key! {
    /// A size or `none`.
    size_or_none: Option<u64>,
    |text| unless_none(text, parse_size),
    |value| Some(value.map_or_else(|| UNLIMITED.to_owned(), show_size))
}
key! {
    /// A size, a part of the disk, or `none`.
    amount_or_none: Option<Amount>,
    |text| unless_none(text, parse_amount),
    |value| Some(value.map_or_else(|| UNLIMITED.to_owned(), show_amount))
}

fn unless_none<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == UNLIMITED { Ok(None) } else { parse(text).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("0", 0), ("90", 90), ("30s", 30), ("2h", 7200), ("1d", 86400)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "h", "1w", "-1", "1.5h", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let table = [
            ("0", 0),
            ("4096", 4096),
            ("500MB", 500_000_000),
            ("20 GB", 20_000_000_000),
            ("512m", 512 << 20),
            ("1GiB", 1 << 30),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MB", "-1", "1.5GB", "1x", "99999999TB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in ["0s", "90s", "5m", "36h", "7d"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["0", "1", "20GB", "512MiB", "1001", "64KiB"] {
            assert_eq!(show_size(parse_size(text).unwrap()), text);
        }
    }

    #[test]
    fn amounts() {
        for (text, amount) in [
            ("20GB", Amount::Bytes(20_000_000_000)),
            ("10%", Amount::Percent(10)),
            ("100 %", Amount::Percent(100)),
        ] {
            assert_eq!(parse_amount(text), Ok(amount), "{text}");
        }
        for bad in ["", "%", "101%", "1.5%", "-1%", "many"] {
            assert!(parse_amount(bad).is_err(), "{bad}");
        }
    }
}
