//! No honest server unblinds a round with fewer participants than its own floor.

use zipnet_core::time::Time;
use zipnet_facts::Fact;

use super::{Property, Seen, Subject};

/// A crowd of one is no crowd.
#[derive(Debug, Default)]
pub struct ParticipantFloor {
    /// A partial was told of.
    told: bool,
}

impl Property for ParticipantFloor {
    fn name(&self) -> &'static str {
        "participant-floor"
    }

    fn sentence(&self) -> &'static str {
        "No honest server unblinds a round with fewer participants than its own floor."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        let Some(Fact::PartialMade { round, participants, floor, .. }) = seen.fact() else { return Ok(()) };
        self.told = true;
        if participants >= floor || subject.liar {
            return Ok(());
        }
        Err(format!(
            "{} unblinded {round} with {participants} participants, its floor is {floor}",
            subject.name
        ))
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        (!self.told).then_some("no partial was told of")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Judge, made};
    use super::*;

    #[test]
    fn as_many_as_the_floor_hold() {
        let mut judge = Judge::new(ParticipantFloor::default());
        judge.fact("server-1", made(1, 7, 2, 2)).expect("two are enough");
    }

    #[test]
    fn fewer_than_the_floor_are_a_violation() {
        let mut judge = Judge::new(ParticipantFloor::default());
        judge.fact("server-1", made(1, 7, 1, 2)).expect_err("one is not enough");
    }

    #[test]
    fn without_a_partial_nothing_is_said() {
        let mut judge = Judge::new(ParticipantFloor::default());
        assert_eq!(judge.cannot_tell(), Some("no partial was told of"));
        judge.fact("server-1", made(1, 7, 2, 2)).expect("two are enough");
        assert_eq!(judge.cannot_tell(), None);
    }
}
