//! What of each message is digested and signed, field by field, and who has to have signed it.

use core::fmt;

use crate::bitmap::Bitmap;
use crate::checks::{Checks, Strict};
use crate::digest::{Context, Fields};
use crate::id::{Digest, PeerId, Role};
use crate::key;
use crate::message::{
    Aggregate, Announcement, Approval, Boot, Bundle, ClientBatch, ClientRefusal, Disclaimer, Envelope,
    Floors, Header, HeaderSignature, LiveHeader, Partial, Record, RecordSignature, Standing, Testimony,
};

impl Bundle {
    /// What the peer signs: every field but the signature.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let Self { peer, role, instance, epoch, round_key, floors, boot, signature: _ } = self;
        let mut fields = Fields::new(Context::Bundle);
        fields.bytes(&peer.0).byte(role.code()).bytes(&instance.0).u64(epoch.0).bytes(&round_key.0);
        match floors {
            None => fields.byte(0),
            Some(Floors { participants, servers: None }) => fields.byte(1).u32(*participants),
            Some(Floors { participants, servers: Some(servers) }) => {
                fields.byte(2).u32(*participants).u32(*servers)
            }
        };
        match boot {
            None => fields.byte(0),
            Some(Boot { key, signature, quote }) => {
                fields.byte(1).bytes(key).signature(&signature.0).bytes(&quote.0)
            }
        };
        fields.digest()
    }

    /// What the boot key of [`Boot`] signs: who uses this round key, as what and where.
    #[must_use]
    pub fn boot_digest(&self) -> Digest {
        let mut fields = Fields::new(Context::Boot);
        fields.bytes(&self.instance.0).byte(self.role.code()).bytes(&self.peer.0).u64(self.epoch.0);
        fields.bytes(&self.round_key.0).digest()
    }

    /// Whether the bundle stands on its own: signed by its peer, with floors exactly if it is a server's, and with a
    /// round key that pads can be agreed on with.
    #[must_use]
    pub fn verify(&self) -> bool {
        self.floors.is_some() == (self.role == Role::Server)
            && self.round_key.is_contributory()
            && key::verify(&self.peer, &self.digest(), &self.signature)
    }
}

impl Header {
    /// The digest that names the header. Every pad of the round depends on it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let Self {
            log,
            round,
            nonce,
            group,
            params,
            previous,
            servers,
            clients,
            min_participants,
            aggregator,
        } = self;
        let mut fields = Fields::new(Context::Header);
        fields.bytes(&log.0).u64(round.0).bytes(nonce).bytes(&group.0).params(params);
        fields.u64(previous.round.0).bytes(&previous.record.0).bytes(&previous.state.0);
        fields.count(servers.len());
        for server in servers {
            fields.bytes(&server.peer.0).u64(server.epoch.0).bytes(&server.round_key.0);
        }
        fields.u64(clients.version.0).u32(clients.count).bytes(&clients.root.0).u32(*min_participants);
        fields.bytes(&aggregator.0).digest()
    }
}

impl HeaderSignature {
    /// What the server signs: every field but the signature.
    #[must_use]
    pub fn signed_digest(&self) -> Digest {
        let Self { log, round, header, server, refused, signature: _ } = self;
        let mut fields = Fields::new(Context::HeaderSignature);
        fields.place(log, *round, header).bytes(&server.0).bitmap(refused);
        fields.digest()
    }

    /// Whether the named server signed.
    #[must_use]
    pub fn verify(&self) -> bool {
        self.verify_with(&Strict)
    }

    /// Whether the named server signed, as these checks say.
    #[must_use]
    pub fn verify_with(&self, checks: &impl Checks) -> bool {
        checks.verify(&self.server, &self.signed_digest(), &self.signature)
    }
}

impl LiveHeader {
    /// Whether every server of the roster signed this header exactly once, in roster order. Returns the clients that
    /// some server refuses.
    ///
    /// # Errors
    /// What is wrong, and with whom.
    pub fn verify(&self) -> Result<Bitmap, Invalid> {
        self.verify_with(&Strict)
    }

    /// The same, with signatures verified by these checks.
    ///
    /// # Errors
    /// What is wrong, and with whom.
    pub fn verify_with(&self, checks: &impl Checks) -> Result<Bitmap, Invalid> {
        let Self { header, signatures } = self;
        if header.servers.is_empty() {
            return Err(Invalid::EmptyRoster);
        }
        if !header.servers.is_sorted_by(|one, next| one.peer < next.peer) {
            return Err(Invalid::DisorderedRoster);
        }
        if signatures.len() != header.servers.len() {
            return Err(Invalid::SignatureCount {
                servers: header.servers.len(),
                signatures: signatures.len(),
            });
        }
        let digest = header.digest();
        let mut refused = Bitmap::new(header.clients.count);
        for (server, signed) in header.servers.iter().zip(signatures) {
            let server = server.peer;
            if signed.server != server {
                return Err(Invalid::Signer { expected: server, signer: signed.server });
            }
            if (signed.log, signed.round, signed.header) != (header.log, header.round, digest) {
                return Err(Invalid::OtherHeader { server });
            }
            if signed.refused.len() != refused.len() {
                return Err(Invalid::Refusals { server });
            }
            if !signed.verify_with(checks) {
                return Err(Invalid::Signature { server });
            }
            refused.union_with(&signed.refused);
        }
        Ok(refused)
    }
}

/// Why a header with signatures is not live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// No server is listed.
    EmptyRoster,
    /// The servers are not in rising order of PeerId, each once.
    DisorderedRoster,
    /// There is not one signature per server.
    SignatureCount {
        /// Servers of the roster.
        servers: usize,
        /// Signatures.
        signatures: usize,
    },
    /// A signature is another server's than the roster has in this place.
    Signer {
        /// By the roster.
        expected: PeerId,
        /// By the signature.
        signer: PeerId,
    },
    /// A server signed another header.
    OtherHeader {
        /// Which.
        server: PeerId,
    },
    /// A server's refusals are over another client set.
    Refusals {
        /// Which.
        server: PeerId,
    },
    /// A signature does not verify.
    Signature {
        /// Whose.
        server: PeerId,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("accept live header: ")?;
        match self {
            Self::EmptyRoster => f.write_str("no server is listed"),
            Self::DisorderedRoster => f.write_str("the roster is not in rising order"),
            Self::SignatureCount { servers, signatures } => {
                write!(f, "{signatures} signatures for {servers} servers")
            }
            Self::Signer { expected, signer } => {
                write!(f, "a signature of {} in the place of {}", signer.short(), expected.short())
            }
            Self::OtherHeader { server } => write!(f, "{} signed another header", server.short()),
            Self::Refusals { server } => write!(f, "{} refuses over another client set", server.short()),
            Self::Signature { server } => write!(f, "the signature of {} does not verify", server.short()),
        }
    }
}

impl core::error::Error for Invalid {}

impl<B: AsRef<[u8]>> Envelope<B> {
    /// What the client signs: every field but the signature.
    #[must_use]
    pub fn signed_digest(&self) -> Digest {
        let Self { log, round, header, epoch, body, signature: _ } = self;
        let mut fields = Fields::new(Context::Envelope);
        fields.place(log, *round, header).u64(epoch.0).vector(body.as_ref());
        fields.digest()
    }

    /// Whether the client signed. For disputes: it costs many times what the client's pad costs.
    #[must_use]
    pub fn verify(&self, client: &PeerId) -> bool {
        key::verify(client, &self.signed_digest(), &self.signature)
    }
}

impl Aggregate {
    /// What the aggregator signs and partials name: every field but the signature.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let Self { log, round, header, participants, body, signature: _ } = self;
        let mut fields = Fields::new(Context::Aggregate);
        fields.place(log, *round, header).bitmap(participants).vector(body);
        fields.digest()
    }

    /// Whether the aggregator signed.
    #[must_use]
    pub fn verify(&self, aggregator: &PeerId) -> bool {
        key::verify(aggregator, &self.digest(), &self.signature)
    }
}

impl Partial {
    /// What the server signs: every field but the signature.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let Self { log, round, header, aggregate, server, body, signature: _ } = self;
        let mut fields = Fields::new(Context::Partial);
        fields.place(log, *round, header).bytes(&aggregate.0).bytes(&server.0).vector(body);
        fields.digest()
    }

    /// Whether the named server signed.
    #[must_use]
    pub fn verify(&self) -> bool {
        key::verify(&self.server, &self.digest(), &self.signature)
    }
}

impl Record {
    /// The digest that the next record and all signatures name.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let Self {
            log,
            round,
            header,
            participants,
            servers,
            broadcast,
            previous,
            aggregate,
            partials,
            index,
            chain,
        } = self;
        let mut fields = Fields::new(Context::Record);
        fields.place(log, *round, header).bitmap(participants).count(servers.len());
        for server in servers {
            fields.bytes(&server.0);
        }
        fields.vector(broadcast).bytes(&previous.0).bytes(&aggregate.0).count(partials.len());
        for partial in partials {
            fields.bytes(&partial.0);
        }
        fields.u64(*index).bytes(&chain.0).digest()
    }
}

impl RecordSignature {
    /// What the server signs: every field but the signature.
    #[must_use]
    pub fn signed_digest(&self) -> Digest {
        let Self { log, round, record, server, signature: _ } = self;
        let mut fields = Fields::new(Context::RecordSignature);
        fields.place(log, *round, record).bytes(&server.0);
        fields.digest()
    }

    /// Whether the named server signed.
    #[must_use]
    pub fn verify(&self) -> bool {
        self.verify_with(&Strict)
    }

    /// Whether the named server signed, as these checks say.
    #[must_use]
    pub fn verify_with(&self, checks: &impl Checks) -> bool {
        checks.verify(&self.server, &self.signed_digest(), &self.signature)
    }
}

impl Disclaimer {
    /// What the server signs: every field but the signature.
    #[must_use]
    pub fn signed_digest(&self) -> Digest {
        let Self { log, round, header, server, signature: _ } = self;
        let mut fields = Fields::new(Context::Disclaimer);
        fields.place(log, *round, header).bytes(&server.0);
        fields.digest()
    }

    /// Whether the named server signed.
    #[must_use]
    pub fn verify(&self) -> bool {
        self.verify_with(&Strict)
    }

    /// Whether the named server signed, as these checks say.
    #[must_use]
    pub fn verify_with(&self, checks: &impl Checks) -> bool {
        checks.verify(&self.server, &self.signed_digest(), &self.signature)
    }
}

impl Standing {
    /// The byte that stands for it in digests.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Registered => 0,
            Self::Departed => 1,
            Self::Leaving => 2,
        }
    }
}

impl Announcement {
    /// What the server signs: every field but the signature.
    #[must_use]
    pub fn signed_digest(&self) -> Digest {
        let Self { log, server, epoch, counter, standing, signature: _ } = self;
        let mut fields = Fields::new(Context::Announcement);
        fields.bytes(&log.0).bytes(&server.0).u64(epoch.0).u64(counter.0).byte(standing.code());
        fields.digest()
    }

    /// Whether the named server signed.
    #[must_use]
    pub fn verify(&self) -> bool {
        key::verify(&self.server, &self.signed_digest(), &self.signature)
    }
}

impl Testimony {
    /// What the witness signs: every field but the signature.
    #[must_use]
    pub fn signed_digest(&self) -> Digest {
        let Self { log, server, epoch, witness, signature: _ } = self;
        let mut fields = Fields::new(Context::Testimony);
        fields.bytes(&log.0).bytes(&server.0).u64(epoch.0).bytes(&witness.0);
        fields.digest()
    }

    /// Whether the named witness signed.
    #[must_use]
    pub fn verify(&self) -> bool {
        key::verify(&self.witness, &self.signed_digest(), &self.signature)
    }
}

impl Approval {
    /// What the server signs: log, digest of the bundle, server.
    #[must_use]
    pub fn signed_digest(&self) -> Digest {
        let Self { log, bundle, server, signature: _ } = self;
        let mut fields = Fields::new(Context::Approval);
        fields.bytes(&log.0).bytes(&bundle.digest().0).bytes(&server.0);
        fields.digest()
    }

    /// Whether the named server signed, and the bundle stands on its own and is an aggregator's.
    #[must_use]
    pub fn verify(&self) -> bool {
        self.bundle.role == Role::Aggregator
            && self.bundle.verify()
            && key::verify(&self.server, &self.signed_digest(), &self.signature)
    }
}

impl ClientBatch {
    /// What the aggregator signs: every field but the signature; a bundle by its digest.
    #[must_use]
    pub fn signed_digest(&self) -> Digest {
        let Self { log, counter, register, expire, signature: _ } = self;
        let mut fields = Fields::new(Context::ClientBatch);
        fields.bytes(&log.0).u64(counter.0).count(register.len());
        for bundle in register {
            fields.bytes(&bundle.digest().0);
        }
        fields.count(expire.len());
        for (client, epoch) in expire {
            fields.bytes(&client.0).u64(epoch.0);
        }
        fields.digest()
    }

    /// Whether the aggregator signed. The bundles in it are to be verified one by one.
    #[must_use]
    pub fn verify(&self, aggregator: &PeerId) -> bool {
        key::verify(aggregator, &self.signed_digest(), &self.signature)
    }
}

impl ClientRefusal {
    /// What the server signs: every field but the signature.
    #[must_use]
    pub fn signed_digest(&self) -> Digest {
        let Self { log, server, counter, client, epoch, refuse, signature: _ } = self;
        let mut fields = Fields::new(Context::ClientRefusal);
        fields.bytes(&log.0).bytes(&server.0).u64(counter.0).bytes(&client.0).u64(epoch.0);
        fields.byte(u8::from(*refuse));
        fields.digest()
    }

    /// Whether the named server signed.
    #[must_use]
    pub fn verify(&self) -> bool {
        key::verify(&self.server, &self.signed_digest(), &self.signature)
    }
}
