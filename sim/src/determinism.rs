//! Does the same scenario with the same seed do the same thing twice?
//!
//! A share of all runs is made a second time in a new process, and the chains are compared. Which runs is drawn from
//! their names, so that the same command repeats the same ones on every machine.

use core::fmt::Write as _;
use core::ops::Range;

use zipnet_core::time::Time;
use zipnet_reports::{Failure, RunResult, Seconds, Verdict};

use crate::chain::{self, Checkpoint};
use crate::sweep::choice::Permille;

/// The name under which a run that diverges is reported.
const PROPERTY: &str = "determinism";

/// How often a pair of runs is made again in the hope to see the difference in words. Where chance decides, a pair can
/// differ earlier than the pair before, outside the window that was asked for.
const ATTEMPTS: u32 = 4;

/// Lines shown before and behind the first different event.
const CONTEXT: usize = 5;

/// Whether this run belongs to the share that is repeated.
pub(crate) fn is_selected(scenario: &str, seed: u64, share: Permille) -> bool {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(scenario.as_bytes());
    let digest = hasher.finalize();
    let bytes = digest.as_bytes().first_chunk().expect("a digest has 32 bytes");
    u64::from_le_bytes(*bytes) % 1_000 < u64::from(share.0)
}

/// Whether two runs did the same.
pub(crate) fn agree(one: &RunResult, other: &RunResult) -> bool {
    (one.events, &one.chain, one.verdict) == (other.events, &other.chain, other.verdict)
}

/// The events among which two runs differ for the first time.
pub(crate) fn difference(one: &RunResult, other: &RunResult) -> Option<Range<u64>> {
    chain::first_difference(&checkpoints(one), &checkpoints(other))
}

/// What two different runs of the same thing come to: the first one's result, and where they part.
///
/// `pair` makes both runs once more and keeps the events of a window in words.
pub(crate) fn diverged<E>(
    one: RunResult,
    other: &RunResult,
    reproduce: String,
    mut pair: impl FnMut(Range<u64>) -> Result<(RunResult, RunResult), E>,
) -> Result<RunResult, E> {
    let ends = format!(
        "run: {} events, {}, chain {}; repeat: {} events, {}, chain {}",
        one.events, one.verdict, one.chain, other.events, other.verdict, other.chain
    );
    let mut window = difference(&one, other).unwrap_or(0..one.events.max(other.events).max(1));
    let (mut event, mut detail) = (window.start, String::new());
    for _ in 0..ATTEMPTS {
        let (left, right) = pair(window.clone())?;
        if let Some((number, shown)) = first_line(&left.window, &right.window, window.start) {
            event = number;
            detail = shown;
            break;
        }
        match difference(&left, &right) {
            Some(earlier) => window = earlier,
            // This time both did the same; the next pair may not.
            None => continue,
        }
    }
    if detail.is_empty() {
        detail =
            format!("between events {} and {}; further runs did not show which\n", window.start, window.end);
    }
    let failure = Failure {
        property: PROPERTY.to_owned(),
        event,
        at_s: Seconds::ZERO,
        node: None,
        sentence: "The same scenario with the same seed does the same thing every time.".to_owned(),
        file: one.scenario.clone(),
        line: 1,
        detail: format!("{ends}\n{detail}"),
        reproduce: format!("{reproduce} --check-determinism 1"),
    };
    Ok(RunResult { verdict: Verdict::Diverged, failure: Some(failure), repeated: true, ..one })
}

fn checkpoints(result: &RunResult) -> Vec<Checkpoint> {
    result
        .checkpoints
        .iter()
        .map(|checkpoint| Checkpoint {
            events: checkpoint.events,
            time: Time(checkpoint.at_ns),
            // What is no digest differs from every digest only if the other side's text does.
            chain: blake3::Hash::from_hex(&checkpoint.chain)
                .unwrap_or_else(|_| blake3::hash(checkpoint.chain.as_bytes()))
                .into(),
        })
        .collect()
}

/// The number of the first line in which two windows differ, and both with their surroundings.
fn first_line(left: &[String], right: &[String], start: u64) -> Option<(u64, String)> {
    let longest = left.len().max(right.len());
    let first = (0..longest).find(|at| left.get(*at) != right.get(*at))?;
    let mut shown = String::new();
    for at in first.saturating_sub(CONTEXT)..first {
        if let Some(line) = left.get(at) {
            writeln!(shown, "    both    {line}").expect("text grows without limit");
        }
    }
    for (name, lines) in [("run", left), ("repeat", right)] {
        for at in first..first.saturating_add(CONTEXT) {
            match lines.get(at) {
                Some(line) => writeln!(shown, "    {name:7} {line}").expect("text grows without limit"),
                None => {
                    writeln!(shown, "    {name:7} (nothing more)").expect("text grows without limit");
                    break;
                }
            }
        }
    }
    Some((start.saturating_add(u64::try_from(first).unwrap_or(u64::MAX)), shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::tests::result;

    fn lines(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn with_chains(chains: &[&str]) -> RunResult {
        let checkpoints = chains.iter().zip(1..).map(|(chain, block)| zipnet_reports::Checkpoint {
            events: block * 1_024,
            at_ns: block,
            chain: (*chain).to_owned(),
        });
        let checkpoints: Vec<_> = checkpoints.collect();
        RunResult {
            events: checkpoints.last().map_or(0, |last| last.events),
            chain: chains.last().map_or_else(String::new, |last| (*last).to_owned()),
            checkpoints,
            ..result(0, Verdict::Held)
        }
    }

    #[test]
    fn the_share_is_about_what_was_asked_for_and_always_the_same() {
        let count = |share| (0..2_000).filter(|seed| is_selected("a.toml", *seed, Permille(share))).count();
        assert_eq!(count(0), 0);
        assert_eq!(count(1_000), 2_000);
        assert!((60..140).contains(&count(50)), "{}", count(50));
        assert_eq!(count(50), count(50));
        let seeds = |name| (0..200).filter(|seed| is_selected(name, *seed, Permille(50))).collect::<Vec<_>>();
        assert_ne!(seeds("a.toml"), seeds("b.toml"), "scenarios do not all repeat the same seeds");
    }

    #[test]
    fn the_first_different_event_is_shown_from_both_sides() {
        let one = with_chains(&["aa", "bb"]);
        let other = with_chains(&["aa", "cc"]);
        assert!(!agree(&one, &other));
        let mut asked = Vec::new();
        let diverged = diverged(one.clone(), &other, "zipnet-sim run x --seed 0".into(), |window| {
            asked.push(Some(window));
            let left = RunResult { window: lines(&["p", "q", "r"]), ..one.clone() };
            let right = RunResult { window: lines(&["p", "X", "r"]), ..other.clone() };
            Ok::<_, ()>((left, right))
        })
        .unwrap();
        assert_eq!(asked, vec![Some(1_024..2_048)]);
        assert_eq!(diverged.verdict, Verdict::Diverged);
        let failure = diverged.failure.unwrap();
        assert_eq!(failure.event, 1_025);
        for line in ["both    p", "run     q", "repeat  X"] {
            assert!(failure.detail.contains(line), "{line} is missing in {}", failure.detail);
        }
    }

    #[test]
    fn a_difference_that_moves_is_followed() {
        let one = with_chains(&["aa", "bb"]);
        let other = with_chains(&["aa", "cc"]);
        let moved = with_chains(&["dd", "cc"]);
        let mut asked = Vec::new();
        let diverged = diverged(one.clone(), &other, String::new(), |window| {
            asked.push(window.clone());
            let (left, right) = if window.start == 0 { (["p"], ["X"]) } else { (["q"], ["q"]) };
            let left = RunResult { window: lines(&left), ..one.clone() };
            Ok::<_, ()>((left, RunResult { window: lines(&right), ..moved.clone() }))
        })
        .unwrap();
        assert_eq!(asked, [1_024..2_048, 0..1_024]);
        assert_eq!(diverged.failure.unwrap().event, 0);
    }

    #[test]
    fn a_difference_that_never_shows_again_is_still_a_divergence() {
        let one = with_chains(&["aa"]);
        let other = with_chains(&["bb"]);
        let diverged =
            diverged(one.clone(), &other, String::new(), |_| Ok::<_, ()>((one.clone(), one.clone())));
        let diverged = diverged.unwrap();
        assert_eq!(diverged.verdict, Verdict::Diverged);
        assert!(diverged.failure.unwrap().detail.contains("between events 0 and 1024"));
    }
}
