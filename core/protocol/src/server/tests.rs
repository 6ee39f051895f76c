//! What a server signs, withholds, proposes and leaves behind.
#![expect(clippy::unwrap_used, reason = "a test that meets something else has failed")]

extern crate std;

use alloc::collections::VecDeque;
use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::checks::Strict;
use crate::committee::BadSnapshot;
use crate::committee::tests::cast::{Cast, LOG, OTHER_LOG, Step, Without};
use crate::digest::chain_digest;
use crate::id::{Counter, GroupId};
use crate::key::PublicKey;
use crate::machine::Abandonment;
use crate::message::Previous;

const PERIOD: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(30);
const RESEND: Duration = Duration::from_secs(1);
const REKEY: Duration = Duration::from_secs(3600);
const KEY_AGE_MAX: Duration = Duration::from_secs(7200);

/// The first server of a cast under test. The others and the log are played by the test.
struct Play<C = Strict> {
    cast: Cast,
    server: Server<C>,
    now: Time,
    log: Vec<Command>,
    /// What the server proposed and is not in the log.
    proposed: VecDeque<Command>,
    started: u8,
}

fn config(cast: &Cast) -> Config {
    Config {
        committee: Cast::config(),
        me: cast.server(0),
        floors: cast.servers[0].bundle.floors.unwrap(),
        round_period: PERIOD,
        round_deadline: DEADLINE,
        aggregator: None,
        first_round_voters: 3,
        resend: RESEND,
        rekey_after: REKEY,
        key_age_max: KEY_AGE_MAX,
        partial_budget: Duration::from_secs(2),
        stop_budget: Duration::from_secs(4),
    }
}

impl Play<Strict> {
    fn new() -> Self {
        Self::with(Cast::new(), Strict)
    }

    /// After an honest run up to a step, led by another server.
    fn at(step: Step) -> Self {
        let mut play = Self::new();
        play.go(step);
        play
    }
}

impl<C: Checks> Play<C> {
    fn with(mut cast: Cast, checks: C) -> Self {
        cast.servers[0].bind();
        let server = Server::new(config(&cast), checks, [0x55; 32]);
        let mut play =
            Self { cast, server, now: Time::default(), log: vec![], proposed: VecDeque::new(), started: 0 };
        play.connect();
        play
    }

    fn connect(&mut self) {
        let voters = self.cast.voters();
        self.feed(Input::Voters { voters });
        for other in [1, 2] {
            let peer = self.cast.server(other);
            self.feed(Input::Linked { peer, role: Role::Server });
        }
        let peer = self.cast.aggregator.peer();
        self.feed(Input::Linked { peer, role: Role::Aggregator });
        self.lead(1);
        self.feed(Input::CaughtUp(true));
    }

    fn lead(&mut self, leader: usize) -> Vec<Effect> {
        let leader = Some(self.cast.server(leader));
        self.feed(Input::Led { leader })
    }

    /// Feeds an input and what its jobs give; a tick afterwards must find nothing to do.
    fn feed(&mut self, input: Input) -> Vec<Effect> {
        let effects = self.feed_once(input);
        assert!(self.feed_once(Input::Tick).is_empty(), "a tick is harmless at any moment");
        assert!(self.server.deadline().at > self.now, "what is due was left open");
        effects
    }

    fn feed_once(&mut self, input: Input) -> Vec<Effect> {
        let mut inputs = VecDeque::from([input]);
        let (mut effects, mut out) = (Vec::new(), Outbox::new());
        while let Some(input) = inputs.pop_front() {
            self.server.handle(self.now, input, &mut out);
            while let Some(effect) = out.pop() {
                match &effect {
                    Effect::Work(job) => {
                        let member = &mut self.cast.servers[0];
                        let done = member.keyring.perform(job, || [0x5a; 32]);
                        if let Done::BundleMade(bundle) = &done {
                            member.bundle = bundle.clone();
                        }
                        inputs.push_back(Input::Done(done));
                    }
                    Effect::Propose(command) => self.proposed.push_back(command.clone()),
                    Effect::Send { .. }
                    | Effect::Report(_)
                    | Effect::Past(_)
                    | Effect::HandOver
                    | Effect::Stopped => {}
                }
                effects.push(effect);
            }
        }
        effects
    }

    fn hear(&mut self, from: PeerId, message: &Message) -> Vec<Effect> {
        self.feed(Input::Received { from, bytes: wire::encode(message).to_vec().into() })
    }

    fn wait(&mut self, duration: Duration) -> Vec<Effect> {
        self.now = self.now.after(duration);
        self.feed(Input::Tick)
    }

    fn commit(&mut self, command: &Command) -> Vec<Effect> {
        self.log.push(command.clone());
        let index = u64::try_from(self.log.len()).unwrap();
        let command = wire::encode_command(command).to_vec();
        self.feed(Input::Committed { index, command })
    }

    /// Brings everything that was proposed into the log.
    fn settle(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(command) = self.proposed.pop_front() {
            effects.extend(self.commit(&command));
        }
        effects
    }

    /// Goes on up to this step; what the server under test wants to say itself, it says first.
    fn go(&mut self, step: Step) -> Vec<Effect> {
        let mut effects = self.settle();
        for step in Step::ALL.into_iter().filter(|each| *each <= step) {
            while let Some(command) = self.cast.next(self.server.committee(), step) {
                effects.extend(self.commit(&command));
                effects.extend(self.settle());
            }
        }
        effects
    }

    /// The next header of an honest leader.
    fn header(&self) -> Header {
        self.cast.header(self.server.committee())
    }

    /// A peer's snapshot comes.
    fn install(&mut self, snapshot: &[u8]) -> Result<(), BadSnapshot> {
        let mut out = Outbox::new();
        self.server.install(snapshot, &mut out)?;
        while let Some(effect) = out.pop() {
            let Effect::Work(job) = effect else { panic!("{effect:?}") };
            let done = self.cast.servers[0].keyring.perform(&job, || [0x5a; 32]);
            self.feed(Input::Done(done));
        }
        self.proposed.clear();
        self.feed(Input::Tick);
        Ok(())
    }

    /// The process ends; another one with the same identity reads the log.
    fn restart(&mut self, checks: C) {
        self.cast.servers[0].keyring.forget_round_key();
        self.started += 1;
        let followed = self.server.followed();
        self.server = Server::new(config(&self.cast), checks, [self.started; 32]);
        self.server.follow(followed);
        self.proposed.clear();
        let voters = self.cast.voters();
        self.feed(Input::Voters { voters });
        for (index, command) in core::mem::take(&mut self.log).iter().enumerate() {
            let (index, bytes) = (u64::try_from(index).unwrap() + 1, wire::encode_command(command).to_vec());
            let effects = self.feed(Input::Committed { index, command: bytes });
            assert!(reports(&effects).is_empty(), "what is read again is not reported again");
            self.log.push(command.clone());
        }
        self.proposed.clear();
        self.connect();
    }
}

fn reports(effects: &[Effect]) -> Vec<&Report> {
    let all = effects.iter();
    all.filter_map(|effect| if let Effect::Report(report) = effect { Some(report) } else { None }).collect()
}

fn proposals(effects: &[Effect]) -> Vec<&Command> {
    let all = effects.iter();
    all.filter_map(|effect| if let Effect::Propose(command) = effect { Some(command) } else { None })
        .collect()
}

/// The kinds of what was proposed.
fn kinds(effects: &[Effect]) -> Vec<&'static str> {
    proposals(effects).into_iter().map(kind).collect()
}

fn sent(effects: &[Effect]) -> Vec<(PeerId, Message)> {
    let message = |effect: &Effect| match effect {
        Effect::Send { to, bytes } => Some((*to, wire::decode(bytes).unwrap())),
        _ => None,
    };
    effects.iter().filter_map(message).collect()
}

/// The headers that were opened.
fn opened(effects: &[Effect]) -> Vec<Header> {
    let header = |command: &Command| match command {
        Command::OpenRound(header) => Some(header.clone()),
        _ => None,
    };
    proposals(effects).into_iter().filter_map(header).collect()
}

fn refusals(effects: &[Effect]) -> Vec<Refused> {
    let reason =
        |report: &Report| if let Report::Refused { reason, .. } = report { Some(*reason) } else { None };
    reports(effects).into_iter().filter_map(reason).collect()
}

#[test]
fn an_honest_header_is_signed_and_others_are_declined() {
    let play = Play::at(Step::Enrolled);
    let header = play.header();
    assert_eq!(play.server.judge_header(&header), Ok(()));
    let me = play.cast.server(0);
    type Wrong = (Refused, fn(&mut Header, PeerId));
    let wrong: &[Wrong] = &[
        (Refused::NotInRoster, |header, me| header.servers.retain(|server| server.peer != me)),
        (Refused::WrongLog, |header, _| header.log = OTHER_LOG),
        (Refused::WrongGroup, |header, _| header.group = GroupId([9; 32])),
        (Refused::ForeignKey, |header, _| header.servers[0].round_key = PublicKey([9; 32])),
        (Refused::ForeignKey, |header, _| header.servers[0].epoch = Epoch(2)),
        (Refused::WrongPrevious, |header, _| header.previous.round = Round(1)),
        (Refused::WrongPrevious, |header, _| header.previous.record = Digest([9; 32])),
        (Refused::WrongPrevious, |header, _| header.previous.state = Digest([9; 32])),
        (Refused::BelowFloor, |header, _| header.min_participants = 1),
        (Refused::RosterTooSmall, |header, _| header.servers.truncate(2)),
    ];
    for (reason, change) in wrong {
        let mut changed = header.clone();
        change(&mut changed, me);
        assert_eq!(play.server.judge_header(&changed), Err(*reason));
    }
}

#[test]
fn a_declined_header_gets_neither_signature_nor_partial() {
    let mut play = Play::at(Step::Enrolled);
    let mut header = play.header();
    header.previous.state = Digest([9; 32]);
    let effects = play.commit(&Command::OpenRound(header));
    let declined =
        |report: &&Report| matches!(report, Report::HeaderDeclined { reason: Refused::WrongPrevious, .. });
    assert_eq!(reports(&effects).into_iter().filter(declined).count(), 1);
    assert!(play.proposed.is_empty());
    // Even if somebody signs in its name.
    while let Some(command) = play.cast.next(play.server.committee(), Step::Live) {
        play.commit(&command);
    }
    let aggregate = play.cast.next(play.server.committee(), Step::Aggregated).unwrap();
    play.commit(&aggregate);
    assert!(play.proposed.is_empty());
}

#[test]
fn the_verdict_is_about_the_position_of_the_opening() {
    let mut play = Play::at(Step::Enrolled);
    let header = play.header();
    let effects = play.commit(&Command::OpenRound(header));
    assert_eq!(kinds(&effects), ["sign-header"]);
    play.proposed.clear();
    let client = play.cast.clients[0].bundle.clone();
    let refusal = play.cast.servers[1].refuse(1, &client, true);
    play.commit(&Command::RefuseClient(refusal));
    assert_eq!(kinds(&play.wait(RESEND)), ["sign-header"], "later entries are no reason to refuse");
}

#[test]
fn one_header_is_signed_per_round() {
    let mut play = Play::at(Step::Enrolled);
    let header = play.header();
    let first = play.commit(&Command::OpenRound(header.clone()));
    let again = play.wait(RESEND);
    assert_eq!(proposals(&first), proposals(&again), "the same bytes until the log has them");
    let mut other = header;
    other.nonce = [9; 32];
    assert_eq!(play.server.judge_header(&other), Err(Refused::AlreadyPromised));
    play.server.signed = Some((LOG, Round(7)));
    assert_eq!(play.server.judge_header(&other), Err(Refused::AlreadyPromised), "nor of an earlier round");
    play.server.signed = Some((OTHER_LOG, Round(0)));
    assert_eq!(play.server.judge_header(&other), Err(Refused::AlreadyPromised), "nor of another log");
}

#[test]
fn rounds_of_a_former_process_are_history() {
    let mut play = Play::at(Step::Confirmed);
    assert_eq!((play.server.rounds(), play.server.newest().map(|(round, ..)| round)), (1, Some(Round(1))));
    // It reads all of it again, here with its disk; one that has lost it is told the same by the others.
    play.restart(Strict);
    assert_eq!((play.server.rounds(), play.server.newest()), (0, None));
    // A round of the others goes on meanwhile, under the header of the former process.
    let effects = play.commit(&Command::OpenRound(play.header()));
    assert!(reports(&effects).is_empty(), "{effects:?}");
    let effects = play.settle();
    let registered = |report: &&Report| matches!(report, Report::ServerRegistered { .. });
    assert!(reports(&effects).iter().any(registered), "its own return is news");
    let effects = play.go(Step::Confirmed);
    let finished = |report: &&Report| matches!(report, Report::RoundFinalized { rostered: true, .. });
    assert_eq!(reports(&effects).into_iter().filter(finished).count(), 1);
    assert_eq!((play.server.rounds(), play.server.newest().map(|(round, ..)| round)), (1, Some(Round(3))));
    // What a peer's snapshot stands for is history again, until this server has registered anew.
    let mut play = Play::at(Step::Live);
    let snapshot = play.server.committee().snapshot();
    play.install(&snapshot).expect("a snapshot");
    let effects = play.commit(&Command::OpenRound(play.header()));
    assert!(reports(&effects).is_empty(), "{effects:?}");
}

#[test]
fn a_round_that_one_opens_oneself_is_news_at_once() {
    let mut play = Play::at(Step::Confirmed);
    play.restart(Strict);
    play.lead(0);
    let effects = play.wait(PERIOD);
    let [header] = &opened(&effects)[..] else { panic!("{effects:?}") };
    let effects = play.commit(&Command::OpenRound(Header::clone(header)));
    let is_opening = |report: &&Report| matches!(report, Report::RoundOpened { .. });
    assert_eq!(reports(&effects).into_iter().filter(is_opening).count(), 1);
    // Another's is not, as long as it has not registered.
    let effects = play.commit(&Command::OpenRound(play.header()));
    assert_eq!(reports(&effects).into_iter().filter(is_opening).count(), 0);
}

#[test]
fn a_restarted_server_declines_rounds_of_its_former_key_and_registers_above_it() {
    let mut play = Play::at(Step::Enrolled);
    let header = play.header();
    play.restart(Strict);
    assert_eq!(play.server.judge_header(&header), Err(Refused::ForeignKey));
    assert!(!play.server.is_registered());
    let Some(Command::RegisterServer { bundle, announcement }) = play.proposed.front().cloned() else {
        panic!("{:?}", play.proposed)
    };
    assert_eq!((bundle.epoch, announcement.counter), (Epoch(2), Counter(2)));
    assert_ne!(bundle.round_key, header.servers[0].round_key);
    play.settle();
    assert!(play.server.is_registered());
    play.go(Step::Confirmed);
    assert_eq!(play.server.committee().records().len(), 1);
}

#[test]
fn a_server_registers_only_once_it_has_caught_up_and_votes() {
    let mut play = Play::new();
    play.feed(Input::CaughtUp(false));
    play.go(Step::Started);
    assert!(play.proposed.is_empty());
    play.feed(Input::Voters { voters: BTreeSet::new() });
    assert!(play.feed(Input::CaughtUp(true)).is_empty());
    let voters = play.cast.voters();
    assert_eq!(kinds(&play.feed(Input::Voters { voters })), ["register-server"]);
    assert!(play.wait(RESEND / 2).is_empty());
    assert_eq!(kinds(&play.wait(RESEND / 2)), ["register-server"], "until the log has it");
}

#[test]
fn a_partial_is_made_for_the_applied_aggregate_alone() {
    let mut play = Play::at(Step::Live);
    assert!(play.proposed.is_empty(), "no aggregate is in");
    let open = play.server.committee().open().unwrap().clone();
    let other = play.cast.fold(&open, &[0, 1], b"held back");
    let aggregator = play.cast.aggregator.peer();
    play.hear(aggregator, &Message::Aggregate(other));
    assert!(play.server.holds_aggregate() && play.proposed.is_empty());
    let applied = play.cast.next(play.server.committee(), Step::Aggregated).unwrap();
    let effects = play.commit(&applied);
    let [Command::SubmitPartial(partial)] = proposals(&effects)[..] else { panic!("{effects:?}") };
    let Command::SubmitAggregate(applied) = applied else { panic!("{applied:?}") };
    assert_eq!(partial.aggregate, applied.digest());
    assert!(partial.verify());
    let made = |report: &&Report| matches!(report, Report::PartialMade { participants: 3, floor: 2, .. });
    assert_eq!(reports(&effects).into_iter().filter(made).count(), 1);
    let again = play.wait(RESEND);
    assert_eq!(proposals(&effects), proposals(&again));
    assert!(!again.iter().any(|effect| matches!(effect, Effect::Work(_))), "it is made once");
}

#[test]
fn no_partial_is_made_below_the_own_floor() {
    let mut play = Play::at(Step::Live);
    play.server.config.floors.participants = 4;
    let aggregate = play.cast.next(play.server.committee(), Step::Aggregated).unwrap();
    play.commit(&aggregate);
    play.wait(RESEND);
    assert!(play.proposed.is_empty());
}

#[test]
fn a_round_key_that_is_gone_makes_no_partial() {
    let mut play = Play::at(Step::Live);
    play.cast.servers[0].keyring.forget_round_key();
    let aggregate = play.cast.next(play.server.committee(), Step::Aggregated).unwrap();
    assert!(play.commit(&aggregate).iter().any(|effect| matches!(effect, Effect::Work(_))));
    assert!(play.wait(RESEND).is_empty());
    assert!(play.proposed.is_empty());
}

/// What the server sent to the aggregator about rounds without its partial.
fn disclaimers(effects: &[Effect]) -> Vec<Disclaimer> {
    let words = |(_, message)| match message {
        Message::Disclaimed { disclaimers } => Some(disclaimers),
        _ => None,
    };
    sent(effects).into_iter().filter_map(words).flatten().collect()
}

/// Whether the keyring was asked to disclaim.
fn asks_to_disclaim(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Work(Job::Disclaim { .. })))
}

#[test]
fn a_promised_round_that_is_abandoned_without_a_partial_is_disclaimed() {
    let mut play = Play::at(Step::Live);
    let promised = play.server.committee().open().unwrap().header.clone();
    let effects = play.commit(&Command::OpenRound(play.header()));
    let [disclaimer] = disclaimers(&effects)[..] else { panic!("{effects:?}") };
    let (log, round, header) = (disclaimer.log, disclaimer.round, disclaimer.header);
    assert_eq!((log, round, header), (LOG, promised.round, promised.digest()));
    assert!(disclaimer.verify() && disclaimer.server == play.cast.server(0));
    let reported = |report: &&Report| matches!(report, Report::Disclaimed { .. });
    assert_eq!(reports(&effects).into_iter().filter(reported).count(), 1);
    // Whatever the log says later, the promise does not come back.
    assert_eq!(play.server.judge_header(&promised), Err(Refused::AlreadyPromised));
    assert!(!asks_to_disclaim(&play.wait(RESEND)), "it is said once");
    play.go(Step::Confirmed);
    assert_eq!(play.server.committee().records().len(), 1, "rounds go on");
}

#[test]
fn a_round_with_a_partial_made_or_under_way_is_never_disclaimed() {
    let mut play = Play::at(Step::Live);
    let aggregate = play.cast.next(play.server.committee(), Step::Aggregated).unwrap();
    assert_eq!(kinds(&play.commit(&aggregate)), ["submit-partial"]);
    // It never reaches the log, but somebody may have seen it.
    play.proposed.clear();
    let effects = play.commit(&Command::OpenRound(play.header()));
    assert!(!asks_to_disclaim(&effects) && disclaimers(&effects).is_empty());

    let mut play = Play::at(Step::Live);
    let header = play.server.committee().open().unwrap().digest;
    play.server.making.insert(header, 3);
    let effects = play.commit(&Command::OpenRound(play.header()));
    assert!(!asks_to_disclaim(&effects) && disclaimers(&effects).is_empty());
}

#[test]
fn a_round_whose_key_is_gone_is_not_disclaimed() {
    let mut play = Play::at(Step::Live);
    play.cast.servers[0].keyring.forget_round_key();
    let aggregate = play.cast.next(play.server.committee(), Step::Aggregated).unwrap();
    play.commit(&aggregate);
    let effects = play.commit(&Command::OpenRound(play.header()));
    assert!(!asks_to_disclaim(&effects), "only the key could tell what it gave");
}

#[test]
fn a_round_that_this_process_did_not_promise_is_not_disclaimed() {
    // Declined.
    let mut play = Play::at(Step::Enrolled);
    let mut header = play.header();
    header.previous.state = Digest([9; 32]);
    play.commit(&Command::OpenRound(header));
    let effects = play.commit(&Command::OpenRound(play.header()));
    assert!(!asks_to_disclaim(&effects));
    // Promised by the process before: it may have given its partial.
    let mut play = Play::at(Step::Live);
    let header = play.header();
    play.restart(Strict);
    assert!(!asks_to_disclaim(&play.commit(&Command::OpenRound(header))));
    assert!(!asks_to_disclaim(&play.go(Step::Live)));
    assert!(play.server.disclaimers.is_empty());
    // Without this server.
    let mut play = Play::at(Step::Enrolled);
    let departed = play.cast.servers[0].announce(2, Standing::Departed);
    play.commit(&Command::DepartServer(departed));
    let mut header = play.header();
    header.servers.retain(|server| server.peer != play.cast.server(0));
    play.commit(&Command::OpenRound(header));
    let effects = play.commit(&Command::OpenRound(play.header()));
    assert!(!asks_to_disclaim(&effects));
}

#[test]
fn what_a_former_process_disclaimed_is_not_disclaimed_again() {
    let mut play = Play::at(Step::Live);
    let effects = play.commit(&Command::OpenRound(play.header()));
    assert!(asks_to_disclaim(&effects));
    play.restart(Strict);
    assert!(play.server.disclaimers.is_empty());
}

#[test]
fn an_aggregator_that_was_away_gets_the_newest_disclaimers() {
    let mut play = Play::at(Step::Live);
    let peer = play.cast.aggregator.peer();
    play.feed(Input::Unlinked { peer });
    for _ in 0..DISCLAIMERS_KEPT + 3 {
        let effects = play.commit(&Command::OpenRound(play.header()));
        assert!(asks_to_disclaim(&effects) && disclaimers(&effects).is_empty());
        play.settle();
    }
    let last = play.server.committee().opened();
    let sent = disclaimers(&play.feed(Input::Linked { peer, role: Role::Aggregator }));
    assert_eq!(sent.len(), DISCLAIMERS_KEPT);
    assert_eq!(sent.last().map(|disclaimer| disclaimer.round.next()), Some(last));
    // Nobody else is told, and nobody tells a server.
    let other = play.cast.server(1);
    assert!(disclaimers(&play.feed(Input::Linked { peer: other, role: Role::Server })).is_empty());
    let message = Message::Disclaimed { disclaimers: sent };
    assert_eq!(refusals(&play.hear(other, &message)), [Refused::WrongRole]);
}

#[test]
fn a_stop_gives_the_partial_then_departs_then_hands_over() {
    let mut play = Play::at(Step::Live);
    play.lead(0);
    let aggregate = play.cast.next(play.server.committee(), Step::Aggregated).unwrap();
    assert_eq!(kinds(&play.commit(&aggregate)), ["submit-partial"]);
    assert!(play.feed(Input::Stop).is_empty(), "the partial is under way");
    assert!(play.server.is_stopping());
    let partial = play.proposed.pop_front().unwrap();
    assert_eq!(kinds(&play.commit(&partial)), ["depart-server"]);
    let departure = play.proposed.pop_front().unwrap();
    let effects = play.commit(&departure);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::HandOver)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Stopped)));
    assert!(play.server.committee().open().is_some(), "its partial is in: the others can finish");
    let effects = play.lead(1);
    assert!(matches!(effects[..], [Effect::Stopped]));
    assert_eq!(play.server.deadline(), Deadline::NONE);
    assert!(play.wait(DEADLINE).is_empty(), "it stops once");
}

#[test]
fn a_stop_waits_for_no_aggregate() {
    let mut play = Play::at(Step::Live);
    assert_eq!(kinds(&play.feed(Input::Stop)), ["depart-server"]);
    let effects = play.settle();
    assert!(matches!(effects.last(), Some(Effect::Stopped)));
    let given_up =
        |report: &&Report| matches!(report, Report::RoundAbandoned { reason: Abandonment::NoAggregate, .. });
    assert_eq!(reports(&effects).into_iter().filter(given_up).count(), 1);
}

#[test]
fn a_stop_ends_in_time_though_nothing_answers() {
    for (step, leader) in [(Step::Started, 0), (Step::Enrolled, 0), (Step::Live, 1), (Step::Aggregated, 0)] {
        let mut play = Play::at(step);
        play.lead(leader);
        let begin = play.now;
        let mut effects = play.feed(Input::Stop);
        while !effects.iter().any(|effect| matches!(effect, Effect::Stopped)) {
            play.now = play.server.deadline().at;
            assert!(play.now.since(begin) < Duration::from_secs(5), "{step:?}");
            effects = play.feed(Input::Tick);
        }
    }
}

#[test]
fn a_stopping_server_signs_no_header() {
    let mut play = Play::at(Step::Enrolled);
    let header = play.header();
    play.feed(Input::Stop);
    assert_eq!(play.server.judge_header(&header), Err(Refused::Stopping));
}

#[test]
fn round_keys_are_renewed_between_rounds() {
    let mut play = Play::at(Step::Live);
    let before = play.cast.servers[0].bundle.clone();
    play.wait(REKEY);
    assert!(play.proposed.is_empty(), "not while a round is open");
    play.go(Step::Confirmed);
    let after = &play.server.committee().servers()[&play.cast.server(0)].bundle;
    assert_eq!(after.epoch, Epoch(2));
    assert_ne!(after.round_key, before.round_key);
    assert!(play.server.is_registered());
    play.go(Step::Finalized);
    assert_eq!(play.server.committee().records().len(), 2);
}

#[test]
fn a_leading_server_starts_a_log_and_opens_its_first_round_with_all_voters() {
    let mut play = Play::new();
    play.lead(0);
    assert_eq!(kinds(&play.feed(Input::StartLog { log: LOG })), ["start-log"]);
    play.settle();
    play.wait(PERIOD);
    play.go(Step::Approved);
    assert!(play.proposed.is_empty(), "too few clients");
    let enrolled = play.cast.next(play.server.committee(), Step::Enrolled).unwrap();
    let effects = play.commit(&enrolled);
    let [header] = &opened(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!((header.round, header.servers.len(), header.min_participants), (Round(1), 3, 2));
    assert_eq!(header.previous, Previous::default());
}

#[test]
fn a_leader_opens_a_round_every_period_with_a_fresh_nonce() {
    let mut play = Play::at(Step::Enrolled);
    let mut nonces = BTreeSet::new();
    let mut effects = play.lead(0);
    for round in 1..=4 {
        let [header] = &opened(&effects)[..] else { panic!("{effects:?}") };
        assert_eq!(header.round, Round(round));
        assert!(nonces.insert(header.nonce));
        let begin = play.now;
        play.go(Step::Aggregated);
        play.go(Step::Finalized);
        while let Some(command) = play.cast.next(play.server.committee(), Step::Confirmed) {
            play.commit(&command);
            play.settle();
        }
        effects = vec![];
        while opened(&effects).is_empty() {
            play.now = play.server.deadline().at;
            effects = play.feed(Input::Tick);
        }
        assert_eq!(play.now.since(begin), PERIOD);
    }
}

#[test]
fn an_opening_that_got_lost_is_repeated() {
    let mut play = Play::at(Step::Enrolled);
    assert_eq!(opened(&play.lead(0)).len(), 1);
    play.proposed.clear();
    assert!(play.wait(RESEND / 2).is_empty());
    assert_eq!(opened(&play.wait(RESEND / 2)).len(), 1);
}

#[test]
fn an_opening_that_was_overtaken_is_made_anew_at_once() {
    let mut play = Play::at(Step::Enrolled);
    play.lead(0);
    let late = play.proposed.pop_front().unwrap();
    let batch = play.cast.aggregator.batch(2, vec![play.cast.clients[3].bundle.clone()], vec![]);
    play.commit(&Command::ChangeClients(batch));
    let effects = play.commit(&late);
    assert_eq!(refusals(&effects), [Refused::WrongRegistry]);
    assert_eq!(opened(&effects)[0].clients, play.server.committee().clients().set());
}

#[test]
fn a_round_past_its_deadline_is_abandoned_by_the_next() {
    let mut play = Play::at(Step::Enrolled);
    play.lead(0);
    play.settle();
    assert!(opened(&play.wait(DEADLINE - Duration::from_millis(1))).is_empty());
    play.proposed.clear();
    let effects = play.wait(Duration::from_millis(1));
    assert_eq!(opened(&effects)[0].round, Round(2));
    let effects = play.settle();
    let abandoned = |report: &&Report| matches!(report, Report::RoundAbandoned { reason: Abandonment::Unsigned, missing, .. } if missing.len() == 2);
    assert_eq!(reports(&effects).into_iter().filter(abandoned).count(), 1);
}

#[test]
fn a_new_leader_adopts_the_open_round_and_restarts_its_deadline() {
    let mut play = Play::at(Step::Live);
    let live_at = play.now;
    play.wait(DEADLINE - Duration::from_secs(1));
    assert_eq!(play.server.waits_since(), live_at);
    assert!(opened(&play.lead(0)).is_empty());
    assert_eq!(play.server.waits_since(), play.now);
    assert!(opened(&play.wait(DEADLINE - Duration::from_secs(1))).is_empty());
    assert_eq!(opened(&play.wait(Duration::from_secs(1))).len(), 1);
}

#[test]
fn a_round_is_opened_anew_for_a_newcomer_until_the_aggregate_is_in() {
    for (step, reopened) in [(Step::Live, true), (Step::Aggregated, false)] {
        let mut play = Play::at(Step::Enrolled);
        play.server.config.first_round_voters = 2;
        let departure = play.cast.servers[2].announce(2, Standing::Departed);
        play.commit(&Command::DepartServer(departure));
        play.lead(0);
        play.settle();
        assert!(play.server.committee().open().is_some());
        for step in Step::ALL.into_iter().filter(|each| *each > Step::Opened && *each <= step) {
            while let Some(command) = play.cast.next(play.server.committee(), step) {
                play.commit(&command);
                play.settle();
            }
        }
        play.cast.servers[2].renew(2);
        let back = play.cast.servers[2].register(3);
        let effects = play.commit(&back);
        let sizes: Vec<_> = opened(&effects).iter().map(|header| header.servers.len()).collect();
        assert_eq!(sizes, if reopened { vec![3] } else { vec![] }, "{step:?}");
    }
}

#[test]
fn servers_out_of_reach_are_left_out_only_down_to_the_floor() {
    for (floor, expected) in [(None, 3), (Some(3), 3), (Some(2), 2), (Some(1), 1)] {
        let mut play = Play::with(Cast::with_floors(Floors { participants: 2, servers: floor }), Strict);
        play.go(Step::Enrolled);
        for other in [1, 2] {
            let peer = play.cast.server(other);
            play.feed(Input::Unlinked { peer });
            let reachable = play.server.next_roster().len();
            let all = if reachable == 3 { 3 } else { 3 - other };
            assert_eq!(reachable, all, "floor {floor:?}");
        }
        let roster = play.server.next_roster();
        // Below its floor, nobody is left out: the round waits for them.
        assert!(roster.len() == expected || roster.len() == 3, "floor {floor:?}: {}", roster.len());
        assert!(roster.iter().any(|server| server.peer == play.cast.server(0)));
    }
}

#[test]
fn servers_that_kept_the_last_round_waiting_are_left_out_of_the_next() {
    let mut play = Play::with(Cast::with_floors(Floors { participants: 2, servers: Some(2) }), Strict);
    play.go(Step::Enrolled);
    play.lead(0);
    play.settle();
    let open = play.server.committee().open().unwrap().clone();
    let signature = play.cast.servers[1].sign_header(&open.header, &[]);
    play.commit(&Command::SignHeader(signature));
    play.wait(DEADLINE);
    play.settle();
    play.wait(DEADLINE);
    let effects = play.settle();
    let roster: Vec<_> =
        play.server.committee().open().unwrap().header.servers.iter().map(|server| server.peer).collect();
    assert_eq!(roster, [play.cast.server(0), play.cast.server(1)], "{effects:?}");
    play.go(Step::Finalized);
    assert_eq!(play.server.next_roster().len(), 3, "after a finalised round everybody gets a chance");
}

#[test]
fn a_server_retires_by_its_own_word_and_serves_until_it_stops() {
    let mut play = Play::at(Step::Enrolled);
    assert_eq!(kinds(&play.feed(Input::Retire)), ["retire-server"]);
    let effects = play.settle();
    let farewells: Vec<_> = sent(&effects)
        .into_iter()
        .filter(|(_, message)| matches!(message, Message::Retired { .. }))
        .collect();
    assert_eq!(farewells.len(), 1, "the aggregator hears of it");
    play.wait(REKEY);
    assert!(play.proposed.is_empty(), "who leaves keeps its key: nobody would register another");
    play.go(Step::Confirmed);
    assert_eq!(kinds(&play.feed(Input::Stop)), ["depart-server"]);
    let effects = play.settle();
    assert!(
        reports(&effects).iter().any(|report| matches!(report, Report::ServerRetired { forced: false, .. }))
    );
    assert!(matches!(effects.last(), Some(Effect::Stopped)));
}

#[test]
fn a_farewell_comes_before_the_departure() {
    let mut play = Play::at(Step::Enrolled);
    play.feed(Input::Retire);
    play.proposed.clear();
    assert!(play.feed(Input::Stop).is_empty());
    assert_eq!(kinds(&play.wait(RESEND)), ["retire-server"]);
    assert_eq!(kinds(&play.settle()), ["depart-server"]);
    assert!(play.server.committee().retired().contains(&play.cast.server(0)));
}

/// To whom a departure was given.
fn entrusted(effects: &[Effect]) -> Vec<PeerId> {
    let departs = |message: &Message| matches!(message, Message::Propose(Command::DepartServer(_)));
    sent(effects).into_iter().filter(|(_, message)| departs(message)).map(|(to, _)| to).collect()
}

#[test]
fn a_server_that_leaves_tells_everybody_if_nobody_brings_that_into_the_log() {
    let others = |play: &Play<Strict>| [1, 2].map(|server| play.cast.server(server));
    let mut play = Play::at(Step::Enrolled);
    play.feed(Input::Led { leader: None });
    let effects = play.feed(Input::Stop);
    assert_eq!((kinds(&effects), entrusted(&effects)), (vec!["depart-server"], others(&play).into()));

    let mut play = Play::at(Step::Enrolled);
    let [leader, other] = others(&play);
    assert_eq!(entrusted(&play.feed(Input::Stop)), [], "the leader does that");
    assert_eq!(entrusted(&play.wait(RESEND)), [other], "it does not");
    play.feed(Input::Unlinked { peer: leader });
    assert_eq!(entrusted(&play.wait(RESEND)), [other]);
}

#[test]
fn what_a_server_said_when_it_left_is_brought_into_the_log_once_it_is_gone() {
    let mut play = Play::at(Step::Enrolled);
    play.feed(Input::Led { leader: None });
    let [other, gone] = [1, 2].map(|server| play.cast.server(server));
    let departure = Command::DepartServer(play.cast.servers[2].announce(2, Standing::Departed));
    let Command::DepartServer(mut forged) = departure.clone() else { unreachable!("as just made") };
    forged.counter = forged.counter.next();
    play.hear(other, &Message::Propose(departure.clone()));
    play.hear(gone, &Message::Propose(Command::DepartServer(forged)));
    play.hear(gone, &Message::Propose(Command::RetireServer(forged)));
    assert!(play.feed(Input::Unlinked { peer: gone }).is_empty(), "it is nobody else's to say, and signed");

    play.feed(Input::Linked { peer: gone, role: Role::Server });
    assert!(play.hear(gone, &Message::Propose(departure.clone())).is_empty(), "it is still here");
    assert_eq!(proposals(&play.feed(Input::Unlinked { peer: gone })), [&departure]);
    assert_eq!(proposals(&play.wait(RESEND)), [&departure], "nobody leads, so it is lost");
    play.feed(Input::Linked { peer: gone, role: Role::Server });
    assert!(play.wait(RESEND).is_empty(), "it is back");
    play.feed(Input::Unlinked { peer: gone });
    play.proposed.clear();
    assert_eq!(proposals(&play.lead(1)), [&departure]);
    let effects = play.settle();
    let departed = |report: &&Report| matches!(report, Report::ServerDeparted { server } if *server == gone);
    assert_eq!(reports(&effects).into_iter().filter(departed).count(), 1);
    assert!(play.wait(RESEND).is_empty(), "the log has it");
}

#[test]
fn what_a_server_said_before_it_registered_anew_is_void() {
    let mut play = Play::at(Step::Enrolled);
    play.feed(Input::Led { leader: None });
    let gone = play.cast.server(2);
    let departure = play.cast.servers[2].announce(2, Standing::Departed);
    play.hear(gone, &Message::Propose(Command::DepartServer(departure)));
    let member = &mut play.cast.servers[2];
    member.renew(2);
    let registers = member.register(2);
    play.commit(&registers);
    assert!(play.feed(Input::Unlinked { peer: gone }).is_empty());
}

#[test]
fn a_leaving_server_that_lost_its_key_goes() {
    let mut play = Play::at(Step::Enrolled);
    play.feed(Input::Retire);
    play.settle();
    play.restart(Strict);
    play.settle();
    assert!(play.server.committee().retired().contains(&play.cast.server(0)));
    assert!(play.wait(RESEND).is_empty(), "a retired server wants nothing");
}

#[test]
fn a_server_is_declared_dead_only_after_own_probes_that_failed() {
    let mut play = Play::at(Step::Enrolled);
    let [other, dead] = [1, 2].map(|server| play.cast.server(server));
    let wanted = Message::TestifyWanted { server: dead };
    play.hear(other, &wanted);
    play.feed(Input::Unlinked { peer: dead });
    for failures in 1..PROBES_MIN {
        play.feed(Input::ProbesFailed { peer: dead, failures });
        assert!(play.proposed.is_empty());
    }
    let effects = play.feed(Input::ProbesFailed { peer: dead, failures: PROBES_MIN });
    assert_eq!(kinds(&effects), ["testify-dead"]);
    play.settle();
    let testimony = play.cast.servers[1].testify(dead, 1);
    play.commit(&Command::TestifyDead(testimony));
    assert!(play.server.committee().retired().contains(&dead));
}

#[test]
fn a_server_that_answers_is_not_dead_and_its_next_outage_is_no_death() {
    let mut play = Play::at(Step::Enrolled);
    let dead = play.cast.server(2);
    let asked: Vec<_> =
        sent(&play.feed(Input::RetireDead { server: dead })).into_iter().map(|(to, _)| to).collect();
    assert_eq!(asked, [play.cast.server(1), dead], "every linked server is asked");
    play.feed(Input::Linked { peer: dead, role: Role::Server });
    play.feed(Input::Unlinked { peer: dead });
    play.feed(Input::ProbesFailed { peer: dead, failures: PROBES_MIN });
    assert!(play.proposed.is_empty());
}

#[test]
fn a_server_that_announced_its_leave_and_is_out_of_reach_is_retired_without_an_operator() {
    for vote_ended in [false, true] {
        let mut play = Play::at(Step::Live);
        let left = play.cast.server(2);
        let farewell = play.cast.servers[2].announce(2, Standing::Leaving);
        play.commit(&Command::RetireServer(farewell));
        for failures in [0, PROBES_MIN] {
            play.feed(Input::ProbesFailed { peer: left, failures });
            assert!(play.proposed.is_empty(), "it takes part as long as it is linked");
        }
        play.feed(Input::Linked { peer: left, role: Role::Server });
        if vote_ended {
            let voters = [0, 1].map(|server| play.cast.server(server)).into();
            play.feed(Input::Voters { voters });
            assert!(play.proposed.is_empty(), "it is still linked");
        }
        let effects = play.feed(Input::Unlinked { peer: left });
        assert_eq!(kinds(&effects).is_empty(), !vote_ended, "a server with a vote is probed first");
        for failures in 1..PROBES_MIN {
            play.feed(Input::ProbesFailed { peer: left, failures });
            assert_eq!(play.proposed.is_empty(), !vote_ended);
        }
        play.feed(Input::ProbesFailed { peer: left, failures: PROBES_MIN });
        play.settle();
        assert!(play.server.committee().open().is_some(), "one server alone does not say so");
        let testimony = play.cast.servers[1].testify(left, 1);
        let effects = play.commit(&Command::TestifyDead(testimony));
        let retired = |report: &&Report| matches!(report, Report::ServerRetired { forced: false, .. });
        assert_eq!(reports(&effects).into_iter().filter(retired).count(), 1, "it said so itself");
        assert!(play.server.committee().open().is_none(), "the round that waited for it is over");
        assert_eq!(play.server.committee().farewells().back(), Some(&farewell), "floors follow its word");
    }
}

#[test]
fn only_servers_ask_for_a_testimony_and_only_about_servers() {
    let mut play = Play::at(Step::Enrolled);
    let wanted = Message::TestifyWanted { server: play.cast.server(2) };
    let aggregator = play.cast.aggregator.peer();
    assert_eq!(refusals(&play.hear(aggregator, &wanted)), [Refused::WrongRole]);
    let other = play.cast.server(1);
    let unknown = Message::TestifyWanted { server: PeerId([9; 32]) };
    assert_eq!(refusals(&play.hear(other, &unknown)), [Refused::NotRegistered]);
}

#[test]
fn the_first_aggregator_seen_is_approved_and_no_other() {
    let mut play = Play::at(Step::Registered);
    let (first, second) = (play.cast.aggregator.bundle.clone(), play.cast.rival.bundle.clone());
    assert_eq!(kinds(&play.hear(first.peer, &Message::Bundle(first.clone()))), ["approve-aggregator"]);
    assert_eq!(refusals(&play.hear(second.peer, &Message::Bundle(second.clone()))), [Refused::NotAggregator]);
    play.go(Step::Approved);
    assert_eq!(play.server.committee().aggregator(), Some(&first));
    let effects = play.hear(second.peer, &Message::Bundle(second.clone()));
    assert_eq!(refusals(&effects), [Refused::NotAggregator]);
    assert!(
        matches!(sent(&effects)[..], [(to, Message::BundleRefused { last: None, .. })] if to == second.peer)
    );
    play.wait(RESEND);
    assert!(play.proposed.is_empty());
}

#[test]
fn a_first_aggregator_that_went_away_makes_room_for_another() {
    let mut play = Play::at(Step::Registered);
    let (first, second) = (play.cast.aggregator.bundle.clone(), play.cast.rival.bundle.clone());
    play.hear(first.peer, &Message::Bundle(first.clone()));
    play.feed(Input::Unlinked { peer: first.peer });
    assert_eq!(kinds(&play.hear(second.peer, &Message::Bundle(second))), ["approve-aggregator"]);
}

#[test]
fn the_configured_aggregator_replaces_another() {
    let mut play = Play::at(Step::Approved);
    let (first, second) = (play.cast.aggregator.bundle.clone(), play.cast.rival.bundle.clone());
    play.server.config.aggregator = Some(second.peer);
    let effects = play.hear(first.peer, &Message::Bundle(first.clone()));
    assert!(refusals(&effects).is_empty(), "the present one hears of the registry as before");
    assert_eq!(kinds(&play.hear(second.peer, &Message::Bundle(second.clone()))), ["approve-aggregator"]);
    play.settle();
    let approval = play.cast.servers[1].approve(&second);
    play.commit(&Command::ApproveAggregator(approval));
    assert_eq!(play.server.committee().aggregator(), Some(&second));
    let effects = play.hear(first.peer, &Message::Bundle(first));
    assert_eq!(refusals(&effects), [Refused::AggregatorNotConfigured]);
}

#[test]
fn an_operator_approves_another_aggregator_whatever_was_configured() {
    let mut play = Play::at(Step::Approved);
    let (first, second) = (play.cast.aggregator.bundle.clone(), play.cast.rival.bundle.clone());
    play.server.config.aggregator = Some(first.peer);
    let effects = play.hear(second.peer, &Message::Bundle(second.clone()));
    assert_eq!(refusals(&effects), [Refused::AggregatorNotConfigured]);
    assert!(kinds(&play.feed(Input::Approve { aggregator: second.peer })).is_empty(), "it has to ask again");
    assert_eq!(play.server.appointed(), Some(second.peer));
    assert_eq!(kinds(&play.hear(second.peer, &Message::Bundle(second.clone()))), ["approve-aggregator"]);
    play.settle();
    assert_eq!(play.server.committee().aggregator(), Some(&first), "one server is no majority");
    let approval = play.cast.servers[1].approve(&second);
    play.commit(&Command::ApproveAggregator(approval));
    assert_eq!(play.server.committee().aggregator(), Some(&second));
}

#[test]
fn a_turnout_is_told_to_operators_and_changes_nothing() {
    let mut play = Play::at(Step::Live);
    let open = play.server.committee().open().unwrap().clone();
    let (aggregator, rival) = (play.cast.aggregator.peer(), play.cast.rival.peer());
    let turnout = |header: Digest, envelopes: u32| Turnout {
        round: open.header.round,
        header,
        envelopes,
        absent: 1,
        declined: vec![(Refused::RosterTooSmall, 2)],
    };
    let say = |play: &mut Play, from: PeerId, turnout: &Turnout| {
        play.hear(from, &Message::Turnout(turnout.clone()))
    };
    let told = |effects: &[Effect]| {
        let is_told = |report: &&Report| matches!(report, Report::TurnoutLow { floor: 2, .. });
        reports(effects).into_iter().filter(is_told).count()
    };
    let (right, deadline) = (turnout(open.digest, 1), play.server.deadline());
    assert_eq!(refusals(&say(&mut play, rival, &right)), [Refused::NotAggregator]);
    assert_eq!(say(&mut play, aggregator, &turnout(Digest([9; 32]), 1)).len(), 0, "of another header");
    assert_eq!(play.server.turnout(), None);
    assert_eq!(told(&say(&mut play, aggregator, &right)), 1);
    assert_eq!(told(&say(&mut play, aggregator, &right)), 0, "nothing new");
    assert_eq!(told(&say(&mut play, aggregator, &turnout(open.digest, 0))), 1);
    assert_eq!(told(&say(&mut play, aggregator, &right)), 0, "an aggregator does not fill the log");
    play.wait(RESEND);
    assert_eq!(told(&say(&mut play, aggregator, &right)), 1);
    assert_eq!(play.server.turnout(), Some(&right));
    assert_eq!(play.server.deadline().at, deadline.at);

    // The round is not one that waits for the aggregator.
    let effects = play.feed(Input::Stop);
    assert_eq!(kinds(&effects), ["depart-server"]);
    let effects = play.settle();
    let lacked = |report: &&Report| {
        matches!(report, Report::RoundAbandoned { reason: Abandonment::TooFewEnvelopes, .. })
    };
    assert_eq!(reports(&effects).into_iter().filter(lacked).count(), 1);
    let abandoned = play.server.abandoned().expect("the round was given up");
    let what = (abandoned.round, abandoned.reason, abandoned.at);
    assert_eq!(what, (open.header.round, Abandonment::TooFewEnvelopes, play.now));
    assert!(play.server.turnout().is_some(), "it says what was missing");

    // Enough have come after all, and the log does not take it.
    let mut play = Play::at(Step::Live);
    let open = play.server.committee().open().unwrap().clone();
    say(&mut play, aggregator, &turnout(open.digest, 1));
    let aggregate = play.cast.fold(&open, &[0, 1], b"text");
    play.hear(aggregator, &Message::Aggregate(aggregate));
    play.feed(Input::Stop);
    let effects = play.settle();
    assert_eq!(reports(&effects).into_iter().filter(lacked).count(), 0);
    assert_eq!(play.server.abandoned().map(|abandoned| abandoned.reason), Some(Abandonment::NoAggregate));
    assert_eq!(play.server.turnout(), None, "the round was not given up for that");

    let mut play = Play::at(Step::Live);
    let open = play.server.committee().open().unwrap().clone();
    say(&mut play, aggregator, &turnout(open.digest, 1));
    play.go(Step::Finalized);
    assert_eq!(play.server.turnout(), None);
}

#[test]
fn a_bundle_that_is_not_the_senders_or_not_an_aggregators_is_refused() {
    let mut play = Play::at(Step::Registered);
    let bundle = play.cast.aggregator.bundle.clone();
    let rival = play.cast.rival.peer();
    let changed = |change: fn(&mut Bundle)| {
        let mut changed = bundle.clone();
        change(&mut changed);
        Message::Bundle(changed)
    };
    let aggregator = bundle.peer;
    let cases = [
        (Refused::WrongRole, rival, Message::Bundle(bundle.clone())),
        (Refused::WrongRole, aggregator, changed(|bundle| bundle.role = Role::Client)),
        (Refused::WrongInstance, aggregator, changed(|bundle| bundle.instance.0[0] ^= 1)),
        (Refused::BadSignature, aggregator, changed(|bundle| bundle.epoch = Epoch(9))),
    ];
    for (reason, from, message) in cases {
        assert_eq!(refusals(&play.hear(from, &message)), [reason]);
    }
    play.go(Step::Approved);
    assert_eq!(refusals(&play.hear(rival, &Message::Bundle(bundle.clone()))), [Refused::WrongRole]);
    let old = changed(|bundle| bundle.epoch = Epoch(0));
    let effects = play.hear(aggregator, &old);
    assert_eq!(refusals(&effects), [Refused::StaleEpoch]);
    let [(_, Message::BundleRefused { last: Some(last), .. })] = &sent(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*last, bundle);
}

#[test]
fn proposals_are_taken_from_servers_and_clients_from_the_aggregator() {
    let mut play = Play::at(Step::Enrolled);
    let (server, aggregator) = (play.cast.server(1), play.cast.aggregator.peer());
    let start = Message::Propose(Command::StartLog { log: OTHER_LOG });
    let batch = play.cast.aggregator.batch(2, vec![], vec![]);
    let batch = Message::Propose(Command::ChangeClients(batch));
    assert!(play.hear(server, &start).is_empty(), "who does not lead brings nothing into the log");
    assert_eq!(kinds(&play.hear(aggregator, &batch)), ["change-clients"]);
    play.proposed.clear();
    assert_eq!(refusals(&play.hear(aggregator, &start)), [Refused::WrongRole]);
    let rival = play.cast.rival.peer();
    assert_eq!(refusals(&play.hear(rival, &batch)), [Refused::WrongRole]);
    play.feed(Input::Linked { peer: rival, role: Role::Aggregator });
    assert_eq!(refusals(&play.hear(rival, &batch)), [Refused::NotAggregator]);
    play.lead(0);
    play.settle();
    assert_eq!(kinds(&play.hear(server, &start)), ["start-log"]);
}

/// Tells the server whom its operator refuses.
fn refuse<C: Checks>(play: &mut Play<C>, clients: &[usize]) -> Vec<Effect> {
    let clients = clients.iter().map(|client| play.cast.client(*client)).collect();
    play.feed(Input::Refuse { clients })
}

fn refused<C: Checks>(play: &Play<C>) -> Vec<PeerId> {
    play.server.committee().refused_by(&play.cast.server(0)).copied().collect()
}

#[test]
fn listed_clients_are_refused_one_after_the_other_and_withdrawn_when_they_are_not_listed() {
    let mut play = Play::at(Step::Enrolled);
    assert!(refuse(&mut play, &[3]).is_empty(), "it is not registered");
    assert_eq!(kinds(&refuse(&mut play, &[0, 2, 3])), ["refuse-client"]);
    let lost = play.proposed.pop_front();
    assert_eq!(kinds(&play.wait(RESEND)), ["refuse-client"], "until the log has it");
    assert_eq!(play.proposed.front(), lost.as_ref());
    let effects = play.settle();
    assert_eq!(kinds(&effects), ["refuse-client"], "the second once the first is in");
    let both = [play.cast.client(0), play.cast.client(2)];
    assert_eq!(refused(&play), both);
    assert!(play.wait(RESEND).is_empty());

    assert_eq!(kinds(&refuse(&mut play, &[2])), ["refuse-client"]);
    play.settle();
    assert_eq!(refused(&play), both[1..]);
    refuse(&mut play, &[]);
    play.settle();
    assert_eq!(refused(&play), []);
}

#[test]
fn a_refused_client_that_comes_back_is_refused_again() {
    let mut play = Play::at(Step::Enrolled);
    refuse(&mut play, &[0]);
    play.settle();
    // Fresh keys of this server end its refusals, and after some rounds the client may come back.
    let client = play.cast.clients[0].bundle.clone();
    play.wait(REKEY);
    play.settle();
    assert!(play.server.is_registered());
    assert_eq!(refused(&play), []);
    for _ in 0..committee::BARRED_ROUNDS {
        let header = play.header();
        play.commit(&Command::OpenRound(header));
        play.settle();
    }
    let counter = play.server.committee().clients().counter().next().0;
    let batch = play.cast.aggregator.batch(counter, vec![client.clone()], vec![]);
    let effects = play.commit(&Command::ChangeClients(batch));
    let again = |command: &&Command| matches!(command, Command::RefuseClient(refusal) if refusal.client == client.peer && refusal.refuse);
    assert_eq!(proposals(&effects).into_iter().filter(again).count(), 1, "{effects:?}");
}

#[test]
fn only_a_server_that_takes_part_and_has_caught_up_refuses() {
    let mut play = Play::at(Step::Enrolled);
    play.feed(Input::CaughtUp(false));
    assert!(refuse(&mut play, &[0]).is_empty());
    assert_eq!(kinds(&play.feed(Input::CaughtUp(true))), ["refuse-client"]);
    play.feed(Input::Stop);
    play.proposed.clear();
    assert!(!kinds(&play.wait(RESEND)).contains(&"refuse-client"));
    let mut play = Play::at(Step::Approved);
    let departure = play.cast.servers[0].announce(2, Standing::Departed);
    play.commit(&Command::DepartServer(departure));
    play.proposed.clear();
    let batch = play.cast.aggregator.batch(1, vec![play.cast.clients[0].bundle.clone()], vec![]);
    play.commit(&Command::ChangeClients(batch));
    assert!(!kinds(&refuse(&mut play, &[0])).contains(&"refuse-client"), "it has departed");
}

#[test]
fn a_header_is_signed_without_the_listed_clients_and_never_otherwise() {
    let mut play = Play::at(Step::Enrolled);
    refuse(&mut play, &[1]);
    play.proposed.clear();
    let header = play.header();
    let command = wire::encode_command(&Command::OpenRound(header)).to_vec();
    let mut inputs = vec![Input::Committed { index: 99, command }];
    // The signature got lost, and the operator has changed the list.
    inputs.extend([vec![], vec![0, 1, 2]].map(|listed: Vec<usize>| {
        let clients = listed.iter().map(|client| play.cast.client(*client)).collect();
        Input::Refuse { clients }
    }));
    let mut signatures = Vec::new();
    for input in inputs {
        play.now = play.now.after(RESEND);
        let mut out = Outbox::new();
        play.server.handle(play.now, input, &mut out);
        while let Some(effect) = out.pop() {
            if let Effect::Work(job @ Job::SignHeader { .. }) = effect {
                match play.cast.servers[0].keyring.perform(&job, || [0x5a; 32]) {
                    Done::HeaderSigned(signature) => signatures.push(signature),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    let [first, again, last] = &signatures[..] else { panic!("{signatures:?}") };
    assert_eq!(first.refused.iter_ones().collect::<Vec<_>>(), [1]);
    assert_eq!((first, first), (again, last));
}

#[test]
fn a_server_leaves_out_no_more_clients_than_it_may_refuse() {
    let mut play = Play::at(Step::Enrolled);
    refuse(&mut play, &[0]);
    play.settle();
    let template = play.cast.clients[1].bundle.clone();
    let numbered = |number| Bundle { peer: PeerId([number; 32]), ..template.clone() };
    let registry = |count| {
        let all = (1..=count).map(numbered).collect();
        ClientRegistry::from_parts(crate::id::RegistryVersion(1), Counter(1), all).unwrap()
    };
    for (count, left_out) in [(10, 10), (20, 15), (80, 19)] {
        play.server.unwanted = registry(count).iter().map(|(peer, _)| *peer).collect();
        assert_eq!(play.server.leaves_out(&registry(count)).count_ones(), left_out, "one is out already");
        assert_eq!(play.server.leaves_out(&ClientRegistry::new()).count_ones(), 0);
    }
}

#[test]
fn nothing_is_refused_between_a_signature_and_its_entry() {
    let mut play = Play::at(Step::Enrolled);
    let header = play.header();
    assert_eq!(kinds(&play.commit(&Command::OpenRound(header))), ["sign-header"]);
    assert!(refuse(&mut play, &[0]).is_empty());
    assert_eq!(kinds(&play.settle()), ["refuse-client"]);
}

#[test]
fn a_leader_opens_no_round_that_is_too_small_without_whom_it_refuses() {
    let mut play = Play::at(Step::Enrolled);
    refuse(&mut play, &[0, 1]);
    play.proposed.clear();
    assert!(opened(&play.lead(0)).is_empty(), "one of three clients is left, and two are needed");
    play.proposed.clear();
    assert_eq!(opened(&refuse(&mut play, &[0])).len(), 1);
}

#[test]
fn a_batch_with_barred_clients_goes_back_with_their_names() {
    let mut play = Play::at(Step::Enrolled);
    refuse(&mut play, &[0]);
    play.settle();
    let (aggregator, client) = (play.cast.aggregator.peer(), play.cast.clients[0].bundle.clone());
    let bundles = [0, 3].map(|client| play.cast.clients[client].bundle.clone());
    let batch = play.cast.aggregator.batch(2, bundles.into(), vec![]);
    let effects = play.hear(aggregator, &Message::Propose(Command::ChangeClients(batch)));
    assert_eq!(refusals(&effects), [Refused::Barred]);
    let told = Message::BundleRefused { reason: Refused::Barred, last: Some(client) };
    assert_eq!(sent(&effects), [(aggregator, told)]);
    assert!(proposals(&effects).is_empty());
}

#[test]
fn an_aggregate_is_held_only_if_it_fits_the_live_round() {
    let mut play = Play::at(Step::Opened);
    let open = play.server.committee().open().unwrap().clone();
    let aggregate = play.cast.fold(&open, &[0, 1], b"text");
    let (aggregator, rival) = (play.cast.aggregator.peer(), play.cast.rival.peer());
    let say = |play: &mut Play, from, aggregate: &Aggregate| {
        refusals(&play.hear(from, &Message::Aggregate(aggregate.clone())))
    };
    assert_eq!(say(&mut play, aggregator, &aggregate), [Refused::NotLive]);
    play.go(Step::Live);
    let changed = |change: fn(&mut Aggregate)| {
        let mut changed = aggregate.clone();
        change(&mut changed);
        changed
    };
    assert_eq!(say(&mut play, rival, &aggregate), [Refused::NotAggregator]);
    assert_eq!(say(&mut play, aggregator, &changed(|it| it.round = Round(2))), [Refused::WrongRound]);
    assert_eq!(
        say(&mut play, aggregator, &changed(|it| it.header = Digest([9; 32]))),
        [Refused::WrongHeader]
    );
    assert_eq!(say(&mut play, aggregator, &changed(|it| it.body.push(0))), [Refused::WrongLength]);
    let other = changed(|it| it.participants = Bitmap::new(9));
    assert_eq!(say(&mut play, aggregator, &other), [Refused::WrongLength]);
    assert!(!play.server.holds_aggregate());
    assert!(say(&mut play, aggregator, &aggregate).is_empty());
    assert!(play.server.holds_aggregate());
    assert_eq!(kinds(&play.lead(0)), ["submit-aggregate"], "whoever comes to lead brings it into the log");
    play.settle();
    let effects = play.hear(aggregator, &Message::Aggregate(aggregate.clone()));
    assert!(matches!(sent(&effects)[..], [(_, Message::AggregateApplied { .. })]));
    play.go(Step::Finalized);
    assert_eq!(say(&mut play, aggregator, &aggregate), [Refused::NoRound]);
}

#[test]
fn records_reach_the_aggregator_confirmed_or_late_with_a_majority() {
    let published = |effects: &[Effect]| {
        sent(effects)
            .into_iter()
            .filter_map(|(_, message)| match message {
                Message::Record { signatures, .. } => Some(("record", signatures.len())),
                Message::RecordSigned { signatures } => Some(("signatures", signatures.len())),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let mut play = Play::at(Step::Enrolled);
    play.lead(0);
    assert!(published(&play.go(Step::Finalized)).is_empty());
    let next = play.cast.next(play.server.committee(), Step::Confirmed).unwrap();
    assert!(published(&play.commit(&next)).is_empty(), "the last signature may come at once");
    assert_eq!(published(&play.wait(RESEND)), [("record", 2)]);
    let next = play.cast.next(play.server.committee(), Step::Confirmed).unwrap();
    assert_eq!(published(&play.commit(&next)), [("signatures", 3)]);
    let client = play.cast.client(0);
    assert_eq!(published(&play.hear(client, &Message::RecordsWanted { from: Round(1) })), [("record", 3)]);
    assert!(published(&play.hear(client, &Message::RecordsWanted { from: Round(2) })).is_empty());
}

#[test]
fn requests_are_answered_so_often_and_no_more() {
    let mut play = Play::at(Step::Confirmed);
    let (aggregator, rival) = (play.cast.aggregator.peer(), play.cast.rival.peer());
    let (client, other) = (play.cast.client(0), play.cast.client(1));
    let ask = |play: &mut Play, who, message: &Message| sent(&play.hear(who, message)).len();
    let records = Message::RecordsWanted { from: Round(1) };
    assert_eq!([(); 3].map(|()| ask(&mut play, client, &records)), [1, 0, 0]);
    assert_eq!(ask(&mut play, other, &records), 1, "others are answered");
    play.feed(Input::Unlinked { peer: client });
    play.feed(Input::Linked { peer: client, role: Role::Client });
    assert_eq!(ask(&mut play, client, &records), 0, "another link changes nothing");
    play.wait(RESEND);
    assert_eq!([(); 3].map(|()| ask(&mut play, client, &records)), [1, 0, 0]);

    let registry = |effects: &[Effect]| {
        sent(effects).iter().filter(|(_, message)| matches!(message, Message::Registry { .. })).count()
    };
    let own = Message::Bundle(play.cast.aggregator.bundle.clone());
    let asked = [&Message::RegistryWanted, &own, &Message::RegistryWanted, &own];
    assert_eq!(asked.map(|asked| registry(&play.hear(aggregator, asked))), [1, 1, 0, 0]);
    play.wait(RESEND);
    assert_eq!(asked.map(|asked| registry(&play.hear(aggregator, asked))), [1, 1, 0, 0]);

    let offer = Message::Bundle(play.cast.rival.bundle.clone());
    assert_eq!([(); 6].map(|()| ask(&mut play, rival, &offer)), [1, 1, 1, 1, 0, 0]);
    play.wait(RESEND);
    assert_eq!(ask(&mut play, rival, &offer), 1);
}

#[test]
fn what_peers_have_asked_for_is_forgotten() {
    let mut play = Play::at(Step::Confirmed);
    for number in 0..50 {
        play.hear(PeerId([number; 32]), &Message::RecordsWanted { from: Round(1) });
    }
    assert_eq!(play.server.asked.len(), 50);
    play.wait(RESEND);
    play.hear(PeerId([1; 32]), &Message::RecordsWanted { from: Round(1) });
    assert_eq!(play.server.asked.len(), 1);
}

#[test]
fn the_registry_is_for_the_aggregator_alone() {
    let mut play = Play::at(Step::Enrolled);
    let (aggregator, rival) = (play.cast.aggregator.peer(), play.cast.rival.peer());
    assert_eq!(refusals(&play.hear(rival, &Message::RegistryWanted)), [Refused::NotAggregator]);
    let effects = play.hear(aggregator, &Message::RegistryWanted);
    assert!(matches!(sent(&effects)[..], [(_, Message::Registry { log: LOG, .. })]));
    let own = play.cast.aggregator.bundle.clone();
    let effects = play.hear(rival, &Message::Bundle(own));
    assert!(!sent(&effects).iter().any(|(_, message)| matches!(message, Message::Registry { .. })));
}

#[test]
fn a_snapshot_of_a_peer_costs_the_key_and_no_more() {
    let mut play = Play::at(Step::Live);
    let key = play.cast.servers[0].keyring.round_key();
    let snapshot = play.server.committee().snapshot();
    assert_eq!(play.install(&snapshot[1..]), Err(BadSnapshot::Malformed));
    assert_eq!(play.cast.servers[0].keyring.round_key(), key, "what is refused costs nothing");
    assert_eq!(play.install(&snapshot), Ok(()));
    assert_ne!(play.cast.servers[0].keyring.round_key(), key);
    // The round that it had promised to unblind goes without it, and it comes back with another key.
    let aggregate = play.cast.next(play.server.committee(), Step::Aggregated).unwrap();
    assert!(kinds(&play.commit(&aggregate)).is_empty());
    assert_eq!(kinds(&play.wait(RESEND)), ["register-server"]);
    play.settle();
    assert!(play.server.is_registered());
    play.go(Step::Confirmed);
    assert_eq!(play.server.committee().records().len(), 1, "rounds go on");
}

#[test]
fn what_a_server_keeps_of_a_round_makes_its_record() {
    let mut play = Play::at(Step::Finalized);
    let record = Arc::clone(&play.server.committee().records().back().unwrap().record);
    let entries = play.server.parts().of(record.round).unwrap();
    assert_eq!(entries.last().unwrap().0, record.index);
    let chain =
        entries.iter().fold(record.previous, |chain, (index, bytes)| chain_digest(&chain, *index, bytes));
    assert_eq!(chain, record.chain);
    // What lies before a snapshot is not known.
    let snapshot = play.server.committee().snapshot();
    play.server.restore(&snapshot).unwrap();
    assert!(play.server.parts().of(record.round).is_none());
}

#[test]
fn bytes_that_are_no_command_are_skipped() {
    let mut play = Play::at(Step::Enrolled);
    let before = play.server.committee().snapshot();
    let effects = play.feed(Input::Committed { index: 99, command: vec![1, 2, 3] });
    assert_eq!(refusals(&effects), [Refused::Malformed]);
    let after = play.server.committee().snapshot();
    let chain = before.len() - 32;
    assert_eq!(after[..chain], before[..chain]);
    assert_ne!(after[chain..], before[chain..], "that they were there is in the chain of the next record");
}

#[test]
fn without_state_digest_another_past_is_signed() {
    let mut play = Play::with(Cast::new(), Without(Check::StateDigest));
    play.go(Step::Enrolled);
    let mut header = play.header();
    header.previous.state = Digest([9; 32]);
    assert_eq!(play.server.judge_header(&header), Ok(()));
}

#[test]
fn without_round_rises_a_round_is_signed_twice() {
    let mut play = Play::with(Cast::new(), Without(Check::RoundRises));
    play.go(Step::Enrolled);
    let header = play.header();
    play.server.signed = Some((LOG, header.round));
    assert_eq!(play.server.judge_header(&header), Ok(()));
}

#[test]
fn without_participant_floor_small_rounds_are_signed() {
    let mut play = Play::with(Cast::new(), Without(Check::ParticipantFloor));
    play.go(Step::Enrolled);
    let mut header = play.header();
    header.min_participants = 0;
    assert_eq!(play.server.judge_header(&header), Ok(()));
}

#[test]
fn without_fresh_nonce_headers_repeat_theirs() {
    let mut play = Play::with(Cast::new(), Without(Check::FreshNonce));
    play.go(Step::Enrolled);
    assert_eq!(opened(&play.lead(0))[0].nonce, [0; 32]);
}

#[test]
fn without_probed_dead_nobody_is_probed() {
    let mut play = Play::with(Cast::new(), Without(Check::ProbedDead));
    play.go(Step::Enrolled);
    let server = play.cast.server(2);
    assert_eq!(kinds(&play.feed(Input::RetireDead { server })), ["testify-dead"]);
}

#[derive(Clone, Debug)]
enum Deed {
    Say { who: usize, what: prop::sample::Index, change: Option<(prop::sample::Index, u8)> },
    Noise { who: usize, bytes: Vec<u8> },
    Commit(prop::sample::Index),
    Link(usize, bool),
    Lead(Option<usize>),
    Wait(u64),
    Refuse(Vec<usize>),
    Settle,
    Stop,
}

fn deed() -> impl Strategy<Value = Deed> {
    let change = prop::option::weighted(0.4, (any::<prop::sample::Index>(), any::<u8>()));
    prop_oneof![
        8 => (0..6_usize, any::<prop::sample::Index>(), change)
            .prop_map(|(who, what, change)| Deed::Say { who, what, change }),
        2 => (0..6_usize, prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(who, bytes)| Deed::Noise { who, bytes }),
        3 => any::<prop::sample::Index>().prop_map(Deed::Commit),
        2 => (0..6_usize, any::<bool>()).prop_map(|(who, up)| Deed::Link(who, up)),
        1 => prop::option::of(0..3_usize).prop_map(Deed::Lead),
        3 => (0..40_000_u64).prop_map(Deed::Wait),
        1 => prop::collection::vec(0..4_usize, 0..4).prop_map(Deed::Refuse),
        3 => Just(Deed::Settle),
        1 => prop::bool::weighted(0.1).prop_map(|stop| if stop { Deed::Stop } else { Deed::Settle }),
    ]
}

/// One of everything that can be said to a server, and every command of an honest run.
fn words() -> (Vec<Message>, Vec<Command>) {
    let mut play = Play::at(Step::Live);
    let open = play.server.committee().open().unwrap().clone();
    let mut messages = vec![
        Message::Bundle(play.cast.aggregator.bundle.clone()),
        Message::Bundle(play.cast.rival.bundle.clone()),
        Message::Aggregate(play.cast.fold(&open, &[0, 1], b"text")),
        Message::Live(open.live().unwrap()),
        Message::RegistryWanted,
        Message::RecordsWanted { from: Round(0) },
        Message::TestifyWanted { server: play.cast.server(2) },
        Message::Propose(Command::ChangeClients(play.cast.aggregator.batch(2, vec![], vec![]))),
    ];
    play.go(Step::Confirmed);
    messages.extend(play.log.iter().cloned().map(Message::Propose));
    (messages, play.log)
}

static WORDS: std::sync::LazyLock<(Vec<Message>, Vec<Command>)> = std::sync::LazyLock::new(words);

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_and_no_moment_stop_a_server(
        step in prop::sample::select(&Step::ALL[..]),
        deeds in prop::collection::vec(deed(), 0..40),
    ) {
        let mut play = Play::at(step);
        let peers: Vec<_> = (1..4)
            .map(|server| play.cast.server(server))
            .chain([play.cast.aggregator.peer(), play.cast.rival.peer(), play.cast.client(0)])
            .collect();
        let role = |who| match who { 0..3 => Role::Server, 3 | 4 => Role::Aggregator, _ => Role::Client };
        let (messages, commands) = &*WORDS;
        for deed in deeds {
            match deed {
                Deed::Say { who, what, change } => {
                    let mut bytes = wire::encode(what.get(messages)).to_vec();
                    if let Some((place, value)) = change {
                        let place = place.index(bytes.len());
                        bytes[place] = value;
                    }
                    play.feed(Input::Received { from: peers[who], bytes: bytes.into() });
                }
                Deed::Noise { who, bytes } => {
                    play.feed(Input::Received { from: peers[who], bytes: bytes.into() });
                }
                Deed::Commit(any) => {
                    play.commit(any.get(commands));
                }
                Deed::Link(who, up) => {
                    let (peer, role) = (peers[who], role(who));
                    play.feed(if up { Input::Linked { peer, role } } else { Input::Unlinked { peer } });
                }
                Deed::Lead(leader) => {
                    let leader = leader.map(|leader| play.cast.server(leader));
                    play.feed(Input::Led { leader });
                }
                Deed::Wait(ms) => {
                    play.wait(Duration::from_millis(ms));
                }
                Deed::Refuse(clients) => {
                    refuse(&mut play, &clients);
                }
                Deed::Settle => {
                    for command in core::mem::take(&mut play.proposed) {
                        play.commit(&command);
                    }
                }
                Deed::Stop => {
                    play.feed(Input::Stop);
                }
            }
        }
    }
}

mod promises;

/// With whom the keyring is to agree on keys.
fn agreements(effects: &[Effect]) -> Vec<Vec<PeerId>> {
    let clients = |effect: &Effect| match effect {
        Effect::Work(Job::Agree { clients, .. }) => Some(clients.iter().map(|client| client.peer).collect()),
        _ => None,
    };
    effects.iter().filter_map(clients).collect()
}

#[test]
fn keys_are_agreed_on_when_clients_come_and_when_the_key_is_fresh() {
    let mut play = Play::at(Step::Enrolled);
    let all =
        |play: &Play| play.server.committee().clients().iter().map(|(peer, _)| *peer).collect::<Vec<_>>();
    let enrolled = all(&play);
    assert!(!enrolled.is_empty());
    let newcomer = play.cast.clients[3].bundle.clone();
    let batch = play.cast.aggregator.batch(2, vec![newcomer.clone()], vec![]);
    assert_eq!(agreements(&play.commit(&Command::ChangeClients(batch))), [vec![newcomer.peer]]);
    // Whoever goes costs nothing, and comes back with another key or with the same.
    let batch = play.cast.aggregator.batch(3, vec![], vec![(newcomer.peer, newcomer.epoch)]);
    assert!(agreements(&play.commit(&Command::ChangeClients(batch))).is_empty());
    let everybody = all(&play);
    let fresh = play.wait(REKEY);
    assert_eq!(agreements(&fresh), [everybody], "a fresh key, all of them");
    assert!(agreements(&play.settle()).is_empty(), "once");
}

#[test]
fn requests_of_many_are_counted_and_forgotten_in_their_turn() {
    let mut play = Play::at(Step::Enrolled);
    let ask = Message::RecordsWanted { from: Round(0) };
    let peer = |number: u16| PeerId(*blake3::hash(&number.to_le_bytes()).as_bytes());
    for number in 0..40 {
        play.feed(Input::Linked { peer: peer(number), role: Role::Client });
        play.hear(peer(number), &ask);
        play.now = play.now.after(RESEND / 10);
    }
    assert_eq!(play.server.asked.len(), 10, "those of the last second");
    assert_eq!(play.server.asked.len(), play.server.asked_since.len());
}
