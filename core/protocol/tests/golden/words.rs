//! Effects and messages in words.

use std::time::Duration;

use zipnet_core::id::{PeerId, Round};
use zipnet_core::machine::{Deadline, Effect, Job, Report};
use zipnet_core::message::{Command, Message, Turnout};
use zipnet_core::time::Time;
use zipnet_core::wire;

use crate::cast::Cast;

/// The value of `key=value` among the words.
pub(crate) fn option<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words
        .iter()
        .find_map(|word| word.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value))
}

/// The number of `key=number`, or what it is if nothing is said.
pub(crate) fn number(words: &[&str], key: &str, default: u64) -> u64 {
    option(words, key).map_or(default, |value| value.parse().unwrap())
}

/// The list of `key=1,2,3`, counted from one, as indices; `key=` is the empty list.
pub(crate) fn list(words: &[&str], key: &str, default: &[usize]) -> Vec<usize> {
    let parse = |value: &str| value.parse::<usize>().unwrap() - 1;
    option(words, key).map_or(default.to_vec(), |value| {
        value.split(',').filter(|item| !item.is_empty()).map(parse).collect()
    })
}

pub(crate) fn waits(deadline: Deadline) -> String {
    if deadline.at == Time::NEVER {
        return "waits for nothing".into();
    }
    format!("waits until {:?} for {}", Duration::from_nanos(deadline.at.0), deadline.why)
}

pub(crate) fn effects(cast: &Cast, effects: &[Effect]) -> Vec<String> {
    effects.iter().map(|effect| self::effect(cast, effect)).collect()
}

fn effect(cast: &Cast, effect: &Effect) -> String {
    match effect {
        Effect::Send { to, bytes } => {
            format!("to {}: {}", name(cast, to), message(cast, &wire::decode(bytes).unwrap()))
        }
        Effect::Work(job) => format!("work: {}", self::job(cast, job)),
        Effect::Report(report) => format!("report: {}", self::report(cast, report)),
        Effect::Past(report) => format!("past: {}", self::report(cast, report)),
        Effect::Propose(_) => "propose".into(),
        Effect::HandOver => "hand over".into(),
        Effect::Stopped => "stopped".into(),
    }
}

fn job(cast: &Cast, job: &Job) -> String {
    match job {
        Job::MakeBundle { epoch, fresh_key } => {
            format!("make bundle of epoch {}{}", epoch.0, if *fresh_key { " with a fresh key" } else { "" })
        }
        Job::SignAggregate { round, participants, .. } => {
            format!(
                "sign aggregate of {round} from places {:?}",
                participants.iter_ones().collect::<Vec<_>>()
            )
        }
        Job::SignBatch { counter, register, expire, .. } => {
            let come: Vec<_> = register.iter().map(|bundle| name(cast, &bundle.peer)).collect();
            let go: Vec<_> = expire.iter().map(|(peer, _)| name(cast, peer)).collect();
            format!("sign batch {}: come {come:?}, go {go:?}", counter.0)
        }
        Job::Seal { header, payload, cover, .. } => {
            let what = if *cover { "nothing".into() } else { format!("`{}`", text(payload.as_bytes())) };
            format!("seal {what} for {}", header.round)
        }
        other => format!("{other:?}"),
    }
}

fn report(cast: &Cast, report: &Report) -> String {
    match report {
        Report::Refused { kind, reason, from } => {
            let from = from.map_or("the publisher".into(), |from| name(cast, &from));
            format!("refused {kind} from {from}: {reason}")
        }
        Report::AggregateForwarded { round, participants } => {
            format!("aggregate of {round} forwarded with {participants} envelopes")
        }
        Report::ClientSeen { client } => format!("{} seen", name(cast, client)),
        Report::TurnoutLow { floor, turnout } => {
            format!("too few of {floor} envelopes: {}", counted(turnout))
        }
        Report::Disclaimed { round, .. } => format!("{round} disclaimed"),
        Report::Enrolled { version } => format!("enrolled in version {}", version.0),
        Report::Sealed { round, request, servers, .. } => {
            let what = if request.is_some() { "message" } else { "cover" };
            format!("sealed {what} for {round} under {} servers", servers.len())
        }
        Report::ServersBelieved { servers } => {
            let names: Vec<_> = servers.iter().map(|server| name(cast, server)).collect();
            format!("believes {}", names.join(", "))
        }
        Report::HeaderUntrusted { round, reason } => format!("{round} untrusted: {reason}"),
        Report::Published { request, outcome, round } => {
            format!("request {} {outcome:?} in {round}", request.0)
        }
        Report::RecordSeen { record, confirmed, .. } => {
            format!(
                "record of {} seen, {}",
                record.round,
                if *confirmed { "confirmed" } else { "provisional" }
            )
        }
        Report::RecordsMissing { from, oldest, .. } => {
            format!("records from {from} on are missing, the oldest that can be had is {oldest}")
        }
        Report::RecordContradicted { round, servers, evidence, .. } => {
            let names: Vec<_> = servers.iter().map(|server| name(cast, server)).collect();
            let both: Vec<_> = evidence
                .iter()
                .map(|pair| {
                    pair.verify().expect("it convicts");
                    name(cast, &pair.server())
                })
                .collect();
            let both = if both.is_empty() { "nobody".to_owned() } else { both.join(", ") };
            format!("two records of {round}, the other one signed by {}, both by {both}", names.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn message(cast: &Cast, message: &Message) -> String {
    match message {
        Message::Propose(Command::ChangeClients(batch)) => format!("propose batch {}", batch.counter.0),
        Message::Bundle(bundle) => format!("bundle of epoch {}", bundle.epoch.0),
        Message::BundleRefused { reason, last } => {
            let last = last.as_ref().map_or("none".into(), |last| format!("epoch {}", last.epoch.0));
            format!("bundle refused: {reason}, last {last}")
        }
        Message::LiveFor { live, place } => {
            let place = place.as_ref().map_or("no place".into(), |place| format!("place {}", place.index));
            format!("{} is live, {place}", live.header.round)
        }
        Message::Envelope(envelope) => format!("envelope for {}", envelope.round),
        Message::Aggregate(aggregate) => {
            format!("aggregate of {} with {} envelopes", aggregate.round, aggregate.participants.count_ones())
        }
        Message::RegistryWanted => "registry wanted".into(),
        Message::Record { record, signatures } => {
            format!("record of {} with {} signatures", record.round, signatures.len())
        }
        Message::RecordSigned { signatures } => {
            let round = signatures.first().map_or(Round(0), |signature| signature.round);
            format!("{} signatures of the record of {round}", signatures.len())
        }
        Message::RecordsWanted { from } => format!("records wanted from {from}"),
        Message::Declined { round, reason, .. } => format!("{round} declined: {reason}"),
        Message::Turnout(turnout) => format!("turnout of {}", counted(turnout)),
        Message::Retired { announcements } => {
            let names: Vec<_> = announcements.iter().map(|word| name(cast, &word.server)).collect();
            format!("retired: {}", names.join(", "))
        }
        Message::Disclaimed { disclaimers } => {
            let words: Vec<_> = disclaimers
                .iter()
                .map(|word| format!("{} by {}", word.round, name(cast, &word.server)))
                .collect();
            format!("disclaimed: {}", words.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn counted(turnout: &Turnout) -> String {
    let declined: Vec<_> =
        turnout.declined.iter().map(|(reason, clients)| format!(", {clients} decline: {reason}")).collect();
    format!("{}: {} in, {} absent{}", turnout.round, turnout.envelopes, turnout.absent, declined.concat())
}

/// A payload without the zeros at its end.
fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).trim_end_matches('\0').to_string()
}

fn name(cast: &Cast, peer: &PeerId) -> String {
    let member = cast.members().find(|member| member.keyring.peer() == *peer);
    member.map_or_else(|| "a stranger".into(), |member| member.name.clone())
}
