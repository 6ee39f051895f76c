//! A finished round has the signature and the partial of every server of its roster.

use std::collections::BTreeSet;

use zipnet_core::machine::Report;
use zipnet_core::time::Time;
use zipnet_node::event::Event;

use super::{Property, Seen, Subject};

/// As long as one server of the roster is honest, nobody can unblind without it: so nobody may.
#[derive(Debug, Default)]
pub struct CompleteRoster;

impl Property for CompleteRoster {
    fn name(&self) -> &'static str {
        "complete-roster"
    }

    fn sentence(&self) -> &'static str {
        "A finished round has the signature and the partial of every server of its roster."
    }

    fn see(&mut self, _: Time, subject: &Subject, seen: Seen<'_>) -> Result<(), String> {
        let Seen::Event(Event::Core(Report::RoundFinalized { record, signed, partials, .. })) = seen else {
            return Ok(());
        };
        let roster: BTreeSet<_> = record.servers.iter().collect();
        for (what, have) in [("signatures", signed), ("partials", partials)] {
            let have: BTreeSet<_> = have.iter().collect();
            if have != roster && !subject.liar {
                return Err(format!(
                    "{} finished {} with {} of {} {what}",
                    subject.name,
                    record.round,
                    have.len(),
                    roster.len()
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::Digest;

    use super::super::sample::{Judge, record};
    use super::*;

    #[test]
    fn a_complete_roster_holds() {
        let mut judge = Judge::new(CompleteRoster);
        judge.core("server-1", record(1, Digest::default()).finalized()).expect("all are there");
    }

    #[test]
    fn a_missing_partial_is_a_violation() {
        let mut judge = Judge::new(CompleteRoster);
        let mut report = record(1, Digest::default()).finalized();
        if let Report::RoundFinalized { partials, .. } = &mut report {
            partials.pop();
        }
        judge.core("server-1", report).expect_err("one partial is missing");
    }

    #[test]
    fn a_missing_signature_is_a_violation() {
        let mut judge = Judge::new(CompleteRoster);
        let mut report = record(1, Digest::default()).finalized();
        if let Report::RoundFinalized { signed, .. } = &mut report {
            signed.pop();
        }
        judge.core("server-1", report).expect_err("one signature is missing");
    }
}
