//! What the lines of the server's conversations mean. The server under test is `server-1`; the log is what the lines
//! beginning with `log` say.

use std::collections::VecDeque;
use std::time::Duration;

use zipnet_core::checks::Strict;
use zipnet_core::id::{Counter, Epoch, GroupId, PeerId, Role};
use zipnet_core::machine::{Deadline, Done, Effect, Job, Outbox, Report};
use zipnet_core::message::{Command, Floors, Header, Message, RosterServer, Standing};
use zipnet_core::pad::End;
use zipnet_core::server::{Config, Input, Server, kind};
use zipnet_core::time::Time;
use zipnet_core::{committee, wire};

use crate::cast::{Cast, LOG, Machine, Member, Play, RESEND, made};
use crate::golden;
use crate::words::{effects, list, number, waits};

impl Machine for Server<Strict> {
    type Input = Input;
    fn handle(&mut self, now: Time, input: Input, out: &mut Outbox) {
        Self::handle(self, now, input, out);
    }
    fn deadline(&self) -> Deadline {
        Self::deadline(self)
    }
    fn done(done: Done) -> Input {
        Input::Done(done)
    }
    fn tick() -> Input {
        Input::Tick
    }
    fn received(from: PeerId, bytes: Vec<u8>) -> Input {
        Input::Received { from, bytes: bytes.into() }
    }
    fn linked(peer: PeerId, role: Role) -> Input {
        Input::Linked { peer, role }
    }
    fn unlinked(peer: PeerId) -> Input {
        Input::Unlinked { peer }
    }
    fn member(cast: &mut Cast) -> &mut Member {
        &mut cast.servers[0]
    }
}

pub(crate) struct Stage {
    play: Play<Server<Strict>>,
    index: u64,
    /// What the server proposed and is not in the log.
    proposed: VecDeque<Command>,
}

fn server_index(name: &str) -> usize {
    name.strip_prefix("server-").unwrap_or_else(|| panic!("`{name}` is no server")).parse::<usize>().unwrap()
        - 1
}

impl Stage {
    pub(crate) fn new() -> Self {
        let cast = Cast::new();
        let config = Config {
            committee: committee::Config {
                instance: cast.instance,
                group: GroupId([0x30; 32]),
                params: cast.params,
            },
            me: cast.server(0),
            floors: Floors { participants: 2, servers: None },
            round_period: Duration::from_secs(10),
            round_deadline: Duration::from_secs(30),
            aggregator: None,
            first_round_voters: 3,
            resend: RESEND,
            rekey_after: Duration::from_secs(3600),
            key_age_max: Duration::from_secs(7200),
            partial_budget: Duration::from_secs(2),
            stop_budget: Duration::from_secs(4),
        };
        let machine = Server::new(config, Strict, [0x55; 32]);
        Self { play: Play::new(cast, machine), index: 0, proposed: VecDeque::new() }
    }

    fn act(&mut self, words: &[&str]) -> Vec<Effect> {
        let play = &mut self.play;
        match *words {
            ["tick"] => play.tick(),
            ["stop"] => play.feed(Input::Stop),
            ["retire"] => play.feed(Input::Retire),
            ["caught-up"] => play.feed(Input::CaughtUp(true)),
            ["start-log"] => play.feed(Input::StartLog { log: LOG }),
            ["voters", ..] => {
                let voters = list(words, "servers", &[0, 1, 2]);
                let voters = voters.into_iter().map(|server| play.cast.server(server)).collect();
                play.feed(Input::Voters { voters })
            }
            ["leads", name] => {
                let leader = Some(play.cast.peer(name));
                play.feed(Input::Led { leader })
            }
            ["refuse", ref names @ ..] => {
                let clients = names.iter().map(|name| play.cast.peer(name)).collect();
                play.feed(Input::Refuse { clients })
            }
            ["retire-dead", name] => {
                let server = play.cast.peer(name);
                play.feed(Input::RetireDead { server })
            }
            ["probe-failed", name, ..] => {
                let failures = u32::try_from(number(words, "times", 1)).unwrap();
                let peer = play.cast.peer(name);
                play.feed(Input::ProbesFailed { peer, failures })
            }
            ["linked", name] => {
                let role = match name.split('-').next() {
                    Some("server") => Role::Server,
                    Some("client") => Role::Client,
                    _ => Role::Aggregator,
                };
                let peer = play.cast.peer(name);
                play.feed(Input::Linked { peer, role })
            }
            ["unlinked", name] => {
                let peer = play.cast.peer(name);
                play.feed(Input::Unlinked { peer })
            }
            [name, "sends", what, ..] => {
                let from = play.cast.peer(name);
                let message = self.message(what);
                self.play.hear(from, &message)
            }
            // What the server has proposed first comes into the log, or is lost.
            ["lost"] => {
                self.proposed.pop_front().expect("something was proposed");
                vec![]
            }
            ["log", "proposed"] => {
                let command = self.proposed.pop_front().expect("something was proposed");
                self.commit(&command)
            }
            ["log", what, ..] => {
                let command = self.command(what, words);
                self.commit(&command)
            }
            _ => panic!("`{}` means nothing", words.join(" ")),
        }
    }

    fn commit(&mut self, command: &Command) -> Vec<Effect> {
        self.index += 1;
        let command = wire::encode_command(command).to_vec();
        self.play.feed(Input::Committed { index: self.index, command })
    }

    fn message(&mut self, what: &str) -> Message {
        let cast = &mut self.play.cast;
        match what {
            "bundle" => Message::Bundle(cast.aggregator.bundle.clone()),
            "registry-wanted" => Message::RegistryWanted,
            "batch" => Message::Propose(self.command("clients", &["come=3"])),
            "aggregate" => match self.command("aggregate", &[]) {
                Command::SubmitAggregate(aggregate) => Message::Aggregate(aggregate),
                other => panic!("{other:?}"),
            },
            _ => panic!("`{what}` is no message"),
        }
    }

    /// What the others say.
    fn command(&mut self, what: &str, words: &[&str]) -> Command {
        let Play { cast, machine, .. } = &mut self.play;
        let committee = machine.committee();
        let server = words.get(2).filter(|name| name.starts_with("server-")).map(|name| server_index(name));
        let open = committee.open();
        let job = match what {
            "start" => return Command::StartLog { log: LOG },
            "open" => {
                let servers = committee.roster();
                let mut previous = committee.previous();
                if words.contains(&"other-past") {
                    previous.state.0[0] ^= 1;
                }
                return Command::OpenRound(Header {
                    log: LOG,
                    round: committee.opened().next(),
                    nonce: [0x20; 32],
                    group: GroupId([0x30; 32]),
                    params: cast.params,
                    previous,
                    servers,
                    clients: committee.clients().set(),
                    min_participants: u32::try_from(number(words, "participants", 2)).unwrap(),
                    aggregator: cast.aggregator.keyring.peer(),
                });
            }
            "register" => {
                let member = &mut cast.servers[server.unwrap()];
                let epoch = Epoch(number(words, "epoch", 1));
                let bundle =
                    made(member.keyring.perform(&Job::MakeBundle { epoch, fresh_key: true }, || [0x5a; 32]));
                member.bundle = bundle.clone();
                let counter = Counter(number(words, "counter", 1));
                let standing = Standing::Registered;
                return match member
                    .keyring
                    .perform(&Job::Announce { log: LOG, epoch, counter, standing }, || [0x5a; 32])
                {
                    Done::Announced(announcement) => Command::RegisterServer { bundle, announcement },
                    other => panic!("{other:?}"),
                };
            }
            "depart" => Job::Announce {
                log: LOG,
                epoch: cast.servers[server.unwrap()].bundle.epoch,
                counter: Counter(number(words, "counter", 2)),
                standing: Standing::Departed,
            },
            "testify" => {
                let dead = cast.server(list(words, "dead", &[2])[0]);
                Job::Testify { log: LOG, server: dead, epoch: committee.servers()[&dead].bundle.epoch }
            }
            "approve" => Job::Approve { log: LOG, bundle: cast.aggregator.bundle.clone() },
            "clients" => {
                let register = list(words, "come", &[0, 1, 2]);
                let register =
                    register.into_iter().map(|client| cast.clients[client].bundle.clone()).collect();
                let counter = committee.clients().counter().next();
                let job = Job::SignBatch { log: LOG, counter, register, expire: vec![] };
                return match cast.aggregator.keyring.perform(&job, || [0x5a; 32]) {
                    Done::BatchSigned(batch) => Command::ChangeClients(*batch),
                    other => panic!("{other:?}"),
                };
            }
            "sign" => {
                let open = open.expect("a round is open");
                let refused = zipnet_core::bitmap::Bitmap::new(open.header.clients.count);
                let key_epoch = cast.servers[server.unwrap()].bundle.epoch;
                let (round, header) = (open.header.round, open.digest);
                Job::SignHeader { key_epoch, log: LOG, round, header, refused }
            }
            "aggregate" => {
                let open = open.expect("a round is open");
                let participants =
                    zipnet_core::bitmap::Bitmap::from_ones(open.header.clients.count, [0, 1]).unwrap();
                let body = vec![0; cast.params.vector_bytes()];
                let (round, header) = (open.header.round, open.digest);
                let job = Job::SignAggregate { log: LOG, round, header, participants, body };
                return match cast.aggregator.keyring.perform(&job, || [0x5a; 32]) {
                    Done::AggregateSigned(aggregate) => Command::SubmitAggregate(*aggregate),
                    other => panic!("{other:?}"),
                };
            }
            "partial" => {
                let open = open.expect("a round is open");
                let applied = open.aggregate.as_ref().expect("the aggregate is in");
                let end = |place| End::from(open.clients.at(place).unwrap().1);
                let clients = applied.participants.iter_ones().map(end).collect();
                let key_epoch = cast.servers[server.unwrap()].bundle.epoch;
                Job::MakePartial {
                    key_epoch,
                    header: open.header.clone(),
                    aggregate: applied.digest,
                    clients,
                }
            }
            "sign-record" => {
                let kept = committee.records().back().expect("there is a record");
                Job::SignRecord { log: LOG, round: kept.record.round, record: kept.digest }
            }
            _ => panic!("`{what}` is no command"),
        };
        match cast.servers[server.expect("a server says it")].keyring.perform(&job, || [0x5a; 32]) {
            Done::HeaderSigned(signature) => Command::SignHeader(signature),
            Done::PartialMade(partial) => Command::SubmitPartial(*partial),
            Done::RecordSigned(signature) => Command::SignRecord(signature),
            Done::Announced(announcement) => Command::DepartServer(announcement),
            Done::Testified(testimony) => Command::TestifyDead(testimony),
            Done::Approved(approval) => Command::ApproveAggregator(approval),
            other => panic!("{other:?}"),
        }
    }

    fn words(&self, effect: &Effect) -> Vec<String> {
        let cast = &self.play.cast;
        let name = |peer: &PeerId| {
            let member = cast.members().find(|member| member.keyring.peer() == *peer);
            member.map_or_else(|| "a stranger".to_owned(), |member| member.name.clone())
        };
        let names = |peers: &[PeerId]| peers.iter().map(name).collect::<Vec<_>>().join(", ");
        let roster =
            |servers: &[RosterServer]| names(&servers.iter().map(|server| server.peer).collect::<Vec<_>>());
        let line = match effect {
            Effect::Propose(Command::OpenRound(header)) => {
                format!("propose open-round {} with {}", header.round, roster(&header.servers))
            }
            Effect::Propose(command) => format!("propose {}", kind(command)),
            Effect::Work(job @ Job::MakeBundle { .. }) => {
                return effects(cast, &[Effect::Work(job.clone())]);
            }
            Effect::Work(Job::MakePartial { header, clients, .. }) => {
                format!("work: partial of {} for {} clients", header.round, clients.len())
            }
            // A signature shows in what is proposed with it.
            Effect::Work(_) => return vec![],
            Effect::Report(report) => match report {
                Report::LogStarted { .. } => "report: log started".into(),
                Report::RoundOpened { header, .. } => {
                    format!("report: {} opened with {}", header.round, roster(&header.servers))
                }
                Report::HeaderLive { round, refused, .. } if refused.is_empty() => {
                    format!("report: {round} live")
                }
                Report::HeaderLive { round, refused, .. } => {
                    format!(
                        "report: {round} live without places {:?}",
                        refused.iter_ones().collect::<Vec<_>>()
                    )
                }
                Report::ClientRefused { server, client } => {
                    format!("report: {} refuses {}", name(server), name(client))
                }
                Report::RefusalWithdrawn { server, client } => {
                    format!("report: {} refuses {} no more", name(server), name(client))
                }
                Report::HeaderSigned { round, .. } => format!("report: {round} signed"),
                Report::HeaderDeclined { round, reason, .. } => format!("report: {round} declined: {reason}"),
                Report::AggregateApplied { round, participants, .. } => {
                    format!(
                        "report: aggregate of {round} applied with {} envelopes",
                        participants.count_ones()
                    )
                }
                Report::PartialMade { round, .. } => format!("report: partial of {round} made"),
                Report::PartialApplied { server, .. } => {
                    format!("report: partial of {} applied", name(server))
                }
                Report::RoundFinalized { record, .. } => format!("report: {} finalized", record.round),
                Report::RoundAbandoned { round, reason, missing, .. } => {
                    format!("report: {round} abandoned, {reason:?} [{}]", names(missing))
                }
                Report::RecordConfirmed { round, .. } => format!("report: record of {round} confirmed"),
                Report::ServerRegistered { server, epoch } => {
                    format!("report: {} registered with epoch {}", name(server), epoch.0)
                }
                Report::ServerDeparted { server } => format!("report: {} departed", name(server)),
                Report::ServerLeaving { server } => format!("report: {} leaves for good", name(server)),
                Report::ServerRetired { server, forced } => {
                    format!("report: {} retired{}", name(server), if *forced { " by force" } else { "" })
                }
                Report::AggregatorRegistered { aggregator } => {
                    format!("report: {} registered", name(aggregator))
                }
                Report::ClientsChanged { count, .. } => format!("report: {count} clients"),
                Report::Refused { kind, reason, from: None } => format!("report: refused {kind}: {reason}"),
                _ => return effects(cast, std::slice::from_ref(effect)),
            },
            Effect::Send { to, bytes } => match wire::decode(bytes).unwrap() {
                Message::Live(live) => format!("to {}: {} is live", name(to), live.header.round),
                Message::Registry { clients, .. } => {
                    format!("to {}: registry of {} clients", name(to), clients.len())
                }
                Message::RegistryChanged { version, .. } => {
                    format!("to {}: registry changed to version {}", name(to), version.0)
                }
                Message::AggregateApplied { round, .. } => {
                    format!("to {}: aggregate of {round} applied", name(to))
                }
                Message::TestifyWanted { server } => {
                    format!("to {}: testimony about {} wanted", name(to), name(&server))
                }
                Message::BundleRefused { reason, last: Some(bundle) } => {
                    format!("to {}: bundle of {} refused: {reason}", name(to), name(&bundle.peer))
                }
                _ => return effects(cast, std::slice::from_ref(effect)),
            },
            // As it would be told, and that it is history.
            Effect::Past(report) => {
                let told = self.words(&Effect::Report(report.clone()));
                return told.iter().map(|line| line.replacen("report: ", "past: ", 1)).collect();
            }
            Effect::HandOver | Effect::Stopped => return effects(cast, std::slice::from_ref(effect)),
        };
        vec![line]
    }
}

impl golden::Stage for Stage {
    fn act(&mut self, now: Duration, words: &[&str]) -> Vec<String> {
        self.play.now = Time(u64::try_from(now.as_nanos()).unwrap());
        let done = self.act(words);
        for effect in &done {
            if let Effect::Propose(command) = effect {
                // A repetition takes the place of what it repeats.
                match self.proposed.iter_mut().find(|earlier| kind(earlier) == kind(command)) {
                    Some(earlier) => *earlier = command.clone(),
                    None => self.proposed.push_back(command.clone()),
                }
            }
        }
        done.iter().flat_map(|effect| self.words(effect)).collect()
    }

    fn waits(&self) -> String {
        waits(self.play.machine.deadline())
    }
}
