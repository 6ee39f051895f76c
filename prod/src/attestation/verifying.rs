//! Is this quote acceptable?

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use serde_json::{Value, json};
use zipnet_core::id::PeerId;
use zipnet_core::instance::Instance;
use zipnet_node::config::parse_peer;
use zipnet_tdx::binding::report_data;
use zipnet_tdx::date::Date;
use zipnet_tdx::manifest::ReleaseKey;
use zipnet_tdx::measurement::ReportData;
use zipnet_tdx::policy::Policy;
use zipnet_tdx::refused::Refused;
use zipnet_tdx::verifier::{Genuine, Verifier};

use super::{
    Outcome, at_argument, file_argument, is_json, key_argument, path, read_all_collateral, read_manifest,
    read_quote, time,
};
use crate::flags;

pub(super) fn command() -> Command {
    Command::new("verify")
        .about("Judge a quote: by Intel's root, collateral, and a manifest that the release key has signed")
        .arg(file_argument("quote", "QUOTE", "The quote, as the platform gives it").required(true))
        .arg(
            file_argument(
                "collateral",
                "FILE",
                "Collateral for its kind of platform; may be given several times",
            )
            .long("collateral")
            .action(ArgAction::Append)
            .required(true),
        )
        .arg(file_argument("manifest", "FILE", "The release manifest").long("manifest").required(true))
        .arg(key_argument().required(true))
        .arg(at_argument())
        .arg(
            Arg::new("floor")
                .long("floor")
                .value_name("TIME")
                .value_parser(clap::value_parser!(Date))
                .help("The newest date that was ever seen signed: no time before it is believed"),
        )
        .arg(
            Arg::new("report-data")
                .long("report-data")
                .value_name("HEX")
                .value_parser(clap::value_parser!(ReportData))
                .help("What the quote must say of the process: 128 hexadecimal digits"),
        )
        .arg(
            Arg::new("instance")
                .long("instance")
                .value_name("NAME")
                .requires_all(["peer", "boot-key"])
                .value_parser(instance)
                .help("The same, from the instance, the peer id and the boot key of the process"),
        )
        .arg(
            Arg::new("peer")
                .long("peer")
                .value_name("PEER")
                .requires("instance")
                .value_parser(peer)
                .help("Its peer id"),
        )
        .arg(
            Arg::new("boot-key")
                .long("boot-key")
                .value_name("HEX")
                .requires("instance")
                .value_parser(boot_key)
                .help("Its boot key: 64 hexadecimal digits"),
        )
        .arg(
            Arg::new("any-process")
                .long("any-process")
                .action(ArgAction::SetTrue)
                .help("Do not ask for whom the quote speaks. Then it proves nothing about a peer"),
        )
        .group(ArgGroup::new("whom").args(["report-data", "instance", "any-process"]).required(true))
        .arg(flags::format_argument())
}

fn instance(text: &str) -> Result<Instance, String> {
    Instance::new(text).map_err(|reason| format!("failed to {reason}"))
}

fn peer(text: &str) -> Result<PeerId, String> {
    parse_peer(text).ok_or_else(|| "a peer id has 64 hexadecimal digits".to_owned())
}

fn boot_key(text: &str) -> Result<[u8; 32], String> {
    parse_peer(text).map(|digits| digits.0).ok_or_else(|| "a boot key has 64 hexadecimal digits".to_owned())
}

/// Judges a quote.
///
/// # Errors
/// If a file cannot be read. A refusal is no error.
pub(super) fn verify(matches: &ArgMatches) -> Outcome {
    let quote = read_quote(path(matches, "quote"))?;
    let collateral = read_all_collateral(matches, "collateral")?;
    let manifest = read_manifest(path(matches, "manifest"))?;
    let key: ReleaseKey = *matches.get_one("key").expect("it is required");
    let floor = matches.get_one("floor").copied().unwrap_or_default();
    let now = time(matches);
    let verdict = Policy::new(manifest, &key, floor).and_then(|policy| {
        let verifier = Verifier::intel();
        match expected(matches) {
            Some(expected) => {
                let attested = verifier.judge(&quote, &collateral, &policy, &expected, now)?;
                let shown = shown(attested.genuine(), attested.release(), attested.until(), now);
                Ok((shown, true))
            }
            None => {
                policy.check_time(now)?;
                let genuine = verifier.examine(&quote, &collateral, now)?;
                let release = policy.check_image(&genuine, now)?;
                let until = policy.check_platform(&genuine, now)?.min(genuine.until()).min(release.not_after);
                Ok((shown(&genuine, &release.label, until, now), false))
            }
        }
    });
    match verdict {
        Ok((fields, is_bound)) => {
            say(matches, &fields, is_bound);
            Ok(0)
        }
        Err(refused) => {
            refuse(matches, &refused);
            Ok(1)
        }
    }
}

/// What the quote must say of the process; nothing, if that is not to be asked.
fn expected(matches: &ArgMatches) -> Option<ReportData> {
    if let Some(digits) = matches.get_one("report-data") {
        return Some(*digits);
    }
    let instance: &Instance = matches.get_one("instance")?;
    let peer: &PeerId = matches.get_one("peer")?;
    let boot_key: &[u8; 32] = matches.get_one("boot-key")?;
    Some(report_data(&instance.id(), peer, boot_key))
}

fn shown(genuine: &Genuine, release: &str, until: Date, now: Date) -> Value {
    json!({
        "release": release,
        "at": now,
        "until": until,
        "status": genuine.status(),
        "advisories": genuine.advisories(),
        "evaluation_number": genuine.evaluation_number(),
        "platform": genuine.platform(),
        "fmspc": genuine.fmspc(),
        "mr_td": genuine.mr_td(),
        "rtmr": genuine.rtmr(),
        "report_data": genuine.report_data(),
        "newest": genuine.newest(),
    })
}

fn say(matches: &ArgMatches, fields: &Value, is_bound: bool) {
    let verdict = if is_bound { "attested" } else { "released" };
    if is_json(matches) {
        flags::print(&format!("{}\n", json!({ "verdict": verdict, "quote": fields })));
        return;
    }
    let field = |name: &str| match &fields[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut text = format!("{verdict}: {} on {}, until {}\n", field("release"), field("at"), field("until"));
    for name in ["status", "evaluation_number", "platform", "fmspc", "mr_td", "report_data"] {
        text.push_str(&format!("  {name:<18} {}\n", field(name)));
    }
    flags::print(&text);
    if !is_bound {
        flags::say("for whom the quote speaks was not asked: anybody can show it");
    }
}

fn refuse(matches: &ArgMatches, refused: &Refused) {
    if is_json(matches) {
        flags::print(&format!("{}\n", json!({ "verdict": "refused", "refused": refused })));
    } else {
        let (reason, have, need) = (refused.reason(), refused.have(), refused.need());
        let remedy = refused.remedy();
        flags::print(&format!("refused: {reason}\n  have    {have}\n  need    {need}\n  remedy  {remedy}\n"));
    }
}
