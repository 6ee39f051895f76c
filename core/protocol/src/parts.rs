//! What the newest records were made of: the entries of the log, for whoever wants to see for himself.
//!
//! A record names its parts by their digests, and the chain covers every command since the record before. So whoever gets
//! these commands can check a record without believing anybody; the reference in `tests/reference` does. They are kept by
//! each server for itself, outside the replicated state: nothing depends on them.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::committee::RECORDS_KEPT;
use crate::id::Round;

/// The most bytes of commands that a server keeps in this way. The newest round is kept up to this size.
pub const PART_BYTES_MAX: usize = 64 << 20;

/// Commands with their positions in the log.
pub type Entries = Vec<(u64, Arc<[u8]>)>;

/// The command entries of the newest rounds, each from the record before up to its own.
#[derive(Debug, Default)]
pub struct Parts {
    /// Oldest first.
    kept: VecDeque<(Round, Entries)>,
    /// Since the newest record; `None` if some of them are missing here.
    current: Option<Entries>,
    /// Of all commands in both.
    bytes: usize,
}

impl Parts {
    /// Of a log that begins here.
    #[must_use]
    pub fn new() -> Self {
        Self { current: Some(Entries::new()), ..Self::default() }
    }

    /// What comes next does not follow what came before.
    pub(crate) fn skip(&mut self) {
        *self = Self::default();
    }

    /// Takes the next entry that carries a command.
    pub(crate) fn enter(&mut self, index: u64, command: &[u8]) {
        let Some(current) = &mut self.current else { return };
        current.push((index, command.into()));
        self.bytes = self.bytes.saturating_add(command.len());
        self.shrink();
    }

    /// The last entry has made the record of this round.
    pub(crate) fn finalised(&mut self, round: Round) {
        if let Some(entries) = self.current.replace(Entries::new()) {
            self.kept.push_back((round, entries));
        }
        self.shrink();
    }

    /// Older rounds go first, then what is no whole round yet.
    fn shrink(&mut self) {
        while self.bytes > PART_BYTES_MAX || self.kept.len() > RECORDS_KEPT {
            let oldest = self.kept.pop_front().map(|(_, entries)| entries);
            let Some(entries) = oldest.or_else(|| self.current.take()) else { return };
            let bytes = entries.iter().map(|(_, command)| command.len()).fold(0, usize::saturating_add);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// All commands since the record before that of this round, the one that made it last.
    #[must_use]
    pub fn of(&self, round: Round) -> Option<&Entries> {
        self.kept.iter().find(|(kept, _)| *kept == round).map(|(_, entries)| entries)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn indices(parts: &Parts, round: u64) -> Option<Vec<u64>> {
        parts.of(Round(round)).map(|entries| entries.iter().map(|(index, _)| *index).collect())
    }

    #[test]
    fn the_newest_rounds_are_kept_whole_or_not_at_all() {
        let mut parts = Parts::new();
        for round in 1..=10 {
            parts.enter(2 * round, b"one");
            parts.enter(2 * round + 1, b"two");
            parts.finalised(Round(round));
        }
        assert_eq!((indices(&parts, 2), indices(&parts, 3)), (None, Some(vec![6, 7])));
        assert_eq!(indices(&parts, 10), Some(vec![20, 21]));
        assert_eq!(parts.bytes, 6 * RECORDS_KEPT);
        parts.enter(30, b"before the gap");
        parts.skip();
        parts.enter(40, b"behind it");
        parts.finalised(Round(11));
        assert_eq!((indices(&parts, 10), indices(&parts, 11)), (None, None));
        parts.enter(41, b"whole");
        parts.finalised(Round(12));
        assert_eq!(indices(&parts, 12), Some(vec![41]));
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let (mut parts, half) = (Parts::new(), vec![0; PART_BYTES_MAX / 2]);
        for round in 1..=3 {
            parts.enter(round, &half);
            parts.finalised(Round(round));
        }
        assert_eq!(
            (indices(&parts, 1), indices(&parts, 2), indices(&parts, 3)),
            (None, Some(vec![2]), Some(vec![3]))
        );
        // A round that is larger than the bound is not kept, and the next one is.
        for index in 4..=6 {
            parts.enter(index, &half);
            assert!(parts.bytes <= PART_BYTES_MAX);
        }
        parts.finalised(Round(4));
        assert_eq!((indices(&parts, 3), indices(&parts, 4), parts.bytes), (None, None, 0));
        parts.enter(7, b"small");
        parts.finalised(Round(5));
        assert_eq!(indices(&parts, 5), Some(vec![7]));
    }
}
