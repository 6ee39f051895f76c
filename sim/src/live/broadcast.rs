//! What clients were given and told, against what a reader of their deployment has read.
//!
//! A broadcast holds only messages that a client was given. A message of which its client says that it landed stands in
//! the broadcast of that round. Whether the reader read every round is up to the network, so a receipt can stay unproven.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use zipnet_core::id::{LogId, Round};
use zipnet_core::machine::RequestId;

use zipnet_reports::properties::Violation;

use crate::site::Breach;

/// A round, as `zipnet tail --format json` prints it.
#[derive(Clone, Debug, Deserialize)]
struct Broadcast {
    log: String,
    round: u64,
    slots: Vec<Slot>,
}

/// A message of it.
#[derive(Clone, Debug, Deserialize)]
struct Slot {
    text: Option<String>,
    hex: Option<String>,
}

/// A round of a log.
type Key = (String, u64);

/// What is remembered to judge by.
#[derive(Debug, Default)]
pub(super) struct Broadcasts {
    /// Without zeros at the end, as all payloads here: a slot does not tell them from its own.
    given: BTreeSet<Vec<u8>>,
    /// By process and number: what was to be published.
    requests: BTreeMap<(u64, RequestId), Vec<u8>>,
    /// By deployment: the messages of every round that was read.
    read: BTreeMap<usize, BTreeMap<Key, BTreeSet<Vec<u8>>>>,
    /// By deployment: the rounds that servers finished.
    finished: BTreeMap<usize, BTreeSet<Key>>,
    /// Those that are not proven.
    receipts: Vec<Receipt>,
}

/// A client says that its message landed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Receipt {
    client: String,
    home: usize,
    round: u64,
    payload: Vec<u8>,
}

impl Broadcasts {
    /// A client gets a payload, or may have got it.
    pub(super) fn give(&mut self, payload: &[u8]) {
        self.given.insert(trimmed(payload));
    }

    /// It has taken it under this number.
    pub(super) fn requested(&mut self, process: u64, request: RequestId, payload: &[u8]) {
        self.requests.insert((process, request), trimmed(payload));
    }

    /// A client says that a message landed in a round.
    pub(super) fn told(&mut self, process: u64, request: RequestId, home: usize, client: &str, round: Round) {
        if let Some(payload) = self.requests.get(&(process, request)) {
            let payload = payload.clone();
            self.receipts.push(Receipt { client: client.to_owned(), home, round: round.0, payload });
        }
    }

    /// A server of a deployment says that a round is finished.
    pub(super) fn finished(&mut self, home: usize, log: LogId, round: Round) {
        self.finished.entry(home).or_default().insert((log.to_string(), round.0));
    }

    /// A line that the reader of a deployment printed.
    ///
    /// # Errors
    /// If the round holds a message that nobody was given.
    pub(super) fn read(&mut self, home: usize, line: &str) -> Result<(), Breach> {
        let broken = |detail| Err(breach("the reader", detail));
        let Ok(broadcast) = serde_json::from_str::<Broadcast>(line) else {
            return broken(format!("it printed no round: {line}"));
        };
        let mut messages = BTreeSet::new();
        for slot in &broadcast.slots {
            let Some(message) = slot.message() else {
                return broken(format!("it printed a slot without a message: {slot:?}"));
            };
            if !self.given.contains(&message) {
                let text = String::from_utf8_lossy(&message).into_owned();
                return broken(format!(
                    "r{} holds a message that no client was given: {text:?}",
                    broadcast.round
                ));
            }
            messages.insert(message);
        }
        self.read.entry(home).or_default().insert((broadcast.log, broadcast.round), messages);
        Ok(())
    }

    /// Whether receipts wait for rounds to be read.
    pub(super) fn is_awaited(&mut self) -> bool {
        let read = &self.read;
        self.receipts.retain(|receipt| {
            let of_home = read.get(&receipt.home).into_iter().flatten();
            !of_home
                .filter(|((_, round), _)| *round == receipt.round)
                .any(|(_, messages)| messages.contains(&receipt.payload))
        });
        !self.receipts.is_empty()
    }

    /// Judges the receipts of a deployment that are not proven by what is read.
    ///
    /// # Errors
    /// If every round with the number of a receipt was read, and the message is in none.
    pub(super) fn judge(&mut self, home: usize) -> Result<(), Breach> {
        self.is_awaited();
        let (nothing, none) = (BTreeMap::new(), BTreeSet::new());
        let rounds = self.finished.get(&home).unwrap_or(&none);
        let read = self.read.get(&home).unwrap_or(&nothing);
        for receipt in self.receipts.iter().filter(|receipt| receipt.home == home) {
            let mut meant = rounds.iter().filter(|(_, round)| *round == receipt.round).peekable();
            if meant.peek().is_some() && meant.all(|key| read.contains_key(key)) {
                let Receipt { client, round, .. } = receipt;
                let detail =
                    format!("{client} was told that its message landed in r{round}, and it is not there");
                return Err(breach(client, detail));
            }
        }
        Ok(())
    }

    /// Whether anything was read.
    pub(super) fn are_read(&self) -> bool {
        !self.read.is_empty()
    }
}

fn breach(node: &str, detail: String) -> Breach {
    Breach::of(Violation { property: "validity", detail }, node)
}

impl Slot {
    fn message(&self) -> Option<Vec<u8>> {
        match (&self.text, &self.hex) {
            (Some(text), None) => Some(trimmed(text.as_bytes())),
            (None, Some(digits)) => Some(trimmed(&hex::decode(digits).ok()?)),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }
}

fn trimmed(payload: &[u8]) -> Vec<u8> {
    let len = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    payload.get(..len).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: u64 = 7;

    fn line(round: u64, slots: &str) -> String {
        format!(r#"{{"log":"{LOG}","round":{round},"slots":[{slots}],"collisions":0}}"#)
    }

    const LOG: LogId = LogId([0xaa; 32]);

    fn finish(broadcasts: &mut Broadcasts, rounds: &[u64]) {
        rounds.iter().for_each(|round| broadcasts.finished(0, LOG, Round(*round)));
    }

    fn broadcasts() -> Broadcasts {
        let mut broadcasts = Broadcasts::default();
        for (request, payload) in [(0, &b"hello"[..]), (1, &[0xff, 0, 1, 0, 0][..])] {
            broadcasts.give(payload);
            broadcasts.requested(PROCESS, RequestId(request), payload);
        }
        broadcasts
    }

    #[test]
    fn messages_that_were_given_are_known_as_text_and_as_bytes() {
        let mut broadcasts = broadcasts();
        let both = r#"{"slot":1,"text":"hello"},{"slot":2,"hex":"ff00010000000000"}"#;
        broadcasts.read(0, &line(1, both)).expect("both were given");
        broadcasts.told(PROCESS, RequestId(0), 0, "client-1", Round(1));
        broadcasts.told(PROCESS, RequestId(1), 0, "client-1", Round(1));
        broadcasts.told(PROCESS, RequestId(9), 0, "client-1", Round(1));
        assert!(!broadcasts.is_awaited() && broadcasts.are_read());
        finish(&mut broadcasts, &[1]);
        broadcasts.judge(0).expect("every receipt is proven");
    }

    #[test]
    fn a_message_that_nobody_was_given_is_a_violation() {
        for slot in [r#"{"slot":1,"text":"hello!"}"#, r#"{"slot":1,"hex":"ff0001ff"}"#] {
            let breach = broadcasts().read(0, &line(1, slot)).expect_err("nobody was given that");
            assert!(
                breach.property == "validity" && breach.detail.contains("no client was given"),
                "{breach:?}"
            );
        }
        for bad in ["", "{}", &line(1, r#"{"slot":1}"#), &line(1, r#"{"slot":1,"hex":"f"}"#)] {
            broadcasts().read(0, bad).expect_err("that is no round");
        }
    }

    #[test]
    fn a_receipt_for_a_round_without_the_message_is_a_violation() {
        let mut broadcasts = broadcasts();
        broadcasts.told(PROCESS, RequestId(0), 0, "client-1", Round(2));
        broadcasts.read(0, &line(1, r#"{"slot":1,"text":"hello"}"#)).expect("it was given");
        assert!(broadcasts.is_awaited(), "it is in another round");
        broadcasts.judge(0).expect("nobody finished the round");
        finish(&mut broadcasts, &[1, 2]);
        broadcasts.judge(0).expect("the round was not read");
        broadcasts.read(0, &line(2, "")).expect("it is empty");
        broadcasts.judge(1).expect("that is another deployment");
        let breach = broadcasts.judge(0).expect_err("it is not there");
        assert_eq!((breach.property, breach.node.as_str()), ("validity", "client-1"));
        broadcasts.finished(0, LogId([0xbb; 32]), Round(2));
        broadcasts.judge(0).expect("it may be in the other log");
    }
}
