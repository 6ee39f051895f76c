//! The only source of chance in a simulation: an in-tree generator whose seeds keep their meaning for ever.
//!
//! A library may change its algorithm in a minor version, and every seed that was ever reported would then show
//! another run. The generator is xoshiro256\*\* 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number
//! generators", ACM TOMS 47 (2021); public-domain code at <https://prng.di.unimi.it/xoshiro256starstar.c>), its state
//! filled by splitmix64 (<https://prng.di.unimi.it/splitmix64.c>) as its authors recommend. There are no floats:
//! probabilities are in permille, distributions are tables of quantiles.

use core::fmt;
use core::time::Duration;

/// A stream of pseudorandom numbers, and the root of further streams.
///
/// [`Random::fork`] depends on where this stream began and on the name, not on what was drawn: drawing more in one
/// place does not shift another.
#[derive(Clone)]
pub struct Random {
    origin: u64,
    state: [u64; 4],
}

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut filler = seed;
        Self { origin: seed, state: core::array::from_fn(|_| splitmix64(&mut filler)) }
    }

    /// The stream of this name below this one: its seed is the first 8 bytes (little endian) of
    /// `blake3("zipnet-sim fork" ‖ seed of this stream (8 bytes, little endian) ‖ name)`.
    #[must_use]
    pub fn fork(&self, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"zipnet-sim fork").update(&self.origin.to_le_bytes()).update(name.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
        Self::new(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= t;
        *s3 = s3.rotate_left(45);
        result
    }

    /// A number in `0..bound`, each equally likely (Lemire, "Fast random integer generation in an interval", 2019).
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            let low = u64::try_from(product & u128::from(u64::MAX)).expect("masked to 64 bits");
            if low >= threshold {
                return u64::try_from(product >> 64).expect("the product has 128 bits");
            }
        }
    }

    /// A number in `low..=high`.
    ///
    /// # Panics
    /// If `high < low`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range has no number: {low}..={high}");
        match (high - low).checked_add(1) {
            Some(count) => low + self.below(count),
            None => self.bits(),
        }
    }

    /// A duration in `low..=high`, to the nanosecond.
    ///
    /// # Panics
    /// If `high < low`.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_nanos(self.range(nanos(low), nanos(high)))
    }

    /// True in `permille` of 1,000 cases. Draws in every case, so that a changed probability shifts nothing else.
    pub fn permille(&mut self, permille: u32) -> bool {
        self.below(1_000) < u64::from(permille)
    }

    /// One of the items; none if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() {
            return None;
        }
        items.get(self.index(items.len()))
    }

    /// Puts the items into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }

    /// An index into something of this length.
    ///
    /// # Panics
    /// If `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        let len = u64::try_from(len).expect("lengths fit 64 bits");
        usize::try_from(self.below(len)).expect("below a length")
    }

    /// Fills the buffer: the little-endian bytes of successive numbers.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.bits().to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(bytes) {
                *to = from;
            }
        }
    }

    /// Where the stream stands: equal for two streams of one name if the same was drawn from them, in the same order.
    #[must_use]
    pub fn standing(&self) -> u64 {
        self.clone().bits()
    }

    /// 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        self.fill(&mut out);
        out
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Random(seed {})", self.origin)
    }
}

/// What openraft draws election timeouts and request ids from.
impl rand_core::TryRng for Random {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let [.., a, b, c, d] = self.bits().to_le_bytes();
        Ok(u32::from_le_bytes([a, b, c, d]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.bits())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        self.fill(out);
        Ok(())
    }
}

/// A distribution of durations, given by its median and its 99th percentile.
///
/// The table below, linear between its rows, is what is drawn; no logarithm is involved. The upper half follows a
/// log-normal distribution whose 99th percentile is 7.5 times its median (20 ms and 150 ms: a congested consumer
/// line), stretched so that the two given numbers are met exactly. The lower half is even between half the median and
/// the median, because a path has a length that nothing undercuts. The longest delay is the median plus 2.5 times the
/// distance from the median to the 99th percentile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    median: u64,
    p99: u64,
}

/// (quantile in parts per million, permille of the way from the median to the 99th percentile).
const UPPER_HALF: [(u64, u64); 8] = [
    (500_000, 0),
    (600_000, 38),
    (700_000, 88),
    (800_000, 165),
    (900_000, 313),
    (950_000, 486),
    (990_000, 1_000),
    (1_000_000, 2_500),
];

impl Quantiles {
    /// The distribution with this median and 99th percentile. A 99th percentile below the median counts as the median.
    #[must_use]
    pub fn new(median: Duration, p99: Duration) -> Self {
        Self { median: nanos(median), p99: nanos(p99.max(median)) }
    }

    /// Always this long.
    #[must_use]
    pub fn constant(duration: Duration) -> Self {
        Self { median: nanos(duration), p99: 0 }
    }

    /// The median.
    #[must_use]
    pub const fn median(&self) -> Duration {
        Duration::from_nanos(self.median)
    }

    /// Draws a duration. Takes exactly one number from the stream, whatever the distribution is.
    pub fn draw(&self, random: &mut Random) -> Duration {
        Duration::from_nanos(self.at(random.below(1_000_000)))
    }

    /// The duration in nanoseconds at a quantile in parts per million.
    fn at(&self, ppm: u64) -> u64 {
        if self.p99 == 0 {
            return self.median;
        }
        let (first, _) = UPPER_HALF[0];
        if ppm < first {
            let floor = self.median / 2;
            return floor + scale(self.median - floor, ppm, first);
        }
        let spread = self.p99 - self.median;
        for pair in UPPER_HALF.windows(2) {
            let [(from, low), (to, high)] = *pair else { continue };
            if ppm < to {
                let base = scale(spread, low, 1_000);
                let step = scale(spread, high, 1_000) - base;
                return self.median + base + scale(step, ppm - from, to - from);
            }
        }
        self.median + scale(spread, 2_500, 1_000)
    }
}

/// `value * numerator / denominator` without overflow on the way.
fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(numerator) / u128::from(denominator)).unwrap_or(u64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = *state;
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generators_are_the_published_ones() {
        // What the C code of the authors prints for these states.
        let mut random = Random { origin: 0, state: [1, 2, 3, 4] };
        let drawn: Vec<u64> = (0..6).map(|_| random.bits()).collect();
        assert_eq!(
            drawn,
            [
                11_520,
                0,
                1_509_978_240,
                1_215_971_899_390_074_240,
                1_216_172_134_540_287_360,
                607_988_272_756_665_600
            ]
        );
        let mut state = 1_234_567;
        let drawn: Vec<u64> = (0..3).map(|_| splitmix64(&mut state)).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn median_and_99th_percentile_are_met() {
        let quantiles = Quantiles::new(Duration::from_millis(20), Duration::from_millis(150));
        for (ppm, expected_us) in
            [(0, 10_000), (250_000, 15_000), (500_000, 20_000), (900_000, 60_690), (990_000, 150_000)]
        {
            assert_eq!(quantiles.at(ppm), expected_us * 1_000, "at {ppm}");
        }
        assert!(quantiles.at(999_999) <= 20_000_000 + 130_000_000 * 5 / 2);
    }

    #[test]
    fn quantiles_never_fall() {
        let quantiles = Quantiles::new(Duration::from_micros(300), Duration::from_millis(2));
        let table: Vec<u64> = (0..1_000_000).step_by(997).map(|ppm| quantiles.at(ppm)).collect();
        assert!(table.is_sorted());
    }
}
