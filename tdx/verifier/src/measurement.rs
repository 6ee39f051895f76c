//! Values of fixed length that people write as hexadecimal digits.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Defines a value of so many bytes whose text is its hexadecimal digits.
macro_rules! digits {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Whether every byte is 0: what the platform reports where nothing was measured.
            #[must_use]
            pub fn is_zero(&self) -> bool {
                self.0.iter().all(|byte| *byte == 0)
            }
        }

        impl FromStr for $name {
            type Err = NoDigits;

            fn from_str(text: &str) -> Result<Self, NoDigits> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| NoDigits { digits: 2 * $len })?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

digits! {
    /// A measurement register of a trust domain: MR_TD, or one of RTMR0 to RTMR3. A SHA-384 digest.
    Measurement, 48
}
digits! {
    /// One machine, by the PPID in its PCK certificate.
    Platform, 16
}
digits! {
    /// The kind of a platform: processor family, model and stepping. Intel's collateral is for one of them.
    Fmspc, 6
}
digits! {
    /// What a trust domain had put into its quote.
    ReportData, 64
}

/// Why a text is none of these values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDigits {
    /// How many there should be.
    pub digits: usize,
}

impl fmt::Display for NoDigits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} hexadecimal digits", self.digits)
    }
}

impl core::error::Error for NoDigits {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let fmspc: Fmspc = "B0C06F000000".parse().unwrap();
        assert_eq!(fmspc, Fmspc([0xb0, 0xc0, 0x6f, 0, 0, 0]));
        assert_eq!(fmspc.to_string(), "b0c06f000000");
        for text in ["", "b0c06f00000", "b0c06f00000000", "b0c06f00000g", " b0c06f000000"] {
            assert_eq!(text.parse::<Fmspc>(), Err(NoDigits { digits: 12 }), "{text}");
        }
        assert!(Measurement([0; 48]).is_zero() && !Measurement([1; 48]).is_zero());
    }
}
