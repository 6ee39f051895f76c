//! What the lines of the client's conversations mean. The client under test is `client-1`.

use std::collections::BTreeMap;
use std::time::Duration;

use zipnet_core::checks::Strict;
use zipnet_core::client::{Client, Input};
use zipnet_core::id::{Epoch, Role};
use zipnet_core::machine::{Effect, Job, RequestId};
use zipnet_core::message::{LiveHeader, Message, Record, Standing};
use zipnet_core::refused::Refused;
use zipnet_core::time::Time;

use crate::cast::{Cast, Plan, Play, made, sent};
use crate::golden;
use crate::words::{effects, list, number, option, waits};

pub(crate) struct Stage {
    play: Play<Client<Strict>>,
    rounds: BTreeMap<u64, (Plan, LiveHeader)>,
    /// What the client under test sent.
    bodies: BTreeMap<u64, Vec<u8>>,
    records: BTreeMap<u64, Record>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let cast = Cast::new();
        let machine = Client::new(cast.client_config(), Strict);
        Self {
            play: Play::new(cast, machine),
            rounds: BTreeMap::new(),
            bodies: BTreeMap::new(),
            records: BTreeMap::new(),
        }
    }

    fn act(&mut self, words: &[&str]) -> Vec<Effect> {
        let play = &mut self.play;
        let aggregator = play.cast.aggregator.keyring.peer();
        match *words {
            // A setting, before anything else happens.
            ["set", ..] => {
                let mut config = play.cast.client_config();
                config.cadence = number(words, "cadence", 1) as u32;
                config.min_servers = option(words, "min-servers").map(|floor| floor.parse().unwrap());
                config.pins = list(words, "pins", &[]).iter().map(|pin| play.cast.server(*pin)).collect();
                config.rekey_after = Duration::from_secs(number(words, "rekey-after", 86_400));
                play.machine = Client::new(config, Strict);
                vec![]
            }
            ["tick"] => play.tick(),
            ["stop"] => play.feed(Input::Stop),
            ["linked"] => play.feed(Input::Linked { peer: aggregator, role: Role::Aggregator }),
            ["unlinked"] => play.feed(Input::Unlinked { peer: aggregator }),
            ["publish", request, text] => {
                let request = RequestId(request.parse().unwrap());
                play.feed(Input::Publish { request, payload: text.as_bytes().to_vec() })
            }
            ["hears", what, ..] => {
                let message = self.message(what, words);
                self.play.hear(aggregator, &message)
            }
            _ => panic!("`{}` means nothing", words.join(" ")),
        }
    }

    fn message(&mut self, what: &str, words: &[&str]) -> Message {
        let cast = &mut self.play.cast;
        let round = number(words, "round", 1);
        match what {
            "live" => {
                let mut plan = Plan::round(round);
                plan.roster = list(words, "roster", &[0, 1, 2]);
                plan.refused = list(words, "refused", &[]).iter().map(|place| *place as u32).collect();
                let before = number(words, "previous", 0);
                plan.previous = (before, self.records.get(&before).map(Record::digest).unwrap_or_default());
                let live = match self.rounds.get(&round) {
                    Some((_, live)) if words.contains(&"again") => live.clone(),
                    Some(_) | None => cast.live(&plan),
                };
                let registry = cast.registry(plan.version, &plan.clients);
                let place = registry.proof(&cast.client(0)).filter(|_| !words.contains(&"no-place"));
                self.rounds.insert(round, (plan, live.clone()));
                Message::LiveFor { live: Box::new(live), place }
            }
            "record" | "signatures" => {
                let (plan, live) = self.rounds[&round].clone();
                if !self.records.contains_key(&round) {
                    let mut envelopes = Vec::new();
                    for client in list(words, "participants", &[0, 1, 2]) {
                        let body = match client {
                            0 => self.bodies[&round].clone(),
                            other => cast.envelope(other, &live).body,
                        };
                        envelopes.push((client, body));
                    }
                    let mut record = cast.record(&plan, &live, &envelopes);
                    if words.contains(&"collided") {
                        record.broadcast.iter_mut().for_each(|byte| *byte ^= 0x55);
                    }
                    self.records.insert(round, record);
                }
                let record = self.records[&round].clone();
                let signatures = cast.sign_record(&record, &list(words, "signed", &plan.roster));
                if what == "record" {
                    Message::Record { record, signatures }
                } else {
                    Message::RecordSigned { signatures }
                }
            }
            "refused" => {
                let epoch = Epoch(number(words, "last", 1));
                let mut stranger = Cast::new();
                let keyring = &mut stranger.clients[usize::from(words.contains(&"forged"))].keyring;
                let last = made(keyring.perform(&Job::MakeBundle { epoch, fresh_key: false }, || [0x5a; 32]));
                Message::BundleRefused { reason: Refused::StaleEpoch, last: Some(last) }
            }
            "disclaimed" => {
                let (plan, live) = self.rounds[&round].clone();
                let servers = list(words, "servers", &plan.roster);
                Message::Disclaimed { disclaimers: cast.disclaim(&live.header, &servers) }
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
            if let Message::Envelope(envelope) = message {
                self.bodies.insert(envelope.round.0, envelope.body);
            }
        }
        effects(&self.play.cast, &done)
    }

    fn waits(&self) -> String {
        waits(self.play.machine.deadline())
    }
}
