//! A server without a log: whether it founds one, and what its operator should know.

use core::mem;

use openraft_rt::AsyncRuntime;
use zipnet_core::checks::Checks;
use zipnet_core::id::{RaftId, Role};
use zipnet_core::time::Time;

use super::{Happening, Machine, Node};
use crate::event::{Event, Observer};
use crate::founding::{PATIENCE, Sight, Step, explain, step};

impl<W: Observer, C: Checks> Node<W, C> {
    /// Founds a log with the others that had a vote in the one that was set aside, once that is possible.
    pub(super) fn look_after_founding(&mut self, now: Time) {
        let Machine::Server { group, .. } = &self.machine else { return };
        if self.stopping || !group.voters().1.is_empty() {
            (self.astray, self.warned_astray, self.astray_since) = (None, None, now);
            return;
        }
        let next = step(&self.sight(group.state().term > 0));
        if next == Step::Found && !self.changing {
            self.world.observe(Event::Founding { voters: self.founders.iter().map(|id| id.peer).collect() });
            self.changing = true;
            let (group, sender, founders) = (group.clone(), self.sender.clone(), self.founders.clone());
            drop(W::Runtime::spawn(async move {
                // A vote may have come in between; what the disk refuses, it says elsewhere.
                drop(group.found_group(founders).await);
                drop(sender.unbounded_send(Happening::Changed));
            }));
        }
        let kind = mem::discriminant(&next);
        if now.since(self.astray_since) >= PATIENCE
            && self.warned_astray != Some(kind)
            && let Some(text) = explain(&next)
        {
            self.warned_astray = Some(kind);
            self.world.observe(Event::Warned(text));
        }
        self.astray = Some(next);
    }

    /// What a server that has had no log for some time waits for.
    pub(super) fn waits_astray(&self, now: Time) -> Option<Step> {
        let lasts = now.since(self.astray_since) >= PATIENCE;
        self.astray.clone().filter(|step| lasts && *step != Step::Found)
    }

    /// Whether this server takes nothing but a log before it has made the first entry of one itself. See
    /// [`Believed::holds_vote`](crate::consensus::Believed::holds_vote).
    pub(super) fn holds_vote(&self) -> bool {
        !self.founders.is_empty() && !matches!(self.astray, Some(Step::Follow(_)))
    }

    /// What this server sees of those that may have a log, or found one with it.
    fn sight(&self, voted: bool) -> Sight {
        let linked = self.links.linked_entries().filter(|(_, _, hello)| hello.role == Role::Server);
        let linked = linked.filter_map(|(_, entry, hello)| {
            let id = RaftId { peer: entry.peer, store: hello.store? };
            let others = entry.named.as_ref().is_some_and(|(_, voters)| *voters != self.founders);
            Some((id, hello.log.is_some() || others))
        });
        Sight {
            me: RaftId { peer: self.own.peer, store: self.store.unwrap_or_default() },
            founders: self.founders.clone(),
            linked: linked.collect(),
            voted,
        }
    }
}
