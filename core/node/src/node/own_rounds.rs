//! Which rounds concern this process: old records that others show after a restart say nothing about how rounds go now.

use std::collections::VecDeque;

use zipnet_core::id::Round;

/// How many rounds a record may lag behind what the aggregator or a client has done since.
const KEPT: usize = 16;

/// The newest rounds that a process had to do with.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnRounds {
    /// Those to which it has given its part.
    taken: VecDeque<Round>,
    /// Those in which it takes no part. Anybody who calls himself an aggregator can name any, so they are kept apart.
    declined: VecDeque<Round>,
}

impl OwnRounds {
    /// The process has given its part to a round.
    pub(super) fn takes_part(&mut self, round: Round) {
        remember(&mut self.taken, round);
    }

    /// The process was shown the header of a round and takes no part.
    pub(super) fn declines(&mut self, round: Round) {
        remember(&mut self.declined, round);
    }

    /// Whether a round is one of them.
    pub(super) fn has(&self, round: Round) -> bool {
        self.taken.contains(&round) || self.declined.contains(&round)
    }
}

/// Takes note of a round, and forgets the oldest one of too many.
fn remember(rounds: &mut VecDeque<Round>, round: Round) {
    rounds.push_back(round);
    if rounds.len() > KEPT {
        rounds.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_strangers_displace_no_round_of_its_own() {
        let mut rounds = OwnRounds::default();
        rounds.takes_part(Round(7));
        for round in 1_000..2_000 {
            rounds.declines(Round(round));
        }
        assert!(rounds.has(Round(7)), "its record is news");
        assert!(rounds.has(Round(1_999)) && !rounds.has(Round(1_000)), "of the others the newest are kept");
        for round in 8..8 + 16 {
            rounds.takes_part(Round(round));
        }
        assert!(!rounds.has(Round(7)) && rounds.has(Round(8)), "no more than a record may lag behind");
    }
}
