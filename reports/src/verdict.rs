use core::fmt;

use serde::{Deserialize, Serialize};

use crate::Exit;

/// What one run, or one scenario over its seeds, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every expectation held.
    Held,
    /// An expectation or one of the always-on checks was violated: a matter of safety.
    Violated,
    /// Nothing broke, but something that had to happen or had to be seen did not, so nothing is proven either.
    Inconclusive,
    /// The same scenario and seed did two different things.
    Diverged,
    /// Nothing unsafe happened, but the system did not get where the scenario demands: a matter of liveness.
    NotConverged,
}

impl Verdict {
    /// Every verdict there is.
    pub const ALL: [Self; 5] =
        [Self::Held, Self::Violated, Self::Inconclusive, Self::Diverged, Self::NotConverged];

    /// The exit code of a process that has only this verdict to report.
    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::Held => Exit::Held,
            Self::Violated => Exit::Violated,
            Self::Inconclusive => Exit::Inconclusive,
            Self::Diverged => Exit::Diverged,
            Self::NotConverged => Exit::NotConverged,
        }
    }

    /// The graver of two verdicts, in the order in which exit codes take precedence.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if other.exit().outranks(self.exit()) { other } else { self }
    }

    /// The name as it stands in result lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Violated => "violated",
            Self::Inconclusive => "inconclusive",
            Self::Diverged => "diverged",
            Self::NotConverged => "not-converged",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_serialized_form() {
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_string(&verdict).unwrap(), format!("\"{}\"", verdict.name()));
        }
    }

    #[test]
    fn the_graver_verdict_wins_from_either_side() {
        let ascending = [
            Verdict::Held,
            Verdict::Inconclusive,
            Verdict::NotConverged,
            Verdict::Diverged,
            Verdict::Violated,
        ];
        for (rank, lesser) in ascending.iter().enumerate() {
            for greater in &ascending[rank..] {
                assert_eq!(lesser.and(*greater), *greater);
                assert_eq!(greater.and(*lesser), *greater);
            }
        }
    }
}
