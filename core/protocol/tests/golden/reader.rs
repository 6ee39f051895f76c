//! What the lines of the reader's conversations mean. The reader under test is nobody of the cast.

use std::collections::BTreeMap;
use std::time::Duration;

use zipnet_core::checks::Strict;
use zipnet_core::id::{LogId, PeerId, Role, Round};
use zipnet_core::machine::Effect;
use zipnet_core::message::{Message, Record};
use zipnet_core::reader::{Input, Reader};
use zipnet_core::time::Time;

use crate::cast::{Cast, Plan, Play};
use crate::golden;
use crate::words::{effects, list, number, option, waits};

pub(crate) struct Stage {
    play: Play<Reader<Strict>>,
    /// By log and round, each with its roster.
    records: BTreeMap<(u64, u64), (Record, Vec<usize>)>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let cast = Cast::new();
        let machine = Reader::new(cast.reader_config(), Strict);
        Self { play: Play::new(cast, machine), records: BTreeMap::new() }
    }

    fn act(&mut self, words: &[&str]) -> Vec<Effect> {
        match *words {
            // A setting, before anything else happens.
            ["set", ..] => {
                let mut config = self.play.cast.reader_config();
                config.min_servers = option(words, "min-servers").map(|floor| floor.parse().unwrap());
                config.pins =
                    list(words, "pins", &[]).iter().map(|pin| self.play.cast.server(*pin)).collect();
                config.from = option(words, "from").map(|round| Round(round.parse().unwrap()));
                self.play.machine = Reader::new(config, Strict);
                vec![]
            }
            ["tick"] => self.play.tick(),
            ["stop"] => self.play.feed(Input::Stop),
            ["linked", name] => {
                let (peer, role) = self.peer(name);
                self.play.feed(Input::Linked { peer, role })
            }
            ["unlinked", name] => {
                let (peer, _) = self.peer(name);
                self.play.feed(Input::Unlinked { peer })
            }
            ["hears", what, ..] => {
                let message = self.message(what, words);
                let (from, _) = self.peer(option(words, "from").unwrap_or("aggregator"));
                self.play.hear(from, &message)
            }
            _ => panic!("`{}` means nothing", words.join(" ")),
        }
    }

    fn peer(&self, name: &str) -> (PeerId, Role) {
        let role = if name.starts_with("server") { Role::Server } else { Role::Aggregator };
        (self.play.cast.peer(name), role)
    }

    /// The record of a round, and those that it names, made when they are first spoken of.
    fn record(&mut self, log: u64, round: u64, previous: u64, roster: &[usize]) -> (Record, Vec<usize>) {
        if let Some(known) = self.records.get(&(log, round)) {
            return known.clone();
        }
        let mut plan = Plan::round(round);
        plan.log = LogId([u8::try_from(log).unwrap(); 32]);
        plan.roster = roster.to_vec();
        if previous > 0 {
            let (before, _) = self.record(log, previous, previous - 1, roster);
            plan.previous = (previous, before.digest());
        }
        let cast = &mut self.play.cast;
        let live = cast.live(&plan);
        let envelopes: Vec<_> = (0..3).map(|client| (client, cast.envelope(client, &live).body)).collect();
        let made = (cast.record(&plan, &live, &envelopes), plan.roster);
        self.records.insert((log, round), made.clone());
        made
    }

    fn message(&mut self, what: &str, words: &[&str]) -> Message {
        let (log, round) = (number(words, "log", 1), number(words, "round", 1));
        let previous = number(words, "previous", round - 1);
        let (mut record, roster) = self.record(log, round, previous, &list(words, "roster", &[0, 1, 2]));
        if words.contains(&"another") {
            record.broadcast[0] ^= 1;
        }
        let signatures = self.play.cast.sign_record(&record, &list(words, "signed", &roster));
        match what {
            "record" => Message::Record { record, signatures },
            "signatures" => Message::RecordSigned { signatures },
            _ => panic!("`{what}` is no message"),
        }
    }
}

impl golden::Stage for Stage {
    fn act(&mut self, now: Duration, words: &[&str]) -> Vec<String> {
        self.play.now = Time(u64::try_from(now.as_nanos()).unwrap());
        let done = self.act(words);
        effects(&self.play.cast, &done)
    }

    fn waits(&self) -> String {
        waits(self.play.machine.deadline())
    }
}
