//! Sizes, durations and numbers on the command line: how they are written and shown.

use std::time::Duration;

/// The bytes of a size: `1GiB`, `512MiB`, `65536`.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("sizes are like 1GiB, 512MiB or 65536".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "no number that fits".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".to_owned())
}

/// Longest duration that is taken: what is longer is a mistake.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A duration: `500ms`, `30s`, `5m`, `1h`, `1.5s`; a number alone is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    const SHAPE: &str = "durations are like 500ms, 30s, 5m or 1h";
    let (number, unit) = split(text);
    let unit_ms = match unit {
        "ms" => 1.0,
        "" | "s" => 1000.0,
        "m" | "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return Err(SHAPE.into()),
    };
    let number: f64 = number.parse().map_err(|_| SHAPE.to_owned())?;
    match Duration::try_from_secs_f64(number * unit_ms / 1000.0) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err("a year is the longest".into()),
    }
}

/// A duration, as milliseconds.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let duration = duration(text)?;
    u64::try_from(duration.as_millis()).map_err(|_| "a year is the longest".into())
}

/// `54 MiB`.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    let mut tenths = 0;
    while value >= 1024 && unit + 1 < UNITS.len() {
        tenths = value % 1024 * 10 / 1024;
        value /= 1024;
        unit += 1;
    }
    match (unit, value) {
        (0, _) | (_, 10..) => format!("{value} {}", UNITS[unit]),
        _ => format!("{value}.{tenths} {}", UNITS[unit]),
    }
}

/// `850ms`, `12.4s`, `3m 12s`, `2h 05m`, `4d 03h`.
pub fn show_duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        60..3600 => format!("{minutes}m {:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{}d {:02}h", hours / 24, hours % 24),
    }
}

/// `850ms`, `12s`, `3m`, `2h`, `4d`: for columns.
pub fn show_age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn split(text: &str) -> (&str, &str) {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(size("65536"), Ok(65_536));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("512 mib"), Ok(512 << 20));
        assert_eq!(size("3k"), Ok(3072));
        for wrong in [
            "",
            "GiB",
            "1.5GiB",
            "1GB",
            "-1",
            "99999999999999999999",
            "17000000TiB",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_read_with_and_without_units() {
        assert_eq!(duration_ms("500ms"), Ok(500));
        assert_eq!(duration_ms("30s"), Ok(30_000));
        assert_eq!(duration_ms("30"), Ok(30_000));
        assert_eq!(duration_ms("1.5s"), Ok(1500));
        assert_eq!(duration_ms("5m"), Ok(300_000));
        assert_eq!(duration_ms("1h"), Ok(3_600_000));
        assert_eq!(duration_ms("365d"), Ok(31_536_000_000));
        for wrong in ["", "s", "-1s", "1w", "366d", "1..5s", "1e9s", "inf", "nan"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_is_short() {
        let sizes = [0, 1023, 1024, 1536, 10 << 10, 54 << 20, 1 << 60].map(show_size);
        let expected = [
            "0 B",
            "1023 B",
            "1.0 KiB",
            "1.5 KiB",
            "10 KiB",
            "54 MiB",
            "1048576 TiB",
        ];
        assert_eq!(sizes, expected);
        let durations = [850, 12_400, 192_000, 7_500_000, 360_000_000].map(show_duration);
        assert_eq!(durations, ["850ms", "12.4s", "3m 12s", "2h 05m", "4d 04h"]);
        let ages = [850, 12_400, 192_000, 7_500_000, 360_000_000].map(show_age);
        assert_eq!(ages, ["850ms", "12s", "3m", "2h", "4d"]);
    }
}
