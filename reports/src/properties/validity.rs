//! Every message of a broadcast was submitted, and none is lost without a collision.

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::checks::{Mixed, Mixture};
use zipnet_core::id::{Digest, PeerId};
use zipnet_core::message::Record;
use zipnet_core::params::RoundParams;
use zipnet_core::slot::{SlotContent, read_slots};
use zipnet_core::time::Time;
use zipnet_facts::Fact;

use super::{Property, Seen, Subject};

/// Judged while every node is honest: a dishonest one can garble rounds, which costs availability only.
#[derive(Debug, Default)]
pub struct Validity {
    /// Of each header under which something was mixed.
    params: BTreeMap<Digest, RoundParams>,
    /// What each client sealed under each header; `None` is cover traffic.
    sealed: BTreeMap<Digest, BTreeMap<PeerId, Option<Vec<u8>>>>,
    /// Headers whose record was judged; that there is one record of a round is for `agreement` to judge.
    judged: BTreeSet<Digest>,
    liars: bool,
}

impl Validity {
    fn judge(&self, record: &Record, params: &RoundParams) -> Result<(), String> {
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
        match seen {
            Seen::Mixed(Mixed { header, digest, what, .. }) => {
                self.params.entry(*digest).or_insert(header.params);
                if let Mixture::Envelope { payload } = what {
                    let sealed = self.sealed.entry(*digest).or_default();
                    sealed.entry(subject.peer).or_insert_with(|| payload.map(<[u8]>::to_vec));
                }
            }
            Seen::Record(record) if !self.liars => {
                if let Some(params) = self.params.get(&record.header)
                    && self.judged.insert(record.header)
                {
                    self.judge(record, params)?;
                    self.sealed.remove(&record.header);
                }
            }
            _ => {
                if let Some(Fact::RoundAbandoned { header, .. }) = seen.fact() {
                    self.sealed.remove(header);
                }
            }
        }
        Ok(())
    }

    fn cannot_tell(&self) -> Option<&'static str> {
        if !self.judged.is_empty() {
            return None;
        }
        Some(match (self.params.is_empty(), self.liars) {
            (true, _) => "nothing shows what is mixed",
            (false, false) => "nothing shows what was mixed as a whole record",
            (false, true) => "somebody deviates, and garbles rounds at will",
        })
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::bitmap::Bitmap;
    use zipnet_core::slot::write_slot;

    use super::super::sample::{Judge, RecordSample, header_digest, record};
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
        judge().see("server-1", sample.whole()).expect("the message is there");
    }

    #[test]
    fn a_round_in_which_nobody_is_seen_to_mix_is_not_judged() {
        let mut judge = Judge::new(Validity::default());
        let sample = broadcast(|vector| write(vector, &PAYLOAD));
        judge.see("server-1", sample.whole()).expect("its shape is not known");
    }

    #[test]
    fn a_message_of_nobody_is_a_violation() {
        let sample = broadcast(|vector| write(vector, &[6; 240]));
        judge().see("server-1", sample.whole()).expect_err("nobody sent that");
    }

    #[test]
    fn a_lost_message_is_a_violation() {
        judge().see("server-1", broadcast(|_| {}).whole()).expect_err("the message is gone");
    }

    #[test]
    fn garbage_without_a_collision_is_a_violation() {
        let sample = broadcast(|vector| vector[0] = 1);
        judge().see("server-1", sample.whole()).expect_err("one message makes no collision");
    }

    #[test]
    fn more_participants_than_envelopes_are_a_violation() {
        let mut sample = broadcast(|vector| write(vector, &PAYLOAD));
        sample.0.participants = Bitmap::from_ones(3, [0, 1, 2]).expect("in range");
        judge().see("server-1", sample.whole()).expect_err("only two sealed");
    }

    #[test]
    fn a_late_message_may_be_missing() {
        let mut sample = broadcast(|_| {});
        sample.0.participants = Bitmap::from_ones(2, [1]).expect("in range");
        judge().see("server-1", sample.whole()).expect("it came too late");
    }

    #[test]
    fn without_what_is_mixed_and_whole_records_nothing_is_said() {
        let sample = broadcast(|vector| write(vector, &PAYLOAD));
        let mut judge = Judge::new(Validity::default());
        judge.see("server-1", sample.whole()).expect("its shape is not known");
        assert_eq!(judge.cannot_tell(), Some("nothing shows what is mixed"));
        judge.envelope("client-1", 1, Some(&PAYLOAD)).expect("a message");
        judge.envelope("client-2", 1, None).expect("cover");
        assert_eq!(judge.cannot_tell(), Some("nothing shows what was mixed as a whole record"));
        judge.see("server-1", sample.whole()).expect("the message is there");
        assert_eq!(judge.cannot_tell(), None);
    }
}
