//! Round numbers never repeat and never go back.

use std::collections::BTreeMap;

use zipnet_core::id::{Digest, LogId, Round};
use zipnet_core::time::Time;
use zipnet_facts::Fact;

use super::{Property, Seen, Subject};

/// Within a log, a number belongs to one header in one place, and every server sees the numbers rise.
#[derive(Debug, Default)]
pub struct RoundNumbers {
    /// By log and number: the header, and the entry that holds it.
    headers: BTreeMap<(LogId, Round), (Digest, u64)>,
    /// By node: the last number of each log that its process has seen.
    last: BTreeMap<(usize, LogId), Round>,
}

impl Property for RoundNumbers {
    fn name(&self) -> &'static str {
        "round-numbers"
    }

    fn sentence(&self) -> &'static str {
        "Round numbers never repeat and never go back."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        // A process that begins with an empty disk sees the whole log again.
        if seen.begins() || seen.is_gap() {
            self.last.retain(|(node, _), _| *node != subject.node);
        }
        let Some(Fact::RoundOpened { log, round, index, header, .. }) = seen.fact() else { return Ok(()) };
        let (first, place) = *self.headers.entry((*log, *round)).or_insert((*header, *index));
        if first != *header {
            return Err(format!("{} saw {round} opened with a second header", subject.name));
        }
        if place != *index {
            return Err(format!(
                "{} saw {round} opened at index {index}, elsewhere at {place}",
                subject.name
            ));
        }
        match self.last.insert((subject.node, *log), *round) {
            Some(last) if *round <= last => Err(format!("{} saw {round} opened after {last}", subject.name)),
            Some(_) | None => Ok(()),
        }
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        self.headers.is_empty().then_some("no round was told of")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, lines_lost, opened, started};
    use super::*;

    #[test]
    fn rising_numbers_hold() {
        let mut judge = Judge::new(RoundNumbers::default());
        judge.fact("server-1", opened(1, 1)).expect("the first");
        judge.fact("server-1", opened(3, 3)).expect("a later one");
        judge.fact("server-2", opened(1, 1)).expect("another server sees the first");
    }

    #[test]
    fn no_number_is_not_the_number_zero() {
        let mut judge = Judge::new(RoundNumbers::default());
        judge.fact("server-1", opened(0, 1)).expect("nothing was opened before");
        judge.fact("server-1", opened(0, 1)).expect_err("it was now");
    }

    #[test]
    fn a_second_header_of_a_number_is_a_violation() {
        let mut judge = Judge::new(RoundNumbers::default());
        judge.fact("server-1", opened(1, 1)).expect("the first");
        judge.fact("server-2", opened(1, 2)).expect_err("its number again");
    }

    #[test]
    fn a_second_place_of_a_number_is_a_violation() {
        let mut judge = Judge::new(RoundNumbers::default());
        judge.fact("server-1", opened(1, 1)).expect("the first");
        let mut moved = opened(1, 1);
        if let Fact::RoundOpened { index, .. } = &mut moved {
            *index += 1;
        }
        judge.fact("server-2", moved).expect_err("its number at another place");
    }

    #[test]
    fn a_number_that_falls_is_a_violation() {
        let mut judge = Judge::new(RoundNumbers::default());
        judge.fact("server-1", opened(2, 2)).expect("the second");
        judge.fact("server-1", opened(1, 1)).expect_err("the first after the second");
    }

    #[test]
    fn a_new_process_may_see_the_log_again() {
        for begins in [started(), Seen::Fact(&lines_lost())] {
            let mut judge = Judge::new(RoundNumbers::default());
            judge.fact("server-1", opened(2, 2)).expect("the second");
            judge.see("server-1", begins).expect("a start, or it is lost in a gap");
            judge.fact("server-1", opened(2, 2)).expect("the second again");
        }
    }

    #[test]
    fn without_a_round_nothing_is_said() {
        let mut judge = Judge::new(RoundNumbers::default());
        assert_eq!(judge.cannot_tell(), Some("no round was told of"));
        judge.fact("server-1", opened(1, 1)).expect("the first");
        assert_eq!(judge.cannot_tell(), None);
    }
}
