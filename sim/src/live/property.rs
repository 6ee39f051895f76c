//! What must hold in every run on real processes, as far as lines and records tell.
//!
//! | property | what it is judged by |
//! | --- | --- |
//! | `agreement` | the digests of the records of all servers |
//! | `complete-roster` | `partial-applied` lines before a round is finished, and the roster of its record |
//! | `keystream-once` | `sealed` and `partial-made` lines: one of each per process and round |
//! | `participant-floor` | `partial-made` lines and the floor that the process was started with |
//! | `durability` | that a server keeps the records that it has shown |
//! | `round-numbers` | `round-opened` lines: numbers rise in a process, and have one place in a log |
//! | `chain` | the digest that a record names as the one before it, where nodes tell it |
//! | `one-leader` | `leader` lines: one local leader for a term of a log |
//! | `no-mixed-groups` | the servers of a record: each was started for the committee of whoever shows it |
//! | `never-unblinded` | the participants of records and of `partial-made` lines |
//! | `discretion` | no line holds a secret or a payload |
//!
//! `validity` is judged by what a reader reads ([`super::broadcast`]).

use std::collections::{BTreeMap, BTreeSet};

use zipnet_core::id::Round;
use zipnet_facts::Fact;
use zipnet_scenarios::verbs::Always;

use super::admin::Record;
use super::line::short;
use crate::cluster::NodeId;

/// A process of a run; every start makes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process(pub(super) u64);

/// Servers that were started with one instance and one committee secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Committee(pub(super) usize);

/// A property was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) property: &'static str,
    /// Where it was noticed.
    pub(super) node: String,
    pub(super) detail: String,
}

impl Breach {
    pub(super) const fn new(property: &'static str, node: String, detail: String) -> Self {
        Self { property, node, detail }
    }
}

/// The properties that a scenario asks for beyond those that are always on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Named {
    pub(super) no_mixed_groups: bool,
    pub(super) never_unblinded_below: Option<u64>,
}

/// What is remembered to judge by.
#[derive(Debug)]
pub(super) struct Properties {
    named: Named,
    processes: BTreeMap<Process, Ran>,
    /// Which peer was started for which committees, by its full id.
    members: BTreeMap<String, BTreeSet<Committee>>,
    /// By committee and number: where a round was opened.
    opened: BTreeMap<(Committee, u64), Place>,
    claims: Vec<Claim>,
    /// By log and number: the digest of the record, and who showed it first.
    records: BTreeMap<(String, u64), (String, String)>,
    /// Whether any record was shown, and whether any named the one before it.
    seen: Seen,
}

/// Which signals there were.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    records: bool,
    previous: bool,
}

/// What a process did.
#[derive(Debug)]
struct Ran {
    node: NodeId,
    committee: Option<Committee>,
    floor: u64,
    /// The first digits of the log that it replicates, as far as it said.
    log: Option<String>,
    last_opened: u64,
    sealed: BTreeSet<u64>,
    partial_made: BTreeSet<u64>,
    /// Rounds that it saw opened, with the servers whose partials it applied.
    partials: BTreeMap<u64, BTreeSet<String>>,
    finished: BTreeSet<u64>,
    /// What it showed, by log and number.
    shown: BTreeSet<(String, u64)>,
    /// What earlier processes on the same disk showed.
    inherited: BTreeSet<(String, u64)>,
}

/// Where a round was opened, as far as a process knew its log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    index: u64,
    log: Option<String>,
}

/// Somebody says that it leads.
#[derive(Clone, Debug)]
struct Claim {
    committee: Committee,
    term: u64,
    process: Process,
    name: String,
    /// The first digits of the log in which it leads, as soon as it is known.
    log: Option<String>,
}

impl Properties {
    pub(super) const fn new(named: Named) -> Self {
        Self {
            named,
            processes: BTreeMap::new(),
            members: BTreeMap::new(),
            opened: BTreeMap::new(),
            claims: Vec::new(),
            records: BTreeMap::new(),
            seen: Seen { records: false, previous: false },
        }
    }

    /// A process begins.
    pub(super) fn started(
        &mut self,
        process: Process,
        node: NodeId,
        peer: &str,
        committee: Option<Committee>,
        floor: u64,
    ) {
        if let Some(committee) = committee {
            self.members.entry(peer.to_owned()).or_default().insert(committee);
        }
        let ran = Ran {
            node,
            committee,
            floor,
            log: None,
            last_opened: 0,
            sealed: BTreeSet::new(),
            partial_made: BTreeSet::new(),
            partials: BTreeMap::new(),
            finished: BTreeSet::new(),
            shown: BTreeSet::new(),
            inherited: self.held_by(node).map(|ran| &ran.shown | &ran.inherited).unwrap_or_default(),
        };
        self.processes.insert(process, ran);
    }

    /// The latest process of a node.
    fn held_by(&mut self, node: NodeId) -> Option<&mut Ran> {
        self.processes.values_mut().rev().find(|ran| ran.node == node)
    }

    /// The disk of a node was emptied.
    pub(super) fn wiped(&mut self, node: NodeId) {
        if let Some(ran) = self.held_by(node) {
            ran.shown.clear();
            ran.inherited.clear();
        }
    }

    /// What a process tells.
    ///
    /// # Errors
    /// What it breaks.
    pub(super) fn observe(&mut self, process: Process, name: &str, fact: &Fact) -> Result<(), Breach> {
        let Some(ran) = self.processes.get_mut(&process) else { return Ok(()) };
        let breach = |property, detail| Err(Breach::new(property, name.to_owned(), detail));
        match (fact, ran.committee) {
            // Whoever reads was too slow: what is missing proves nothing.
            (Fact::LinesLost { .. }, _) => ran.partials.clear(),
            (Fact::LogStarted { log }, _) => return self.learn(process, Some(log.short())),
            // A server that joins reads how its log began.
            (Fact::ReadAgain { again }, _) => {
                if let Fact::LogStarted { log } = &**again {
                    return self.learn(process, Some(log.short()));
                }
            }
            (Fact::LogYielded { own, other, .. }, _) => {
                ran.last_opened = 0;
                ran.shown.clear();
                ran.inherited.clear();
                self.learn(process, Some(own.short()))?;
                return self.learn(process, Some(other.short()));
            }
            (Fact::Leader { term, local: true, .. }, Some(committee)) => {
                let log = ran.log.clone();
                self.claims.push(Claim { committee, term: *term, process, name: name.to_owned(), log });
                return self.one_leader();
            }
            (Fact::RoundOpened { round: Round(round), index, .. }, Some(committee)) => {
                let (round, index) = (*round, *index);
                if round <= ran.last_opened {
                    let detail = format!("{name} saw r{round} opened after r{}", ran.last_opened);
                    return breach("round-numbers", detail);
                }
                ran.last_opened = round;
                ran.partials.insert(round, BTreeSet::new());
                let place = Place { index, log: ran.log.clone() };
                let first = self.opened.entry((committee, round)).or_insert_with(|| place.clone());
                if first.log.is_some() && first.log == place.log && first.index != index {
                    let detail = format!(
                        "{name} saw r{round} opened at index {index}, another server at index {}",
                        first.index
                    );
                    return breach("round-numbers", detail);
                }
            }
            (Fact::PartialApplied { round, server, .. }, _) => {
                if let Some(partials) = ran.partials.get_mut(&round.0) {
                    partials.insert(server.short());
                }
            }
            (Fact::RoundFinalized { end } | Fact::RoundApplied { end }, _) => {
                ran.finished.insert(end.round.0);
            }
            (Fact::PartialMade { round, participants, .. }, _) => {
                let few = u64::from(*participants);
                let floor = ran.floor.max(self.named.never_unblinded_below.unwrap_or(0));
                if few < floor {
                    let property = if few < ran.floor { "participant-floor" } else { "never-unblinded" };
                    let detail = format!(
                        "{name} made a partial of {round} with {few} participants, its floor is {floor}"
                    );
                    return breach(property, detail);
                }
                if !ran.partial_made.insert(round.0) {
                    return breach("keystream-once", format!("{name} made two partials of {round}"));
                }
            }
            (Fact::Sealed { round, .. }, None) if !ran.sealed.insert(round.0) => {
                return breach("keystream-once", format!("{name} sealed two envelopes for {round}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// The log that a process replicates.
    ///
    /// # Errors
    /// What that breaks.
    pub(super) fn learn(&mut self, process: Process, log: Option<String>) -> Result<(), Breach> {
        let Some(ran) = self.processes.get_mut(&process) else { return Ok(()) };
        let log = log.map(|log| short(&log).to_owned());
        if log.is_none() || ran.log == log {
            return Ok(());
        }
        let own = self.claims.iter_mut().filter(|claim| claim.process == process && claim.log.is_none());
        own.for_each(|claim| claim.log.clone_from(&log));
        ran.log = log;
        self.one_leader()
    }

    /// One leader for a term of a log. Logs that a committee gave up have terms of their own.
    fn one_leader(&self) -> Result<(), Breach> {
        for (place, claim) in self.claims.iter().enumerate() {
            let other = self.claims.iter().take(place).find(|other| {
                let node = |claim: &Claim| self.processes.get(&claim.process).map(|ran| ran.node);
                (other.committee, other.term) == (claim.committee, claim.term)
                    && node(other) != node(claim)
                    && claim.log.is_some()
                    && other.log == claim.log
            });
            if let Some(other) = other {
                let detail = format!("{} and {} both lead term {}", other.name, claim.name, claim.term);
                return Err(Breach::new("one-leader", claim.name.clone(), detail));
            }
        }
        Ok(())
    }

    /// The newest records of a process, oldest first.
    ///
    /// # Errors
    /// What they break.
    pub(super) fn show(&mut self, process: Process, name: &str, records: &[Record]) -> Result<(), Breach> {
        let Some(ran) = self.processes.get_mut(&process) else { return Ok(()) };
        let Some(committee) = ran.committee else { return Ok(()) };
        let breach = |property, detail| Err(Breach::new(property, name.to_owned(), detail));
        let now: BTreeSet<_> = records.iter().map(|record| (record.log.clone(), record.round)).collect();
        if let (Some(first), Some(last)) = (records.first(), records.last()) {
            self.seen.records = true;
            // Old ones make way for new ones. What a process has shown it still reaches; what one before it has shown, as
            // soon as it has caught up to there.
            let gone =
                |key: &&(String, u64)| key.0 == first.log && key.1 >= first.round && !now.contains(*key);
            let caught_up = |key: &&(String, u64)| key.1 <= last.round;
            let mut lost =
                ran.shown.iter().filter(gone).chain(ran.inherited.iter().filter(gone).filter(caught_up));
            if let Some((_, round)) = lost.next() {
                let detail = format!("{name} has shown the record of r{round} and does not hold it any more");
                return breach("durability", detail);
            }
        }
        ran.shown.extend(now);
        for record in records {
            let key = (record.log.clone(), record.round);
            let (digest, shown_by) =
                self.records.entry(key).or_insert_with(|| (record.digest.clone(), name.to_owned()));
            if *digest != record.digest {
                let detail = format!(
                    "{name} has the record {} of r{}, {shown_by} has {digest}",
                    record.digest, record.round
                );
                return breach("agreement", detail);
            }
            if let Some(few) = self.named.never_unblinded_below
                && record.participants < few
            {
                let detail =
                    format!("r{} was unblinded with {} participants", record.round, record.participants);
                return breach("never-unblinded", detail);
            }
            if self.named.no_mixed_groups
                && let Some(stranger) = record.servers.iter().find(|peer| {
                    !self.members.get(*peer).is_some_and(|committees| committees.contains(&committee))
                })
            {
                let detail = format!(
                    "r{} holds a contribution of {}, which was never in the committee of {name}",
                    record.round,
                    short(stranger)
                );
                return breach("no-mixed-groups", detail);
            }
            // Lines follow what happens: only a round whose end was printed is complete in them.
            if ran.finished.contains(&record.round)
                && let Some(partials) = ran.partials.get(&record.round)
                && let Some(missing) = record.servers.iter().find(|peer| !partials.contains(short(peer)))
            {
                let detail =
                    format!("{name} finished r{} without the partial of {}", record.round, short(missing));
                return breach("complete-roster", detail);
            }
        }
        for pair in records.windows(2) {
            let [before, record] = pair else { continue };
            let Some(previous) = &record.previous else { continue };
            self.seen.previous = true;
            if before.log == record.log && before.digest != *previous {
                let detail = format!(
                    "{name} has r{} after a record {previous}, the one of r{} is {}",
                    record.round, before.round, before.digest
                );
                return breach("chain", detail);
            }
        }
        Ok(())
    }

    /// Every round that servers showed.
    pub(super) fn rounds(&self) -> BTreeSet<(String, u64)> {
        self.records.keys().cloned().collect()
    }

    /// Why nothing can be said about a property, if that is so.
    pub(super) fn blind_to(&self, always: &Always) -> Option<&'static str> {
        match always {
            Always::Chain {} if !self.seen.previous => Some("no record named the one before it"),
            Always::Agreement { .. }
            | Always::CompleteRoster {}
            | Always::Durability {}
            | Always::NoMixedGroups {}
            | Always::NeverUnblinded { .. }
                if !self.seen.records =>
            {
                Some("no server showed a record")
            }
            Always::RoundNumbers {} | Always::ParticipantFloor {} | Always::KeystreamOnce {}
                if self.opened.is_empty() =>
            {
                Some("no line told of a round")
            }
            Always::OneLeader {} if self.claims.is_empty() => Some("nobody said that it leads"),
            Always::Anonymity {} => Some("real processes do not show what they mix"),
            Always::Agreement { .. }
            | Always::CompleteRoster {}
            | Always::KeystreamOnce {}
            | Always::ParticipantFloor {}
            | Always::Durability {}
            | Always::RoundNumbers {}
            | Always::OneLeader {}
            | Always::Chain {}
            | Always::Validity {}
            | Always::NoMixedGroups {}
            | Always::NeverUnblinded { .. } => None,
        }
    }
}

/// What the property says about itself.
pub(super) fn sentence(property: &str) -> &'static str {
    match property {
        "no-mixed-groups" => "No record is made of contributions of two committees.",
        "never-unblinded" => "No aggregate of fewer participants is unblinded.",
        "discretion" => "No line of a log holds a secret or a payload.",
        _ => zipnet_reports::properties::sentence(property).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::{Digest, LogId, StoreId};

    use super::super::witness::Witness;
    use super::super::witness::tests::{leads, opened, peer, peer_id, print, round_end, witness};
    use super::*;

    const LOG: &str = "aaaaaaaaaaaaaaaa";

    fn record(round: u64, digest: &str) -> Record {
        Record {
            log: LOG.to_owned(),
            round,
            digest: digest.to_owned(),
            participants: 3,
            servers: vec![peer(0), peer(1)],
            previous: None,
        }
    }

    fn show(witness: &mut Witness, node: usize, records: &[Record]) -> Result<(), &'static str> {
        let process = witness.process(node);
        witness.properties.show(process, "server", records).map_err(|breach| breach.property)
    }

    fn say(witness: &mut Witness, node: usize, fact: Fact) -> Result<(), &'static str> {
        print(witness, node, 1, fact).map_err(|breach| breach.property)
    }

    fn log_started(log: u8) -> Fact {
        Fact::LogStarted { log: LogId([log; 32]) }
    }

    fn partial_made(round: u64, participants: u32) -> Fact {
        Fact::PartialMade {
            log: LogId::default(),
            round: Round(round),
            header: Digest::default(),
            aggregate: Digest::default(),
            participants,
            floor: 2,
        }
    }

    #[test]
    fn equal_records_hold_and_different_ones_do_not() {
        let mut witness = witness();
        assert_eq!(show(&mut witness, 0, &[record(1, "x"), record(2, "y")]), Ok(()));
        assert_eq!(show(&mut witness, 1, &[record(1, "x")]), Ok(()));
        assert_eq!(show(&mut witness, 1, &[record(1, "x"), record(2, "z")]), Err("agreement"));
    }

    #[test]
    fn a_server_forgets_old_records_only() {
        let mut witness = witness();
        assert_eq!(show(&mut witness, 0, &[record(1, "x"), record(2, "y")]), Ok(()));
        assert_eq!(show(&mut witness, 0, &[record(2, "y"), record(3, "z")]), Ok(()));
        assert_eq!(show(&mut witness, 0, &[record(2, "y")]), Err("durability"));
    }

    #[test]
    fn a_process_has_what_the_one_before_it_had_unless_the_disk_is_gone() {
        let all = [record(1, "x"), record(2, "y"), record(3, "z")];
        let gap = [all[0].clone(), all[2].clone()];
        for (wiped, expected) in [(false, Err("durability")), (true, Ok(()))] {
            let mut witness = witness();
            assert_eq!(show(&mut witness, 0, &all), Ok(()));
            if wiped {
                witness.properties.wiped(0);
            }
            witness.started(0, &peer(0), Some(Committee(0)), 2);
            assert_eq!(show(&mut witness, 0, &all[..1]), Ok(()), "it is catching up");
            assert_eq!(show(&mut witness, 0, &gap), expected);
        }
    }

    #[test]
    fn a_finished_round_has_every_partial_of_its_record() {
        for (partials, expected) in [(2, Ok(())), (1, Err("complete-roster"))] {
            let mut witness = witness();
            say(&mut witness, 0, opened(1, 5)).expect("opened");
            for server in 0..partials {
                let fact = Fact::PartialApplied {
                    round: Round(1),
                    index: 6,
                    header: Digest::default(),
                    aggregate: Digest::default(),
                    server: peer_id(server),
                };
                say(&mut witness, 0, fact).expect("a partial");
            }
            assert_eq!(show(&mut witness, 0, &[record(1, "x")]), Ok(()), "its end was not printed yet");
            say(&mut witness, 0, Fact::RoundFinalized { end: round_end(1) }).expect("finished");
            assert_eq!(show(&mut witness, 0, &[record(1, "x")]), expected);
        }
    }

    #[test]
    fn one_partial_and_one_envelope_for_a_round_and_a_process() {
        let mut witness = witness();
        let sealed = || Fact::Sealed {
            log: LogId::default(),
            round: Round(7),
            header: Digest::default(),
            servers: vec![peer_id(0), peer_id(1)],
        };
        assert_eq!(say(&mut witness, 0, partial_made(7, 3)), Ok(()));
        assert_eq!(say(&mut witness, 0, partial_made(7, 3)), Err("keystream-once"));
        assert_eq!(say(&mut witness, 3, sealed()), Ok(()));
        assert_eq!(say(&mut witness, 3, sealed()), Err("keystream-once"));
        witness.started(3, &peer(3), None, 1);
        assert_eq!(say(&mut witness, 3, sealed()), Ok(()), "another process has other keys");
    }

    #[test]
    fn a_partial_below_the_floor_of_its_process_is_a_violation() {
        let mut witness = witness();
        assert_eq!(say(&mut witness, 0, partial_made(2, 2)), Ok(()));
        assert_eq!(say(&mut witness, 0, partial_made(1, 1)), Err("participant-floor"));
        witness.started(0, &peer(0), Some(Committee(0)), 1);
        assert_eq!(say(&mut witness, 0, partial_made(1, 1)), Ok(()));
    }

    #[test]
    fn round_numbers_rise_and_have_one_place() {
        let mut witness = witness();
        for node in [0, 1] {
            say(&mut witness, node, log_started(0xaa)).expect("a log");
        }
        assert_eq!(say(&mut witness, 0, opened(1, 5)), Ok(()));
        assert_eq!(say(&mut witness, 0, opened(3, 9)), Ok(()));
        assert_eq!(say(&mut witness, 0, opened(2, 10)), Err("round-numbers"));
        assert_eq!(say(&mut witness, 1, opened(1, 6)), Err("round-numbers"));
    }

    #[test]
    fn two_leaders_of_a_term_are_a_violation_in_one_log() {
        for (other, expected) in [(0xbb, Ok(())), (0xaa, Err("one-leader"))] {
            let mut witness = witness();
            say(&mut witness, 0, leads(0, 1, true)).expect("a leader");
            say(&mut witness, 1, leads(1, 1, true)).expect("logs unknown");
            say(&mut witness, 0, log_started(0xaa)).expect("one log");
            assert_eq!(say(&mut witness, 1, log_started(other)), expected);
        }
    }

    #[test]
    fn whoever_led_a_log_that_it_gives_up_did_not_lead_the_other_one() {
        let mut witness = witness();
        for node in [0, 1] {
            say(&mut witness, node, leads(node, 1, true)).expect("each in its own log");
        }
        say(&mut witness, 0, log_started(0xaa)).expect("one log");
        let yielded =
            Fact::LogYielded { own: LogId([0xbb; 32]), other: LogId([0xaa; 32]), store: StoreId(12) };
        assert_eq!(say(&mut witness, 1, yielded), Ok(()));
        assert_eq!(say(&mut witness, 1, leads(1, 1, true)), Err("one-leader"));
    }

    #[test]
    fn the_chain_is_judged_where_records_tell() {
        let after = |round, digest: &str, previous: &str| Record {
            previous: Some(previous.to_owned()),
            ..record(round, digest)
        };
        let mut witness = witness();
        assert!(witness.properties.blind_to(&Always::Chain {}).is_some());
        assert_eq!(show(&mut witness, 0, &[after(1, "x", "w"), after(2, "y", "x")]), Ok(()));
        assert!(witness.properties.blind_to(&Always::Chain {}).is_none());
        assert_eq!(show(&mut witness, 1, &[after(1, "x", "w"), after(2, "y", "w")]), Err("chain"));
    }

    #[test]
    fn what_a_scenario_names_is_judged_as_well() {
        let named = Named { no_mixed_groups: true, never_unblinded_below: Some(2) };
        let mut properties = Properties::new(named);
        properties.started(Process(1), 0, &peer(0), Some(Committee(0)), 1);
        properties.started(Process(2), 1, &peer(1), Some(Committee(1)), 1);
        let own = Record { servers: vec![peer(0)], ..record(1, "x") };
        let mut show =
            |record| properties.show(Process(1), "server-1", &[record]).map_err(|breach| breach.property);
        assert_eq!(show(own.clone()), Ok(()));
        assert_eq!(show(Record { participants: 1, ..own }), Err("never-unblinded"));
        assert_eq!(show(record(2, "y")), Err("no-mixed-groups"));
    }

    #[test]
    fn nothing_is_said_about_what_left_no_trace() {
        let properties = Properties::new(Named::default());
        assert!(properties.blind_to(&Always::CompleteRoster {}).is_some());
        assert!(properties.blind_to(&Always::OneLeader {}).is_some());
        let mut witness = witness();
        show(&mut witness, 0, &[record(1, "x")]).expect("a record");
        assert!(witness.blind_to(&Always::CompleteRoster {}).is_none());
        assert!(witness.blind_to(&Always::Validity {}).is_some());
        let round = r#"{"log":"aa","round":1,"slots":[]}"#;
        witness.broadcasts.read(0, round).expect("it is empty");
        assert!(witness.blind_to(&Always::Validity {}).is_none());
    }
}
