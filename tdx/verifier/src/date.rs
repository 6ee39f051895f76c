//! Points of time, as collateral and manifests write them.

use core::fmt;
use core::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The seconds of a day.
pub const DAY: u64 = 24 * 60 * 60;

/// Seconds since the beginning of 1970, in UTC. In text as RFC 3339 has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(pub u64);

impl Date {
    /// The date so many seconds later; the last one there is if that is none.
    #[must_use]
    pub const fn after(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// How many seconds it is from here to a later date; 0 if that has passed.
    #[must_use]
    pub const fn until(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = i64::try_from(self.0).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        match date {
            Some(date) => f.write_str(&date.to_rfc3339_opts(SecondsFormat::Secs, true)),
            None => write!(f, "second {} since 1970", self.0),
        }
    }
}

/// Why a text is no date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDate;

impl fmt::Display for NoDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "expected a date after 1970 like 2026-01-12T00:00:00Z, or 2026-01-12 for its first second in UTC",
        )
    }
}

impl core::error::Error for NoDate {}

impl FromStr for Date {
    type Err = NoDate;

    fn from_str(text: &str) -> Result<Self, NoDate> {
        let seconds = match DateTime::parse_from_rfc3339(text) {
            Ok(date) => date.timestamp(),
            Err(_) => {
                let day = text.parse::<NaiveDate>().map_err(|_| NoDate)?;
                day.and_time(NaiveTime::MIN).and_utc().timestamp()
            }
        };
        u64::try_from(seconds).map(Self).map_err(|_| NoDate)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_they_are_written() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2025-06-19T10:32:28Z", 1_750_329_148),
            ("2026-01-12", 1_768_176_000),
            ("2026-01-12T01:00:00+01:00", 1_768_176_000),
        ] {
            assert_eq!(text.parse(), Ok(Date(seconds)), "{text}");
            assert_eq!(Date(seconds).to_string().parse(), Ok(Date(seconds)));
        }
        for text in ["", "yesterday", "1969-12-31T23:59:59Z", "2026-02-30", "1750329148"] {
            assert_eq!(text.parse::<Date>(), Err(NoDate), "{text}");
        }
        assert_eq!(Date(u64::MAX).to_string(), "second 18446744073709551615 since 1970");
        assert_eq!(Date(u64::MAX).after(1), Date(u64::MAX));
        assert_eq!((Date(3).until(Date(5)), Date(5).until(Date(3))), (2, 0));
    }
}
