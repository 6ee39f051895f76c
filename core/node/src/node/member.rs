//! A server's machine as consensus drives it.
//!
//! Consensus applies commands on its own task; the node's loop feeds everything else. Both go through one lock, so the
//! machine sees one sequence of inputs. Reports leave at once, so that what an observer sees is in the order in which
//! it happened; other effects wait for the node's loop.

use std::collections::VecDeque;

use futures_channel::mpsc;
use zipnet_core::checks::Checks;
use zipnet_core::committee::BadSnapshot;
use zipnet_core::id::{PeerId, Round};
use zipnet_core::machine::{Effect, Outbox, Report};
use zipnet_core::server::{Input, Server};

use super::Happening;
use crate::consensus::{CorruptSnapshot, Machine, Members, Source};
use crate::event::{Event, Holds, Observer};
use crate::world::Link;

/// A server's machine with what its effects need.
pub(super) struct Member<W: Observer, C> {
    world: W,
    me: PeerId,
    pub(super) server: Server<C>,
    outbox: Outbox,
    effects: VecDeque<Effect>,
    /// The log ended here when the process started; `None` until that is known.
    started_at: Option<u64>,
    /// The entry that is applied, and its term.
    index: u64,
    term: u64,
    /// What the replicated state holds, as it was told last.
    told_state: Option<Holds>,
    queue: mpsc::UnboundedSender<Happening<<W::Link as Link>::Connection>>,
    /// The node's loop was told that effects wait.
    told: bool,
    /// This identity was retired while it ran.
    pub(super) barred: bool,
}

impl<W: Observer, C: Checks> Member<W, C> {
    pub(super) fn new(
        world: W,
        me: PeerId,
        server: Server<C>,
        queue: mpsc::UnboundedSender<Happening<<W::Link as Link>::Connection>>,
    ) -> Self {
        let (outbox, effects) = (Outbox::new(), VecDeque::new());
        Self {
            world,
            me,
            server,
            outbox,
            effects,
            started_at: None,
            index: 0,
            term: 0,
            told_state: None,
            queue,
            told: false,
            barred: false,
        }
    }

    /// The log ended here when the process started.
    pub(super) fn opened(&mut self, last_log: u64) {
        self.started_at = Some(last_log);
        self.tell_state();
    }

    /// Tells what the replicated state holds if that has changed, whatever changed it: the numbers of operators are of
    /// the state, and not of the entries of which a process happens to hear.
    fn tell_state(&mut self) {
        let holds = self.holds();
        if self.told_state.as_ref() != Some(&holds) {
            self.told_state = Some(holds.clone());
            self.world.observe(Event::Holds(holds));
        }
    }

    fn holds(&self) -> Holds {
        let committee = self.server.committee();
        let servers = committee.servers().values().filter(|entry| entry.takes_part()).count();
        let last = self.told_state.as_ref().map(|told| told.roster.clone());
        let roster = match (committee.open(), last) {
            (Some(open), _) => open.header.servers.iter().map(|server| server.peer).collect(),
            // Nothing has replaced the roster of a round that is over.
            (None, Some(last)) if !last.is_empty() => last,
            (None, _) => {
                committee.records().back().map(|kept| kept.record.servers.clone()).unwrap_or_default()
            }
        };
        Holds {
            servers: u32::try_from(servers).unwrap_or(u32::MAX),
            clients: committee.clients().len(),
            roster,
        }
    }

    pub(super) fn handle(&mut self, input: Input) {
        self.server.handle(self.world.now(), input, &mut self.outbox);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.outbox.pop() {
            match effect {
                Effect::Report(report) => self.report(report),
                Effect::Past(report) => {
                    self.look_whether_barred(&report);
                    self.world.observe(Event::Past(report));
                }
                effect => self.effects.push_back(effect),
            }
        }
        if !self.told && !self.effects.is_empty() {
            self.told = true;
            // The node's loop is gone only if the node is, and then nobody waits for the effects.
            drop(self.queue.unbounded_send(Happening::Effects));
        }
    }

    /// The oldest effect that waits.
    pub(super) fn take_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        self.told = effect.is_some();
        effect
    }

    fn report(&mut self, report: Report) {
        match &report {
            Report::RoundOpened { index, digest, .. } if self.server.own_opening() == Some(*digest) => {
                self.world.observe(Event::OpeningRound { index: *index });
            }
            Report::PartialApplied { index, server, .. } if *server == self.me => {
                self.world.observe(Event::PartialSubmitted { index: *index });
            }
            _ => {}
        }
        self.look_whether_barred(&report);
        let finished = matches!(report, Report::RoundFinalized { .. })
            .then(|| Event::Finished { report: report.clone(), term: self.term });
        self.world.observe(Event::Core(report));
        if let Some(event) = finished {
            self.world.observe(event);
        }
    }

    /// One that was retired before it was started again is told so by the others.
    fn look_whether_barred(&mut self, report: &Report) {
        if let Report::ServerRetired { server, .. } = report {
            let while_it_ran = self.started_at.is_some_and(|last_log| self.index > last_log);
            self.barred |= *server == self.me && while_it_ran;
        }
    }
}

impl<W: Observer, C: Checks> Machine for Member<W, C> {
    fn apply(&mut self, index: u64, term: u64, command: &[u8]) {
        (self.index, self.term) = (index, term);
        self.handle(Input::Committed { index, command: command.to_vec() });
        self.tell_state();
    }

    fn members(&mut self, _: u64, members: &Members) {
        self.handle(Input::Voters { voters: members.peers() });
    }

    fn snapshot(&self) -> Vec<u8> {
        self.server.committee().snapshot()
    }

    fn restore(&mut self, snapshot: &[u8], source: Source) -> Result<(), CorruptSnapshot> {
        let restored = match source {
            Source::Own => self.server.restore(snapshot),
            Source::Peer => self.server.install(snapshot, &mut self.outbox),
        };
        self.drain();
        self.tell_state();
        restored.map_err(corrupt)
    }

    fn examine(&self, snapshot: &[u8]) -> Result<(), CorruptSnapshot> {
        self.server.examine(snapshot).map_err(corrupt)
    }

    fn followed(&self) -> Option<u64> {
        self.server.followed().map(|followed| followed.0)
    }

    fn follow(&mut self, followed: Option<u64>) {
        self.server.follow(followed.map(Round));
    }
}

fn corrupt(reason: BadSnapshot) -> CorruptSnapshot {
    CorruptSnapshot(format!("failed to {reason}"))
}
