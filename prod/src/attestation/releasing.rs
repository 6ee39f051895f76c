//! Release manifests: made, signed, shown and checked.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;
use zipnet_core::key::NodeSecret;
use zipnet_node::config::parse_peer;
use zipnet_tdx::date::Date;
use zipnet_tdx::manifest::{Manifest, Release, ReleaseKey, ReleaseSecret, SignedManifest};
use zipnet_tdx::measurement::Measurement;
use zipnet_tdx::tcb::Status;

use super::{
    Outcome, at_argument, file_argument, is_json, key_argument, line, path, read_manifest, read_text, span,
    time,
};
use crate::flags;

pub(super) fn command() -> Command {
    let file = || file_argument("manifest", "FILE", "The manifest").required(true);
    let date = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("TIME").value_parser(clap::value_parser!(Date)).help(help)
    };
    Command::new("manifest")
        .about("About release manifests: which images are admitted, signed by the release key")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("key").about("Make a release key: its secret half goes to a file, its public half is printed").arg(
                file_argument("to", "FILE", "Where to write the secret half; nothing may be there").long("to").required(true),
            ),
        )
        .subcommand(
            Command::new("new")
                .about("Print a manifest that is not signed yet, to be edited and signed")
                .arg(file_argument("from", "FILE", "Take over what this one says, with the next number").long("from"))
                .arg(
                    Arg::new("release")
                        .long("release")
                        .value_name("LABEL=MR_TD")
                        .action(ArgAction::Append)
                        .requires_all(["not-before", "not-after"])
                        .value_parser(release)
                        .help("Admit an image; may be given several times, once for each order of adding pages"),
                )
                .arg(date("not-before", "The first moment of these releases"))
                .arg(date("not-after", "Their last moment"))
                .arg(
                    Arg::new("evaluation-number-min")
                        .long("evaluation-number-min")
                        .value_name("N")
                        .value_parser(clap::value_parser!(u32))
                        .help("Least evaluation number of collateral [default: 0, or that of --from]"),
                )
                .arg(at_argument().help("When it was written [default: now]")),
        )
        .subcommand(
            Command::new("sign").about("Sign a manifest, and print it").arg(file()).arg(
                file_argument("secret-file", "FILE", "The secret half of the release key").long("secret-file").required(true),
            ),
        )
        .subcommand(
            Command::new("show")
                .about("Say what a manifest admits at a time, whoever has signed it")
                .arg(file())
                .arg(at_argument())
                .arg(flags::format_argument()),
        )
        .subcommand(
            Command::new("check")
                .about("Say whether the release key has signed a manifest, and whether it admits anything at a time")
                .arg(file())
                .arg(key_argument().required(true))
                .arg(file_argument("after", "FILE", "The manifest before it, which must have a lower number").long("after"))
                .arg(at_argument()),
        )
}

fn release(text: &str) -> Result<(String, Measurement), String> {
    let (label, digits) =
        text.rsplit_once('=').ok_or("write it like v1.2=4c7206f0…, with what `measure` prints")?;
    let mr_td = digits.parse().map_err(|reason| format!("MR_TD: {reason}"))?;
    Ok((label.to_owned(), mr_td))
}

pub(super) fn act(matches: &ArgMatches) -> Outcome {
    match matches.subcommand() {
        Some(("key", matches)) => key(matches),
        Some(("new", matches)) => new(matches),
        Some(("sign", matches)) => sign(matches),
        Some(("show", matches)) => show(matches),
        Some(("check", matches)) => check(matches),
        _ => unreachable!("clap requires one of the commands"),
    }
}

fn key(matches: &ArgMatches) -> Outcome {
    let path = path(matches, "to");
    let seed = zipnet_world::world::random();
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(format!("{}\n", hex::encode(seed)).as_bytes()).and_then(|()| file.sync_all())
        })
        .map_err(|reason| format!("failed to write {}: {reason}", path.display()))?;
    flags::print(&format!("{}\n", ReleaseSecret::from_seed(&seed).public()));
    Ok(0)
}

fn new(matches: &ArgMatches) -> Outcome {
    let issued = time(matches);
    let mut manifest = match matches.get_one::<PathBuf>("from") {
        None => Manifest { accepted_statuses: vec![Status::UpToDate], ..Manifest::new(1, issued) },
        Some(path) => {
            let older = read_manifest(path)?.unproven().clone();
            let number = older.number.checked_add(1).ok_or("no number comes after that of --from")?;
            Manifest { number, issued, ..older }
        }
    };
    let dates = ["not-before", "not-after"].map(|name| matches.get_one::<Date>(name).copied());
    if let [Some(not_before), Some(not_after)] = dates {
        let releases = matches.get_many::<(String, Measurement)>("release").into_iter().flatten();
        manifest.releases.extend(releases.map(|(label, mr_td)| Release {
            label: label.clone(),
            mr_td: *mr_td,
            rtmr1: None,
            rtmr2: None,
            not_before,
            not_after,
        }));
    }
    if let Some(number) = matches.get_one("evaluation-number-min") {
        manifest.evaluation_number_min = *number;
    }
    let text = SignedManifest::from(manifest).to_json();
    // What breaks a rule is said before anybody signs it.
    let _read: SignedManifest = text.parse().map_err(|reason| format!("failed to {reason}"))?;
    flags::print(&text);
    Ok(0)
}

fn sign(matches: &ArgMatches) -> Outcome {
    let manifest = read_manifest(path(matches, "manifest"))?.unproven().clone();
    let path = path(matches, "secret-file");
    let text = read_text(path, 1_024)?;
    // Never repeated: it is a secret.
    let seed = parse_peer(text.trim()).filter(|_| !NodeSecret::is_short(text.trim()));
    let seed =
        seed.ok_or_else(|| format!("failed to read {}: expected 64 hexadecimal digits", path.display()))?;
    let signed =
        manifest.sign(&ReleaseSecret::from_seed(&seed.0)).map_err(|reason| format!("failed to {reason}"))?;
    flags::print(&signed.to_json());
    Ok(0)
}

/// How a release stands at a time.
fn standing(release: &Release, now: Date) -> (&'static str, String) {
    if now < release.not_before {
        return ("not yet", format!("from {}", release.not_before));
    }
    if now > release.not_after {
        return ("retired", format!("since {}", release.not_after));
    }
    ("admitted", format!("until {}, {}", release.not_after, span(now.until(release.not_after))))
}

fn show(matches: &ArgMatches) -> Outcome {
    let signed = read_manifest(path(matches, "manifest"))?;
    let (manifest, now) = (signed.unproven(), time(matches));
    let signer = signed.signed_by();
    // Whether it has signed is another question than whose name stands there.
    let holds = signer.is_some_and(|key| signed.clone().open(&key).is_ok());
    if is_json(matches) {
        let releases: Vec<_> = manifest
            .releases
            .iter()
            .map(|release| json!({ "release": release, "standing": standing(release, now).0 }))
            .collect();
        let value = json!({
            "number": manifest.number,
            "issued": manifest.issued,
            "signed_by": signer,
            "signature_holds": holds,
            "at": now,
            "releases": releases,
            "platforms": manifest.platforms,
            "evaluation_number_min": manifest.evaluation_number_min,
            "accepted_statuses": manifest.accepted_statuses,
            "accepted_advisories": manifest.accepted_advisories,
            "grace_days": manifest.grace_days,
        });
        flags::print(&format!("{value}\n"));
        return Ok(0);
    }
    let signature = match signer {
        None => "not signed".to_owned(),
        Some(key) if holds => format!("signed by {key}"),
        Some(key) => format!("NOT signed by {key}, whose name it has"),
    };
    let mut text = format!("manifest {} of {}, {signature}\n", manifest.number, manifest.issued);
    if manifest.releases.is_empty() {
        text.push_str("  no release: it admits nobody\n");
    }
    for release in &manifest.releases {
        let (word, when) = standing(release, now);
        line(&mut text, format_args!("  {word:<8}  {}, {when}", release.label));
        line(&mut text, format_args!("            MR_TD {}", release.mr_td));
        for (name, register) in [("RTMR1", release.rtmr1), ("RTMR2", release.rtmr2)] {
            if let Some(register) = register {
                line(&mut text, format_args!("            {name} {register}"));
            }
        }
    }
    let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let statuses = list(manifest.accepted_statuses.iter().map(ToString::to_string).collect());
    let platforms =
        manifest.platforms.as_ref().map_or("all".to_owned(), |platforms| platforms.len().to_string());
    text.push_str(&format!(
        "  statuses    {statuses}; out of date for {} days\n  advisories  {}\n  collateral  of evaluation number {} or more\n  \
         platforms   {platforms}\n",
        manifest.grace_days,
        list(manifest.accepted_advisories.clone()),
        manifest.evaluation_number_min,
    ));
    flags::print(&text);
    Ok(0)
}

fn check(matches: &ArgMatches) -> Outcome {
    let signed = read_manifest(path(matches, "manifest"))?;
    let key: ReleaseKey = *matches.get_one("key").expect("it is required");
    let now = time(matches);
    let manifest = match signed.open(&key) {
        Ok(manifest) => manifest,
        Err(refused) => {
            flags::print(&format!("refused: {refused}\n"));
            return Ok(1);
        }
    };
    if let Some(path) = matches.get_one::<PathBuf>("after") {
        let older = read_manifest(path)?.unproven().number;
        if manifest.number <= older {
            flags::print(&format!("refused: number {} does not come after {older}\n", manifest.number));
            return Ok(1);
        }
    }
    let admitted: Vec<_> = manifest
        .releases
        .iter()
        .filter(|release| standing(release, now).0 == "admitted")
        .map(|release| release.label.as_str())
        .collect();
    if admitted.is_empty() {
        flags::print(&format!(
            "manifest {} is signed by {key}, and admits nobody on {now}\n",
            manifest.number
        ));
        return Ok(1);
    }
    flags::print(&format!(
        "manifest {} is signed by {key}, and admits {}\n",
        manifest.number,
        admitted.join(", ")
    ));
    Ok(0)
}
