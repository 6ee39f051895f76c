use core::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::{Seconds, Verdict};

/// One scenario in a JUnit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// The scenario file.
    pub name: String,
    /// One case for each run, and one for what is judged over all of them.
    pub cases: Vec<Case>,
}

/// One line of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Unique within the suite, for example `seed 7`.
    pub name: String,
    /// What it came to.
    pub outcome: Outcome,
    /// How long it took on the wall clock.
    pub wall: Seconds,
    /// Facts worth keeping, for example the chain.
    pub properties: Vec<(String, String)>,
}

/// What a case came to, in the terms of JUnit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything held.
    Passed,
    /// Something did not hold. An inconclusive case is not green and therefore here.
    Failed {
        /// The kind of failure.
        verdict: Verdict,
        /// One sentence.
        message: String,
        /// Everything else there is to say about it.
        text: String,
    },
    /// The simulator itself broke.
    Broken {
        /// One sentence.
        message: String,
        /// Everything else there is to say about it.
        text: String,
    },
    /// It was selected but not run.
    Skipped {
        /// Why not.
        message: String,
    },
}

/// A JUnit file with one suite for each scenario.
///
/// Characters that XML cannot hold are left out, so that whatever a broken run printed yields a file that can be read.
#[must_use]
pub fn junit(suites: &[Suite]) -> String {
    let mut report = Report::new("zipnet-sim");
    for suite in suites {
        let mut test_suite = TestSuite::new(suite.name.as_str());
        test_suite.add_test_cases(suite.cases.iter().map(|case| test_case(suite, case)));
        report.add_test_suite(test_suite);
    }
    report.to_string().expect("text is written to memory, and every character XML forbids was left out")
}

fn test_case(suite: &Suite, case: &Case) -> TestCase {
    let status = match &case.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed { verdict, message, text } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type(verdict.name()).set_message(message.as_str()).set_description(text.as_str());
            status
        }
        Outcome::Broken { message, text } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_type("broken").set_message(message.as_str()).set_description(text.as_str());
            status
        }
        Outcome::Skipped { message } => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(message.as_str());
            status
        }
    };
    let mut test_case = TestCase::new(case.name.as_str(), status);
    test_case.set_classname(suite.name.as_str()).set_time(Duration::from(case.wall));
    for (name, value) in &case.properties {
        test_case.add_property((name.as_str(), value.as_str()));
    }
    test_case
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outcome: Outcome) -> Case {
        Case {
            name: name.into(),
            outcome,
            wall: Seconds::from_millis(1_500),
            properties: vec![("chain".into(), "00ff".into())],
        }
    }

    fn sample() -> Vec<Suite> {
        let failed = |verdict| Outcome::Failed {
            verdict,
            message: "a < b & \"c\"".into(),
            text: "]]> ends nothing here\u{1b}[31m\u{0}".into(),
        };
        let broken = Outcome::Broken { message: "killed".into(), text: "signal 9".into() };
        vec![
            Suite {
                name: "scenarios/runbooks/cold-start.toml".into(),
                cases: vec![
                    case("seed 0", Outcome::Passed),
                    case("seed 1", failed(Verdict::Violated)),
                    case("seed 2", broken),
                    case("seed 3", Outcome::Skipped { message: "the time was up".into() }),
                    case("over all seeds", failed(Verdict::Inconclusive)),
                ],
            },
            Suite { name: "empty".into(), cases: Vec::new() },
        ]
    }

    #[test]
    fn the_counts_match_the_cases() {
        let read = Report::deserialize_from_str(&junit(&sample())).unwrap();
        assert_eq!(read.test_suites.len(), 2);
        assert_eq!((read.tests, read.failures, read.errors), (5, 2, 1));
        let suite = &read.test_suites[0];
        assert_eq!((suite.tests, suite.failures, suite.errors, suite.skipped), (5, 2, 1, 1));
    }

    #[test]
    fn markup_in_messages_stays_text_and_control_characters_vanish() {
        let xml = junit(&sample());
        assert!(xml.contains("a &lt; b &amp; &quot;c&quot;"), "{xml}");
        let control = |c: char| c.is_control() && c != '\n' && c != '\t';
        assert!(!xml.contains(control), "{xml:?}");
        let read = Report::deserialize_from_str(&xml).unwrap();
        let TestCaseStatus::NonSuccess { message, description, .. } =
            &read.test_suites[0].test_cases[1].status
        else {
            panic!("seed 1 failed");
        };
        assert_eq!(message.as_ref().unwrap().as_str(), "a < b & \"c\"");
        assert!(description.as_ref().unwrap().as_str().starts_with("]]> ends nothing here"));
    }

    #[test]
    fn times_and_properties_are_written() {
        let xml = junit(&sample());
        assert!(xml.contains("time=\"1.500\""), "{xml}");
        assert!(xml.contains("<property name=\"chain\" value=\"00ff\"/>"), "{xml}");
    }
}
