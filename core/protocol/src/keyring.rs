//! The secrets of one node, and the only code that uses them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::marker::PhantomData;

use zeroize::Zeroizing;

use crate::bitmap::Bitmap;
use crate::checks::{Check, Checks, Mixed, Mixture, Strict};
use crate::fold::xor_into;
use crate::id::{Digest, Epoch, GroupId, LogId, PeerId, Role, Round, UniqueId};
use crate::key::{Identity, NodeSecret, PublicKey, RoundSecret, Signature};
use crate::machine::{Done, Job};
use crate::message::{
    Aggregate, Announcement, Approval, Bundle, ClientBatch, ClientRefusal, Disclaimer, Envelope, Floors,
    Header, HeaderSignature, Partial, RecordSignature, Testimony,
};
use crate::pad::{End, PairKey, pair_key};
use crate::params::RoundParams;
use crate::partial::partial_body;
use crate::random::Random;
use crate::seal::seal;
use crate::slot::Payload;

/// The most pair keys that are kept: more than twice the largest registry never helps.
const PAIRS_MAX: usize = 2 << 18;

/// Pair keys that were not used in this many rounds are wiped.
const KEEP_ROUNDS: u64 = 16;

/// Fewer clients are not worth another thread.
const SHARE_MIN: usize = 256;

/// Holds the identity, the round key and the pair keys of one node, and performs the jobs of its machine.
///
/// The round key is random and in memory only: it is drawn by [`Job::MakeBundle`] with `fresh_key` and replaced by the
/// next such job, whereupon it, all pair keys and the promise are wiped. The generator it is drawn from erases behind
/// itself.
///
/// What a round key has promised is remembered here, beside the key, where no log, snapshot or leader reaches it: the
/// newest header that it signed, and whether a partial was begun or disclaimed under it. Jobs that contradict it are
/// withheld.
#[derive(Debug)]
pub struct Keyring<C = Strict> {
    checks: C,
    identity: Identity,
    role: Role,
    instance: UniqueId,
    group: Option<GroupId>,
    floors: Option<Floors>,
    round: Option<RoundKeys>,
    keys: Random,
    slots: Random,
}

/// A round key with what was derived from it and promised for it.
#[derive(Debug)]
struct RoundKeys {
    secret: RoundSecret,
    public: PublicKey,
    /// The bundles that announced it.
    epochs: (Epoch, Epoch),
    pairs: Pairs,
    promise: Option<Promise>,
}

/// The newest header that a round key has signed. A later one ends it.
#[derive(Debug)]
struct Promise {
    log: LogId,
    round: Round,
    header: Digest,
    /// As it was signed: signed again, it is the same.
    refused: Bitmap,
    state: Given,
}

/// What was given under a signed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Nothing,
    /// A partial was begun.
    Partial,
    /// "I gave no partial and never will."
    Disclaimer,
}

/// Pair keys of one group by the other end, with the number of the job that used each last.
#[derive(Debug, Default)]
struct Pairs {
    group: GroupId,
    keys: BTreeMap<End, (PairKey, u64)>,
    job: u64,
}

impl Keyring {
    /// As [`Keyring::with_checks`], with every rule enforced.
    ///
    /// # Panics
    /// If a server is made without floors, or another role with them: such bundles would verify nowhere.
    #[must_use]
    pub fn new(
        secret: &NodeSecret,
        role: Role,
        instance: UniqueId,
        group: Option<GroupId>,
        floors: Option<Floors>,
        entropy: [u8; 32],
    ) -> Self {
        Self::with_checks(Strict, secret, role, instance, group, floors, entropy)
    }
}

impl<C: Checks> Keyring<C> {
    /// Makes the keyring of a node. `group` is the committee's identifier, which servers know from its secret and
    /// others take from the headers; `floors` are a server's; `entropy` is 32 secret random bytes, fresh for each
    /// process.
    ///
    /// # Panics
    /// If a server is made without floors, or another role with them: such bundles would verify nowhere.
    #[must_use]
    pub fn with_checks(
        checks: C,
        secret: &NodeSecret,
        role: Role,
        instance: UniqueId,
        group: Option<GroupId>,
        floors: Option<Floors>,
        entropy: [u8; 32],
    ) -> Self {
        assert_eq!(floors.is_some(), role == Role::Server, "servers have floors, others have none");
        let random = Random::new(entropy);
        Self {
            checks,
            identity: Identity::from_secret(secret),
            role,
            instance,
            group,
            floors,
            round: None,
            keys: random.fork("round keys"),
            slots: random.fork("slots"),
        }
    }

    /// Whose keyring it is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.identity.peer()
    }

    /// The present round key, if one was drawn.
    #[must_use]
    pub fn round_key(&self) -> Option<PublicKey> {
        self.round.as_ref().map(|round| round.public)
    }

    /// Wipes the round key and everything derived from it: no header that lists it gets anything from this node any
    /// more.
    pub fn forget_round_key(&mut self) {
        self.round = None;
    }

    /// Performs a job, however long it takes. Jobs come from the node's own machine, which has decided that they should be done. The keyring
    /// makes sure by itself of what anonymity rests on, so that no state that the machine was talked into can undo it: a
    /// pad is made with no other key than the one that the header, or the bundle in the registry, lists for this node; a
    /// round key signs one header per round, each of a later round than those before; it gives a partial under the newest
    /// of them only, once, and no disclaimer besides.
    ///
    /// `entropy` gives 32 random bytes of the system. It is asked once for each fresh round key, so that a copy of the
    /// memory ends to foretell keys at the next change.
    #[must_use]
    pub fn perform(&mut self, job: &Job, entropy: impl FnOnce() -> [u8; 32]) -> Done {
        match self.begin(job, 1, entropy) {
            Begun::Done(done) => done,
            Begun::Shared(shares) => self.finish(job, shares.into_iter().map(Share::work).collect()),
        }
    }

    /// Performs a job, if that takes no longer than a signature. Of one that is heavy it makes shares, `threads` at the
    /// most: they hold what they need and are worked on anywhere, one beside the other, without this keyring. All of them
    /// are brought back to [`Keyring::finish`], in their order.
    #[must_use]
    pub fn begin(&mut self, job: &Job, threads: usize, entropy: impl FnOnce() -> [u8; 32]) -> Begun<C> {
        match job {
            Job::Agree { key_epoch, clients } => {
                let group = self.group.unwrap_or_default();
                let agreeing = self.shares(*key_epoch, group, None, clients, threads);
                agreeing.map_or(Begun::Done(Done::Agreed), Begun::Shared)
            }
            Job::MakePartial { key_epoch, header, clients, .. } => {
                let digest = header.digest();
                let promised = self.give(*key_epoch, header.log, header.round, digest, Given::Partial);
                let mixing = Some((header.params, digest));
                let listed = promised && self.is_listed(header);
                let shares = listed.then(|| self.shares(*key_epoch, header.group, mixing, clients, threads));
                let withheld = Done::Withheld { round: header.round, header: digest };
                shares.flatten().map_or(Begun::Done(withheld), Begun::Shared)
            }
            Job::MakeBundle { .. }
            | Job::ForgetKey
            | Job::SignHeader { .. }
            | Job::SignRecord { .. }
            | Job::Disclaim { .. }
            | Job::Announce { .. }
            | Job::Testify { .. }
            | Job::Approve { .. }
            | Job::Refuse { .. }
            | Job::SignAggregate { .. }
            | Job::SignBatch { .. }
            | Job::Seal { .. } => Begun::Done(self.quick(job, entropy)),
        }
    }

    /// Makes of the shares of a job what the job is about. Nothing comes of them if the round key was forgotten meanwhile.
    ///
    /// # Panics
    /// If the job is not one of which [`Keyring::begin`] makes shares.
    #[must_use]
    pub fn finish(&mut self, job: &Job, worked: Vec<Worked>) -> Done {
        match job {
            Job::Agree { .. } => {
                self.keep(worked);
                Done::Agreed
            }
            Job::MakePartial { key_epoch, header, aggregate, clients } => {
                let digest = header.digest();
                let withheld = Done::Withheld { round: header.round, header: digest };
                let stands = self.has_given(*key_epoch, header.log, header.round, digest, Given::Partial);
                let Some(mixed) = self.keep(worked).filter(|_| stands) else { return withheld };
                let mut bodies = mixed.into_iter();
                let Some((mut body, mut pads)) = bodies.next() else { return withheld };
                for (more, further) in bodies {
                    xor_into(&mut body, &more);
                    pads.extend(further);
                }
                if C::OBSERVES {
                    let pads: Vec<_> = clients.iter().map(|client| client.peer).zip(pads).collect();
                    let (peer, what) = (self.peer(), Mixture::Partial { aggregate: *aggregate });
                    self.checks.mixed(&Mixed { peer, header, digest, what, pads: &pads, body: &body });
                }
                let mut partial = Partial {
                    log: header.log,
                    round: header.round,
                    header: digest,
                    aggregate: *aggregate,
                    server: self.peer(),
                    body,
                    signature: Signature::default(),
                };
                partial.signature = self.identity.sign(&partial.digest());
                Done::PartialMade(Box::new(partial))
            }
            Job::MakeBundle { .. }
            | Job::ForgetKey
            | Job::SignHeader { .. }
            | Job::SignRecord { .. }
            | Job::Disclaim { .. }
            | Job::Announce { .. }
            | Job::Testify { .. }
            | Job::Approve { .. }
            | Job::Refuse { .. }
            | Job::SignAggregate { .. }
            | Job::SignBatch { .. }
            | Job::Seal { .. } => unreachable!("only heavy jobs have shares"),
        }
    }

    /// A job that takes no longer than a signature.
    fn quick(&mut self, job: &Job, entropy: impl FnOnce() -> [u8; 32]) -> Done {
        match job {
            Job::Agree { .. } | Job::MakePartial { .. } => unreachable!("heavy jobs have shares"),
            Job::MakeBundle { epoch, fresh_key } => {
                if *fresh_key {
                    self.stir(entropy());
                }
                Done::BundleMade(self.make_bundle(*epoch, *fresh_key))
            }
            Job::ForgetKey => {
                self.forget_round_key();
                Done::KeyForgotten
            }
            Job::SignHeader { key_epoch, log, round, header, refused } => {
                let Some(refused) = self.promise(*key_epoch, *log, *round, *header, refused) else {
                    return Done::Withheld { round: *round, header: *header };
                };
                let mut signed = HeaderSignature {
                    log: *log,
                    round: *round,
                    header: *header,
                    server: self.peer(),
                    refused,
                    signature: Signature::default(),
                };
                signed.signature = self.identity.sign(&signed.signed_digest());
                Done::HeaderSigned(signed)
            }
            Job::SignRecord { log, round, record } => {
                let mut signed = RecordSignature {
                    log: *log,
                    round: *round,
                    record: *record,
                    server: self.peer(),
                    signature: Signature::default(),
                };
                signed.signature = self.identity.sign(&signed.signed_digest());
                Done::RecordSigned(signed)
            }
            Job::Disclaim { key_epoch, log, round, header } => {
                if !self.give(*key_epoch, *log, *round, *header, Given::Disclaimer) {
                    return Done::Withheld { round: *round, header: *header };
                }
                let mut disclaimer = Disclaimer {
                    log: *log,
                    round: *round,
                    header: *header,
                    server: self.peer(),
                    signature: Signature::default(),
                };
                disclaimer.signature = self.identity.sign(&disclaimer.signed_digest());
                Done::Disclaimed(disclaimer)
            }
            Job::Announce { log, epoch, counter, standing } => {
                let mut announcement = Announcement {
                    log: *log,
                    server: self.peer(),
                    epoch: *epoch,
                    counter: *counter,
                    standing: *standing,
                    signature: Signature::default(),
                };
                announcement.signature = self.identity.sign(&announcement.signed_digest());
                Done::Announced(announcement)
            }
            Job::Testify { log, server, epoch } => {
                let mut testimony = Testimony {
                    log: *log,
                    server: *server,
                    epoch: *epoch,
                    witness: self.peer(),
                    signature: Signature::default(),
                };
                testimony.signature = self.identity.sign(&testimony.signed_digest());
                Done::Testified(testimony)
            }
            Job::Approve { log, bundle } => {
                let mut approval = Approval {
                    log: *log,
                    bundle: bundle.clone(),
                    server: self.peer(),
                    signature: Signature::default(),
                };
                approval.signature = self.identity.sign(&approval.signed_digest());
                Done::Approved(approval)
            }
            Job::Refuse { log, counter, client, epoch, refuse } => {
                let mut refusal = ClientRefusal {
                    log: *log,
                    server: self.peer(),
                    counter: *counter,
                    client: *client,
                    epoch: *epoch,
                    refuse: *refuse,
                    signature: Signature::default(),
                };
                refusal.signature = self.identity.sign(&refusal.signed_digest());
                Done::RefusalSigned(refusal)
            }
            Job::SignAggregate { log, round, header, participants, body } => {
                let mut aggregate = Aggregate {
                    log: *log,
                    round: *round,
                    header: *header,
                    participants: participants.clone(),
                    body: body.clone(),
                    signature: Signature::default(),
                };
                aggregate.signature = self.identity.sign(&aggregate.digest());
                Done::AggregateSigned(Box::new(aggregate))
            }
            Job::SignBatch { log, counter, register, expire } => {
                let mut batch = ClientBatch {
                    log: *log,
                    counter: *counter,
                    register: register.clone(),
                    expire: expire.clone(),
                    signature: Signature::default(),
                };
                batch.signature = self.identity.sign(&batch.signed_digest());
                Done::BatchSigned(Box::new(batch))
            }
            Job::Seal { header, epoch, payload, cover } => self.seal(header, *epoch, payload, *cover),
        }
    }

    /// Mixes randomness of the system into everything that is drawn later.
    fn stir(&mut self, entropy: [u8; 32]) {
        let entropy = Zeroizing::new(entropy);
        self.keys.stir(&entropy);
        self.slots.stir(&entropy);
    }

    /// Promises a partial under a header of a later round than every one promised before by this key, or repeats the
    /// newest promise. Returns the refused clients that are to be signed.
    fn promise(
        &mut self,
        epoch: Epoch,
        log: LogId,
        round: Round,
        header: Digest,
        refused: &Bitmap,
    ) -> Option<Bitmap> {
        let kept = self.checks.enforce(Check::PromiseKept);
        let keys = self.round.as_mut().filter(|keys| keys.announced_by(epoch))?;
        if let Some(newest) = keys.promise.as_ref().filter(|_| kept) {
            if (newest.log, newest.round, newest.header) == (log, round, header) {
                return (newest.state != Given::Disclaimer).then(|| newest.refused.clone());
            }
            if newest.log != log || newest.round >= round {
                return None;
            }
        }
        keys.promise = Some(Promise { log, round, header, refused: refused.clone(), state: Given::Nothing });
        Some(refused.clone())
    }

    /// Takes note of what is given under the newest promise. False: it was given away otherwise, or never promised. A
    /// disclaimer may be given again, a partial may not.
    fn give(&mut self, epoch: Epoch, log: LogId, round: Round, header: Digest, given: Given) -> bool {
        if !self.checks.enforce(Check::PromiseKept) {
            return self.round.as_ref().is_some_and(|keys| keys.announced_by(epoch));
        }
        let Some(keys) = self.round.as_mut().filter(|keys| keys.announced_by(epoch)) else { return false };
        let Some(promise) = &mut keys.promise else { return false };
        if (promise.log, promise.round, promise.header) != (log, round, header) {
            return false;
        }
        let allowed = promise.state == Given::Nothing
            || (promise.state == Given::Disclaimer && given == Given::Disclaimer);
        if allowed {
            promise.state = given;
        }
        allowed
    }

    /// Whether this was the last thing given by the key, and it still holds.
    fn has_given(&self, epoch: Epoch, log: LogId, round: Round, header: Digest, given: Given) -> bool {
        let Some(keys) = self.round.as_ref().filter(|keys| keys.announced_by(epoch)) else { return false };
        let promised = |promise: &Promise| {
            (promise.log, promise.round, promise.header, promise.state) == (log, round, header, given)
        };
        keys.promise.as_ref().is_some_and(promised) || !self.checks.enforce(Check::PromiseKept)
    }

    fn make_bundle(&mut self, epoch: Epoch, fresh_key: bool) -> Bundle {
        let kept = if fresh_key { None } else { self.round.as_mut() };
        let round_key = match kept {
            Some(round) => {
                round.epochs.1 = epoch;
                round.public
            }
            None => {
                let secret = RoundSecret::from_seed(self.keys.bytes());
                let public = self.checks.announced(secret.public());
                let (epochs, pairs) = ((epoch, epoch), Pairs::default());
                self.round = Some(RoundKeys { secret, public, epochs, pairs, promise: None });
                public
            }
        };
        let mut bundle = Bundle {
            peer: self.peer(),
            role: self.role,
            instance: self.instance,
            epoch,
            round_key,
            floors: self.floors,
            boot: None,
            signature: Signature::default(),
        };
        bundle.signature = self.identity.sign(&bundle.digest());
        bundle
    }

    /// Whether a header lists the present round key for this node, under its group.
    fn is_listed(&self, header: &Header) -> bool {
        let (me, key) = (self.peer(), self.round_key());
        self.group.is_none_or(|group| group == header.group)
            && header.servers.iter().any(|server| server.peer == me && Some(server.round_key) == key)
    }

    /// Divides work with these clients among so many threads. `None` if the round key is not that of the epoch.
    fn shares(
        &mut self,
        epoch: Epoch,
        group: GroupId,
        mixing: Option<(RoundParams, Digest)>,
        clients: &[End],
        threads: usize,
    ) -> Option<Vec<Share<C>>> {
        let me = self.peer();
        let round = self.round.as_mut().filter(|keys| keys.announced_by(epoch))?;
        let own = end(&self.checks, End { peer: me, round_key: round.public });
        let common =
            Arc::new(Common { secret: round.secret.clone(), public: round.public, own, group, mixing });
        let ends = clients.iter().map(|client| end(&self.checks, *client));
        let known = round.pairs.known(group, ends, mixing.is_some());
        let share = known.len().div_ceil(threads.max(1)).max(SHARE_MIN);
        let checks = PhantomData::<C>;
        let mut known = known.into_iter().peekable();
        let mut shares = Vec::new();
        // Of nobody there is a share as well: a partial of no pads.
        while known.peek().is_some() || shares.is_empty() {
            let ends = known.by_ref().take(share).collect();
            shares.push(Share { checks, common: Arc::clone(&common), ends });
        }
        Some(shares)
    }

    /// Keeps the pair keys that were agreed on, and gives what was mixed: all of it, or nothing. `None` as well if the
    /// round key is another one by now.
    fn keep(&mut self, worked: Vec<Worked>) -> Option<Vec<Mix>> {
        let mut mixed = Some(Vec::new());
        for worked in worked {
            let common = &worked.common;
            let round = self.round.as_mut().filter(|round| round.public == common.public)?;
            round.pairs.add(common.group, worked.fresh);
            if let (Some(mixed), Some(mix)) = (&mut mixed, worked.mix) {
                mixed.push(mix);
            } else {
                mixed = None;
            }
        }
        mixed
    }

    fn seal(&mut self, header: &Header, epoch: Epoch, payload: &Payload, cover: bool) -> Done {
        let digest = header.digest();
        let withheld = Done::Withheld { round: header.round, header: digest };
        if self.group.is_some_and(|group| group != header.group) {
            return withheld;
        }
        let me = self.peer();
        let Some(round) = self.round.as_mut().filter(|keys| keys.announced_by(epoch)) else {
            return withheld;
        };
        let (checks, group) = (self.checks.clone(), header.group);
        let own = end(&checks, End { peer: me, round_key: round.public });
        let servers = header.servers.iter().map(|server| end(&checks, End::from(server)));
        let pairs = round
            .pairs
            .with(&round.secret, group, servers, |shared, server| pair_key(shared, &own, server, &group));
        let Some(pairs) = pairs else { return withheld };
        // Drawn for cover as well: the generator takes its time.
        let drawn = self.slots.below(u64::from(header.params.num_slots()));
        let slot = u32::try_from(drawn).expect("a slot is below a number of 32 bits");
        let mut heads = Heads::default();
        let written = payload.as_bytes();
        let body = seal(&header.params, &digest, &pairs, slot, written, cover, |body| heads.note::<C>(body));
        if C::OBSERVES {
            let peers = header.servers.iter().map(|server| server.peer);
            let pads: Vec<_> = peers.zip(heads.pads()).collect();
            let what = Mixture::Envelope { payload: (!cover).then_some(written) };
            checks.mixed(&Mixed { peer: me, header, digest, what, pads: &pads, body: &body });
        }
        let mut envelope = Envelope {
            log: header.log,
            round: header.round,
            header: digest,
            epoch,
            body,
            signature: Signature::default(),
        };
        envelope.signature = self.identity.sign(&envelope.signed_digest());
        Done::Sealed { envelope: Box::new(envelope), slot: (!cover).then_some(slot) }
    }
}

/// What of an end goes into a pair key.
fn end<C: Checks>(checks: &C, end: End) -> End {
    if checks.enforce(Check::PadEnds) { end } else { End { peer: PeerId::default(), ..end } }
}

impl RoundKeys {
    /// Whether the bundle of this epoch announced the key.
    fn announced_by(&self, epoch: Epoch) -> bool {
        let (first, last) = self.epochs;
        first <= epoch && epoch <= last
    }
}

/// The first bytes of a vector as pads are XORed into it, for [`Checks::mixed`]. Empty where nobody observes.
#[derive(Default)]
struct Heads(Vec<[u8; Mixed::HEAD]>);

impl Heads {
    fn note<C: Checks>(&mut self, body: &[u8]) {
        if C::OBSERVES {
            let mut head = [0; Mixed::HEAD];
            head.iter_mut().zip(body).for_each(|(to, from)| *to = *from);
            self.0.push(head);
        }
    }

    /// What each step has changed: the pad that was XORed in.
    fn pads(&self) -> Vec<[u8; Mixed::HEAD]> {
        let steps = self.0.iter().zip(self.0.iter().skip(1));
        let pad = |(before, after): (&[u8; Mixed::HEAD], &[u8; Mixed::HEAD])| {
            let mut pad = *before;
            pad.iter_mut().zip(after).for_each(|(byte, more)| *byte ^= more);
            pad
        };
        steps.map(pad).collect()
    }
}

/// How far a job came.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives for one call")]
pub enum Begun<C> {
    /// It is done.
    Done(Done),
    /// It takes long: there is work to do, in these shares.
    Shared(Vec<Share<C>>),
}

/// Part of a heavy job. It holds copies of the keys that it needs, which are wiped with it.
#[derive(Debug)]
pub struct Share<C> {
    checks: PhantomData<C>,
    common: Arc<Common>,
    /// With whom, and the pair key if there is one already.
    ends: Vec<(End, Option<PairKey>)>,
}

/// What is the same in all shares of a job.
#[derive(Debug)]
struct Common {
    secret: RoundSecret,
    public: PublicKey,
    /// As it goes into pair keys.
    own: End,
    group: GroupId,
    /// Which pads are wanted, if the job is to make any.
    mixing: Option<(RoundParams, Digest)>,
}

/// What came of a [`Share`].
#[derive(Debug)]
pub struct Worked {
    common: Arc<Common>,
    fresh: Vec<(End, PairKey)>,
    mix: Option<Mix>,
}

/// The XOR of the pads of a share, and what each pad begins with if somebody observes.
type Mix = (Vec<u8>, Vec<[u8; Mixed::HEAD]>);

impl<C: Checks> Share<C> {
    /// With how many clients it has to agree on a key first, which takes as long as twenty pads with each.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.ends.iter().filter(|(_, pair)| pair.is_none()).count()
    }

    /// Does the work.
    #[must_use]
    pub fn work(self) -> Worked {
        let Self { common, ends, .. } = self;
        let Common { secret, own, group, mixing, .. } = &*common;
        let (mut pairs, mut fresh, mut complete) = (Vec::with_capacity(ends.len()), Vec::new(), true);
        for (client, pair) in ends {
            if let Some(pair) = pair {
                pairs.push(pair);
            } else if let Some(shared) = secret.agree(&client.round_key) {
                let pair = pair_key(&shared, &client, own, group);
                fresh.push((client, pair.clone()));
                pairs.push(pair);
            } else {
                complete = false;
            }
        }
        let mix = mixing.filter(|_| complete).map(|(params, header)| {
            let mut heads = Heads::default();
            let body = partial_body(&params, &header, &pairs, |body| heads.note::<C>(body));
            (body, heads.pads())
        });
        Worked { common, fresh, mix }
    }
}

impl Pairs {
    /// Starts another job, if `uses` says that this is one that uses keys: those that were not used lately are wiped.
    fn turn(&mut self, group: GroupId, uses: bool) {
        if self.group != group {
            *self = Self { group, ..Self::default() };
        }
        if uses {
            self.job = self.job.saturating_add(1);
        }
    }

    fn wipe(&mut self) {
        let job = self.job;
        self.keys.retain(|_, (_, used)| job.saturating_sub(*used) < KEEP_ROUNDS);
    }

    /// The pair keys with these ends, as far as there are any. Ends in order are found in one walk.
    fn known(
        &mut self,
        group: GroupId,
        ends: impl Iterator<Item = End>,
        uses: bool,
    ) -> Vec<(End, Option<PairKey>)> {
        self.turn(group, uses);
        let job = self.job;
        let take = |(pair, used): &mut (PairKey, u64)| {
            *used = job;
            pair.clone()
        };
        let ends: Vec<End> = ends.collect();
        let pairs: Vec<Option<PairKey>> = if ends.is_sorted() {
            let mut keys = self.keys.iter_mut().peekable();
            let find = |end| {
                while keys.next_if(|(key, _)| *key < end).is_some() {}
                keys.next_if(|(key, _)| *key == end).map(|(_, kept)| take(kept))
            };
            ends.iter().map(find).collect()
        } else {
            ends.iter().map(|end| self.keys.get_mut(end).map(take)).collect()
        };
        self.wipe();
        ends.into_iter().zip(pairs).collect()
    }

    /// Takes in pair keys that were agreed on elsewhere.
    fn add(&mut self, group: GroupId, fresh: Vec<(End, PairKey)>) {
        if self.group == group {
            let job = self.job;
            self.keys.extend(fresh.into_iter().map(|(end, pair)| (end, (pair, job))));
            // As long as no partial is made, nothing is wiped, and clients may come with new keys without end. What is
            // dropped here is derived again if it is needed.
            while self.keys.len() > PAIRS_MAX {
                self.keys.pop_first();
            }
        }
    }

    /// The pair keys with all ends, in their order; derives those that are new and wipes those not used lately. `None`
    /// if there can be no pair key with one of them.
    fn with(
        &mut self,
        secret: &RoundSecret,
        group: GroupId,
        ends: impl Iterator<Item = End>,
        derive: impl Fn(&[u8; 32], &End) -> PairKey,
    ) -> Option<Vec<PairKey>> {
        self.turn(group, true);
        let job = self.job;
        let mut pairs = Vec::with_capacity(ends.size_hint().0);
        for end in ends {
            if let Some((pair, used)) = self.keys.get_mut(&end) {
                *used = job;
                pairs.push(pair.clone());
            } else {
                let pair = derive(&*secret.agree(&end.round_key)?, &end);
                self.keys.insert(end, (pair.clone(), job));
                pairs.push(pair);
            }
        }
        self.wipe();
        Some(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_come_with_new_keys_without_end_fill_no_memory() {
        let end = |number: u64| {
            let mut peer = PeerId::default();
            peer.0[..8].copy_from_slice(&number.to_be_bytes());
            End { peer, round_key: PublicKey([9; 32]) }
        };
        let me = End { peer: PeerId([1; 32]), round_key: PublicKey([8; 32]) };
        let pair = pair_key(&[7; 32], &end(0), &me, &GroupId::default());
        let mut pairs = Pairs::default();
        let batch = u64::try_from(PAIRS_MAX / 4).expect("few");
        for turn in 0..9 {
            let fresh = (0..batch).map(|number| (end(turn * batch + number), pair.clone()));
            pairs.add(GroupId::default(), fresh.collect());
            assert!(pairs.keys.len() <= PAIRS_MAX, "in turn {turn}");
        }
        assert!(pairs.keys.contains_key(&end(9 * batch - 1)), "the newest are there");
    }
}
