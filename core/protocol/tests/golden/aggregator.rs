//! What the lines of the aggregator's conversations mean.

use std::collections::BTreeMap;
use std::time::Duration;

use zipnet_core::aggregator::{Aggregator, Input};
use zipnet_core::bitmap::Bitmap;
use zipnet_core::checks::Strict;
use zipnet_core::id::{Counter, Epoch, RegistryVersion, Role, Round};
use zipnet_core::machine::{Effect, Job};
use zipnet_core::message::{ClientBatch, Command, LiveHeader, Message, Record, Standing};
use zipnet_core::refused::Refused;
use zipnet_core::time::Time;

use crate::cast::{Cast, LOG, Plan, Play, made, sent};
use crate::golden;
use crate::words::{effects, list, number, waits};

pub(crate) struct Stage {
    play: Play<Aggregator<Strict>>,
    batch: Option<ClientBatch>,
    rounds: BTreeMap<u64, (Plan, LiveHeader)>,
    records: BTreeMap<u64, Record>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let cast = Cast::new();
        let machine = Aggregator::new(cast.aggregator_config(), Strict);
        Self {
            play: Play::new(cast, machine),
            batch: None,
            rounds: BTreeMap::new(),
            records: BTreeMap::new(),
        }
    }

    fn client(name: &str) -> usize {
        name.strip_prefix("client-").unwrap().parse::<usize>().unwrap() - 1
    }

    fn server(name: &str) -> usize {
        name.strip_prefix("server-").unwrap().parse::<usize>().unwrap() - 1
    }

    fn act(&mut self, words: &[&str]) -> Vec<Effect> {
        let Self { play, .. } = self;
        match *words {
            ["tick"] => play.tick(),
            ["stop"] => play.feed(Input::Stop),
            ["linked", name] => {
                let role = if name.starts_with("server") { Role::Server } else { Role::Client };
                let peer = play.cast.peer(name);
                play.feed(Input::Linked { peer, role })
            }
            ["unlinked", name] => {
                let peer = play.cast.peer(name);
                play.feed(Input::Unlinked { peer })
            }
            [name, "sends", what, ..] => {
                let from = play.cast.peer(name);
                let message = self.message(name, what, words);
                self.play.hear(from, &message)
            }
            _ => panic!("`{}` means nothing", words.join(" ")),
        }
    }

    fn message(&mut self, name: &str, what: &str, words: &[&str]) -> Message {
        let cast = &mut self.play.cast;
        match what {
            "bundle" => {
                let member = &mut cast.clients[Self::client(name)];
                let epoch = Epoch(number(words, "epoch", 1));
                let bundle =
                    made(member.keyring.perform(&Job::MakeBundle { epoch, fresh_key: false }, || [0x5a; 32]));
                if !words.contains(&"again") {
                    member.bundle = bundle.clone();
                }
                Message::Bundle(bundle)
            }
            "registry" => {
                let version = number(words, "version", 0);
                let registry = cast.registry(version, &list(words, "clients", &[]));
                Message::Registry {
                    log: LOG,
                    version: RegistryVersion(version),
                    counter: Counter(version),
                    clients: registry.bundles().to_vec(),
                }
            }
            "changed" => {
                let batch = self.batch.clone().expect("a batch was proposed");
                Message::RegistryChanged { version: RegistryVersion(number(words, "version", 1)), batch }
            }
            "refused" => {
                let epoch = Epoch(number(words, "last", 1));
                let last = cast
                    .aggregator
                    .keyring
                    .perform(&Job::MakeBundle { epoch, fresh_key: false }, || [0x5a; 32]);
                Message::BundleRefused { reason: Refused::StaleEpoch, last: Some(made(last)) }
            }
            "live" => {
                let round = number(words, "round", 1);
                let mut plan = Plan::round(round);
                plan.clients = list(words, "clients", &[0, 1, 2]);
                plan.version = number(words, "version", 1);
                plan.refused = list(words, "refused", &[]).iter().map(|place| *place as u32).collect();
                let before = number(words, "previous", 0);
                plan.previous = (before, self.records.get(&before).map(Record::digest).unwrap_or_default());
                let live = cast.live(&plan);
                self.rounds.insert(round, (plan, live.clone()));
                Message::Live(live)
            }
            "envelope" => {
                let (_, live) = &self.rounds[&number(words, "round", 1)];
                let mut envelope = cast.envelope(Self::client(name), live);
                if words.contains(&"different") {
                    envelope.body[0] ^= 1;
                }
                Message::Envelope(envelope)
            }
            "aggregate-applied" => {
                let round = number(words, "round", 1);
                Message::AggregateApplied {
                    round: Round(round),
                    header: self.rounds[&round].1.header.digest(),
                }
            }
            "record" | "signatures" => {
                let round = number(words, "round", 1);
                let (plan, live) = self.rounds[&round].clone();
                let participants = Bitmap::from_ones(live.header.clients.count, [0, 1]).unwrap();
                let record = self.records.entry(round).or_insert_with(|| {
                    let mut record = cast.record(&plan, &live, &[]);
                    record.participants = participants;
                    record
                });
                let record = record.clone();
                let signatures = cast.sign_record(&record, &list(words, "signed", &[0, 1]));
                if what == "record" {
                    Message::Record { record, signatures }
                } else {
                    Message::RecordSigned { signatures }
                }
            }
            "records-wanted" => Message::RecordsWanted { from: Round(number(words, "from", 1)) },
            "disclaimed" => {
                let header = self.rounds[&number(words, "round", 1)].1.header.clone();
                let own = Self::server(name);
                Message::Disclaimed { disclaimers: cast.disclaim(&header, &list(words, "servers", &[own])) }
            }
            "retired" => {
                let server = list(words, "server", &[])[0];
                Message::Retired { announcements: vec![cast.announce(server, Standing::Leaving)] }
            }
            _ => panic!("`{what}` is no message"),
        }
    }
}

impl golden::Stage for Stage {
    fn act(&mut self, now: Duration, words: &[&str]) -> Vec<String> {
        self.play.now = Time(u64::try_from(now.as_nanos()).unwrap());
        let done = self.act(words);
        for (_, message) in sent(&done) {
            if let Message::Propose(Command::ChangeClients(batch)) = message {
                self.batch = Some(batch);
            }
        }
        effects(&self.play.cast, &done)
    }

    fn waits(&self) -> String {
        waits(self.play.machine.deadline())
    }
}
