//! The property `anonymity` before real keyrings, with and without the rules that anonymity rests on.

use std::sync::{Arc, Mutex, PoisonError};

use zipnet_core::checks::{Check, Mixed};
use zipnet_core::id::{Digest, Epoch, GroupId, LogId, PeerId, RegistryVersion, Role, Round, UniqueId};
use zipnet_core::key::NodeSecret;
use zipnet_core::keyring::Keyring;
use zipnet_core::machine::{Abandonment, Done, Job, RequestId};
use zipnet_core::message::{Bundle, ClientSet, Floors, Header, Previous, RosterServer};
use zipnet_core::pad::End;
use zipnet_core::params::RoundParams;
use zipnet_core::slot::Payload;
use zipnet_core::time::Time;
use zipnet_facts::Fact;
use zipnet_reports::properties::anonymity::Anonymity;
use zipnet_reports::properties::{Property as _, Seen, Subject};

use super::{Announced, Defects, Onlooker};

const GROUP: GroupId = GroupId([2; 32]);

/// The property and the first thing that was wrong.
type Watched = Arc<Mutex<(Anonymity, Result<(), String>)>>;

struct Member {
    name: &'static str,
    keyring: Keyring<Defects>,
    bundle: Bundle,
    announced: Announced,
}

/// Two servers and three clients. The second server and the third client may lie.
struct Play {
    watched: Watched,
    servers: Vec<Member>,
    clients: Vec<Member>,
}

fn params() -> RoundParams {
    RoundParams::new(4, 48, 16).expect("they fit")
}

fn subject(name: &str, peer: PeerId, liar: bool) -> Subject {
    let role = if name.starts_with("client") { Role::Client } else { Role::Server };
    Subject { node: 0, name: name.to_owned(), peer, role, liar }
}

fn see(watched: &Watched, subject: &Subject, seen: Seen<'_>) {
    let (property, found) = &mut *watched.lock().unwrap_or_else(PoisonError::into_inner);
    let verdict = property.see(Time::default(), subject, seen);
    if found.is_ok() {
        *found = verdict;
    }
}

fn member(
    watched: &Watched,
    name: &'static str,
    without: Option<Check>,
    copied: Option<&Announced>,
) -> Member {
    let role = if name.starts_with("client") { Role::Client } else { Role::Server };
    let (announced, own) = (Announced::default(), watched.clone());
    announced.copy(copied.cloned());
    let liar = copied.is_some();
    let look = move |mixed: &Mixed<'_>| see(&own, &subject(name, mixed.peer, liar), Seen::Mixed(mixed));
    let defects = Defects::default().announcing(announced.clone()).watched_by(Onlooker::new(look));
    let defects = without.into_iter().fold(defects, Defects::without);
    let server = role == Role::Server;
    let mut keyring = Keyring::with_checks(
        defects,
        &NodeSecret::from_bytes(UniqueId::from_text(name).0),
        role,
        UniqueId::from_text("the instance of the tests"),
        server.then_some(GROUP),
        server.then_some(Floors { participants: 2, servers: None }),
        *blake3::hash(name.as_bytes()).as_bytes(),
    );
    let job = Job::MakeBundle { epoch: Epoch(1), fresh_key: true };
    let Done::BundleMade(bundle) = keyring.perform(&job, || [7; 32]) else { unreachable!("it makes one") };
    Member { name, keyring, bundle, announced }
}

impl Play {
    /// `copied`: whether the second server and the third client announce the keys of the first ones.
    fn new(without: Option<Check>, copied: [bool; 2]) -> Self {
        let watched = Watched::new(Mutex::new((Anonymity::default(), Ok(()))));
        let make = |name, copied| member(&watched, name, without, copied);
        let (first, client) = (make("server-1", None), make("client-1", None));
        let second = make("server-2", copied[0].then_some(&first.announced));
        let third = make("client-3", copied[1].then_some(&client.announced));
        let other = make("client-2", None);
        Self { servers: vec![first, second], clients: vec![client, other, third], watched }
    }

    fn header(&self, round: u64) -> Arc<Header> {
        Arc::new(Header {
            log: LogId([1; 32]),
            round: Round(round),
            nonce: [0; 32],
            group: GROUP,
            params: params(),
            previous: Previous::default(),
            servers: self.servers.iter().map(|server| RosterServer::from(&server.bundle)).collect(),
            clients: ClientSet { version: RegistryVersion(1), count: 3, root: Digest::default() },
            min_participants: 2,
            aggregator: PeerId::default(),
        })
    }

    /// Every client seals, the first one a message.
    fn seal(&mut self, round: u64) {
        let header = self.header(round);
        for client in &mut self.clients {
            let payload = Payload::new(b"words", &params()).expect("they fit");
            let cover = client.name != "client-1";
            let job = Job::Seal { header: Arc::clone(&header), epoch: Epoch(1), payload, cover };
            assert!(matches!(client.keyring.perform(&job, || [7; 32]), Done::Sealed { .. }));
        }
        let (request, header) = (RequestId(1), header.digest());
        let client = &self.clients[0];
        let subject = subject(client.name, client.keyring.peer(), false);
        see(&self.watched, &subject, Seen::Sealed { request, header });
    }

    fn promise(&mut self, round: u64) {
        let header = self.header(round);
        let job = Job::SignHeader {
            key_epoch: Epoch(1),
            log: header.log,
            round: header.round,
            header: header.digest(),
            refused: zipnet_core::bitmap::Bitmap::new(3),
        };
        assert!(matches!(self.servers[0].keyring.perform(&job, || [7; 32]), Done::HeaderSigned(_)));
    }

    /// The first server is asked for a partial of these clients; whether it gives one.
    fn unblind(&mut self, round: u64, clients: &[usize]) -> bool {
        let job = Job::MakePartial {
            key_epoch: Epoch(1),
            header: self.header(round),
            aggregate: Digest::default(),
            clients: clients.iter().map(|client| End::from(&self.clients[*client].bundle)).collect(),
        };
        matches!(self.servers[0].keyring.perform(&job, || [7; 32]), Done::PartialMade(_))
    }

    /// The first server is asked to say that it gave none; whether it does.
    fn disclaim(&mut self, round: u64) -> bool {
        let header = self.header(round);
        let job = Job::Disclaim {
            key_epoch: Epoch(1),
            log: header.log,
            round: header.round,
            header: header.digest(),
        };
        matches!(self.servers[0].keyring.perform(&job, || [7; 32]), Done::Disclaimed(_))
    }

    /// The round is over. What was found so far.
    fn end(&self, round: u64) -> Result<(), String> {
        let (header, reason) = (self.header(round).digest(), Abandonment::MissingPartial);
        let round = Round(round);
        let abandoned = Fact::RoundAbandoned { index: 1, round, header, reason, missing: Vec::new() };
        let server = &self.servers[0];
        let subject = subject(server.name, server.keyring.peer(), false);
        see(&self.watched, &subject, Seen::Fact(&abandoned));
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

#[test]
fn a_whole_round_of_real_keys_holds() {
    let mut play = Play::new(None, [false, false]);
    play.promise(1);
    play.seal(1);
    assert!(play.unblind(1, &[0, 1, 2]));
    play.end(1).expect("a sum of three");
}

#[test]
fn a_copied_server_key_is_found_where_pads_belong_to_keys() {
    for (without, found) in [(None, false), (Some(Check::PadEnds), true)] {
        let mut play = Play::new(without, [true, false]);
        assert_eq!(play.servers[0].bundle.round_key, play.servers[1].bundle.round_key);
        play.promise(1);
        play.seal(1);
        assert!(play.unblind(1, &[0, 1, 2]));
        assert_eq!(play.end(1).is_err(), found, "without {without:?}");
    }
}

#[test]
fn a_copied_client_key_is_found_where_pads_belong_to_keys() {
    for (without, found) in [(None, false), (Some(Check::PadEnds), true)] {
        let mut play = Play::new(without, [false, true]);
        assert_eq!(play.clients[0].bundle.round_key, play.clients[2].bundle.round_key);
        play.promise(1);
        play.seal(1);
        assert!(play.unblind(1, &[0, 1, 2]));
        assert_eq!(play.end(1).is_err(), found, "without {without:?}");
    }
}

#[test]
fn a_second_partial_is_found_where_promises_are_forgotten() {
    for (without, found) in [(None, false), (Some(Check::PromiseKept), true)] {
        let mut play = Play::new(without, [false, false]);
        play.promise(1);
        play.seal(1);
        assert!(play.unblind(1, &[0, 1, 2]));
        assert_eq!(play.unblind(1, &[0, 1]), found);
        assert_eq!(play.end(1).is_err(), found, "without {without:?}");
    }
}

#[test]
fn a_false_disclaimer_is_found_where_promises_are_forgotten() {
    for (without, found) in [(None, false), (Some(Check::PromiseKept), true)] {
        let mut play = Play::new(without, [false, false]);
        play.promise(1);
        play.seal(1);
        assert!(play.unblind(1, &[0, 1, 2]));
        play.end(1).expect("a sum of three");
        // The client believes it, and seals its message again.
        if play.disclaim(1) {
            play.seal(2);
        }
        assert_eq!(play.end(2).is_err(), found, "without {without:?}");
    }
}
