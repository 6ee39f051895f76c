//! What convicts a server, for somebody who has nothing else and believes nobody.

use core::fmt;

use crate::id::PeerId;
use crate::message::RecordSignature;

/// One server's signatures under two records of one round. An honest server signs one record of each round, and nobody
/// else can make its signature: such a pair is made by a server that lies, or by whoever has its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Under one record.
    pub one: RecordSignature,
    /// Under another.
    pub other: RecordSignature,
}

impl Contradiction {
    /// Whom it convicts, once it is verified.
    #[must_use]
    pub const fn server(&self) -> PeerId {
        self.one.server
    }

    /// Whether it convicts anybody.
    ///
    /// # Errors
    /// Why it does not.
    pub fn verify(&self) -> Result<(), NoEvidence> {
        let Self { one, other } = self;
        if one.server != other.server {
            return Err(NoEvidence::Servers);
        }
        if (one.log, one.round) != (other.log, other.round) {
            return Err(NoEvidence::Rounds);
        }
        if one.record == other.record {
            return Err(NoEvidence::SameRecord);
        }
        if !one.verify() || !other.verify() {
            return Err(NoEvidence::BadSignature);
        }
        Ok(())
    }
}

/// Why two signatures convict nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEvidence {
    /// They name two servers.
    Servers,
    /// They are of two rounds, or of two logs.
    Rounds,
    /// They are under one record.
    SameRecord,
    /// One of them is not the named server's.
    BadSignature,
}

impl fmt::Display for NoEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("convict a server: ")?;
        f.write_str(match self {
            Self::Servers => "the signatures name two servers",
            Self::Rounds => "the signatures are of two rounds",
            Self::SameRecord => "both signatures are under one record",
            Self::BadSignature => "a signature is not the named server's",
        })
    }
}

impl core::error::Error for NoEvidence {}
