use core::fmt;
use std::process::ExitCode;

/// Exit codes of `zipnet-sim`. The numbers are an interface: scripts and CI branch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Every expectation held.
    Held = 0,
    /// An expectation was violated: safety.
    Violated = 1,
    /// A flag was mistyped.
    Usage = 2,
    /// Inconclusive: a limit was hit, the sweep was interrupted, or something that must happen in at least one seed
    /// never did.
    Inconclusive = 3,
    /// Nothing was selected to run. Never success.
    NothingSelected = 4,
    /// A repeat of a run did something else than the run.
    Diverged = 5,
    /// No convergence where the scenario demands it: liveness.
    NotConverged = 6,
    /// A scenario file is invalid.
    InvalidScenario = 65,
    /// A bug in the simulator: a run died, or answered with something that is no result.
    Internal = 70,
    /// A value is wrong or a required one is missing, whatever its source.
    Configuration = 78,
}

impl Exit {
    /// Every exit code there is.
    pub const ALL: [Self; 10] = [
        Self::Held,
        Self::Violated,
        Self::Usage,
        Self::Inconclusive,
        Self::NothingSelected,
        Self::Diverged,
        Self::NotConverged,
        Self::InvalidScenario,
        Self::Internal,
        Self::Configuration,
    ];

    /// The number the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Held => 0,
            Self::Violated => 1,
            Self::Usage => 2,
            Self::Inconclusive => 3,
            Self::NothingSelected => 4,
            Self::Diverged => 5,
            Self::NotConverged => 6,
            Self::InvalidScenario => 65,
            Self::Internal => 70,
            Self::Configuration => 78,
        }
    }

    /// Whether a process with both outcomes to report ends with this one.
    ///
    /// Among what a sweep can come to, the order is 1 > 70 > 65 > 5 > 6 > 3 > 0: a violation is hidden by nothing that
    /// happened to other runs. The remaining three codes end a process before anything runs, so they outrank everything:
    /// 2, then 78, then 4.
    #[must_use]
    pub const fn outranks(self, other: Self) -> bool {
        self.rank() > other.rank()
    }

    /// The outcome of a process that has both to report.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        if other.outranks(self) { other } else { self }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Held => 0,
            Self::Inconclusive => 1,
            Self::NotConverged => 2,
            Self::Diverged => 3,
            Self::InvalidScenario => 4,
            Self::Internal => 5,
            Self::Violated => 6,
            Self::NothingSelected => 7,
            Self::Configuration => 8,
            Self::Usage => 9,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Held => "every expectation held",
            Self::Violated => "an expectation was violated",
            Self::Usage => "a flag was mistyped",
            Self::Inconclusive => "inconclusive",
            Self::NothingSelected => "nothing was selected to run",
            Self::Diverged => "a repeated run diverged",
            Self::NotConverged => "no convergence where the scenario demands it",
            Self::InvalidScenario => "a scenario file is invalid",
            Self::Internal => "a bug in the simulator",
            Self::Configuration => "a value is wrong or missing",
        };
        f.pad(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_the_documented_numbers() {
        for exit in Exit::ALL {
            #[expect(clippy::as_conversions, reason = "the discriminant is the number under test")]
            let discriminant = exit as u8;
            assert_eq!(exit.code(), discriminant);
        }
    }

    #[test]
    fn precedence_is_the_documented_table() {
        // Each code outranks all that stand behind it.
        let table = [1, 70, 65, 5, 6, 3, 0];
        let exit_of = |code: u8| Exit::ALL.into_iter().find(|exit| exit.code() == code).unwrap();
        for (position, greater) in table.iter().enumerate() {
            assert_eq!(exit_of(*greater).and(exit_of(*greater)), exit_of(*greater));
            for lesser in &table[position + 1..] {
                assert_eq!(exit_of(*greater).and(exit_of(*lesser)).code(), *greater);
                assert_eq!(exit_of(*lesser).and(exit_of(*greater)).code(), *greater);
            }
        }
    }

    #[test]
    fn only_held_is_success() {
        assert_eq!(Exit::ALL.into_iter().filter(|exit| exit.code() == 0).count(), 1);
        for exit in Exit::ALL {
            assert_ne!(exit.and(Exit::NothingSelected), Exit::Held);
        }
    }
}
