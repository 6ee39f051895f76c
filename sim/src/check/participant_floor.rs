//! No honest server unblinds a round with fewer participants than its own floor.

use zipnet_core::machine::Report;
use zipnet_core::time::Time;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};

/// A crowd of one is no crowd.
#[derive(Debug, Default)]
pub struct ParticipantFloor;

impl Property for ParticipantFloor {
    fn name(&self) -> &'static str {
        "participant-floor"
    }

    fn sentence(&self) -> &'static str {
        "No honest server unblinds a round with fewer participants than its own floor."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        let Seen::Event(Event::Core(Report::PartialMade { round, participants, floor, .. })) = seen else {
            return Ok(());
        };
        if participants >= floor || subject.liar {
            return Ok(());
        }
        Err(format!(
            "{} unblinded {round} with {participants} participants, its floor is {floor}",
            subject.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, made};
    use super::*;

    #[test]
    fn as_many_as_the_floor_hold() {
        Judge::new(ParticipantFloor).core("server-1", made(1, 7, 2, 2)).expect("two are enough");
    }

    #[test]
    fn fewer_than_the_floor_are_a_violation() {
        Judge::new(ParticipantFloor).core("server-1", made(1, 7, 1, 2)).expect_err("one is not enough");
    }
}
