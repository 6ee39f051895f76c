//! Servers, clients and aggregators with real keys, who say what a test has them say.

use std::string::String;

use super::*;
use crate::checks::Strict;
use crate::fold::Fold;
use crate::id::UniqueId;
use crate::key::NodeSecret;
use crate::keyring::Keyring;
use crate::machine::{Done, Job};
use crate::message::Floors;
use crate::pad::End;
use crate::slot::Payload;

pub(crate) const LOG: LogId = LogId([0x10; 32]);
pub(crate) const OTHER_LOG: LogId = LogId([0x11; 32]);

/// Takes what a job gives.
macro_rules! done {
    ($member:expr, $job:expr, $variant:ident) => {
        match $member.keyring.perform(&$job, || [0x5a; 32]) {
            Done::$variant(made) => made,
            other => panic!("{other:?}"),
        }
    };
}

/// Breaks a signature.
pub(crate) fn break_signature(signature: &mut Signature) {
    signature.0[7] ^= 1;
}

/// Lets a key contradict itself, unless it is bound: the cast says what a test has it say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) bound: bool,
}

impl Checks for Binding {
    fn enforce(&self, check: Check) -> bool {
        self.bound || check != Check::PromiseKept
    }
}

pub(crate) struct Member {
    name: String,
    role: Role,
    floors: Option<Floors>,
    pub(crate) keyring: Keyring<Binding>,
    pub(crate) bundle: Bundle,
}

impl Member {
    pub(crate) fn new(name: &str, role: Role, floors: Option<Floors>) -> Self {
        Self::with(name, role, floors, Binding { bound: false })
    }

    /// The same with a key that keeps its promises, as the node under test has it.
    pub(crate) fn bind(&mut self) {
        *self = Self::with(&self.name, self.role, self.floors, Binding { bound: true });
    }

    fn with(name: &str, role: Role, floors: Option<Floors>, binding: Binding) -> Self {
        let group = (role == Role::Server).then_some(Cast::GROUP);
        let secret = NodeSecret::from_bytes(UniqueId::from_text(name).0);
        // Everybody has keys of its own, as in life.
        let entropy = *blake3::hash(name.as_bytes()).as_bytes();
        let mut keyring =
            Keyring::with_checks(binding, &secret, role, Cast::INSTANCE, group, floors, entropy);
        let bundle =
            match keyring.perform(&Job::MakeBundle { epoch: Epoch(1), fresh_key: true }, || [0x5a; 32]) {
                Done::BundleMade(bundle) => bundle,
                other => panic!("{other:?}"),
            };
        Self { name: name.into(), role, floors, keyring, bundle }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.keyring.peer()
    }

    /// Makes another bundle and keeps it as the newest.
    pub(crate) fn renew(&mut self, epoch: u64) -> Bundle {
        let job = Job::MakeBundle { epoch: Epoch(epoch), fresh_key: true };
        self.bundle = done!(self, job, BundleMade);
        self.bundle.clone()
    }

    pub(crate) fn announce(&mut self, counter: u64, standing: Standing) -> Announcement {
        let (epoch, counter) = (self.bundle.epoch, Counter(counter));
        done!(self, Job::Announce { log: LOG, epoch, counter, standing }, Announced)
    }

    pub(crate) fn register(&mut self, counter: u64) -> Command {
        let announcement = self.announce(counter, Standing::Registered);
        Command::RegisterServer { bundle: self.bundle.clone(), announcement }
    }

    pub(crate) fn approve(&mut self, bundle: &Bundle) -> Approval {
        done!(self, Job::Approve { log: LOG, bundle: bundle.clone() }, Approved)
    }

    pub(crate) fn testify(&mut self, server: PeerId, epoch: u64) -> Testimony {
        done!(self, Job::Testify { log: LOG, server, epoch: Epoch(epoch) }, Testified)
    }

    pub(crate) fn refuse(&mut self, counter: u64, client: &Bundle, refuse: bool) -> ClientRefusal {
        let (counter, epoch) = (Counter(counter), client.epoch);
        done!(self, Job::Refuse { log: LOG, counter, client: client.peer, epoch, refuse }, RefusalSigned)
    }

    pub(crate) fn batch(
        &mut self,
        counter: u64,
        register: Vec<Bundle>,
        expire: Vec<(PeerId, Epoch)>,
    ) -> ClientBatch {
        *done!(self, Job::SignBatch { log: LOG, counter: Counter(counter), register, expire }, BatchSigned)
    }

    pub(crate) fn sign_header(&mut self, header: &Header, refused: &[u32]) -> HeaderSignature {
        let refused = Bitmap::from_ones(header.clients.count, refused.iter().copied()).unwrap();
        let (log, round, header) = (header.log, header.round, header.digest());
        let key_epoch = self.bundle.epoch;
        done!(self, Job::SignHeader { key_epoch, log, round, header, refused }, HeaderSigned)
    }

    pub(crate) fn aggregate(&mut self, header: &Header, participants: Bitmap, body: Vec<u8>) -> Aggregate {
        let (log, round, header) = (header.log, header.round, header.digest());
        *done!(self, Job::SignAggregate { log, round, header, participants, body }, AggregateSigned)
    }

    pub(crate) fn partial(&mut self, open: &OpenRound) -> Partial {
        let applied = open.aggregate.as_ref().expect("the aggregate is in");
        let places = applied.participants.iter_ones();
        let clients = places.map(|place| End::from(open.clients.at(place).unwrap().1)).collect();
        let (header, aggregate, key_epoch) = (Arc::clone(&open.header), applied.digest, self.bundle.epoch);
        *done!(self, Job::MakePartial { key_epoch, header, aggregate, clients }, PartialMade)
    }

    pub(crate) fn sign_record(&mut self, kept: &SignedRecord) -> RecordSignature {
        let (log, round, record) = (kept.record.log, kept.record.round, kept.digest);
        done!(self, Job::SignRecord { log, round, record }, RecordSigned)
    }

    pub(crate) fn seal(&mut self, header: &Arc<Header>, text: Option<Vec<u8>>) -> Vec<u8> {
        let (header, epoch, cover) = (Arc::clone(header), self.bundle.epoch, text.is_none());
        let payload = Payload::new(&text.unwrap_or_default(), &header.params).unwrap();
        let job = Job::Seal { header, epoch, payload, cover };
        match self.keyring.perform(&job, || [0x5a; 32]) {
            Done::Sealed { envelope, .. } => envelope.body,
            other => panic!("{other:?}"),
        }
    }
}

/// Everybody, servers and clients each in PeerId order, with bundles of epoch 1.
pub(crate) struct Cast {
    /// The first three are voters.
    pub(crate) servers: Vec<Member>,
    pub(crate) clients: Vec<Member>,
    pub(crate) aggregator: Member,
    pub(crate) rival: Member,
}

/// How far a story goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Started,
    Registered,
    Approved,
    Enrolled,
    Opened,
    Live,
    Aggregated,
    Finalized,
    Confirmed,
}

impl Step {
    pub(crate) const ALL: [Self; 9] = [
        Self::Started,
        Self::Registered,
        Self::Approved,
        Self::Enrolled,
        Self::Opened,
        Self::Live,
        Self::Aggregated,
        Self::Finalized,
        Self::Confirmed,
    ];
}

impl Cast {
    pub(crate) const INSTANCE: UniqueId = UniqueId([0x40; 32]);
    pub(crate) const GROUP: GroupId = GroupId([0x30; 32]);

    /// Five servers, of which three are to be voters, four clients and two aggregators.
    pub(crate) fn new() -> Self {
        Self::with_floors(Floors { participants: 2, servers: None })
    }

    pub(crate) fn with_floors(floors: Floors) -> Self {
        let mut servers: Vec<_> =
            (0..5).map(|i| Member::new(&format!("server {i}"), Role::Server, Some(floors))).collect();
        let mut clients: Vec<_> =
            (0..4).map(|i| Member::new(&format!("client {i}"), Role::Client, None)).collect();
        servers.sort_by_key(Member::peer);
        clients.sort_by_key(Member::peer);
        Self {
            servers,
            clients,
            aggregator: Member::new("aggregator", Role::Aggregator, None),
            rival: Member::new("rival", Role::Aggregator, None),
        }
    }

    pub(crate) fn config() -> Config {
        let params = RoundParams::new(4, 48, 16).unwrap();
        Config { instance: Self::INSTANCE, group: Self::GROUP, params }
    }

    pub(crate) fn server(&self, index: usize) -> PeerId {
        self.servers[index].peer()
    }

    pub(crate) fn client(&self, index: usize) -> PeerId {
        self.clients[index].peer()
    }

    pub(crate) fn voters(&self) -> BTreeSet<PeerId> {
        self.servers[..3].iter().map(Member::peer).collect()
    }

    /// What an honest leader opens next.
    pub(crate) fn header<C: Checks>(&self, committee: &Committee<C>) -> Header {
        let servers = committee.roster();
        let min_participants = committee.participant_floor(servers.iter().map(|server| &server.peer));
        let round = committee.opened().next();
        Header {
            log: LOG,
            round,
            nonce: [u8::try_from(round.0).unwrap(); 32],
            group: Self::GROUP,
            params: Self::config().params,
            previous: committee.previous(),
            servers,
            clients: committee.clients().set(),
            min_participants,
            aggregator: committee.aggregator().map_or(self.aggregator.peer(), |bundle| bundle.peer),
        }
    }

    /// The fold of envelopes of these clients, of whom the first writes `payload` and the others nothing.
    pub(crate) fn fold(&mut self, open: &OpenRound, clients: &[usize], payload: &[u8]) -> Aggregate {
        let params = open.header.params;
        let mut fold = Fold::new(params.vector_bytes());
        let mut participants = Bitmap::new(open.header.clients.count);
        for (place, client) in clients.iter().enumerate() {
            let payload = (place == 0).then(|| crate::slot::pad_payload(payload, &params).unwrap());
            let member = &mut self.clients[*client];
            participants.set(open.clients.index_of(&member.peer()).unwrap());
            fold.add(&member.seal(&open.header, payload)).unwrap();
        }
        self.aggregator.aggregate(&open.header, participants, fold.into_body())
    }

    /// The next command of an honest run towards `step`; `None` if it is there.
    pub(crate) fn next<C: Checks>(&mut self, committee: &Committee<C>, step: Step) -> Option<Command> {
        let listed = |cast: &Self, open: &OpenRound| {
            let all = 0..cast.servers.len();
            all.filter(|index| open.lists(&cast.server(*index))).collect::<Vec<_>>()
        };
        match step {
            Step::Started => committee.log().is_none().then_some(Command::StartLog { log: LOG }),
            Step::Registered => {
                let missing = |index: &usize| !committee.servers().contains_key(&self.server(*index));
                let index = (0..3).find(missing)?;
                Some(self.servers[index].register(1))
            }
            Step::Approved => {
                let bundle = self.aggregator.bundle.clone();
                let index = (0..2).find(|index| !committee.approves(&self.server(*index), &bundle))?;
                Some(Command::ApproveAggregator(self.servers[index].approve(&bundle)))
            }
            Step::Enrolled => {
                let register: Vec<_> = self.clients[..3].iter().map(|client| client.bundle.clone()).collect();
                let counter = committee.clients().counter().next().0;
                let wanted = committee.clients().is_empty();
                wanted.then(|| Command::ChangeClients(self.aggregator.batch(counter, register, vec![])))
            }
            Step::Opened => committee.open().is_none().then(|| Command::OpenRound(self.header(committee))),
            Step::Live => {
                let open = committee.open()?;
                let missing = |index: &usize| !open.signatures.contains_key(&self.server(*index));
                let index = listed(self, open).into_iter().find(missing)?;
                Some(Command::SignHeader(self.servers[index].sign_header(&open.header, &[])))
            }
            Step::Aggregated => {
                let open = committee.open()?;
                let text = format!("words of {}", open.header.round);
                open.aggregate
                    .is_none()
                    .then(|| Command::SubmitAggregate(self.fold(open, &[0, 1, 2], text.as_bytes())))
            }
            Step::Finalized => {
                let open = committee.open()?;
                let missing = |index: &usize| !open.partials.contains_key(&self.server(*index));
                let index = listed(self, open).into_iter().find(missing)?;
                Some(Command::SubmitPartial(self.servers[index].partial(open)))
            }
            Step::Confirmed => {
                let kept = committee.records().back()?;
                let missing = |index: &usize| {
                    let server = self.server(*index);
                    kept.record.servers.contains(&server) && !kept.signatures.contains_key(&server)
                };
                let index = (0..self.servers.len()).find(missing)?;
                Some(Command::SignRecord(self.servers[index].sign_record(kept)))
            }
        }
    }
}

/// Skips one rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Without(pub(crate) Check);

impl Checks for Without {
    fn enforce(&self, check: Check) -> bool {
        check != self.0
    }
}

/// A machine with its cast and everything that it has applied.
pub(crate) struct Stage<C = Strict> {
    pub(crate) cast: Cast,
    pub(crate) machine: Committee<C>,
    pub(crate) applied: Vec<Command>,
    /// Whether each command is applied twice to see that the second time changes nothing.
    pub(crate) twice: bool,
}

impl Stage<Strict> {
    pub(crate) fn new() -> Self {
        Self::with(Cast::new(), Strict)
    }

    /// After an honest run of one round, up to this step.
    pub(crate) fn at(step: Step) -> Self {
        let mut stage = Self::new();
        stage.go(step);
        stage
    }
}

impl<C: Checks> Stage<C> {
    pub(crate) fn with(cast: Cast, checks: C) -> Self {
        let mut machine = Committee::new(Cast::config(), checks);
        machine.set_voters(cast.voters());
        Self { cast, machine, applied: Vec::new(), twice: true }
    }

    /// Goes on up to this step.
    pub(crate) fn go(&mut self, step: Step) -> Vec<Report> {
        let steps = Step::ALL.into_iter().filter(|each| *each <= step);
        steps.flat_map(|step| self.take(step)).collect()
    }

    /// Takes this step alone.
    pub(crate) fn take(&mut self, step: Step) -> Vec<Report> {
        let mut reports = Vec::new();
        while let Some(command) = self.cast.next(&self.machine, step) {
            reports.extend(self.accepts(&command));
        }
        reports
    }

    /// The open round, which is given.
    pub(crate) fn open(&self) -> OpenRound {
        self.machine.open().expect("a round is open").clone()
    }

    /// Applies a command that must be accepted, and then once more: nothing may change.
    #[track_caller]
    pub(crate) fn accepts(&mut self, command: &Command) -> Vec<Report> {
        let mut reports = Vec::new();
        let index = u64::try_from(self.applied.len()).unwrap();
        let result = self.machine.apply(index, command, &mut reports);
        assert_eq!(result, Ok(()), "{command:?}");
        self.applied.push(command.clone());
        if !self.twice {
            return reports;
        }
        let (after, mut again) = (self.machine.snapshot(), Vec::new());
        assert!(self.machine.apply(index + 1, command, &mut again).is_err(), "twice: {command:?}");
        assert!(again.is_empty(), "a refusal reports nothing");
        assert_eq!(self.machine.snapshot(), after, "applied twice: {command:?}");
        reports
    }

    /// Applies a command that must be refused for this reason, and change nothing.
    #[track_caller]
    pub(crate) fn refuses(&mut self, what: &str, reason: Refused, command: &Command) {
        let (before, mut reports) = (self.machine.snapshot(), Vec::new());
        let result = self.machine.apply(u64::MAX, command, &mut reports);
        assert_eq!(result, Err(reason), "{what}");
        assert!(reports.is_empty(), "{what}: a refusal reports nothing");
        assert_eq!(self.machine.snapshot(), before, "{what}: a refusal changes nothing");
    }
}
