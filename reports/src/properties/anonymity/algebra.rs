//! What follows from sums that are known: elimination over GF(2).

use core::ops::Range;

/// A sum of unknowns: which of them are in it. An unknown that is added twice is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum(Vec<u64>);

impl Sum {
    /// The sum of these.
    pub(super) fn of(unknowns: impl IntoIterator<Item = usize>) -> Self {
        let mut sum = Self::default();
        for unknown in unknowns {
            sum.flip(unknown);
        }
        sum
    }

    /// Adds an unknown.
    pub(super) fn flip(&mut self, unknown: usize) {
        let (word, bit) = (unknown / 64, unknown % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] ^= 1 << bit;
    }

    /// Whether an unknown is in it.
    pub(super) fn holds(&self, unknown: usize) -> bool {
        self.0.get(unknown / 64).is_some_and(|word| word >> (unknown % 64) & 1 == 1)
    }

    /// The unknowns of a range that are in it, in order.
    pub(super) fn within(&self, range: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        range.filter(|unknown| self.holds(*unknown))
    }

    fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word ^= more;
        }
    }
}

/// Everything that follows from the sums and in which nothing of `hidden` is left: a basis, in which the first unknown
/// of `open` in each sum is in no other. What is behind both ranges is carried along. Sums without anything of `open`
/// say nothing and are left out.
pub(super) fn eliminate(mut sums: Vec<Sum>, hidden: Range<usize>, open: Range<usize>) -> Vec<Sum> {
    for unknown in hidden {
        if let Some(pivot) = sums.iter().position(|sum| sum.holds(unknown)) {
            let pivot = sums.swap_remove(pivot);
            sums.iter_mut().filter(|sum| sum.holds(unknown)).for_each(|sum| sum.add(&pivot));
        }
    }
    let mut basis: Vec<Sum> = Vec::new();
    for unknown in open {
        if let Some(pivot) = sums.iter().position(|sum| sum.holds(unknown)) {
            let pivot = sums.swap_remove(pivot);
            let others = sums.iter_mut().chain(&mut basis).filter(|sum| sum.holds(unknown));
            others.for_each(|sum| sum.add(&pivot));
            basis.push(pivot);
        }
    }
    basis
}

/// Whether a sum is a sum of some of these, looking at `open` only. No two of them share an unknown.
pub(super) fn is_sum_of(sum: &Sum, disjoint: &[Sum], open: Range<usize>) -> bool {
    let mut rest = sum.clone();
    for part in disjoint {
        if part.within(open.clone()).next().is_some_and(|first| rest.holds(first)) {
            rest.add(part);
        }
    }
    rest.within(open).next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unknowns 0 to 9 are hidden, 10 to 19 open, 20 to 29 carried along.
    fn solved(sums: &[&[usize]]) -> Vec<Vec<usize>> {
        let sums = sums.iter().map(|sum| Sum::of(sum.iter().copied())).collect();
        eliminate(sums, 0..10, 10..20).iter().map(|sum| sum.within(0..30).collect()).collect()
    }

    #[test]
    fn what_is_added_twice_is_not_there() {
        assert_eq!(Sum::of([3, 70, 3]).within(0..100).collect::<Vec<_>>(), [70]);
        assert!(!Sum::default().holds(1000));
    }

    #[test]
    fn nothing_follows_while_an_unknown_is_left() {
        assert!(solved(&[]).is_empty());
        assert!(solved(&[&[0, 10, 20], &[1, 11, 21]]).is_empty());
        assert!(solved(&[&[0, 10, 20], &[1, 11, 21], &[0, 1, 2, 22]]).is_empty());
    }

    #[test]
    fn the_sum_of_all_follows_when_the_pads_cancel() {
        assert_eq!(solved(&[&[0, 10, 20], &[1, 11, 21], &[0, 1, 22]]), [[10, 11, 20, 21, 22]]);
    }

    #[test]
    fn two_sums_that_differ_by_one_give_that_one() {
        let found = solved(&[&[0, 10, 20], &[1, 11, 21], &[0, 1, 22], &[0, 23]]);
        assert_eq!(found, [vec![10, 20, 23], vec![11, 21, 22, 23]]);
    }

    #[test]
    fn the_same_sum_twice_says_nothing_more() {
        let found = solved(&[&[0, 10, 20], &[0, 21], &[0, 22], &[23]]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0][0], 10);
    }

    #[test]
    fn sums_of_whole_parts_are_in_the_span_and_others_are_not() {
        let parts = [Sum::of([10, 11, 20]), Sum::of([12, 13, 14, 21])];
        for (sum, inside) in [
            (&[] as &[usize], true),
            (&[10, 11, 25], true),
            (&[10, 11, 12, 13, 14], true),
            (&[10], false),
            (&[10, 11, 12], false),
            (&[15], false),
        ] {
            assert_eq!(is_sum_of(&Sum::of(sum.iter().copied()), &parts, 10..20), inside, "{sum:?}");
        }
    }
}
