use core::{fmt, iter::Sum, ops::Add, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// A duration in seconds with three decimals, held as whole milliseconds.
///
/// In JSON it is a plain number such as `12.345`, written and read digit by digit: what two machines agree on stays
/// equal to the last digit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds {
    millis: u64,
}

/// The text is no decimal number of seconds with at most three decimals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondsError {
    /// What was found instead.
    pub found: String,
}

impl Seconds {
    /// No time at all.
    pub const ZERO: Self = Self { millis: 0 };

    /// From whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// From nanoseconds; what is less than a millisecond is cut off.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { millis: nanos / 1_000_000 }
    }

    /// The whole milliseconds.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.millis
    }
}

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Self {
        Self { millis: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        Self::from_millis(seconds.millis)
    }
}

impl Add for Seconds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { millis: self.millis.saturating_add(other.millis) }
    }
}

impl Sum for Seconds {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        terms.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.millis / 1_000, self.millis % 1_000)
    }
}

impl FromStr for Seconds {
    type Err = SecondsError;

    fn from_str(text: &str) -> Result<Self, SecondsError> {
        let refuse = || SecondsError { found: text.to_owned() };
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
            return Err(refuse());
        }
        let whole: u64 = whole.parse().ok().ok_or_else(refuse)?;
        let decimals: u64 = format!("{decimals:0<3}").parse().ok().ok_or_else(refuse)?;
        let millis = whole.checked_mul(1_000).and_then(|millis| millis.checked_add(decimals));
        Ok(Self { millis: millis.ok_or_else(refuse)? })
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer)?.get().parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for SecondsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected seconds with at most three decimals such as 12.345, found `{}`", self.found)
    }
}

impl core::error::Error for SecondsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_are_the_same_plain_number() {
        for (millis, text) in [
            (0, "0.000"),
            (7, "0.007"),
            (12_345, "12.345"),
            (60_000, "60.000"),
            (u64::MAX, "18446744073709551.615"),
        ] {
            let seconds = Seconds::from_millis(millis);
            assert_eq!(seconds.to_string(), text);
            assert_eq!(serde_json::to_string(&seconds).unwrap(), text);
            assert_eq!(text.parse(), Ok(seconds));
            assert_eq!(serde_json::from_str::<Seconds>(text).unwrap(), seconds);
        }
    }

    #[test]
    fn fewer_decimals_are_read_and_anything_else_is_refused() {
        assert_eq!("2".parse(), Ok(Seconds::from_millis(2_000)));
        assert_eq!("2.5".parse(), Ok(Seconds::from_millis(2_500)));
        for text in ["", ".", "2.", ".5", "-1", "+1", "1e3", "1.2345", "x", "18446744073709551.616"] {
            assert!(text.parse::<Seconds>().is_err(), "{text} was read");
        }
    }
}
