//! What a lying server does to the log.
//!
//! It speaks consensus like everybody else, and says what no honest server says: as a leader without a vote, as one that
//! tells its followers different things, and as one that gives out states that it has made up. It knows all that servers
//! tell each other.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use openraft::entry::RaftEntry;
use zipnet_core::id::{PeerId, RaftId};
use zipnet_core::key::{Identity, Signature};
use zipnet_core::message::{Announcement, Command, Disclaimer, Header, Message, Standing};
use zipnet_core::time::Time;
use zipnet_core::wire;
use zipnet_node::consensus::codec::{Ballot, Frame, Reply, Request, decode_frame, encode_frame};
use zipnet_node::consensus::types::{
    Command as Bytecode, Entry, LogId, NodeId, Payload, SnapshotMeta, StoredMembership, Vote,
};
use zipnet_node::frame;
use zipnet_node::world::Channel;

use super::overheard::{Heard, Opened, Overheard};

/// How long a made-up leader waits before it speaks to somebody again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long somebody is cut off from the true log who does not take the false one.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after that somebody who took it is given to lead.
const SUCCESSION: Duration = Duration::from_secs(10);
/// How long after a false state the next one comes.
const RESPITE: Duration = Duration::from_secs(15);
/// How far ahead of the log a false state pretends to be.
const AHEAD: u64 = 1_000;
/// The numbers of false requests begin here.
const REQUESTS: u64 = 1 << 63;

/// The deeds of one server. Forgotten with its process.
#[derive(Debug, Default)]
pub(super) struct Coup {
    /// The disk that its process said hello with.
    me: Option<RaftId>,
    requests: u64,
    /// When it last spoke as a leader, to whom.
    spoken: BTreeMap<PeerId, Time>,
    captive: Option<Captive>,
    /// When the last captive was let go.
    released: Option<Time>,
    /// What is to be said to whom at the next opportunity.
    words: BTreeMap<PeerId, VecDeque<(Channel, Bytes)>>,
}

/// A follower that hears nothing of the true log.
#[derive(Debug)]
struct Captive {
    who: RaftId,
    plot: Plot,
    since: Time,
    vote: Vote,
    /// The last entry that it was told.
    at: LogId,
    round: Box<Opened>,
    /// It took the state, and was told what came after it.
    taken: bool,
}

/// Whether a server hears or says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// What a false state takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plot {
    /// The aggregate, after a server has given its partial for it. The round is abandoned then, and the server is to say
    /// that it gave none.
    Aggregate,
    /// The record, after a server has signed it. The round is finalised with another one, and the server is to sign that.
    Record,
}

impl Coup {
    /// The process sends this on the channel of the connection itself.
    pub(super) fn controls(&mut self, me: PeerId, message: &[u8]) {
        if let Ok(frame::Frame::Hello(hello)) = frame::Frame::decode(message)
            && let Some(store) = hello.store
        {
            self.me = Some(RaftId { peer: me, store });
        }
    }

    /// What waited for somebody.
    pub(super) fn waiting(&mut self, to: PeerId) -> impl Iterator<Item = (Channel, Bytes)> {
        self.words.remove(&to).unwrap_or_default().into_iter()
    }

    /// Says to a voter, now and then, that this server leads, which has no vote: with entries that nobody else is told,
    /// with states of its own, and as one that wants to be elected.
    pub(super) fn lead(&mut self, to: PeerId, now: Time, overheard: &Overheard) {
        let last = self.spoken.get(&to).copied();
        let Some(me) = self.me.filter(|_| last.is_none_or(|last| last.after(PAUSE) <= now)) else { return };
        let turn = self.requests;
        let request = overheard.with(|heard| heard.usurp(me, to, turn)).flatten();
        let Some((victim, request)) = request else { return };
        self.spoken.insert(to, now);
        self.say(victim, request);
    }

    /// What a follower is told instead: of every second round another opening, each of them another one.
    pub(super) fn fork(&self, to: PeerId, frame: &[u8]) -> Option<Bytes> {
        let Ok(Frame::Request(number, Request::Append { vote, prev, mut entries, commit })) =
            decode_frame(frame)
        else {
            return None;
        };
        for entry in &mut entries {
            if let Payload::Normal(command) = &entry.payload
                && let Ok(Command::OpenRound(mut header)) = wire::decode_command(&command.0)
                && header.round.0 % 2 == 1
            {
                header.nonce.iter_mut().zip(to.0).for_each(|(byte, other)| *byte ^= other);
                *entry = command_entry(entry.log_id, &Command::OpenRound(header));
            }
        }
        let request = Request::Append { vote, prev, entries, commit };
        Some(encode_frame(&Frame::Request(number, request)).into())
    }

    /// A follower proposes something: if a plot begins with that, it is captured, and its proposal lost.
    pub(super) fn proposed(
        &mut self,
        plot: Plot,
        from: PeerId,
        command: &Command,
        now: Time,
        overheard: &Overheard,
    ) -> bool {
        if self.captive.as_ref().is_some_and(|captive| captive.who.peer == from) {
            return true;
        }
        if self.captive.is_some() || self.released.is_some_and(|released| now < released.after(RESPITE)) {
            return false;
        }
        let me = self.me;
        let captured = overheard.with(|heard| heard.capture(me, from, plot, command, now)).flatten();
        let Some((captive, request)) = captured else { return false };
        let who = captive.who;
        self.captive = Some(captive);
        self.say(who, request);
        true
    }

    /// Whether what this server's node says to somebody, or hears of it, is lost. Whoever has taken a false state is to lead
    /// with it: it may ask for votes, and is let go as soon as it leads.
    pub(super) fn keeps(&mut self, way: Way, peer: PeerId, frame: &[u8], now: Time) -> bool {
        let Some(captive) = &self.captive else { return false };
        let patience = if captive.taken { SUCCESSION } else { PATIENCE };
        let leads = |request: &Request| match request {
            Request::Append { vote, .. } | Request::Snapshot(vote, ..) => {
                vote.leader_id.term > captive.vote.leader_id.term
            }
            Request::Vote(_) | Request::PreVote(_) | Request::Transfer { .. } => false,
        };
        let of_captive = captive.who.peer == peer;
        let frame = decode_frame(frame);
        let succeeded = way == Way::In
            && of_captive
            && matches!(&frame, Ok(Frame::Request(_, request)) if leads(request));
        if succeeded || captive.since.after(patience) <= now {
            self.captive = None;
            self.released = Some(now);
            return false;
        }
        of_captive
            && match (way, frame) {
                (Way::In, Ok(Frame::Request(..))) | (Way::Out, Ok(Frame::Reply(..))) => !captive.taken,
                (Way::In | Way::Out, _) => true,
            }
    }

    /// Somebody who is cut off answers.
    pub(super) fn answered(&mut self, frame: &[u8], identity: &Identity, overheard: &Overheard) {
        let (Some(captive), Ok(Frame::Reply(number, Reply::SnapshotInstalled(_)))) =
            (&mut self.captive, decode_frame(frame))
        else {
            return;
        };
        if number < REQUESTS || captive.taken {
            return;
        }
        captive.taken = true;
        match captive.plot {
            Plot::Aggregate => {
                let header = captive.round.header.clone();
                let departs = overheard.with(|heard| heard.departure(identity)).flatten();
                self.go_on(departs.as_slice());
                self.disclaim(&header, identity);
            }
            Plot::Record => {
                let partials = captive.other_partials(identity);
                self.go_on(&partials);
            }
        }
    }

    /// The log of the captive goes on with these.
    fn go_on(&mut self, commands: &[Command]) {
        let Some(captive) = &mut self.captive else { return };
        let prev = captive.at;
        let term = captive.vote.leader_id.term;
        let mut entries = Vec::new();
        for command in commands {
            captive.at = LogId::new_term_index(term, captive.at.index + 1);
            entries.push(command_entry(captive.at, command));
        }
        let (who, vote, commit) = (captive.who, captive.vote, Some(captive.at));
        self.say(who, Request::Append { vote, prev: Some(prev), entries, commit });
    }

    /// Says that it gave no partial either.
    fn disclaim(&mut self, header: &Header, identity: &Identity) {
        let (log, round, digest) = (header.log, header.round, header.digest());
        let mut word = Disclaimer {
            log,
            round,
            header: digest,
            server: identity.peer(),
            signature: Signature::default(),
        };
        word.signature = identity.sign(&word.signed_digest());
        let message = wire::encode(&Message::Disclaimed { disclaimers: [word].into() });
        let words = self.words.entry(header.aggregator).or_default();
        words.push_back((Channel::Protocol, Bytes::from_owner(message)));
    }

    fn say(&mut self, to: RaftId, request: Request) {
        let channel = match &request {
            Request::Append { .. } | Request::Snapshot(..) => Channel::Bulk,
            Request::Vote(_) | Request::PreVote(_) | Request::Transfer { .. } => Channel::Consensus,
        };
        let frame = Frame::Request(REQUESTS + self.requests, request);
        self.requests += 1;
        self.words.entry(to.peer).or_default().push_back((channel, encode_frame(&frame).into()));
    }
}

impl Captive {
    /// The partials of the round, the own one with another vector.
    fn other_partials(&self, identity: &Identity) -> Vec<Command> {
        let partials = self.round.partials.values().cloned().map(|mut partial| {
            if partial.server == identity.peer() {
                if let Some(byte) = partial.body.first_mut() {
                    *byte ^= 1;
                }
                partial.signature = identity.sign(&partial.digest());
            }
            Command::SubmitPartial(partial)
        });
        partials.collect()
    }
}

impl Heard {
    fn voter(&self, peer: PeerId) -> Option<RaftId> {
        self.membership.membership().voter_ids().map(|voter| voter.0).find(|voter| voter.peer == peer)
    }

    /// A request of somebody who claims to lead a term that nobody has voted on.
    fn usurp(&self, me: RaftId, to: PeerId, turn: u64) -> Option<(RaftId, Request)> {
        let (Some(leader), Some(committed), true) = (self.leader, self.committed, self.is_quiet()) else {
            return None;
        };
        let (victim, machine) = (self.voter(to)?, self.machine.as_ref()?);
        let term = leader.leader_id.term + 1;
        let (vote, far) =
            (Vote::new_committed(term, NodeId(me)), LogId::new_term_index(term, committed.index + AHEAD));
        let ballot = Ballot { vote: Vote::new(term, NodeId(me)), last: Some(far), transfer: true };
        let request = match turn % 5 {
            0 | 1 => {
                // Nobody else is told the same: the command names the one it is told to.
                let at = LogId::new_term_index(term, committed.index + 1);
                let entry = Entry::new(at, Payload::Normal(Bytecode(Bytes::copy_from_slice(&to.0))));
                Request::Append { vote, prev: Some(committed), entries: vec![entry], commit: Some(at) }
            }
            2 => Request::Snapshot(vote, self.covers(far), machine.snapshot().into()),
            3 => Request::Vote(ballot),
            _ => Request::PreVote(ballot),
        };
        Some((victim, request))
    }

    fn covers(&self, last: LogId) -> SnapshotMeta {
        let last_membership =
            StoredMembership::new(*self.membership.log_id(), self.membership.membership().clone());
        SnapshotMeta { last_log_id: Some(last), last_membership }
    }

    /// Begins a plot if this server leads, and what a follower proposes is what the plot waits for.
    fn capture(
        &self,
        me: Option<RaftId>,
        from: PeerId,
        plot: Plot,
        command: &Command,
        now: Time,
    ) -> Option<(Captive, Request)> {
        let (vote, committed) = (self.leader?, self.committed?);
        let (who, round) = (self.voter(from)?, self.round.as_ref()?);
        if Some(vote.leader_id.voted_for.0) != me {
            return None;
        }
        let state = match (plot, command) {
            (Plot::Aggregate, Command::SubmitPartial(partial)) if partial.header == round.digest => {
                round.unfolded.clone()?
            }
            (Plot::Record, Command::SignRecord(signed)) if signed.round == round.number() => {
                round.blinded.clone()?
            }
            _ => return None,
        };
        let at = LogId::new_term_index(vote.leader_id.term, committed.index + AHEAD);
        let request = Request::Snapshot(vote, self.covers(at), state);
        let round = Box::new(round.clone());
        Some((Captive { who, plot, since: now, vote, at, round, taken: false }, request))
    }

    /// The word of a server that it leaves for now.
    fn departure(&self, identity: &Identity) -> Option<Command> {
        let machine = self.machine.as_ref()?;
        let known = machine.servers().get(&identity.peer())?;
        let mut word = Announcement {
            log: machine.log()?,
            server: identity.peer(),
            epoch: known.bundle.epoch,
            counter: known.counter.next(),
            standing: Standing::Departed,
            signature: Signature::default(),
        };
        word.signature = identity.sign(&word.signed_digest());
        Some(Command::DepartServer(word))
    }
}

fn command_entry(at: LogId, command: &Command) -> Entry {
    Entry::new(at, Payload::Normal(Bytecode(Bytes::from_owner(wire::encode_command(command)))))
}
