//! What people write: variables and scenario files.

use std::collections::BTreeMap;

use zipnet_core::id::Role;
use zipnet_core::key::{CommitteeSecret, Stretch};
use zipnet_node::config::{
    Build, Config, parse_address, parse_duration, parse_peer, parse_peer_address, read_files,
};
use zipnet_scenarios::{Diagnostic, read};

use crate::Verdict;
use crate::memory::bounded_besides;
use crate::network::params;

const INSTANCE: &str = "ZIPNET_INSTANCE";
const SECRET: &str = "ZIPNET_SECRET";
const SECRETS: [&str; 2] = [SECRET, COMMITTEE_SECRET];
const COMMITTEE_SECRET: &str = "ZIPNET_COMMITTEE_SECRET";

/// The first byte is the role, each line is a variable. Whatever is wrong is said without repeating a secret.
pub(crate) fn environment(bytes: &[u8]) -> Verdict {
    let Some((role, text)) = bytes.split_first() else { return Verdict::Refused };
    let role = [Role::Server, Role::Aggregator, Role::Client][usize::from(role % 3)];
    let text = String::from_utf8_lossy(text);
    let mut env: BTreeMap<String, String> = text
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    // What stands in a file is as secret as what stands in the variable.
    let files =
        read_files(
            &mut env,
            |path| if path.len() % 2 == 0 { Ok(path.to_owned()) } else { Err("no".to_owned()) },
        );
    if let Err(errors) = files {
        assert!(!errors.is_empty());
        return Verdict::Refused;
    }
    if let Some(secret) = env.get_mut(COMMITTEE_SECRET)
        && !secret.is_empty()
    {
        let _weak = CommitteeSecret::weak(secret);
        // Any other one is stretched, which takes longer than all the rest.
        *secret = "5c".repeat(32);
    }
    let secrets: Vec<String> = SECRETS.iter().filter_map(|name| env.get(*name)).cloned().collect();
    let build = Build { params: params(), wire_version: 1, machine_version: 1 };
    // A secret that is a text is stretched, in memory that a guess has to have as well.
    let stretch = usize::try_from(Stretch::MEMORY_KIB).unwrap_or(usize::MAX).saturating_mul(1 << 10);
    let (said, verdict) = match bounded_besides(stretch, bytes, || Config::from_env(role, &env, build)) {
        Ok((config, warnings)) => {
            assert_eq!(config.role(), role);
            let said = warnings.iter().map(ToString::to_string).chain([format!("{config:?}")]).collect();
            (said, Verdict::Taken)
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "it was refused without a reason");
            let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
            (said, Verdict::Refused)
        }
    };
    for secret in secrets.iter().filter(|secret| secret.len() >= 16) {
        // Whoever writes the secret elsewhere as well has it repeated from there.
        let elsewhere = env.iter().any(|(name, value)| {
            !SECRETS.contains(&name.as_str()) && value.contains(secret.as_str())
                || name.contains(secret.as_str())
        });
        assert!(
            elsewhere || said.iter().all(|line| !line.contains(secret.as_str())),
            "a secret was repeated"
        );
    }
    verdict
}

pub(crate) fn environment_seeds() -> Vec<(String, Vec<u8>)> {
    let hex = "1d".repeat(32);
    let server = format!(
        "{INSTANCE}=acme.mainnet\n{SECRET}=stable-node-seed\n{COMMITTEE_SECRET}={hex}\nZIPNET_MIN_PARTICIPANTS=2\n\
         ZIPNET_MIN_SERVERS=2\nZIPNET_ROUND_PERIOD=500ms\nZIPNET_ROUND_DEADLINE=2m\nZIPNET_AGGREGATOR={hex}\n\
         ZIPNET_BOOTSTRAP={hex}@10.0.0.7:4000, peer={hex}@[::1]:7,{hex}\nZIPNET_NEW_LOG=true\n\
         ZIPNET_FIRST_VOTERS=3\nZIPNET_STRANGERS_MAX=100\nZIPNET_METRICS=0.0.0.0:9100\nZIPNET_FORMAT=json\nRUST_LOG=debug"
    );
    let aggregator = format!(
        "{INSTANCE}=acme.mainnet\nZIPNET_SECRET_FILE=/run/secret\nZIPNET_FOLD_DEADLINE=2s\nZIPNET_LISTEN=0.0.0.0:4000\n\
         ZIPNET_ADVERTISE=example.org:4000\nZIPNET_STATE_DIR=/var/lib/zipnet\nZIPNET_ANNOUNCE_INTERVAL=15s\n\
         ZIPNET_UNIVERSE=mosaik.universe"
    );
    let client = format!(
        "{INSTANCE}=acme.mainnet\nZIPNET_SERVERS={hex},{hex}\nZIPNET_MESSAGE=hello\nZIPNET_CADENCE=4\nZIPNET_FORMAT=human"
    );
    let wrong = format!("{COMMITTEE_SECRET}={hex}\nZIPNET_INSTANZ=x\nZIPNET_CADENCE=0\nZIPNET_METRICS=9100");
    let twice = format!("{SECRET}=x\nZIPNET_SECRET_FILE=/run/secret");
    let all = [
        ("server", 0, server),
        ("aggregator", 1, aggregator),
        ("client", 2, client),
        ("wrong", 2, wrong),
        ("twice", 0, twice),
    ];
    let seed =
        |(name, role, text): (&str, u8, String)| (name.to_owned(), [vec![role], text.into_bytes()].concat());
    all.into_iter().map(seed).collect()
}

/// One value. What is read is what was written.
pub(crate) fn address(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    let _duration = parse_duration(&text);
    if let Some(address) = parse_address(&text) {
        assert_eq!(address.0, text);
    }
    if let Some(peer) = parse_peer(&text) {
        assert_eq!(peer.to_string(), text.to_lowercase());
    }
    let Ok(peer) = parse_peer_address(&text) else {
        let taken = parse_duration(&text).is_some() || parse_address(&text).is_some();
        return if taken { Verdict::Taken } else { Verdict::Refused };
    };
    let again = peer
        .address
        .as_ref()
        .map_or_else(|| peer.peer.to_string(), |address| format!("{}@{address}", peer.peer));
    assert_eq!(parse_peer_address(&again), Ok(peer));
    Verdict::Taken
}

pub(crate) fn address_seeds() -> Vec<(String, Vec<u8>)> {
    let hex = "1d".repeat(32);
    let all = [
        ("peer", hex.clone()),
        ("peer-address", format!("peer={hex}@[::1]:4000")),
        ("name", "example.org:4000".to_owned()),
        ("duration", "500ms".to_owned()),
        ("minutes", "2m".to_owned()),
        ("no-port", format!("{hex}@nowhere")),
    ];
    all.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect()
}

/// What is wrong is said with a place in the file; what is right can be written and read again.
pub(crate) fn scenario(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    match read("fuzz.toml", &text) {
        Ok(scenario) => {
            let written = scenario.to_toml();
            let again = match read("again.toml", &written) {
                Ok(again) => again,
                Err(diagnostics) => panic!("what was written cannot be read: {}\n{written}", diagnostics[0]),
            };
            assert_eq!(again.to_toml(), written, "it changes with every writing");
            let resolved = scenario.resolve(&mut |below| below / 2).to_toml();
            assert!(
                read("resolved.toml", &resolved).is_ok(),
                "what was resolved cannot be read:\n{resolved}"
            );
            Verdict::Taken
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "it was refused without a reason");
            for diagnostic in &diagnostics {
                check(diagnostic, &text);
            }
            Verdict::Refused
        }
    }
}

/// The place lies in the file, and what is underlined in its line.
fn check(diagnostic: &Diagnostic, text: &str) {
    let line = usize::try_from(diagnostic.line).expect("a line fits");
    let column = usize::try_from(diagnostic.column).expect("a column fits");
    let len = usize::try_from(diagnostic.len).expect("a length fits");
    assert!(line >= 1 && column >= 1 && len >= 1, "{diagnostic}");
    let Some(written) = text.split('\n').nth(line - 1) else {
        panic!("there is no line {line}: {diagnostic}")
    };
    let chars = written.chars().count();
    assert!(column <= chars + 1, "line {line} has no column {column}: {diagnostic}");
    assert!(!diagnostic.expected.is_empty() && !diagnostic.found.is_empty(), "{diagnostic}");
    assert!(len == 1 || column + len <= chars + 2, "more is underlined than stands there: {diagnostic}");
    assert!(!diagnostic.snippet.contains('\n'), "a snippet is one line");
}

pub(crate) fn scenario_seeds() -> Vec<(String, Vec<u8>)> {
    macro_rules! files {
        ($($file:literal),*) => {
            [$(($file, include_str!(concat!("../../../scenarios/", $file, ".toml")))),*]
        };
    }
    let files = files![
        "canaries/participant-floor",
        "canaries/seal-once",
        "faults/soak",
        "misuse/12-server-floor",
        "runbooks/03-add-server",
        "runbooks/07-change-round-parameters"
    ];
    let mut seeds: Vec<_> =
        files.iter().map(|(name, text)| (name.replace('/', "-"), text.as_bytes().to_vec())).collect();
    seeds.push(("not-toml".to_owned(), b"schema = = 1".to_vec()));
    seeds.push(("unknown-key".to_owned(), b"schema = 1\ntitel = \"x\"\n".to_vec()));
    seeds
}
