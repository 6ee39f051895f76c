//! Round numbers never repeat and never go back.

use std::collections::BTreeMap;

use zipnet_core::id::{Digest, LogId, Round};
use zipnet_core::machine::Report;
use zipnet_core::time::Time;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};
use crate::chain::NodeIndex;

/// Within a log, a number belongs to one header, and every server sees the numbers rise.
#[derive(Debug, Default)]
pub struct RoundNumbers {
    headers: BTreeMap<(LogId, Round), Digest>,
    last: BTreeMap<(NodeIndex, LogId), Round>,
}

impl Property for RoundNumbers {
    fn name(&self) -> &'static str {
        "round-numbers"
    }

    fn sentence(&self) -> &'static str {
        "Round numbers never repeat and never go back."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        let (header, digest) = match seen {
            Seen::Event(
                Event::Core(Report::RoundOpened { header, digest, .. })
                | Event::Past(Report::RoundOpened { header, digest, .. }),
            ) => (header, digest),
            // A process that begins with an empty disk sees the whole log again.
            Seen::Started => {
                self.last.retain(|(node, _), _| *node != subject.index);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let (log, round) = (header.log, header.round);
        let first = self.headers.entry((log, round)).or_insert(*digest);
        if first != digest {
            return Err(format!("{} saw {round} opened with a second header", subject.name));
        }
        match self.last.insert((subject.index, log), round) {
            Some(last) if round <= last => Err(format!("{} saw {round} opened after {last}", subject.name)),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, opened};
    use super::*;

    #[test]
    fn rising_numbers_hold() {
        let mut judge = Judge::new(RoundNumbers::default());
        judge.core("server-1", opened(1, 1)).expect("the first");
        judge.core("server-1", opened(3, 3)).expect("a later one");
        judge.core("server-2", opened(1, 1)).expect("another server sees the first");
    }

    #[test]
    fn no_number_is_not_the_number_zero() {
        let mut judge = Judge::new(RoundNumbers::default());
        judge.core("server-1", opened(0, 1)).expect("nothing was opened before");
        judge.core("server-1", opened(0, 1)).expect_err("it was now");
    }

    #[test]
    fn a_second_header_of_a_number_is_a_violation() {
        let mut judge = Judge::new(RoundNumbers::default());
        judge.core("server-1", opened(1, 1)).expect("the first");
        judge.core("server-2", opened(1, 2)).expect_err("its number again");
    }

    #[test]
    fn a_number_that_falls_is_a_violation() {
        let mut judge = Judge::new(RoundNumbers::default());
        judge.core("server-1", opened(2, 2)).expect("the second");
        judge.core("server-1", opened(1, 1)).expect_err("the first after the second");
    }

    #[test]
    fn a_new_process_may_see_the_log_again() {
        let mut judge = Judge::new(RoundNumbers::default());
        judge.core("server-1", opened(2, 2)).expect("the second");
        judge.see("server-1", Seen::Started).expect("a start");
        judge.core("server-1", opened(2, 2)).expect("the second again");
    }
}
