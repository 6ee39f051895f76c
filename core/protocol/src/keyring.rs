//! The secrets of one node, and the only code that uses them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::id::{Epoch, GroupId, PeerId, UniqueId};
use crate::key::{Identity, NodeSecret, PublicKey, RoundSecret, Signature};
use crate::machine::{Done, Job};
use crate::message::{
    Aggregate, Announcement, Approval, Bundle, ClientBatch, ClientRefusal, Disclaimer, Envelope, Floors,
    Header, HeaderSignature, Partial, RecordSignature, Role, Testimony,
};
use crate::pad::{PairKey, pair_key};
use crate::partial::partial_body;
use crate::random::Random;
use crate::seal::seal;

/// Pair keys that were not used in this many rounds are wiped.
const KEEP_ROUNDS: u64 = 16;

/// Holds the identity, the round key and the pair keys of one node, and performs the jobs of its machine.
///
/// The round key is random and in memory only: it is drawn by [`Job::MakeBundle`] with `fresh_key` and replaced by the
/// next such job, whereupon it and all pair keys are wiped. The generator it is drawn from erases behind itself.
#[derive(Debug)]
pub struct Keyring {
    identity: Identity,
    role: Role,
    instance: UniqueId,
    group: Option<GroupId>,
    floors: Option<Floors>,
    round: Option<RoundKeys>,
    keys: Random,
    slots: Random,
}

/// A round key with what was derived from it.
#[derive(Debug)]
struct RoundKeys {
    secret: RoundSecret,
    public: PublicKey,
    /// The bundles that announced it.
    epochs: (Epoch, Epoch),
    pairs: Pairs,
}

/// Pair keys of one group by the peer's key, with the number of the job that used each last.
#[derive(Debug, Default)]
struct Pairs {
    group: GroupId,
    keys: BTreeMap<PublicKey, (PairKey, u64)>,
    job: u64,
}

impl Keyring {
    /// Makes the keyring of a node. `group` is the committee's identifier, which servers know from its secret and
    /// others take from the headers; `floors` are a server's; `entropy` is 32 secret random bytes, fresh for each
    /// process.
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
        assert_eq!(floors.is_some(), role == Role::Server, "servers have floors, others have none");
        let random = Random::new(entropy);
        Self {
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

    /// Performs a job. Jobs come from the node's own machine, which has decided that they should be done; the keyring
    /// itself makes sure of one thing only, that a pad is made with no other key than the one that the header, or the
    /// bundle in the registry, lists for this node.
    #[must_use]
    pub fn perform(&mut self, job: &Job) -> Done {
        match job {
            Job::MakeBundle { epoch, fresh_key } => Done::BundleMade(self.make_bundle(*epoch, *fresh_key)),
            Job::SignHeader { log, round, header, refused } => {
                let mut signed = HeaderSignature {
                    log: *log,
                    round: *round,
                    header: *header,
                    server: self.peer(),
                    refused: refused.clone(),
                    signature: Signature::default(),
                };
                signed.signature = self.identity.sign(&signed.signed_digest());
                Done::HeaderSigned(signed)
            }
            Job::MakePartial { header, aggregate, clients } => {
                let digest = header.digest();
                let Some(body) = self.partial_body(header, clients) else {
                    return Done::NoKey { round: header.round, header: digest };
                };
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
            Job::Disclaim { log, round, header } => {
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
            Job::Seal { header, epoch, payload } => self.seal(header, *epoch, payload.as_deref()),
        }
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
                let public = secret.public();
                self.round =
                    Some(RoundKeys { secret, public, epochs: (epoch, epoch), pairs: Pairs::default() });
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
            signature: Signature::default(),
        };
        bundle.signature = self.identity.sign(&bundle.digest());
        bundle
    }

    fn partial_body(&mut self, header: &Header, clients: &[PublicKey]) -> Option<Vec<u8>> {
        let me = self.peer();
        let round = self.round.as_mut()?;
        if self.group.is_some_and(|group| group != header.group) {
            return None;
        }
        header.servers.iter().find(|server| server.peer == me && server.round_key == round.public)?;
        let (own, group) = (round.public, header.group);
        let pairs = round
            .pairs
            .with(&round.secret, group, clients, |shared, client| pair_key(shared, client, &own, &group))?;
        Some(partial_body(&header.params, &header.digest(), &pairs))
    }

    fn seal(&mut self, header: &Header, epoch: Epoch, payload: Option<&[u8]>) -> Done {
        let digest = header.digest();
        let no_key = Done::NoKey { round: header.round, header: digest };
        if self.group.is_some_and(|group| group != header.group) {
            return no_key;
        }
        let Some(round) = self.round.as_mut() else { return no_key };
        let (first, last) = round.epochs;
        if epoch < first || epoch > last {
            return no_key;
        }
        let (own, group) = (round.public, header.group);
        let servers = header.servers.iter().map(|server| &server.round_key);
        let pairs = round
            .pairs
            .with(&round.secret, group, servers, |shared, server| pair_key(shared, &own, server, &group));
        let Some(pairs) = pairs else { return no_key };
        let slot = payload.map(|_| {
            let drawn = self.slots.below(u64::from(header.params.num_slots()));
            u32::try_from(drawn).expect("a slot is below a number of 32 bits")
        });
        let body = seal(&header.params, &digest, &pairs, slot.zip(payload));
        let mut envelope = Envelope {
            log: header.log,
            round: header.round,
            header: digest,
            epoch,
            body,
            signature: Signature::default(),
        };
        envelope.signature = self.identity.sign(&envelope.signed_digest());
        Done::Sealed { envelope: Box::new(envelope), slot }
    }
}

impl Pairs {
    /// The pair keys with all peers, in their order; derives those that are new and wipes those not used lately.
    /// `None` if there can be no pair key with one of them.
    fn with<'a>(
        &mut self,
        secret: &RoundSecret,
        group: GroupId,
        peers: impl IntoIterator<Item = &'a PublicKey>,
        derive: impl Fn(&[u8; 32], &PublicKey) -> PairKey,
    ) -> Option<Vec<PairKey>> {
        if self.group != group {
            *self = Self { group, ..Self::default() };
        }
        self.job = self.job.saturating_add(1);
        let job = self.job;
        let peers = peers.into_iter();
        let mut pairs = Vec::with_capacity(peers.size_hint().0);
        for peer in peers {
            if let Some((pair, used)) = self.keys.get_mut(peer) {
                *used = job;
                pairs.push(pair.clone());
            } else {
                let pair = derive(&*secret.agree(peer)?, peer);
                self.keys.insert(*peer, (pair.clone(), job));
                pairs.push(pair);
            }
        }
        self.keys.retain(|_, (_, used)| job.saturating_sub(*used) < KEEP_ROUNDS);
        Some(pairs)
    }
}
