//! Durations, bounded integers, and values that are drawn from the seed.

use core::fmt;
use core::time::Duration;

/// A length of time in milliseconds, written `"500ms"`, `"3s"`, `"2m"` or `"1h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

/// Why a text is not a [`Span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSpan {
    /// It does not begin with a whole number.
    NoNumber,
    /// A number without a unit.
    NoUnit,
    /// A number with something behind it that is not a unit.
    WrongUnit,
    /// Longer than [`Span::MAX`].
    TooLong,
}

impl Span {
    /// The longest one: a day. Simulated procedures take minutes.
    pub const MAX: Self = Self(24 * 3_600_000);
    /// The units, each with its length in milliseconds.
    pub const UNITS: [(&'static str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

    /// The length in milliseconds.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The length as the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Makes a span, unless it is longer than [`Span::MAX`].
    #[must_use]
    pub const fn from_millis(millis: u64) -> Option<Self> {
        if millis <= Self::MAX.0 { Some(Self(millis)) } else { None }
    }

    /// Reads a number with a unit behind it.
    pub fn parse(text: &str) -> Result<Self, NotSpan> {
        let digits = text.find(|c: char| !c.is_ascii_digit());
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        if number.is_empty() {
            return Err(NotSpan::NoNumber);
        }
        if unit.trim().is_empty() {
            return Err(NotSpan::NoUnit);
        }
        let (_, factor) =
            Self::UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(NotSpan::WrongUnit)?;
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .and_then(Self::from_millis)
            .ok_or(NotSpan::TooLong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = Self::UNITS
            .into_iter()
            .rev()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(("ms", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Int<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Int<MIN, MAX> {
    /// Makes one, unless the number is out of range.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number >= MIN && number <= MAX { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A share in thousandths.
pub type Permille = Int<0, 1000>;

/// What has an order and can be counted through, so that a value between two others can be drawn.
pub trait Scalar: Copy + Ord {
    /// Its place on the number line.
    fn to_u64(self) -> u64;
    /// The value at a place between two valid ones.
    fn from_u64(number: u64) -> Option<Self>;
}

impl Scalar for Span {
    fn to_u64(self) -> u64 {
        self.millis()
    }
    fn from_u64(number: u64) -> Option<Self> {
        Self::from_millis(number)
    }
}

impl<const MIN: u64, const MAX: u64> Scalar for Int<MIN, MAX> {
    fn to_u64(self) -> u64 {
        self.get()
    }
    fn from_u64(number: u64) -> Option<Self> {
        Self::new(number)
    }
}

/// A value that is fixed, or that the seed decides.
///
/// Whether it is drawn once for the run or at every occurrence is the reader's business: see [`Draw`] and [`Spread`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drawn<T> {
    /// A literal.
    Fixed(T),
    /// `{ min = …, max = … }`, both included.
    Range {
        /// The least value.
        min: T,
        /// The greatest value, not below `min`.
        max: T,
    },
    /// `[ … ]`, never empty.
    Choice(Vec<T>),
}

impl<T: Scalar> Drawn<T> {
    /// Draws one value. `draw(n)` returns a number below `n`; a literal draws nothing.
    pub fn draw(&self, draw: &mut dyn FnMut(u64) -> u64) -> T {
        match self {
            Self::Fixed(value) => *value,
            Self::Range { min, max } => {
                let width = max.to_u64() - min.to_u64();
                let number = min.to_u64() + draw(width + 1).min(width);
                T::from_u64(number).expect("it lies between two values that exist")
            }
            Self::Choice(values) => {
                let count = u64::try_from(values.len()).expect("a list fits into memory");
                let index = draw(count).min(count - 1);
                values[usize::try_from(index).expect("it is below the list's length")]
            }
        }
    }

    /// The least value that can come out.
    pub fn least(&self) -> T {
        match self {
            Self::Fixed(value) => *value,
            Self::Range { min, .. } => *min,
            Self::Choice(values) => *values.iter().min().expect("a choice is never empty"),
        }
    }

    /// The greatest value that can come out.
    pub fn greatest(&self) -> T {
        match self {
            Self::Fixed(value) => *value,
            Self::Range { max, .. } => *max,
            Self::Choice(values) => *values.iter().max().expect("a choice is never empty"),
        }
    }
}

/// A value drawn once for the whole run, when the scenario is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw<T>(pub Drawn<T>);

impl<T: Scalar> Draw<T> {
    /// The value. In a resolved scenario the only one; before that the least one that can come out.
    pub fn get(&self) -> T {
        self.0.least()
    }
}

/// A value drawn anew at every occurrence, by the engine, with [`Drawn::draw`].
///
/// It stays a range in a resolved scenario: the occurrences are not known before the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread<T>(pub Drawn<T>);

impl<T: Scalar> Spread<T> {
    /// The value of one occurrence. `draw(n)` returns a number below `n`.
    pub fn draw(&self, draw: &mut dyn FnMut(u64) -> u64) -> T {
        self.0.draw(draw)
    }
}

/// A share of messages in thousandths: `{ permille = 5 }`, or drawn once from `{ min_permille = 0, max_permille = 20 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The least share.
    pub min: Permille,
    /// The greatest share, not below `min`.
    pub max: Permille,
}

impl Share {
    /// None at all.
    pub const NONE: Self = Self { min: Int(0), max: Int(0) };

    /// The share in thousandths. In a resolved scenario the only one; before that the least.
    #[must_use]
    pub const fn permille(self) -> u64 {
        self.min.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        let table = [
            ("500ms", Ok(500)),
            ("3s", Ok(3_000)),
            ("2m", Ok(120_000)),
            ("24h", Ok(86_400_000)),
            ("25h", Err(NotSpan::TooLong)),
            ("99999999999999999999s", Err(NotSpan::TooLong)),
            ("3", Err(NotSpan::NoUnit)),
            ("3 parsecs", Err(NotSpan::WrongUnit)),
            ("s", Err(NotSpan::NoNumber)),
            ("-3s", Err(NotSpan::NoNumber)),
            ("", Err(NotSpan::NoNumber)),
        ];
        for (text, want) in table {
            assert_eq!(Span::parse(text).map(Span::millis), want, "{text}");
        }
    }

    #[test]
    fn durations_are_written_in_the_greatest_unit_that_fits() {
        for text in ["0ms", "500ms", "3s", "61s", "2m", "24h"] {
            assert_eq!(Span::parse(text).expect("valid").to_string(), text);
        }
    }

    #[test]
    fn a_draw_stays_between_its_bounds_even_with_a_bad_source() {
        let value = Drawn::Range { min: Int::<1, 9>(2), max: Int::<1, 9>(5) };
        assert_eq!(value.draw(&mut |_| u64::MAX).get(), 5);
        assert_eq!(value.draw(&mut |_| 0).get(), 2);
    }
}
