//! Every input of the corpus through the same functions that the fuzzer calls, on any compiler.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use zipnet_fuzz_targets::memory::{Meter, bounded};
use zipnet_fuzz_targets::{TARGETS, Target, Verdict, target};
use zipnet_node::consensus::codec::{Frame, Request, encode_frame};
use zipnet_node::consensus::types::{Entry, LogId, NodeId, Payload, Vote};

#[global_allocator]
static METER: Meter = Meter;

/// Of the whole corpus: it is cloned with the repository.
const CORPUS_BYTES_MAX: usize = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the folder of the fuzzer")
        .to_owned()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let entries = entries.map(|entry| entry.expect("the folder can be read"));
    entries.map(|entry| entry.file_name().into_string().expect("names are ASCII")).collect()
}

/// The inputs of a target by name.
fn corpus(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let folder = fuzz().join("corpus").join(target.name);
    let read = |name: String| {
        let bytes = std::fs::read(folder.join(&name)).expect("the file can be read");
        (name, bytes)
    };
    names(&folder).into_iter().map(read).collect()
}

/// All inputs of a target. A verdict for each, or the name of the one that fails.
fn replay(target: &Target) -> BTreeMap<Verdict, usize> {
    let mut verdicts = BTreeMap::new();
    for (name, bytes) in corpus(target) {
        let run = std::panic::catch_unwind(|| (target.run)(&bytes));
        let verdict = run.unwrap_or_else(|_| panic!("fuzz/corpus/{}/{name} is a finding", target.name));
        *verdicts.entry(verdict).or_default() += 1;
    }
    verdicts
}

macro_rules! replays {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            let verdicts = replay(&target(stringify!($name)));
            // A corpus that is refused as a whole would test nothing behind the first check.
            for verdict in [Verdict::Taken, Verdict::Refused] {
                assert!(verdicts.contains_key(&verdict), "no input is {verdict:?}: {verdicts:?}");
            }
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.name), replayed);
        }
    };
}

replays!(
    wire_message,
    wire_command,
    frame,
    peer_book,
    consensus_frame,
    consensus_value,
    snapshot,
    gossip,
    server,
    aggregator,
    client,
    environment,
    address,
    stream,
    scenario,
    quote,
    collateral,
    manifest,
    firmware,
);

/// `UPDATE=1` writes the seeds anew; other inputs stay as they are.
#[test]
fn seeds_are_what_is_generated() {
    for target in TARGETS {
        let folder = fuzz().join("corpus").join(target.name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(&folder).expect("the folder can be made");
            for name in names(&folder).iter().filter(|name| name.starts_with("seed-")) {
                std::fs::remove_file(folder.join(name)).expect("the seed can be removed");
            }
            for (name, bytes) in (target.seeds)() {
                std::fs::write(folder.join(format!("seed-{name}")), bytes).expect("the seed can be written");
            }
        }
        let kept = corpus(&target).into_iter().filter(|(name, _)| name.starts_with("seed-"));
        let made = (target.seeds)().into_iter().map(|(name, bytes)| (format!("seed-{name}"), bytes));
        let (kept, made): (BTreeMap<_, _>, BTreeMap<_, _>) = (kept.collect(), made.collect());
        let differing = made.iter().filter(|(name, bytes)| kept.get(*name) != Some(bytes));
        let differing: Vec<_> = differing.map(|(name, _)| name).collect();
        assert!(differing.is_empty(), "{}: {differing:?} differ; UPDATE=1 rewrites them", target.name);
        assert!(kept.keys().eq(made.keys()), "{}: seeds that nothing generates", target.name);
    }
}

#[test]
fn every_target_has_its_binary_and_its_folder() {
    let expected: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus")), expected);
    let binaries = names(&fuzz().join("fuzz_targets"));
    let binaries: BTreeSet<String> = binaries.iter().map(|name| name.replace(".rs", "")).collect();
    assert_eq!(binaries, expected);
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).expect("the manifest can be read");
    for name in expected {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
        let binary = std::fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs")));
        assert!(
            binary.expect("it was listed").contains(&format!("\"{name}\"")),
            "{name}.rs runs another target"
        );
    }
}

#[test]
fn the_corpus_is_small() {
    let bytes = TARGETS.iter().flat_map(|target| corpus(target).into_values()).map(|bytes| bytes.len());
    let bytes: usize = bytes.sum();
    assert!(
        bytes < CORPUS_BYTES_MAX,
        "the corpus has {bytes} bytes; see docs/fuzzing.md on how to make it smaller"
    );
}

#[test]
fn a_finding_fails_the_replay() {
    fn broken(_: &[u8]) -> Verdict {
        panic!("found")
    }
    let broken = Target { run: broken, ..target("address") };
    assert!(std::panic::catch_unwind(|| replay(&broken)).is_err());
}

/// Longer than any input of the corpus: an entry of three bytes takes twenty times as much in memory.
#[test]
fn many_short_entries_are_refused_before_they_are_all_there() {
    let vote = Vote::new_committed(1, NodeId::default());
    let blank = |index| Entry { log_id: LogId::new_term_index(1, index), payload: Payload::Blank };
    let entries = (0..300_000).map(blank).collect();
    let request = Request::Append { vote, prev: None, entries, commit: None };
    let bytes = encode_frame(&Frame::Request(1, request));
    assert_eq!((target("consensus_frame").run)(&bytes), Verdict::Refused);
}

#[test]
fn allocation_without_reason_is_noticed() {
    assert_eq!(bounded(&[0; 8], || vec![0_u8; 1 << 20].len()), 1 << 20);
    let greedy = std::panic::catch_unwind(|| bounded(&[0; 8], || vec![0_u8; 64 << 20].len()));
    assert!(greedy.is_err());
}
