//! Durations as Go writes them: `1m30s`, `1.5h`, `20s`.

use std::time::Duration;

/// Reads a Go duration that is not negative.
///
/// # Errors
/// Go's own words for what is wrong.
pub fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit: u128 = match &after[..end] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let whole = if whole.is_empty() { "0" } else { whole };
        nanos += u128::from(whole.parse::<u64>().map_err(|_| invalid())?) * unit;
        // What is beyond 18 digits is less than a nanosecond of any unit.
        let fraction = &fraction[..fraction.len().min(18)];
        nanos += fraction.parse::<u128>().unwrap_or(0) * unit / 10_u128.pow(fraction.len() as u32);
        // Go's durations end at 2^63 ns, about 292 years.
        if nanos > i64::MAX as u128 {
            return Err(invalid());
        }
        rest = &after[end..];
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| invalid())
}

/// The leading digits, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("20s", 20_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("0", 0),
            ("+1s", 1_000_000_000),
            ("300ms", 300_000_000),
            ("1h1m1s1ms1us1µs1ns", 3_661_001_002_001),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_nanos(nanos), "{text}");
        }
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("s", "time: invalid duration \"s\""),
            (".s", "time: invalid duration \".s\""),
            ("1.2.3s", "time: missing unit in duration \"1.2.3s\""),
            ("5", "time: missing unit in duration \"5\""),
            ("1x", "time: unknown unit \"x\" in duration \"1x\""),
            ("1m 2s", "time: unknown unit \"m \" in duration \"1m 2s\""),
            ("99999999h", "time: invalid duration \"99999999h\""),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
        assert!(parse("-1s").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-+.0-9hmsnuµ ]{0,16}") {
            let _read = parse(&text);
        }
    }
}
