//! Every message of a broadcast was submitted, and none is lost without a collision.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::checks::{Mixed, Mixture};
use zipnet_core::id::{Digest, PeerId};
use zipnet_core::machine::Report;
use zipnet_core::message::Record;
use zipnet_core::params::RoundParams;
use zipnet_core::slot::{SlotContent, read_slots};
use zipnet_core::time::Time;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};

/// Judged while every node is honest: a dishonest one can garble rounds, which costs availability only.
#[derive(Debug, Default)]
pub struct Validity {
    params: BTreeMap<Digest, RoundParams>,
    /// What each client sealed under each header; `None` is cover traffic.
    sealed: BTreeMap<Digest, BTreeMap<PeerId, Option<Vec<u8>>>>,
    judged: BTreeSet<Digest>,
    liars: bool,
}

impl Validity {
    fn judge(&self, record: &Record) -> Result<(), String> {
        let Some(params) = self.params.get(&record.header) else { return Ok(()) };
        let nobody = BTreeMap::new();
        let sealed = self.sealed.get(&record.header).unwrap_or(&nobody);
        let participants = usize::try_from(record.participants.count_ones()).unwrap_or(usize::MAX);
        let round = record.round;
        if participants > sealed.len() {
            return Err(format!("{round} has {participants} participants, {} clients sealed", sealed.len()));
        }
        let mut submitted: BTreeMap<&[u8], usize> = BTreeMap::new();
        for payload in sealed.values().flatten() {
            *submitted.entry(payload).or_default() += 1;
        }
        let mut garbled: usize = 0;
        for content in read_slots(params, &record.header, &record.broadcast) {
            match content {
                SlotContent::Empty => {}
                SlotContent::Garbled => garbled += 1,
                SlotContent::Message(payload) => match submitted.get_mut(payload) {
                    Some(left) if *left > 0 => *left -= 1,
                    Some(_) | None => return Err(format!("{round} holds a message that nobody submitted")),
                },
            }
        }
        // A payload that several clients sent can cancel itself out.
        let missing: usize = submitted.values().filter(|left| **left == 1).sum();
        let doubled: usize = submitted.values().filter(|left| **left > 1).sum();
        let late = sealed.len() - participants;
        if garbled == 0 && missing > late {
            return Err(format!(
                "{missing} messages of {round} are lost without a collision, {late} were late"
            ));
        }
        if missing + doubled < 2 * garbled {
            return Err(format!("{round} has {garbled} garbled slots, {missing} messages are missing"));
        }
        Ok(())
    }
}

impl Property for Validity {
    fn name(&self) -> &'static str {
        "validity"
    }

    fn sentence(&self) -> &'static str {
        "Every message of a broadcast was submitted by a participant, and none is lost without a collision."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        self.liars |= subject.liar;
        if let Seen::Mixed(Mixed { digest, what: Mixture::Envelope { payload }, .. }) = seen {
            let sealed = self.sealed.entry(*digest).or_default();
            sealed.entry(subject.peer).or_insert_with(|| payload.map(<[u8]>::to_vec));
        }
        let Seen::Event(Event::Core(report) | Event::Past(report)) = seen else { return Ok(()) };
        match report {
            Report::RoundOpened { header, digest, .. } => {
                self.params.insert(*digest, header.params);
            }
            Report::RoundFinalized { record, digest, .. } if !self.liars && self.judged.insert(*digest) => {
                self.judge(record)?;
                self.sealed.remove(&record.header);
            }
            Report::RoundAbandoned { header, .. } => {
                self.sealed.remove(header);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::bitmap::Bitmap;
    use zipnet_core::slot::write_slot;

    use super::super::sample::{Judge, RecordSample, header_digest, opened, record};
    use super::*;

    const PAYLOAD: [u8; 240] = [5; 240];

    fn broadcast(fill: impl FnOnce(&mut [u8])) -> RecordSample {
        let mut sample = record(1, Digest::default());
        sample.0.header = header_digest(1, 1);
        sample.0.participants = Bitmap::from_ones(2, [0, 1]).expect("in range");
        fill(&mut sample.0.broadcast);
        sample
    }

    fn judge() -> Judge<Validity> {
        let mut judge = Judge::new(Validity::default());
        judge.core("server-1", opened(1, 1)).expect("a round");
        judge.envelope("client-1", 1, Some(&PAYLOAD)).expect("a message");
        judge.envelope("client-2", 1, None).expect("cover");
        judge
    }

    fn write(vector: &mut [u8], payload: &[u8]) {
        write_slot(&RoundParams::DEFAULT, &header_digest(1, 1), 3, payload, 0xff, vector);
    }

    #[test]
    fn what_was_submitted_holds() {
        let sample = broadcast(|vector| write(vector, &PAYLOAD));
        judge().core("server-1", sample.finalized()).expect("the message is there");
    }

    #[test]
    fn a_round_whose_opening_is_not_known_is_not_judged() {
        let mut judge = Judge::new(Validity::default());
        let sample = broadcast(|vector| write(vector, &PAYLOAD));
        judge.core("server-1", sample.finalized()).expect("its shape is not known");
    }

    #[test]
    fn a_message_of_nobody_is_a_violation() {
        let sample = broadcast(|vector| write(vector, &[6; 240]));
        judge().core("server-1", sample.finalized()).expect_err("nobody sent that");
    }

    #[test]
    fn a_lost_message_is_a_violation() {
        judge().core("server-1", broadcast(|_| {}).finalized()).expect_err("the message is gone");
    }

    #[test]
    fn garbage_without_a_collision_is_a_violation() {
        let sample = broadcast(|vector| vector[0] = 1);
        judge().core("server-1", sample.finalized()).expect_err("one message makes no collision");
    }

    #[test]
    fn more_participants_than_envelopes_are_a_violation() {
        let mut sample = broadcast(|vector| write(vector, &PAYLOAD));
        sample.0.participants = Bitmap::from_ones(3, [0, 1, 2]).expect("in range");
        judge().core("server-1", sample.finalized()).expect_err("only two sealed");
    }

    #[test]
    fn a_late_message_may_be_missing() {
        let mut sample = broadcast(|_| {});
        sample.0.participants = Bitmap::from_ones(2, [1]).expect("in range");
        judge().core("server-1", sample.finalized()).expect("it came too late");
    }
}
