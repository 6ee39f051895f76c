//! No line of a log holds a secret or a payload.

use std::collections::{BTreeSet, VecDeque};

/// As results name it.
pub(super) const PROPERTY: &str = "discretion";

/// As a report shows it.
pub(super) const SENTENCE: &str = "No line of a log holds a secret or a payload.";

/// Payloads that are looked for in logs, the newest ones: a log tells what happens, not what happened.
const PAYLOADS_KEPT: usize = 64;

/// The shortest text that does not stand in a line by chance.
const LEN_MIN: usize = 8;

/// What no line may hold.
#[derive(Debug, Default)]
pub(super) struct Discretion {
    /// For ever.
    secrets: BTreeSet<String>,
    /// As text and in hexadecimal.
    payloads: VecDeque<String>,
}

impl Discretion {
    /// No line may hold this from now on.
    pub(super) fn keep_secret(&mut self, secret: &str) {
        if secret.len() >= LEN_MIN {
            self.secrets.insert(secret.to_owned());
        }
    }

    /// No line may hold this payload, nor its beginning in hexadecimal.
    pub(super) fn keep_private(&mut self, payload: &[u8]) {
        if payload.len() < LEN_MIN {
            return;
        }
        if let Ok(text) = str::from_utf8(payload) {
            self.payloads.push_back(text.to_owned());
        }
        self.payloads.push_back(hex::encode(&payload[..payload.len().min(16)]));
        while self.payloads.len() > PAYLOADS_KEPT {
            self.payloads.pop_front();
        }
    }

    /// What a line holds that it may not.
    pub(super) fn breach(&self, line: &str) -> Option<&'static str> {
        if self.secrets.iter().any(|secret| line.contains(secret.as_str())) {
            Some("a secret")
        } else if self.payloads.iter().any(|payload| line.contains(payload.as_str())) {
            Some("a payload")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_secret_or_a_payload_is_noticed() {
        let mut discretion = Discretion::default();
        let secret = "5ec2e7".repeat(10);
        discretion.keep_secret(&secret);
        discretion.keep_private(b"hello from nobody");
        discretion.keep_private(b"hi");
        assert_eq!(discretion.breach("nothing is wrong, says high society"), None);
        assert_eq!(discretion.breach(&format!("the secret {secret}")), Some("a secret"));
        for line in ["thread panicked: hello from nobody", "68656c6c6f2066726f6d206e6f626f64"] {
            assert_eq!(discretion.breach(line), Some("a payload"));
        }
    }
}
