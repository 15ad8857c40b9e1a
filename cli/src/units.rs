//! Numbers as people read them: sizes, counts, lengths of time, dates.

use std::time::Duration;

use crate::sys;

/// `0 B`, `999 B`, `1.5 KiB`, `27 MiB`: two or three digits and a binary unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.95 { 1 } else { 0 };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A difference of sizes with its sign: `+1.5 KiB`, `-27 MiB`, `+0 B`.
pub(crate) fn size_change(bytes: i64) -> String {
    let sign = if bytes < 0 { '-' } else { '+' };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}

/// `231,000`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 package`, `3 packages`: `one` is the singular, whose plural ends in `s`.
pub(crate) fn counted(number: impl TryInto<u64>, one: &str) -> String {
    let plural = match one.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{one}s"),
    };
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{} {}", count(number), if number == 1 { one } else { &plural })
}

/// `0.4 ms`, `12 ms`, `3.4 s`, `2 min 5 s`, `3 h 4 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match time.as_secs() {
        0 if seconds < 0.001 => format!("{:.1} ms", seconds * 1e3),
        0 if seconds < 0.9995 => format!("{:.0} ms", seconds * 1e3),
        0..60 => format!("{seconds:.1} s"),
        whole @ 60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        whole => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `2026-03-01 17:04:05` in local time, for people.
pub(crate) fn local_time(seconds: i64) -> String {
    sys::local_time(seconds).map_or_else(
        || format!("{seconds} s after 1970"),
        |time| format!("{} {}", date(time), clock(time)),
    )
}

/// `2026-03-01T17:04:05Z`, as in RFC 3339, for programs.
pub(crate) fn utc_time(seconds: i64) -> String {
    sys::utc_time(seconds).map_or_else(
        || format!("{seconds} s after 1970"),
        |time| format!("{}T{}Z", date(time), clock(time)),
    )
}

/// Year, month and day in local time; the epoch's for times that have none.
pub(crate) fn local_date(seconds: i64) -> (i64, u8, u8) {
    let part = |number| u8::try_from(number).unwrap_or(1);
    sys::local_time(seconds)
        .map_or((1970, 1, 1), |time| (time.year.into(), part(time.month), part(time.day)))
}

fn date(time: sys::WallClock) -> String {
    format!("{:04}-{:02}-{:02}", time.year, time.month, time.day)
}

fn clock(time: sys::WallClock) -> String {
    format!("{:02}:{:02}:{:02}", time.hour, time.minute, time.second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_two_or_three_digits_and_never_a_thousand_of_a_unit() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10_189, "10 KiB"),
            (1_023_000, "999 KiB"),
            (1_023_999, "1.0 MiB"),
            (u64::MAX, "16384 PiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
        assert_eq!(size_change(-1536), "-1.5 KiB");
        assert_eq!(size_change(0), "+0 B");
        assert_eq!(size_change(i64::MIN), "-8192 PiB");
    }

    #[test]
    fn counts_are_grouped_by_thousands_and_agree_with_their_noun() {
        let cases = [(0, "0 packages"), (1, "1 package"), (231_000, "231,000 packages")];
        for (number, expected) in cases {
            assert_eq!(counted(number, "package"), expected);
        }
        assert_eq!(counted(2, "entry"), "2 entries");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(count(999), "999");
    }

    #[test]
    fn a_length_of_time_has_the_unit_that_fits() {
        let cases = [
            (0, "0.0 ms"),
            (400, "0.4 ms"),
            (12_000, "12 ms"),
            (999_900, "1.0 s"),
            (3_400_000, "3.4 s"),
            (125_000_000, "2 min 5 s"),
            (11_040_000_000, "3 h 4 min"),
        ];
        for (micros, expected) in cases {
            assert_eq!(duration(Duration::from_micros(micros)), expected);
        }
    }

    #[test]
    fn times_for_programs_are_rfc_3339() {
        assert_eq!(utc_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc_time(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc_time(-1), "1969-12-31T23:59:59Z");
    }
}
