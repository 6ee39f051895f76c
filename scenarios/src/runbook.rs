//! The sections of the operators' documents, and how many servers each of their procedures needs.

/// A procedure: its anchor and the least number of servers with which it can be carried out.
pub(crate) const RUNBOOKS: &[(&str, u32)] = &[
    // Three voters make a log's first round.
    ("running-a-committee-server#one-shot-command", 3),
    ("running-a-committee-server#environment-variables", 3),
    ("running-a-committee-server#naming-the-instance", 3),
    ("running-a-committee-server#what-a-healthy-startup-looks-like", 3),
    ("running-a-committee-server#graceful-shutdown", 3),
    ("running-a-committee-server#availability-warning", 3),
    // With three servers one may be away.
    ("rotations-and-upgrades#rolling-a-committee-server", 3),
    // Three that run, and the one to add.
    ("rotations-and-upgrades#adding-a-committee-server", 4),
    ("rotations-and-upgrades#removing-a-committee-server", 3),
    ("rotations-and-upgrades#rotating-a-committee-servers-long-term-key", 4),
    ("rotations-and-upgrades#rotating-the-committee-secret", 3),
    ("rotations-and-upgrades#rotating-round-parameters", 3),
    ("rotations-and-upgrades#retiring-and-replacing-an-instance", 3),
    ("rotations-and-upgrades#upgrading-the-binary", 3),
    // Of docs/operating.md.
    ("operating#refusing-a-client", 3),
    ("operating#replacing-a-lost-disk", 3),
    ("operating#losing-most-disks", 3),
    ("operating#whom-the-aggregator-believes", 3),
    ("operating#replacing-the-aggregator", 3),
    ("operating#a-server-that-is-dead-for-good", 3),
];
