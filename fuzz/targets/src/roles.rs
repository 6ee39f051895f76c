//! The role machines, each somewhere in an honest life, fed with altered messages by everybody around it.

use std::time::Duration;

use zipnet_core::id::{Digest, Role, Round};
use zipnet_core::machine::{Effect, Report, RequestId};
use zipnet_core::message::{Command, Message};
use zipnet_core::server;
use zipnet_core::time::Time;
use zipnet_core::wire;

use crate::Verdict;
use crate::draw::{Draw, Script};
use crate::network::{AGGREGATOR, Event, Machine, NODES, Node, history, peer, role};

/// More would take longer than they tell.
const DEEDS_MAX: usize = 32;
/// How many bytes of a state the chain over the entries of the log takes.
const CHAIN_BYTES: usize = 32;

/// The server under test does not lead at first; it has retired at the end of the history.
const SERVER: usize = 1;
const CLIENT: usize = AGGREGATOR + 1;

pub(crate) fn server(bytes: &[u8]) -> Verdict {
    play(SERVER, bytes)
}

pub(crate) fn aggregator(bytes: &[u8]) -> Verdict {
    play(AGGREGATOR, bytes)
}

pub(crate) fn client(bytes: &[u8]) -> Verdict {
    play(CLIENT, bytes)
}

/// A machine among adversaries.
struct Play {
    node: Node,
    now: Time,
    /// Of the log, as the server was told.
    index: u64,
    /// What the server proposed and is not in the log.
    proposed: Vec<Command>,
    /// The newest header that was shown or opened.
    header: (Round, Digest),
    taken: bool,
}

/// The first two bytes say where in its life the machine is, the others what happens then.
fn play(place: usize, bytes: &[u8]) -> Verdict {
    let mut draw = Draw::new(bytes);
    let events = &history().events[place];
    let events = &events[..usize::from(draw.short()) % (events.len() + 1)];
    let (node, now) = Node::after(place, events.len());
    let told =
        events.iter().filter(|(_, event)| matches!(event, Event::Server(server::Input::Committed { .. })));
    let index = u64::try_from(told.count()).expect("a short log");
    let mut play = Play { node, now, index, proposed: vec![], header: Default::default(), taken: false };
    for _ in 0..DEEDS_MAX {
        let Some(deed) = draw.byte() else { break };
        play.deed(deed, &mut draw);
    }
    if play.taken { Verdict::Taken } else { Verdict::Refused }
}

impl Play {
    fn deed(&mut self, deed: u8, draw: &mut Draw<'_>) {
        match deed % 16 {
            0..=5 => self.say(draw),
            6..=8 if role(self.node.place()) == Role::Server => self.commit(draw),
            9 if role(self.node.place()) == Role::Server => self.settle(),
            6..=9 => self.wait(Duration::from_millis(u64::from(draw.short()))),
            10 => self.wait(Duration::from_millis(u64::from(draw.short()) * 4)),
            11 => self.feed(Event::Linked(somebody(draw))),
            12 => self.feed(Event::Unlinked(somebody(draw))),
            13 => {
                let (request, payload) = (RequestId(u64::from(draw.short())), draw.chunk().to_vec());
                self.feed(Event::Publish { request, payload });
            }
            14 => {
                let bytes = draw.chunk().to_vec();
                self.hear(somebody(draw), bytes);
            }
            _ => self.server_event(draw),
        }
    }

    /// Somebody says something that was said before, perhaps with other bytes in it.
    fn say(&mut self, draw: &mut Draw<'_>) {
        let place = self.node.place();
        let told: Vec<_> = history().sent.iter().filter(|(_, to, _)| role(*to) == role(place)).collect();
        let Some((from, _, bytes)) = draw.one(&told) else { return };
        let mut bytes = bytes.clone();
        draw.alter(&mut bytes);
        let how = draw.byte().unwrap_or(0);
        if how & 1 == 1
            && let Ok(mut message) = wire::decode(&bytes)
        {
            self.reconcile(&mut message);
            bytes = wire::encode(&message).to_vec();
        }
        if let Ok(Message::Live(live)) = wire::decode(&bytes) {
            self.header = (live.header.round, live.header.digest());
        }
        let from = if how < 0xe0 { *from } else { usize::from(how) % NODES };
        self.hear(from, bytes);
    }

    /// Makes an altered message agree with itself and with the newest header again, as its author would.
    fn reconcile(&self, message: &mut Message) {
        match message {
            Message::Live(live) => reconcile_live(live),
            Message::LiveFor { live, .. } => reconcile_live(live),
            Message::Record { record, signatures } => {
                for signature in signatures {
                    (signature.log, signature.round) = (record.log, record.round);
                    signature.record = record.digest();
                }
            }
            Message::Envelope(envelope) => (envelope.round, envelope.header) = self.header,
            Message::Aggregate(aggregate) => (aggregate.round, aggregate.header) = self.header,
            Message::AggregateApplied { round, header } | Message::Declined { round, header, .. } => {
                (*round, *header) = self.header;
            }
            Message::Turnout(turnout) => (turnout.round, turnout.header) = self.header,
            Message::Disclaimed { disclaimers } => {
                for disclaimer in disclaimers {
                    (disclaimer.round, disclaimer.header) = self.header;
                }
            }
            Message::Propose(_)
            | Message::Bundle(_)
            | Message::BundleRefused { .. }
            | Message::Registry { .. }
            | Message::RegistryChanged { .. }
            | Message::RegistryWanted
            | Message::RecordSigned { .. }
            | Message::RecordsWanted { .. }
            | Message::TestifyWanted { .. }
            | Message::Retired { .. } => {}
        }
    }

    fn hear(&mut self, from: usize, bytes: Vec<u8>) {
        // A message that is refused changes nothing; what time alone changes has to happen before.
        self.feed(Event::Tick);
        let before = self.state();
        // An aggregator works for the log that most servers speak of, whatever else it thinks of their messages.
        let counts =
            self.node.place() == AGGREGATOR && role(from) == Role::Server && wire::decode(&bytes).is_ok();
        let effects = self.feed_once(Event::Received { from: peer(from), bytes });
        if let [Effect::Report(Report::Refused { from: Some(_), kind, reason })] = &effects[..] {
            let after = self.state();
            let changed = difference(&before, &after);
            assert!(
                counts || changed.is_none(),
                "a refused {kind} ({reason:?}) changed the machine: {changed:?}"
            );
        } else {
            self.taken |= !effects.is_empty();
        }
        self.note(effects);
    }

    /// Something comes into the log: the next command of the honest log, or another one that was altered.
    fn commit(&mut self, draw: &mut Draw<'_>) {
        let how = draw.byte().unwrap_or(0);
        let next = usize::try_from(self.index).ok().and_then(|index| history().log.get(index));
        let mut bytes = match next {
            Some(next) if how & 2 == 0 => next.clone(),
            Some(_) | None => draw.one(&history().log).expect("the log is not empty").clone(),
        };
        draw.alter(&mut bytes);
        if how & 1 == 1
            && let Ok(mut command) = wire::decode_command(&bytes)
        {
            self.reconcile_command(&mut command);
            bytes = wire::encode_command(&command).to_vec();
        }
        self.append(bytes);
    }

    fn reconcile_command(&self, command: &mut Command) {
        let Machine::Server(server) = &self.node.machine else { return };
        let committee = server.committee();
        if let (Some(open), Some(round)) = (committee.open(), committee.open().map(|open| open.header.round))
        {
            match command {
                Command::SignHeader(signed) => (signed.round, signed.header) = (round, open.digest),
                Command::SubmitAggregate(aggregate) => {
                    (aggregate.round, aggregate.header) = (round, open.digest);
                }
                Command::SubmitPartial(partial) => {
                    (partial.round, partial.header) = (round, open.digest);
                    if let Some(applied) = &open.aggregate {
                        partial.aggregate = applied.digest;
                    }
                }
                _ => {}
            }
        }
        match command {
            Command::OpenRound(header) => {
                header.round = committee.opened().next();
                header.previous = committee.previous();
                header.clients = committee.clients().set();
            }
            Command::SignRecord(signed) => {
                if let Some(newest) = committee.records().back() {
                    (signed.round, signed.record) = (newest.record.round, newest.digest);
                }
            }
            _ => {}
        }
    }

    /// Everything that the server proposed comes into the log.
    fn settle(&mut self) {
        for command in core::mem::take(&mut self.proposed) {
            self.append(wire::encode_command(&command).to_vec());
        }
    }

    fn append(&mut self, command: Vec<u8>) {
        self.feed(Event::Tick);
        let (index, before) = (self.index, self.snapshot());
        self.index += 1;
        let decoded = wire::decode_command(&command);
        let effects = self.feed_once(Event::Server(server::Input::Committed { index, command }));
        let refused = |effect: &Effect| {
            let (Effect::Report(report) | Effect::Past(report)) = effect else { return false };
            matches!(report, Report::Refused { from: None, .. })
        };
        if decoded.is_err() || effects.iter().any(refused) {
            // That it was there is in the chain of the next record, which stands at the end.
            let after = self.snapshot();
            let state = before.len().saturating_sub(CHAIN_BYTES);
            assert_eq!(before[..state], after[..state], "a refused command changed the committee");
        } else {
            self.taken = true;
        }
        self.note(effects);
    }

    /// What the node around a server tells it.
    fn server_event(&mut self, draw: &mut Draw<'_>) {
        let (what, who) = (draw.byte().unwrap_or(0), somebody(draw));
        let server = peer(who);
        self.feed(match what % 8 {
            0 => Event::Server(server::Input::Led { leader: Some(server) }),
            1 => Event::Server(server::Input::Led { leader: None }),
            2 => Event::Server(server::Input::CaughtUp(what & 8 == 0)),
            3 => {
                let voters = (0..NODES).filter(|place| who >> place & 1 == 0).map(peer).collect();
                Event::Server(server::Input::Voters { voters })
            }
            4 => Event::Server(server::Input::ProbesFailed { peer: server, failures: u32::from(what) }),
            5 => Event::Server(server::Input::RetireDead { server }),
            6 => Event::Server(server::Input::Retire),
            _ => Event::Stop,
        });
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.feed(Event::Tick);
    }

    fn feed(&mut self, event: Event) {
        let effects = self.feed_once(event);
        self.note(effects);
    }

    fn feed_once(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.node.feed(self.now, event);
        assert!(self.node.deadline() > self.now, "what is due was left open");
        effects
    }

    /// Whatever a machine says is what another one can read.
    fn note(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { bytes, .. } => drop(wire::decode(&bytes).expect("a machine sends messages")),
                Effect::Propose(command) => {
                    let bytes = wire::encode_command(&command);
                    assert_eq!(wire::decode_command(&bytes).as_ref(), Ok(&command));
                    self.proposed.push(command);
                }
                Effect::Report(Report::RoundOpened { header, digest, .. })
                | Effect::Past(Report::RoundOpened { header, digest, .. }) => {
                    self.header = (header.round, digest);
                }
                Effect::Report(_)
                | Effect::Past(_)
                | Effect::HandOver
                | Effect::Stopped
                | Effect::Work(_) => {}
            }
        }
    }

    /// The whole machine in words. A client prints no more than its number, because it holds messages.
    fn state(&self) -> String {
        format!("{:?}", self.node.machine)
    }

    fn snapshot(&self) -> Vec<u8> {
        match &self.node.machine {
            Machine::Server(server) => server.committee().snapshot(),
            Machine::Aggregator(_) | Machine::Client(_) => vec![],
        }
    }
}

/// Where two texts begin to differ, with what stands around.
fn difference<'a>(one: &'a str, other: &'a str) -> Option<(&'a str, &'a str)> {
    let at = one.bytes().zip(other.bytes()).position(|(one, other)| one != other)?;
    let around = at.saturating_sub(100)..at + 100;
    Some((one.get(around.clone())?, other.get(around)?))
}

fn reconcile_live(live: &mut zipnet_core::message::LiveHeader) {
    let digest = live.header.digest();
    for signature in &mut live.signatures {
        (signature.log, signature.round) = (live.header.log, live.header.round);
        signature.header = digest;
    }
}

fn somebody(draw: &mut Draw<'_>) -> usize {
    usize::from(draw.byte().unwrap_or(0)) % NODES
}

/// For a few moments of a life: what comes next, what was said already, an altered message, and a wait.
fn seeds(place: usize) -> Vec<(String, Vec<u8>)> {
    let events = history().events[place].len();
    let told = history().sent.iter().filter(|(_, to, _)| role(*to) == role(place)).count();
    let mut seeds = vec![("noise".to_owned(), Script::default().short(4).byte(14).chunk(b"noise").byte(0).0)];
    for part in 1..8 {
        let mut script = Script::default().short(events * part / 8);
        let first = told * part / 8;
        for message in first..(first + 10).min(told) {
            script = script.byte(0).short(message).byte(0).byte(0);
        }
        // Another byte at place 40 of the next message, made to agree with itself.
        script = script.byte(0).short(first + 3).byte(1).short(40).byte(9).byte(1);
        script = script.byte(6).byte(0).byte(0).byte(6).byte(1).byte(0).byte(9).byte(15).byte(0).byte(1);
        script = script.byte(10).short(2000).byte(13).short(part).chunk(b"text");
        seeds.push((format!("moment-{part}"), script.0));
    }
    seeds
}

pub(crate) fn server_seeds() -> Vec<(String, Vec<u8>)> {
    seeds(SERVER)
}

pub(crate) fn aggregator_seeds() -> Vec<(String, Vec<u8>)> {
    seeds(AGGREGATOR)
}

pub(crate) fn client_seeds() -> Vec<(String, Vec<u8>)> {
    seeds(CLIENT)
}
