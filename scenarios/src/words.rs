//! The closed lists of names.

/// A closed list of names, each with the sentence that explains it.
pub trait Word: Copy + Eq + 'static {
    /// Every name with its value and its sentence, in the order of the documentation.
    const ALL: &'static [(Self, &'static str, &'static str)];

    /// The name as it stands in a scenario file.
    fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(word, _, _)| *word == self)
            .map(|(_, name, _)| *name)
            .expect("every word is in its list")
    }

    /// The word with this name.
    fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(word, _, _)| *word)
    }
}

macro_rules! words {
    ($(#[doc = $doc:literal])+ $Name:ident { $( $(#[doc = $wdoc:literal])+ $Word:ident = $text:literal, )+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $Name { $( $(#[doc = $wdoc])+ $Word, )+ }

        impl Word for $Name {
            const ALL: &'static [(Self, &'static str, &'static str)] =
                &[$( (Self::$Word, $text, concat!($($wdoc),+)), )+];
        }

        impl core::fmt::Display for $Name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words! {
    /// How a node is told to stop.
    Signal {
        /// The node says goodbye and leaves.
        Term = "TERM",
        /// The process is gone at once; what it wrote to its files stays.
        Kill = "KILL",
    }
}

words! {
    /// What an operator thinks of doing with a server.
    Plan {
        /// Stop it; it comes back.
        Stop = "stop",
        /// Take it away for good, with a farewell if it answers.
        Remove = "remove",
        /// Add one.
        Add = "add",
    }
}

words! {
    /// What a plan foretells of rounds.
    Foretold {
        /// They go on.
        GoOn = "go-on",
        /// They are open, and those clients sit them out that were told no floor.
        ClientsDecide = "clients-decide",
        /// The floor of a server keeps them from being opened.
        Pause = "pause",
        /// No majority is left.
        Stop = "stop",
        /// The step is refused.
        Refused = "refused",
    }
}

words! {
    /// What happens to the writes that were not yet synced when the power fails.
    DiskFate {
        /// Each one is kept, lost or torn in the middle, as the seed decides.
        Torn = "torn",
        /// They are kept up to a place that the seed decides, and lost from there on.
        Prefix = "prefix",
        /// All of them are lost.
        LoseAll = "lose-all",
        /// All of them are kept.
        KeepAll = "keep-all",
    }
}

words! {
    /// What a node that starts finds in its state folder.
    State {
        /// What it left there.
        Keep = "keep",
        /// Nothing.
        Empty = "empty",
    }
}

words! {
    /// Whether a binary applies commands as its signature says.
    Apply {
        /// As every other binary of this signature.
        Same = "same",
        /// Otherwise: a developer changed what commands do and forgot to change the signature.
        Drifted = "drifted",
    }
}

words! {
    /// What a lying node does differently. Everything else about it is honest.
    Deviation {
        /// It is honest again.
        Honest = "honest",
        /// An aggregator folds the envelope of one client only, and claims that client alone.
        SingleParticipant = "single-participant",
        /// An aggregator folds the envelope of one client only, and claims others besides to reach the floor.
        ForgeParticipants = "forge-participants",
        /// A server that does not lead proposes its partial of the round before instead of the present one.
        StalePartial = "stale-partial",
        /// From its next start on, a server registers the round key of the first other one that is honest.
        CopyServerKey = "copy-server-key",
        /// From its next start on, a client registers the round key of the first other one that is honest.
        CopyClientKey = "copy-client-key",
        /// A server that is given no vote, because it learns nothing, says that it leads: each voter gets entries that
        /// nobody else gets, states, and demands for votes.
        LeadUninvited = "lead-uninvited",
        /// A server that leads opens every second round with another header for each follower.
        ForkLog = "fork-log",
        /// A server that leads cuts off a follower that has given its partial, gives it a state in which the round has no
        /// aggregate yet, and has the round abandoned there.
        TakeBackAggregate = "take-back-aggregate",
        /// A server that leads cuts off a follower that has signed a record, gives it a state in which the round has no
        /// partials yet, and finalises it there with another one.
        TakeBackRecord = "take-back-record",
        /// A server that does not lead signs another record besides each that it signs, and an aggregator passes that on to
        /// clients.
        SignTwoRecords = "sign-two-records",
        /// In every hello it claims a log with records that nobody has.
        ClaimLog = "claim-log",
        /// It refuses every peer, before or after its own hello, for any reason, and says goodbye.
        RefuseEverybody = "refuse-everybody",
        /// A server tells every aggregator that it finds of a round far ahead and of its record; a client listens for one
        /// to start from.
        Usurp = "usurp",
        /// It speaks before its hello, and afterwards tells of peers that do not exist and asks for everything, without end.
        Flood = "flood",
        /// A server answers the committee with what it has heard or would say, changed, cut, repeated or made up, so that
        /// it never gets a vote.
        Babble = "babble",
    }
}

words! {
    /// The stable `event` fields of the log lines.
    LogEvent {
        /// `spawning zipnet server …`
        Spawning = "spawning",
        /// `zipnet up: …`
        Up = "up",
        /// `server booting; waiting for collections + group`, and its like of the other roles.
        Booting = "booting",
        /// `committee: opening round at index …`; on the leader.
        OpeningRound = "opening-round",
        /// `submitted partial unblind at …`; on each server.
        PartialSubmitted = "partial-submitted",
        /// `committee: round finalized round=… participants=…`; on each server.
        RoundFinalized = "round-finalized",
        /// A round was given up: its deadline passed, or a rostered server left it.
        RoundAbandoned = "round-abandoned",
        /// `aggregator: forwarded aggregate round=… participants=…`
        AggregateForwarded = "aggregate-forwarded",
        /// A majority has approved an aggregator.
        AggregatorRegistered = "aggregator-registered",
        /// Too few clients take part in a round; the line says why.
        TurnoutLow = "turnout-low",
        /// Rounds stall; the line says why.
        Stalled = "stalled",
        /// Rounds were stalled, and are no more.
        GoesOn = "goes-on",
        /// `registering client bundle client=…`; on the aggregator.
        ClientSeen = "client-seen",
        /// `committee: client refused client=… by server=…`; on each server.
        ClientRefused = "client-refused",
        /// `committee: refusal withdrawn client=… by server=…`; on each server.
        RefusalWithdrawn = "refusal-withdrawn",
        /// A client was told that servers refuse it.
        ClientBarred = "client-barred",
        /// `departing: finishing the round and saying goodbye`
        Departing = "departing",
        /// A server founds a log with the others that had a vote in the one that was set aside.
        Founding = "founding",
        /// A committee begins its log.
        LogStarted = "log-started",
        /// Who gets the log, or votes, is changed; on the leader.
        MembershipChange = "membership-change",
        /// What else an operator should know.
        Warning = "warning",
        /// This server's log has no records and yields to another.
        LogYielded = "log-yielded",
        /// This node refuses a peer; the line says whom and why.
        PeerRefused = "peer-refused",
        /// A peer refuses this node; the line says who and why.
        RefusedByPeer = "refused-by-peer",
        /// A second node with a linked peer's identity appeared, and the first one is probed.
        Challenged = "challenged",
        /// A client takes no part in a round; the line says why.
        HeaderUntrusted = "header-untrusted",
        /// A server does not sign a header; the line says why.
        HeaderDeclined = "header-declined",
    }
}

words! {
    /// Why somebody is refused.
    Reason {
        /// It does not know the committee secret of this group.
        GroupProof = "group-proof",
        /// Another living node has the same identity.
        DuplicateIdentity = "duplicate-identity",
        /// Its identity was retired.
        Retired = "retired",
        /// It encodes messages differently.
        WireVersion = "wire-version",
        /// Its committee machine has another signature.
        MachineSignature = "machine-signature",
        /// Its rounds have another shape.
        Parameters = "parameters",
        /// Its header names another last record or state than the node that judges it.
        WrongPrevious = "wrong-previous",
        /// The roster is smaller than the client accepts, or lacks a pinned server.
        RosterTooSmall = "roster-too-small",
        /// The aggregate has fewer participants than the floor.
        TooFewParticipants = "too-few-participants",
        /// Without this server no majority would be left.
        NoMajority = "no-majority",
        /// The server that is said to be dead answers.
        StillAlive = "still-alive",
    }
}

words! {
    /// What status and readiness name as the cause of a state: the node's own names, and some that stand for several.
    Cause {
        /// Fewer clients are registered than the participant floor.
        TooFewClients = "too-few-clients",
        /// No leader is known.
        NoLeader = "no-leader",
        /// A bundle has not reached the registries.
        BundlesMissing = "bundles-missing",
        /// The open round waits for a server.
        AwaitingServer = "awaiting-server",
        /// A server left unannounced, and its vote still counts.
        VoteStillCounts = "vote-still-counts",
        /// A server has a new disk, and the vote is still that of the old one.
        VoteOfOldDisk = "vote-of-old-disk",
        /// The participant floor is below two.
        NoAnonymity = "no-anonymity",
        /// A client found no committee of its instance within its time.
        ConnectTimeout = "connect-timeout",
        /// A server has no log.
        NotInCommittee = "not-in-committee",
        /// Too few voters are reachable for a leader.
        NoQuorum = "no-quorum",
        /// Enough voters answer, and none leads.
        Election = "election",
        /// Two servers do not reach each other, and others reach both.
        LinkCut = "link-cut",
        /// A server gets the log and has no vote.
        CatchingUp = "catching-up",
        /// A server has announced that it leaves for good.
        Leaving = "leaving",
        /// A server was retired.
        Retired = "retired",
        /// A server's own bundle is not in the registry.
        NotRegistered = "not-registered",
        /// The first round waits for votes.
        FirstVoters = "first-voters",
        /// The log has no aggregator.
        NoAggregator = "no-aggregator",
        /// The log's aggregator is not linked with this server.
        AggregatorAway = "aggregator-away",
        /// Fewer servers take part than `ZIPNET_MIN_SERVERS` asks for.
        TooFewServers = "too-few-servers",
        /// A round waits for signatures under its header.
        Unsigned = "unsigned",
        /// A round waits for clients that are away or take no part.
        TooFewEnvelopes = "too-few-envelopes",
        /// A round waits for its aggregator.
        NoAggregate = "no-aggregate",
        /// A round waits for partials.
        MissingPartial = "missing-partial",
        /// Nothing that the node knows of stands in the way, and no round ends.
        NoRounds = "no-rounds",
        /// An aggregator is linked with no server.
        NoServer = "no-server",
        /// An aggregator believes none of the servers that it is linked with.
        StrangersOnly = "strangers-only",
        /// Too few servers approve an aggregator.
        NotApproved = "not-approved",
        /// An aggregate was sent, and servers have not put it into the log.
        AggregateNotApplied = "aggregate-not-applied",
        /// The servers open no round that an aggregator could fold.
        NoHeader = "no-header",
        /// A client has not heard of an aggregator.
        NoAggregatorKnown = "no-aggregator-known",
        /// A client is not linked with the aggregator.
        AggregatorUnreachable = "aggregator-unreachable",
        /// Servers refuse a client.
        Barred = "barred",
        /// A client is not registered.
        NotEnrolled = "not-enrolled",
        /// A client takes no part in the rounds that it is shown.
        Declines = "declines",
        /// A client does its part, or a reader listens, and no broadcast comes.
        NoBroadcast = "no-broadcast",
        /// A reader has nobody to ask.
        NobodyLinked = "nobody-linked",
    }
}

impl Deviation {
    /// The properties that are not promised against somebody who deviates in this way: Raft trusts whoever leads.
    #[must_use]
    pub const fn overrules(self) -> &'static [Property] {
        match self {
            Self::ForkLog => &[
                Property::Agreement,
                Property::Durability,
                Property::RoundNumbers,
                Property::Chain,
                Property::OneLeader,
            ],
            Self::Honest
            | Self::SingleParticipant
            | Self::ForgeParticipants
            | Self::StalePartial
            | Self::CopyServerKey
            | Self::CopyClientKey
            | Self::LeadUninvited
            | Self::TakeBackAggregate
            | Self::TakeBackRecord
            | Self::SignTwoRecords
            | Self::ClaimLog
            | Self::RefuseEverybody
            | Self::Usurp
            | Self::Flood
            | Self::Babble => &[],
        }
    }
}

impl Cause {
    /// The names by which nodes know it; one of them is enough. Most causes have the same name here and there.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        match self {
            // Where somebody leads, too few voters are reachable for anything else.
            Self::NoLeader => vec!["no-quorum", "election"],
            // Its own bundle, or that of others.
            Self::BundlesMissing => vec!["bundles-missing", "not-registered"],
            Self::AwaitingServer => vec!["unsigned", "missing-partial"],
            _ => vec![self.name()],
        }
    }
}

words! {
    /// What became of a payload.
    Outcome {
        /// It stands in a confirmed record.
        Landed = "landed",
        /// Its round was abandoned: the adversary may have read it, and it may never be published.
        Unknown = "unknown",
    }
}

words! {
    /// From when on something is counted.
    Since {
        /// From the beginning of this step.
        Step = "step",
        /// From the latest start of the node.
        Start = "start",
        /// From the beginning of the run.
        Run = "run",
    }
}

words! {
    /// What nodes must agree on.
    Subject {
        /// The output of each finalised round.
        RoundOutput = "round-output",
    }
}

words! {
    /// The properties that are checked at every event of every run.
    Property {
        /// One output per (log, round), on every node, for ever.
        Agreement = "agreement",
        /// A finalised round has every rostered signature and partial.
        CompleteRoster = "complete-roster",
        /// Among honest nodes a broadcast holds what participants submitted, and loses nothing that did not collide.
        Validity = "validity",
        /// No keystream masks two vectors or enters two partials.
        KeystreamOnce = "keystream-once",
        /// No honest server's partial enters a round below its floor, and none enters two aggregates of one header.
        ParticipantFloor = "participant-floor",
        /// What was finalised stays finalised, while a majority of stores survives.
        Durability = "durability",
        /// Round numbers never repeat or go back within a log.
        RoundNumbers = "round-numbers",
        /// Each record names the digest of the one before it.
        Chain = "chain",
        /// One leader per term and one command per index.
        OneLeader = "one-leader",
        /// One honest server hides who of a round's honest participants wrote what.
        Anonymity = "anonymity",
    }
}

words! {
    /// A rule of the core or the node that a defective build could lack.
    ///
    /// The names are those of the variants of `zipnet_core::checks::Check`.
    Guard {
        /// A round is finalised only with the partial of every rostered server.
        CompleteRoster = "complete-roster",
        /// A record is a function of the log alone, down to the order of its servers.
        CanonicalRecord = "canonical-record",
        /// The first valid aggregate of a round wins; a second one changes nothing.
        OneAggregate = "one-aggregate",
        /// A partial counts only for the header and the aggregate that it names.
        PartialOfRound = "partial-of-round",
        /// Rounds below the participant floor are neither opened, aggregated nor unblinded.
        ParticipantFloor = "participant-floor",
        /// A round's number is the last opened one plus one.
        RoundRises = "round-rises",
        /// The nonce of a header is drawn fresh.
        FreshNonce = "fresh-nonce",
        /// A client seals one envelope per header, and only for rounds above every round it has sealed.
        SealOnce = "seal-once",
        /// A client's envelope is folded once.
        FoldOnce = "fold-once",
        /// A record names the digest of the record before it.
        ChainRecords = "chain-records",
        /// A vote is on disk before it is answered.
        VoteSynced = "vote-synced",
        /// Log entries are on disk before they are acknowledged.
        AppendSynced = "append-synced",
        /// A peer proves that it knows the committee secret before it is treated as a server.
        GroupProof = "group-proof",
        /// Two live nodes with one identity: the newcomer is refused.
        UniqueIdentity = "unique-identity",
        /// A retired identity stays barred.
        RetiredBarred = "retired-barred",
        /// A client refuses rosters below its floor or without its pinned servers.
        ClientFloor = "client-floor",
        /// Two nodes that disagree on the machine's state find out at the next header.
        StateDigest = "state-digest",
        /// A log without records yields to one with records.
        LogYields = "log-yields",
        /// One server keeps out no more clients than a share of the registry.
        FewRefused = "few-refused",
        /// Peers of another wire version, machine signature or parameters are refused by name.
        Compatibility = "compatibility",
        /// A server with an empty state folder is a new voter, whatever its identity.
        FreshStore = "fresh-store",
        /// A voter is removed only after its announcement or a forced retirement.
        AnnouncedRemoval = "announced-removal",
        /// A retirement that would cost the majority is refused.
        MajorityKept = "majority-kept",
        /// A server is declared dead only after probes that it did not answer.
        ProbedDead = "probed-dead",
        /// Entries and snapshots of the log are taken from voters that a server knows.
        KnownLeader = "known-leader",
        /// A pad belongs to the two peers that share it, not to their keys.
        PadEnds = "pad-ends",
        /// A round key signs one header per round and gives one partial or one disclaimer under it.
        PromiseKept = "promise-kept",
        /// A server signs the records that it has seen made by the entries of its log, and one per round.
        RecordsApplied = "records-applied",
        /// An aggregator takes the word of servers that it believes, and of no others.
        ServersBelieved = "servers-believed",
        /// Only peers that the operator named end a server by refusing it, or make it give up its log.
        NamedJudges = "named-judges",
        /// Only servers speak of a log when they say hello.
        ServersHaveLogs = "servers-have-logs",
        /// An aggregator serves a log once a majority of its voters have approved it.
        MajorityApproves = "majority-approves",
        /// Servers whose log was set aside found another one together, by a majority of those who had a vote.
        FoundTogether = "found-together",
    }
}

words! {
    /// The metrics that nodes export.
    Metric {
        /// 1 on the leader, 0 elsewhere.
        LeaderIsLocal = "mosaik_groups_leader_is_local",
        /// 1 for each peer with a live link.
        Bonds = "mosaik_groups_bonds",
        /// The last index known to be committed.
        CommittedIndex = "mosaik_groups_committed_index",
        /// Rounds finalised by this process.
        RoundsFinalized = "zipnet_rounds_finalized_total",
        /// Rounds opened.
        RoundsOpened = "zipnet_rounds_opened_total",
        /// Rounds abandoned.
        RoundsAbandoned = "zipnet_rounds_abandoned_total",
        /// Partials given.
        PartialsSubmitted = "zipnet_partials_submitted_total",
        /// Registered clients.
        ClientRegistrySize = "zipnet_client_registry_size",
        /// Refusals of clients that were applied.
        ClientsRefused = "zipnet_clients_refused_total",
        /// Registered servers.
        ServerRegistrySize = "zipnet_server_registry_size",
        /// Participants of the last finalised round.
        RoundParticipants = "zipnet_round_participants",
        /// The participant floor in force.
        MinParticipants = "zipnet_min_participants",
        /// Servers in the roster.
        RosterServers = "zipnet_roster_servers",
        /// Servers in the roster that can be reached.
        RosterServersLive = "zipnet_roster_servers_live",
        /// From opening to finalising.
        RoundDuration = "zipnet_round_duration_seconds",
        /// How long no round has been finalised.
        RoundStalled = "zipnet_round_stalled_seconds",
        /// By cause: 1 while rounds stall because of it.
        RoundStallCause = "zipnet_round_stall_cause",
        /// By reason: clients that take no part in a round that too few take part in.
        RoundEnvelopesMissing = "zipnet_round_envelopes_missing",
        /// Messages and commands refused.
        Rejected = "zipnet_rejected_total",
        /// No metric of a node: how many honest participants each finalised round hides. For thresholds of simulations.
        Anonymity = "anonymity",
    }
}

impl Metric {
    /// Whether it is a length of time.
    #[must_use]
    pub fn is_time(self) -> bool {
        self.name().ends_with("_seconds")
    }
}

words! {
    /// A statistic over the values of all runs.
    Stat {
        /// The least.
        Min = "min",
        /// The median.
        P50 = "p50",
        /// Nine of ten are not above it.
        P90 = "p90",
        /// 99 of 100 are not above it.
        P99 = "p99",
        /// The greatest.
        Max = "max",
    }
}
