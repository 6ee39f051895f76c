//! How collateral stands, and how platforms stand by it.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};
use zipnet_tdx::collateral::{Collateral, Standing};
use zipnet_tdx::date::Date;
use zipnet_tdx::manifest::ReleaseKey;
use zipnet_tdx::policy::Policy;
use zipnet_tdx::refused::Refused;
use zipnet_tdx::tcb::Status;
use zipnet_tdx::verifier::{Genuine, Verifier};

use super::{
    Outcome, at_argument, file_argument, is_json, key_argument, line, read_all_collateral, read_collateral,
    read_manifest, read_quote, span, time,
};
use crate::flags;

pub(super) fn collateral_command() -> Command {
    Command::new("collateral")
        .about("Say until when each part of collateral is valid: OK, SOON or EXPIRED; exit code 0, 1 or 2")
        .arg(
            file_argument("file", "FILE", "Collateral")
                .action(ArgAction::Append)
                .num_args(1..)
                .required(true),
        )
        .arg(at_argument())
        .arg(flags::format_argument())
}

/// Lists the parts of collateral.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn collateral(matches: &ArgMatches) -> Outcome {
    let now = time(matches);
    let (mut text, mut values, mut worst) = (String::new(), Vec::new(), Standing::Ok);
    for path in matches.get_many::<PathBuf>("file").into_iter().flatten() {
        let collateral = read_collateral(path)?;
        let standing = collateral.standing(now);
        worst = worst.max(standing);
        let (fmspc, number) = (collateral.fmspc(), collateral.evaluation_number());
        line(&mut text, format_args!("{}: FMSPC {fmspc}, evaluation number {number}", path.display()));
        let mut parts = Vec::new();
        for part in collateral.parts() {
            let standing = part.standing(now);
            let left = match standing {
                Standing::Expired if now < part.issued => format!("valid from {} on", part.issued),
                Standing::Expired => format!("over for {}", span(part.until.until(now))),
                Standing::Ok | Standing::Soon => format!("{} left", span(now.until(part.until))),
            };
            line(
                &mut text,
                format_args!("  {:<8} {:<20} {}  {left}", standing.name(), part.name, part.until),
            );
            parts.push(json!({ "name": part.name, "issued": part.issued, "until": part.until, "standing": standing }));
        }
        values.push(json!({
            "file": path.display().to_string(),
            "fmspc": fmspc,
            "evaluation_number": number,
            "standing": standing,
            "parts": parts,
        }));
    }
    if is_json(matches) {
        text = format!("{}\n", json!({ "at": now, "standing": worst, "collateral": values }));
    }
    flags::print(&text);
    Ok(code(worst))
}

const fn code(standing: Standing) -> u8 {
    match standing {
        Standing::Ok => 0,
        Standing::Soon => 1,
        Standing::Expired => 2,
    }
}

pub(super) fn tcb_status_command() -> Command {
    Command::new("tcb-status")
        .about(
            "Say how the platforms of some quotes stand: by the standard collateral, by the early one, and by what a manifest \
             asks for; exit code 0 good, 1 something is to be done soon, 2 refused today",
        )
        .arg(file_argument("quote", "QUOTE", "Quotes").action(ArgAction::Append).num_args(1..).required(true))
        .arg(
            file_argument("collateral", "FILE", "The standard collateral; may be given several times")
                .long("collateral")
                .action(ArgAction::Append)
                .required(true),
        )
        .arg(
            file_argument("early", "FILE", "Collateral that was fetched with update=early; may be given several times")
                .long("early")
                .action(ArgAction::Append),
        )
        .arg(
            Arg::new("standard-from")
                .long("standard-from")
                .value_name("TIME")
                .requires("early")
                .value_parser(clap::value_parser!(Date))
                .help("When Intel makes the early collateral the standard one, as its announcement says"),
        )
        .arg(file_argument("manifest", "FILE", "The release manifest").long("manifest").requires("key"))
        .arg(key_argument().requires("manifest"))
        .arg(at_argument())
        .arg(flags::format_argument())
}

/// Judges the platforms of some quotes.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn tcb_status(matches: &ArgMatches) -> Outcome {
    let policy = match (matches.get_one::<PathBuf>("manifest"), matches.get_one::<ReleaseKey>("key")) {
        (Some(path), Some(key)) => {
            let policy = Policy::new(read_manifest(path)?, key, Date(0));
            Some(policy.map_err(|refused| format!("{}: {refused}", path.display()))?)
        }
        _ => None,
    };
    let early = matches.contains_id("early").then(|| read_all_collateral(matches, "early")).transpose()?;
    let question = Question {
        verifier: Verifier::intel(),
        standard: read_all_collateral(matches, "collateral")?,
        early,
        standard_from: matches.get_one("standard-from").copied(),
        policy,
        now: time(matches),
    };
    let paths = matches.get_many::<PathBuf>("quote").into_iter().flatten();
    let quotes = paths.map(|path| Ok((path.display().to_string(), read_quote(path)?)));
    let answer = question.answer(&quotes.collect::<Result<Vec<_>, String>>()?);
    flags::print(&if is_json(matches) { format!("{}\n", answer.value) } else { answer.text });
    Ok(answer.code)
}

/// What is asked of each platform.
struct Question {
    verifier: Verifier,
    standard: Vec<Collateral>,
    early: Option<Vec<Collateral>>,
    standard_from: Option<Date>,
    policy: Option<Policy>,
    now: Date,
}

/// For people, for machines, and in a number: 0 good, 1 something is to be done soon, 2 refused today.
struct Answer {
    text: String,
    value: Value,
    code: u8,
}

/// What some collateral says of a platform, and what follows from it.
struct Verdict {
    told: Result<Genuine, Refused>,
    /// By the manifest, or, without one, by whether nothing is missing.
    accepted: Result<(), String>,
}

impl Question {
    fn answer(&self, quotes: &[(String, Vec<u8>)]) -> Answer {
        let stale = self.standard.iter().any(|one| one.standing(self.now) != Standing::Ok);
        let mut worst = u8::from(stale);
        let (mut text, mut values) = (String::new(), Vec::new());
        for (name, quote) in quotes {
            let standard = self.judge(quote, &self.standard);
            let early = self.early.as_ref().map(|collateral| self.judge(quote, collateral));
            let code = match (&standard.accepted, early.as_ref().map(|early| &early.accepted)) {
                (Err(_), _) => 2,
                (Ok(()), Some(Err(_))) => 1,
                (Ok(()), Some(Ok(())) | None) => 0,
            };
            worst = worst.max(code);
            let early_value = early.as_ref().map(value);
            values.push(
                json!({ "file": name, "code": code, "standard": value(&standard), "early": early_value }),
            );
            tell(&mut text, name, self, &standard, early.as_ref());
        }
        if stale {
            line(&mut text, "collateral is over or soon will be: see `zipnet-tdx collateral`");
        }
        let value =
            json!({ "at": self.now, "code": worst, "standard_from": self.standard_from, "quotes": values });
        Answer { text, value, code: worst }
    }

    fn judge(&self, quote: &[u8], collateral: &[Collateral]) -> Verdict {
        let told = self.verifier.examine(quote, collateral, self.now);
        let accepted = match (&told, &self.policy) {
            (Err(refused), _) => Err(refused.to_string()),
            (Ok(genuine), Some(policy)) => policy
                .check_time(self.now)
                .and_then(|()| policy.check_platform(genuine, self.now))
                .map(drop)
                .map_err(|refused| refused.to_string()),
            (Ok(genuine), None) if genuine.status() == Status::UpToDate => Ok(()),
            (Ok(genuine), None) => Err(format!("{} is not UpToDate", genuine.status())),
        };
        Verdict { told, accepted }
    }
}

fn value(verdict: &Verdict) -> Value {
    let told = match &verdict.told {
        Err(refused) => json!({ "refused": refused }),
        Ok(genuine) => json!({
            "platform": genuine.platform(),
            "fmspc": genuine.fmspc(),
            "status": genuine.status(),
            "advisories": genuine.advisories(),
            "evaluation_number": genuine.evaluation_number(),
            "shortfalls": genuine.shortfalls(),
        }),
    };
    json!({ "told": told, "accepted": verdict.accepted.is_ok(), "why_not": verdict.accepted.as_ref().err() })
}

fn tell(text: &mut String, name: &str, question: &Question, standard: &Verdict, early: Option<&Verdict>) {
    let mut say = |said: String| line(text, said);
    say(name.to_owned());
    let verdicts = [("standard", Some(standard)), ("early", early)];
    for (name, verdict) in verdicts.iter().filter_map(|(name, verdict)| Some((*name, (*verdict)?))) {
        match &verdict.told {
            Err(refused) => {
                say(format!("  {name:<9} refused: {}", refused.reason()));
                say(format!("            have {}; need {}", refused.have(), refused.need()));
                say(format!("            remedy: {}", refused.remedy()));
            }
            Ok(genuine) => {
                let advisories = match genuine.advisories() {
                    [] => String::new(),
                    advisories => format!(", {}", advisories.join(", ")),
                };
                let (status, number) = (genuine.status(), genuine.evaluation_number());
                say(format!("  {name:<9} {status}, evaluation number {number}{advisories}"));
                genuine.shortfalls().iter().for_each(|missing| say(format!("            {missing}")));
            }
        }
        if question.policy.is_some() {
            match &verdict.accepted {
                Ok(()) => say("            the manifest accepts it".to_owned()),
                Err(why_not) => say(format!("            the manifest does not accept it: {why_not}")),
            }
        }
        if let (Some(date), "early", Err(_)) = (question.standard_from, name, &verdict.accepted) {
            say(match question.now.until(date) {
                0 => format!("            the standard since {date}: fetch it"),
                left => format!("            the standard from {date} on: {} left", span(left)),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use zipnet_tdx::date::DAY;
    use zipnet_tdx::manifest::{Manifest, ReleaseSecret};
    use zipnet_tdx::measurement::{Measurement, ReportData};
    use zipnet_tdx_mock::platform::{Build, FMSPC, Guest, Machine};
    use zipnet_tdx_mock::timeline::{Recovery, Timeline, Update};
    use zipnet_tdx_mock::vendor::{Level, Vendor};

    use super::*;

    const SINCE: Date = Date(1_767_225_600);

    /// A machine on a day, when a recovery is in the early collateral from day 100 on, and in the standard one from 300.
    #[expect(clippy::disallowed_methods, reason = "a test may have a root of its own")]
    fn question(day: u64) -> (Question, Vec<(String, Vec<u8>)>) {
        let vendor = Vendor::new(b"tcb-status", SINCE);
        let now = SINCE.after(day * DAY);
        let mut level = Level::default_at(SINCE.after(90 * DAY));
        level.sgx[1] = 6;
        let timeline = Timeline {
            recoveries: vec![Recovery {
                early: SINCE.after(100 * DAY),
                standard: SINCE.after(300 * DAY),
                level,
                advisory: "INTEL-SA-09999".to_owned(),
            }],
            ..Timeline::quiet(FMSPC, SINCE)
        };
        let fetch = |update| {
            let file = vendor.collateral(&timeline.fetch(now, update));
            vec![Collateral::from_json(&file).expect("it was made to be read")]
        };
        let machine = Machine::new(&vendor, "machine", Build::default());
        let quote = machine.quote(&Guest::new(Measurement([1; 48])), &ReportData([0; 64]));
        let question = Question {
            verifier: Verifier::new(vendor.root()),
            standard: fetch(Update::Standard),
            early: Some(fetch(Update::Early)),
            standard_from: Some(SINCE.after(300 * DAY)),
            policy: None,
            now,
        };
        (question, vec![("quote.bin".to_owned(), quote)])
    }

    #[test]
    fn a_recovery_is_told_before_it_refuses_anybody() {
        let (question, quotes) = question(99);
        assert_eq!(question.answer(&quotes).code, 0);

        let (question, quotes) = self::question(146);
        let answer = question.answer(&quotes);
        assert_eq!(answer.code, 1);
        assert_eq!(
            answer.text,
            "quote.bin\n  \
             standard  UpToDate, evaluation number 20\n  \
             early     OutOfDate, evaluation number 21, INTEL-SA-09999\n            \
             SGX 1 (SGX Late Microcode Update): have 4, need 6; update BIOS or microcode\n            \
             the standard from 2026-10-28T00:00:00Z on: 154 days left\n"
        );
        assert_eq!(answer.value["quotes"][0]["early"]["told"]["shortfalls"][0]["need"], 6);

        let (question, quotes) = self::question(300);
        let answer = question.answer(&quotes);
        assert_eq!(answer.code, 2);
        assert!(answer.text.contains("the standard since 2026-10-28T00:00:00Z: fetch it"), "{}", answer.text);
    }

    #[test]
    fn a_manifest_decides_what_will_do() {
        let secret = ReleaseSecret::from_seed(&[7; 32]);
        let policy = |statuses: &[Status], grace_days| {
            let manifest = Manifest {
                accepted_statuses: statuses.to_vec(),
                accepted_advisories: vec!["INTEL-SA-09999".to_owned()],
                grace_days,
                ..Manifest::new(1, SINCE)
            };
            Some(
                Policy::new(manifest.sign(&secret).expect("it is right"), &secret.public(), SINCE)
                    .expect("it is signed"),
            )
        };
        let (mut question, quotes) = question(300);
        // The state was the newest one 300 days ago.
        question.policy = policy(&[Status::UpToDate, Status::OutOfDate], 300);
        let answer = question.answer(&quotes);
        assert_eq!(answer.code, 0, "{}", answer.text);
        assert!(answer.text.contains("the manifest accepts it"), "{}", answer.text);
        question.policy = policy(&[Status::UpToDate, Status::OutOfDate], 299);
        let answer = question.answer(&quotes);
        assert_eq!(answer.code, 2);
        assert!(answer.text.contains("does not accept it: grace-over"), "{}", answer.text);
    }

    #[test]
    fn collateral_that_is_soon_over_is_told() {
        let (mut question, quotes) = question(10);
        for (days, code) in [(0, 0), (15, 0), (16, 1), (29, 1), (30, 2)] {
            question.now = SINCE.after((10 + days) * DAY);
            let answer = question.answer(&quotes);
            assert_eq!(answer.code, code, "after {days} days: {}", answer.text);
        }
    }
}
