//! Where peers can be reached, in their own signed words.
//!
//! Servers and the aggregator each sign an entry and renew it every announce interval. Nodes that are linked compare what
//! they have ([`PeerBook::digest`]) and send what the other lacks ([`PeerBook::missing`]), so that an entry reaches
//! everybody even if single messages are lost. Clients only ask; they have no entry, and nobody learns their address.
//!
//! Anybody can make identities and sign entries for them, so a book has three ranks. Entries of peers that *matter*
//! ([`PeerBook::set_precious`]) are never given up for others. Entries that somebody *vouched* for, who is trusted as far
//! as that, come next, and are handed on as those that matter. All others are *strangers*': few are kept, none is handed
//! on, and they make room for each other only.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use zipnet_core::digest::{Context, Fields};
use zipnet_core::id::{Digest, PeerId, Role, UniqueId};
use zipnet_core::key::{Identity, Signature, verify};
use zipnet_core::time::Time;

use crate::config::ADDRESS_LEN_MAX;
use crate::world::Address;

/// The most entries of a book, and the most peers that a digest names: a committee is small, and there is one aggregator.
pub const DIGEST_LEN_MAX: usize = 256;

/// The most strangers' entries of a book.
pub const STRANGERS_MAX: usize = 64;

/// The most entries in one answer.
pub const ENTRIES_LEN_MAX: usize = 64;

/// How many announce intervals without news an entry lives.
pub const INTERVALS_MAX: u32 = 4;

/// Where one peer can be reached, by its own word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// Who.
    pub peer: PeerId,
    /// The instance that the peer takes part in.
    pub instance: UniqueId,
    /// A server or the aggregator.
    pub role: Role,
    /// Where it listens; `None`: it has left.
    pub address: Option<Address>,
    /// Rises with each entry of the peer, also over restarts.
    pub sequence: u64,
    /// By the peer, over all of the above.
    pub signature: Signature,
}

impl PeerEntry {
    /// Makes an entry of the node whose identity this is.
    #[must_use]
    pub fn sign(
        identity: &Identity,
        instance: UniqueId,
        role: Role,
        address: Option<Address>,
        sequence: u64,
    ) -> Self {
        let mut entry =
            Self { peer: identity.peer(), instance, role, address, sequence, signature: Signature([0; 64]) };
        entry.signature = identity.sign(&entry.digest());
        entry
    }

    /// What is signed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let Self { peer, instance, role, address, sequence, signature: _ } = self;
        let mut fields = Fields::new(Context::PeerEntry);
        fields.bytes(&peer.0).bytes(&instance.0).byte(role.code()).u64(*sequence);
        match address {
            None => fields.byte(0),
            Some(address) => fields.byte(1).vector(address.0.as_bytes()),
        };
        fields.digest()
    }

    /// Whether the entry is short enough to be kept and sent.
    #[must_use]
    pub fn within_limits(&self) -> bool {
        self.address.as_ref().is_none_or(|address| address.0.len() <= ADDRESS_LEN_MAX)
    }
}

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryRefused {
    /// Of another instance.
    WrongInstance,
    /// Clients have no entries.
    WrongRole,
    /// An entry of this node itself; its next one will be above it.
    Own,
    /// Its address is too long.
    TooLong,
    /// Not above the sequence that is known.
    Stale,
    /// The signature is not the peer's.
    BadSignature,
    /// The book is full of peers that matter.
    Full,
}

impl EntryRefused {
    /// The stable name, as metrics spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongInstance => "wrong-instance",
            Self::WrongRole => "wrong-role",
            Self::Own => "own",
            Self::TooLong => "too-long",
            Self::Stale => "stale",
            Self::BadSignature => "bad-signature",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for EntryRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongInstance => "take a peer entry: it is of another instance",
            Self::WrongRole => "take a peer entry: clients have none",
            Self::Own => "take a peer entry: it is of this node itself",
            Self::TooLong => "take a peer entry: its address is too long",
            Self::Stale => "take a peer entry: a newer one is known",
            Self::BadSignature => "take a peer entry: the signature is not the peer's",
            Self::Full => "take a peer entry: the book is full",
        })
    }
}

impl core::error::Error for EntryRefused {}

/// The newest entry of every known peer.
#[derive(Clone, Debug)]
pub struct PeerBook {
    own: PeerId,
    instance: UniqueId,
    lifetime: Duration,
    /// At most [`DIGEST_LEN_MAX`].
    kept: BTreeMap<PeerId, Kept>,
    /// Peers whose entries are not given up for those of strangers.
    precious: BTreeSet<PeerId>,
    /// The highest sequence that this identity is known to have signed, in this process or before.
    own_sequence: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    entry: PeerEntry,
    /// When this sequence was first seen here.
    since: Time,
    /// Somebody trusted has told of this peer.
    vouched: bool,
    /// Who told of it first, if nobody vouched for it.
    from: PeerId,
}

/// How much an entry counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Stranger,
    Vouched,
    Precious,
}

/// Who tells of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Over whose link it came.
    pub from: PeerId,
    /// Whether that peer is trusted to tell who there is.
    pub vouches: bool,
}

impl PeerBook {
    /// An empty book of the node `own`; entries live for [`INTERVALS_MAX`] announce intervals.
    #[must_use]
    pub fn new(own: PeerId, instance: UniqueId, announce_interval: Duration) -> Self {
        Self {
            own,
            instance,
            lifetime: announce_interval.saturating_mul(INTERVALS_MAX),
            kept: BTreeMap::new(),
            precious: BTreeSet::new(),
            own_sequence: 0,
        }
    }

    /// The sequence for this node's next entry: above everything that it is known to have signed, also before its state
    /// folder was lost, since the others send an entry back that this book lacks.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.own_sequence.saturating_add(1)
    }

    /// Sets the entry that this node made about itself. If there is no room for a first one, the oldest other entry goes.
    ///
    /// # Panics
    /// If it is another node's.
    pub fn announce(&mut self, now: Time, entry: PeerEntry) {
        assert_eq!(entry.peer, self.own, "a node announces itself");
        self.own_sequence = self.own_sequence.max(entry.sequence);
        if !self.kept.contains_key(&entry.peer) && self.kept.len() >= DIGEST_LEN_MAX {
            let oldest =
                self.kept.iter().min_by_key(|(peer, kept)| (self.rank(peer, kept.vouched), kept.since));
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.kept.remove(&oldest);
            }
        }
        let from = entry.peer;
        self.kept.insert(entry.peer, Kept { entry, since: now, vouched: true, from });
    }

    fn rank(&self, peer: &PeerId, vouched: bool) -> Rank {
        match (self.precious.contains(peer) || *peer == self.own, vouched) {
            (true, _) => Rank::Precious,
            (false, true) => Rank::Vouched,
            (false, false) => Rank::Stranger,
        }
    }

    /// Sets the peers whose entries are not given up for others: members of the log, its aggregator, and whom the operator
    /// named. Returns the entries that were strangers' before, and so were not handed on.
    pub fn set_precious(&mut self, peers: BTreeSet<PeerId>) -> Vec<PeerEntry> {
        let fresh = self
            .kept
            .iter()
            .filter(|(peer, kept)| self.rank(peer, kept.vouched) == Rank::Stranger && peers.contains(*peer));
        let fresh = fresh.map(|(_, kept)| kept.entry.clone()).collect();
        self.precious = peers;
        // Whoever mattered once is no stranger later.
        for (peer, kept) in &mut self.kept {
            kept.vouched |= self.precious.contains(peer);
        }
        fresh
    }

    /// Whether a peer's entry is not given up for others.
    #[must_use]
    pub fn is_precious(&self, peer: &PeerId) -> bool {
        self.precious.contains(peer)
    }

    /// Whether an entry says more than this book holds, so that its signature is worth checking.
    #[must_use]
    pub fn is_news(&self, entry: &PeerEntry) -> bool {
        if entry.peer == self.own {
            return entry.sequence > self.own_sequence;
        }
        self.kept.get(&entry.peer).is_none_or(|kept| kept.entry.sequence < entry.sequence)
    }

    /// Takes an entry that somebody trusted vouches for.
    ///
    /// # Errors
    /// As [`PeerBook::receive_from`].
    pub fn receive(&mut self, now: Time, entry: PeerEntry) -> Result<(), EntryRefused> {
        let from = entry.peer;
        self.receive_from(now, entry, Source { from, vouches: true })
    }

    /// Takes an entry from anywhere; its signature decides. Harmless if repeated.
    ///
    /// # Errors
    /// Why it was not taken. The book is unchanged, but for a known entry for which somebody now vouches.
    pub fn receive_from(&mut self, now: Time, entry: PeerEntry, source: Source) -> Result<(), EntryRefused> {
        if entry.instance != self.instance {
            return Err(EntryRefused::WrongInstance);
        }
        if entry.role == Role::Client {
            return Err(EntryRefused::WrongRole);
        }
        if !entry.within_limits() {
            return Err(EntryRefused::TooLong);
        }
        if entry.peer == self.own {
            if entry.sequence <= self.own_sequence {
                return Err(EntryRefused::Own);
            }
            let signed = verify(&entry.peer, &entry.digest(), &entry.signature);
            if signed {
                self.own_sequence = self.own_sequence.max(entry.sequence);
            }
            return Err(if signed { EntryRefused::Own } else { EntryRefused::BadSignature });
        }
        if let Some(kept) = self.kept.get_mut(&entry.peer)
            && kept.entry.sequence >= entry.sequence
        {
            kept.vouched |= source.vouches && kept.entry == entry;
            return Err(EntryRefused::Stale);
        }
        let known = self.kept.get(&entry.peer);
        let matters = self.precious.contains(&entry.peer);
        let vouched = source.vouches || matters || known.is_some_and(|kept| kept.vouched);
        let from = known.map_or(source.from, |kept| kept.from);
        let victim =
            if known.is_none() { self.victim(self.rank(&entry.peer, vouched), source.from)? } else { None };
        if !verify(&entry.peer, &entry.digest(), &entry.signature) {
            return Err(EntryRefused::BadSignature);
        }
        if let Some(victim) = victim {
            self.kept.remove(&victim);
        }
        self.kept.insert(entry.peer, Kept { entry, since: now, vouched, from });
        Ok(())
    }

    /// Who makes room for a first entry of this rank.
    ///
    /// Strangers' entries take the place of those of whoever has told of most strangers, so that one that tells of many
    /// does not push out what others have told.
    fn victim(&self, rank: Rank, from: PeerId) -> Result<Option<PeerId>, EntryRefused> {
        let is_full = self.kept.len() >= DIGEST_LEN_MAX;
        let of_rank = |wanted: Rank| {
            self.kept.iter().filter(move |(peer, kept)| self.rank(peer, kept.vouched) == wanted)
        };
        if rank == Rank::Stranger {
            let mut told: BTreeMap<PeerId, usize> = BTreeMap::from([(from, 1)]);
            for (_, kept) in of_rank(Rank::Stranger) {
                let count = told.entry(kept.from).or_default();
                *count = count.saturating_add(1);
            }
            if !is_full && told.values().sum::<usize>() <= STRANGERS_MAX {
                return Ok(None);
            }
            let most = told.values().copied().max().unwrap_or_default();
            let loud = |from: &PeerId| told.get(from).is_some_and(|count| *count == most);
            let oldest = of_rank(Rank::Stranger).filter(|(_, kept)| loud(&kept.from));
            let oldest = oldest.min_by_key(|(_, kept)| kept.since).map(|(peer, _)| *peer);
            return oldest.map(Some).ok_or(EntryRefused::Full);
        }
        if !is_full {
            return Ok(None);
        }
        let oldest = |wanted| of_rank(wanted).min_by_key(|(_, kept)| kept.since).map(|(peer, _)| *peer);
        let oldest = oldest(Rank::Stranger).or_else(|| oldest(Rank::Vouched));
        oldest.map(Some).ok_or(EntryRefused::Full)
    }

    /// Forgets entries without news. A departure is kept as long as any entry, so that older ones do not come back.
    pub fn expire(&mut self, now: Time) {
        let lifetime = self.lifetime;
        let own = self.own;
        self.kept.retain(|peer, kept| *peer == own || now.since(kept.since) < lifetime);
    }

    /// When [`PeerBook::expire`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let others = self.kept.iter().filter(|(peer, _)| **peer != self.own);
        others.map(|(_, kept)| kept.since.after(self.lifetime)).min().unwrap_or(Time::NEVER)
    }

    /// What this book has, for the other side's [`PeerBook::missing`].
    #[must_use]
    pub fn digest(&self) -> Vec<(PeerId, u64)> {
        self.kept.iter().map(|(peer, kept)| (*peer, kept.entry.sequence)).collect()
    }

    /// Entries that are newer than `have` says, and no strangers'; at most [`ENTRIES_LEN_MAX`]. Those that matter come
    /// first, each kind in PeerId order.
    #[must_use]
    pub fn missing(&self, have: &[(PeerId, u64)]) -> Vec<PeerEntry> {
        let have: BTreeMap<_, _> = have.iter().copied().collect();
        let of_rank = |wanted| {
            let kept = self.kept.iter().filter(move |(peer, kept)| self.rank(peer, kept.vouched) == wanted);
            kept.map(|(_, kept)| &kept.entry)
        };
        let newer = of_rank(Rank::Precious).chain(of_rank(Rank::Vouched));
        let newer = newer.filter(|entry| have.get(&entry.peer).is_none_or(|known| *known < entry.sequence));
        newer.take(ENTRIES_LEN_MAX).cloned().collect()
    }

    /// Whether a peer's entry is handed on: it matters, or somebody vouched for it.
    #[must_use]
    pub fn hands_on(&self, peer: &PeerId) -> bool {
        self.kept.get(peer).is_some_and(|kept| self.rank(peer, kept.vouched) > Rank::Stranger)
    }

    /// The newest entry of a peer.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<&PeerEntry> {
        self.kept.get(peer).map(|kept| &kept.entry)
    }

    /// Where a peer can be dialled; `None` if that is unknown or it has left.
    #[must_use]
    pub fn address(&self, peer: &PeerId) -> Option<&Address> {
        self.get(peer)?.address.as_ref()
    }

    /// Every entry in PeerId order, this node's own and departures included.
    pub fn iter(&self) -> impl Iterator<Item = &PeerEntry> {
        self.kept.values().map(|kept| &kept.entry)
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::key::NodeSecret;

    use super::*;

    const INSTANCE: UniqueId = UniqueId([3; 32]);
    const INTERVAL: Duration = Duration::from_secs(15);

    fn identity(number: usize) -> Identity {
        Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(&format!("{number:064x}")).0))
    }

    fn entry(number: usize, sequence: u64) -> PeerEntry {
        let address = Address(format!("10.0.0.{number}:4000"));
        PeerEntry::sign(&identity(number), INSTANCE, Role::Server, Some(address), sequence)
    }

    fn book(number: usize) -> PeerBook {
        let mut book = PeerBook::new(identity(number).peer(), INSTANCE, INTERVAL);
        book.announce(Time(0), entry(number, 1));
        book
    }

    fn pull(from: &PeerBook, to: &mut PeerBook) {
        for entry in from.missing(&to.digest()) {
            to.receive(Time(0), entry).expect("it was missing");
        }
    }

    #[test]
    fn books_become_equal_by_asking() {
        let (mut a, mut b, mut c) = (book(1), book(2), book(3));
        pull(&b, &mut a);
        pull(&c, &mut b);
        pull(&a, &mut c);
        pull(&b, &mut a);
        pull(&c, &mut b);
        assert_eq!(a.digest(), b.digest());
        assert_eq!(b.digest(), c.digest());
        assert_eq!(a.iter().count(), 3);
        assert!(a.missing(&b.digest()).is_empty());
    }

    #[test]
    fn what_is_not_the_peers_own_newest_word_is_refused() {
        let mut book = book(1);
        book.receive(Time(0), entry(2, 5)).expect("new");
        let forged = PeerEntry { address: Some(Address("evil:1".to_owned())), ..entry(3, 1) };
        let client = PeerEntry::sign(&identity(3), INSTANCE, Role::Client, None, 1);
        let foreign = PeerEntry::sign(&identity(3), UniqueId([9; 32]), Role::Server, None, 1);
        let long = Address("h".repeat(ADDRESS_LEN_MAX + 1));
        let long = PeerEntry::sign(&identity(3), INSTANCE, Role::Server, Some(long), 1);
        let table = [
            (entry(2, 5), EntryRefused::Stale),
            (entry(2, 4), EntryRefused::Stale),
            (forged, EntryRefused::BadSignature),
            (PeerEntry { sequence: 9, ..entry(2, 5) }, EntryRefused::BadSignature),
            (PeerEntry { role: Role::Aggregator, ..entry(3, 1) }, EntryRefused::BadSignature),
            (client, EntryRefused::WrongRole),
            (foreign, EntryRefused::WrongInstance),
            (long, EntryRefused::TooLong),
            (entry(1, 9), EntryRefused::Own),
        ];
        for (entry, reason) in table {
            assert_eq!(book.receive(Time(0), entry), Err(reason));
        }
        assert_eq!(book.iter().count(), 2);
    }

    #[test]
    fn departures_spread_and_older_addresses_do_not_come_back() {
        let (mut a, mut b) = (book(1), book(2));
        pull(&b, &mut a);
        let before = entry(2, 1);
        b.announce(Time(0), PeerEntry::sign(&identity(2), INSTANCE, Role::Server, None, 2));
        pull(&b, &mut a);
        assert_eq!(a.address(&before.peer), None);
        assert_eq!(a.receive(Time(0), before), Err(EntryRefused::Stale));
    }

    #[test]
    fn a_node_that_forgot_its_sequence_learns_it_from_others() {
        let (mut a, mut b) = (book(1), book(2));
        b.receive(Time(0), entry(1, 41)).expect("from before the restart");
        for entry in b.missing(&a.digest()) {
            let expected = if entry.peer == identity(1).peer() { Err(EntryRefused::Own) } else { Ok(()) };
            assert_eq!(a.receive(Time(0), entry), expected);
        }
        assert_eq!(a.next_sequence(), 42);
        let forged = PeerEntry { sequence: 99, ..entry(1, 1) };
        assert_eq!(a.receive(Time(0), forged), Err(EntryRefused::BadSignature));
        assert_eq!(a.next_sequence(), 42);
    }

    #[test]
    fn entries_without_news_expire_and_renewed_ones_stay() {
        let mut book = book(1);
        book.receive(Time(0), entry(2, 1)).expect("new");
        book.receive(Time(0), entry(3, 1)).expect("new");
        let lifetime = INTERVAL.saturating_mul(INTERVALS_MAX);
        assert_eq!(book.deadline(), Time(0).after(lifetime));
        book.receive(Time(1), entry(3, 2)).expect("newer");
        book.expire(Time(0).after(lifetime));
        assert!(book.get(&identity(2).peer()).is_none());
        assert!(book.get(&identity(3).peer()).is_some());
        book.expire(Time::NEVER);
        assert_eq!(book.iter().count(), 1, "a node keeps its own entry");
        assert_eq!(book.deadline(), Time::NEVER);
    }

    #[test]
    fn a_full_book_makes_room_for_the_own_entry() {
        let mut book = PeerBook::new(identity(1).peer(), INSTANCE, INTERVAL);
        for number in 2..2 + DIGEST_LEN_MAX {
            let now = Time(u64::try_from(number).expect("small"));
            book.receive(now, entry(number, 1)).expect("there is room");
        }
        let friend = identity(2).peer();
        book.set_precious(BTreeSet::from([friend]));
        assert!(book.is_precious(&friend));
        book.announce(Time(999), entry(1, 1));
        assert_eq!(book.digest().len(), DIGEST_LEN_MAX, "more do not fit a frame");
        assert!(book.get(&friend).is_some() && book.get(&identity(1).peer()).is_some());
        assert!(book.get(&identity(3).peer()).is_none(), "the oldest stranger goes");
    }

    #[test]
    fn a_flood_of_strangers_does_not_push_out_those_who_matter() {
        let mut book = book(1);
        let friend = entry(2, 1);
        book.receive(Time(0), friend.clone()).expect("new");
        book.set_precious(BTreeSet::from([friend.peer]));
        for number in 3..3 + DIGEST_LEN_MAX + 20 {
            let now = Time(u64::try_from(number).expect("small"));
            book.receive(now, entry(number, 1)).expect("a stranger takes a stranger's place");
        }
        assert_eq!(book.iter().count(), DIGEST_LEN_MAX);
        assert!(book.get(&friend.peer).is_some());
        book.set_precious(book.digest().into_iter().map(|(peer, _)| peer).collect());
        assert_eq!(book.receive(Time(9), entry(9999, 1)), Err(EntryRefused::Full));
    }

    fn stranger(of: usize) -> Source {
        Source { from: identity(of).peer(), vouches: false }
    }

    fn at(number: usize) -> Time {
        Time(u64::try_from(number).expect("small"))
    }

    #[test]
    fn a_stranger_that_tells_of_many_pushes_out_nobody_elses() {
        let mut book = book(1);
        for number in 2..7 {
            book.receive(Time(0), entry(number, 1)).expect("somebody vouches for it");
        }
        for other in 10..20 {
            book.receive_from(Time(0), entry(other, 1), stranger(other)).expect("there is room");
        }
        for number in 1000..1000 + 2 * DIGEST_LEN_MAX {
            book.receive_from(at(number), entry(number, 1), stranger(20)).expect("it pushes out its own");
        }
        assert_eq!(book.iter().count(), 6 + STRANGERS_MAX);
        for number in (1..7).chain(10..20) {
            assert!(book.get(&identity(number).peer()).is_some(), "{number}");
        }
    }

    #[test]
    fn many_strangers_push_out_neither_who_matters_nor_who_was_vouched_for() {
        let mut book = book(1);
        let friend = identity(2).peer();
        assert_eq!(book.set_precious(BTreeSet::from([friend])), []);
        // What matters is told by a stranger first, and counts all the same: its own signature is under it.
        book.receive_from(Time(0), entry(2, 1), stranger(99)).expect("it is its own word");
        for number in 3..3 + DIGEST_LEN_MAX {
            book.receive(at(number), entry(number, 1)).expect("the oldest one goes");
        }
        assert!(book.get(&friend).is_some());
        // The book is full of those that somebody vouched for: no stranger gets in.
        for number in 1000..1010 {
            let refused = book.receive_from(at(number), entry(number, 1), stranger(number));
            assert_eq!(refused, Err(EntryRefused::Full));
        }
        assert_eq!(book.iter().count(), DIGEST_LEN_MAX);
    }

    #[test]
    fn strangers_entries_are_handed_on_once_somebody_vouches_or_they_matter() {
        let mut book = book(1);
        book.receive_from(Time(0), entry(2, 1), stranger(2)).expect("there is room");
        book.receive_from(Time(0), entry(3, 1), stranger(3)).expect("there is room");
        let told =
            |book: &PeerBook| book.missing(&[]).iter().map(|entry| entry.peer).collect::<BTreeSet<_>>();
        let (me, second, third) = (identity(1).peer(), identity(2).peer(), identity(3).peer());
        assert_eq!(told(&book), [me].into());
        assert!(!book.hands_on(&second));
        let forged = PeerEntry { address: None, ..entry(2, 1) };
        assert_eq!(book.receive(Time(1), forged), Err(EntryRefused::Stale));
        assert!(!book.hands_on(&second), "nobody vouched for this one");
        assert_eq!(book.receive(Time(1), entry(2, 1)), Err(EntryRefused::Stale));
        assert_eq!(told(&book), [me, second].into());
        assert_eq!(book.set_precious(BTreeSet::from([third, second])), [entry(3, 1)]);
        assert_eq!(told(&book), [me, second, third].into());
        assert_eq!(book.set_precious(BTreeSet::new()), []);
        assert!(book.hands_on(&third), "whoever mattered once is no stranger later");
    }

    #[test]
    fn those_that_matter_are_told_first() {
        let mut book = book(1);
        for number in 2..2 + ENTRIES_LEN_MAX * 3 {
            book.receive(at(number), entry(number, 1)).expect("there is room");
        }
        let last = book.digest().last().expect("it is not empty").0;
        book.set_precious(BTreeSet::from([last]));
        let told = book.missing(&[]);
        assert_eq!(told.len(), ENTRIES_LEN_MAX);
        assert!(told[..2].iter().any(|entry| entry.peer == last));
    }

    #[test]
    fn only_what_is_newer_is_news() {
        let mut book = book(1);
        book.receive(Time(0), entry(2, 5)).expect("new");
        assert!(book.is_news(&entry(3, 1)) && book.is_news(&entry(2, 6)) && book.is_news(&entry(1, 2)));
        assert!(!book.is_news(&entry(2, 5)) && !book.is_news(&entry(1, 1)));
    }
}
