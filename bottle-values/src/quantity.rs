//! Sizes, durations and numbers of processors.

use std::fmt;
use std::str::FromStr;

use crate::name::NameError;

/// An amount of memory or data as a whole number of bytes: `512MiB`, `2GiB`, `64KiB`, `4096`.
///
/// Docker's short forms (`512m`, `2g`) are accepted as well. They are also powers of 1024.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    const ACCEPTED: &str = "a whole number and `KiB`, `MiB`, `GiB`, `TiB` (or `k`, `m`, `g`, `t`), such as `512MiB`";

    /// Creates a size from a number of kibibytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// Creates a size from a number of mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason: &str| NameError::new("a size", text, reason, Self::ACCEPTED);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refuse("it does not begin with a whole number in range"))?;
        let shift = match unit {
            "" | "B" | "b" => 0,
            "KiB" | "k" | "K" => 10,
            "MiB" | "m" | "M" => 20,
            "GiB" | "g" | "G" => 30,
            "TiB" | "t" | "T" => 40,
            _ => return Err(refuse(&unknown_unit(number, unit))),
        };
        match number.checked_mul(1 << shift) {
            Some(0) => Err(refuse("it is zero")),
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(Self(bytes)),
            _ => Err(refuse("it is too large")),
        }
    }
}

/// Returns the problem with a size's unit, with the right spelling for units such as `GB` and `gib`.
fn unknown_unit(number: u64, unit: &str) -> String {
    let unit = unit.trim_start();
    let (first, rest) = unit.split_at(unit.chars().next().map_or(0, char::len_utf8));
    let meant = first.to_ascii_uppercase();
    let is_close = ["K", "M", "G", "T"].contains(&meant.as_str())
        && ["", "b", "i", "ib"].iter().any(|end| rest.eq_ignore_ascii_case(end));
    if is_close {
        return format!("its unit is not known, did you mean `{number}{meant}iB`?");
    }
    "its unit is not known".to_owned()
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
            .into_iter()
            .find(|(shift, _)| self.0 > 0 && self.0.trailing_zeros() >= *shift)
            .unwrap_or((0, ""));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// A duration with one unit: `90s`, `30m`, `12h`, `7d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Span {
    const ACCEPTED: &str = "a whole number and `s`, `m`, `h` or `d`, such as `12h`";

    /// Creates a duration from a number of seconds.
    pub const fn seconds(count: u64) -> Self {
        Self(count)
    }

    /// Converts to the standard library's duration.
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }
}

impl FromStr for Span {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason: &str| NameError::new("a duration", text, reason, Self::ACCEPTED);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refuse("it does not begin with a whole number in range"))?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "" => return Err(refuse("it has no unit")),
            _ => return Err(refuse("its unit is not known")),
        };
        match number.checked_mul(unit) {
            Some(0) => Err(refuse("it is zero")),
            // The maximum is 100 years of 366 days. A longer value is most likely a mistake, and certificates and
            // timers cannot hold it.
            Some(seconds) if seconds <= 100 * 366 * 24 * 60 * 60 => Ok(Self(seconds)),
            _ => Err(refuse("it is longer than a century")),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, sign) = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m")]
            .into_iter()
            .find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit))
            .unwrap_or((1, "s"));
        write!(f, "{}{sign}", self.0 / unit)
    }
}

/// Implements the traits of a quantity that is written as a string.
macro_rules! measure_traits {
    ($type:ident, $kind:literal, pattern $pattern:literal, never $never:literal) => {
        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::name::deserialize_parsed(deserializer, $kind, Self::ACCEPTED)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "not": { "pattern": $never },
                    "description": Self::ACCEPTED
                })
            }
        }
    };
}

measure_traits!(ByteSize, "a size", pattern "^[0-9]+(?:[KMGT]iB|[kKmMgGtTbB])?$", never "^0+[A-Za-z]*$");
measure_traits!(Span, "a duration", pattern "^[0-9]+[smhd]$", never "^0+[a-z]*$");

/// A number of processors, such as `0.5` or `2`, with at most three decimals. It can be written as a string or a
/// number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuCount {
    thousandths: u32,
}

impl CpuCount {
    const ACCEPTED: &str = "a number above 0 and at most 1024 with at most three decimals, such as `1.5`";
}

impl FromStr for CpuCount {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason: &str| NameError::new("a number of processors", text, reason, Self::ACCEPTED);
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || whole.len() > 4 || decimals.len() > 3 {
            return Err(refuse("it is not such a number"));
        }
        let thousandths = format!("{whole}{decimals:0<3}").parse().map_err(|_| refuse("it is not such a number"))?;
        if thousandths == 0 || thousandths > 1_024_000 {
            return Err(refuse("it is out of range"));
        }
        Ok(Self { thousandths })
    }
}

impl fmt::Display for CpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.thousandths / 1000, self.thousandths % 1000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{rest:03}").trim_end_matches('0'))
    }
}

impl fmt::Debug for CpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for CpuCount {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for CpuCount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = CpuCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number of processors ({})", CpuCount::ACCEPTED)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<CpuCount, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<CpuCount, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<CpuCount, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<CpuCount, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl schemars::JsonSchema for CpuCount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CpuCount".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["number", "string"],
            "exclusiveMinimum": 0,
            "maximum": 1024,
            "pattern": r"^[0-9]{1,4}(?:\.[0-9]{1,3})?$",
            "description": Self::ACCEPTED
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_survive_the_round_trip() {
        for (text, shown, bytes) in [("512MiB", "512MiB", 512 << 20), ("2g", "2GiB", 2 << 30), ("1000", "1000", 1000)] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.to_string().as_str(), size.bytes()), (shown, bytes));
        }
        for bad in ["", "MiB", "0", "-1k", "1.5g", "1XB", "99999999999999999999", "9999999999TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        for (text, shown) in [("7d", "7d"), ("24h", "1d"), ("90s", "90s"), ("120m", "2h")] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), shown);
        }
        for bad in ["", "7", "d", "0d", "1w", "99999999d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        for (text, shown) in [("2", "2"), ("0.5", "0.5"), ("1.250", "1.25")] {
            assert_eq!(text.parse::<CpuCount>().unwrap().to_string(), shown);
        }
        for bad in ["", "0", "-1", "1e3", ".5", "1.2345", "5000"] {
            assert!(bad.parse::<CpuCount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_unit_is_refused_with_the_right_one() {
        for (text, meant) in
            [("4GB", "`4GiB`"), ("4gb", "`4GiB`"), ("512 MB", "`512MiB`"), ("1Tib", "`1TiB`"), ("8ki", "`8KiB`")]
        {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
        }
        for text in ["4X", "4é", "4 "] {
            assert!(!text.parse::<ByteSize>().unwrap_err().to_string().contains("did you mean"), "{text}");
        }
    }
}
