//! What is said about files that are wrong: where, what was expected, and what was probably meant.

use zipnet_scenarios::{Kind, read};

/// A small scenario that is right.
const GOOD: &str = r#"schema = 1
title = "Rolling restart of the committee, one server at a time"
tags = ["runbook", "smoke"]
runbook = "rotations-and-upgrades#rolling-a-committee-server"
prose = "Servers are replaced one by one."

[topology]
servers = 3
aggregators = 1
clients = 24
[topology.env]
ZIPNET_MIN_PARTICIPANTS = "2"

[network]
latency = { median = "20ms", p99 = "150ms" }
loss = { min_permille = 0, max_permille = 20 }

[[workload]]
id = "chatter"
say = "Two thirds of the clients publish in every round; the rest send cover traffic."
do.publish = { permille = 660, payload_bytes = { min = 1, max = 240 } }

[[fault]]
id = "bystander-crash"
say = "Now and then a client that is not part of the procedure dies and returns."
during = ["swap"]
do.crash = { target = "client:any", mean_gap = "20s", down = { min = "1s", max = "30s" } }

[[step]]
id = "baseline"
say = "Do not start unless the instance is healthy: three rounds finalized, one leader."
until.rounds-finalized = { count = 3, within = "60s" }

[[step]]
id = "swap"
say = "Stop the server with SIGTERM. It leaves within five seconds and says goodbye."
for_each = "server"
do.stop = { node = "server:each", signal = "TERM", within = "5s" }
check = [{ exit-code = { equals = 0 } }, { announced-departure = {} }]

[[step]]
id = "start-again"
say = "Start it with the same ZIPNET_INSTANCE, ZIPNET_SECRET and ZIPNET_COMMITTEE_SECRET."
with = "swap"
do.start = { node = "server:each", identity = "same" }
until.log-event = { node = "server:each", event = "round-finalized", within = "60s" }

[[expect]]
id = "one-output-per-round"
say = "No two nodes ever disagree about the output of a finalized round."
always.agreement = { on = "round-output" }

[[expect]]
id = "roll-hits-open-rounds"
say = "If no seed ever stops a server in the middle of a round, this scenario tests too little."
sometimes.round-abandoned = { during = "swap" }

[[threshold]]
id = "pause-budget"
say = "Each server costs at most 20 seconds of stalled rounds."
metric = "zipnet_round_stalled_seconds"
stat = "p99"
max = "20s"
"#;

#[test]
fn a_property_that_is_not_promised_can_not_be_expected() {
    let lie =
        GOOD.replace("do.stop", "do.lie = { node = \"server-1\", deviation = \"fork-log\" }\n# do.stop");
    assert_ne!(lie, GOOD);
    let found = all(&lie);
    let expected = "expected a property that is promised against \"fork-log\", found `agreement`";
    assert!(found.contains(expected), "{found}");
    assert_eq!(all(&lie.replace("fork-log", "stale-partial")), "ok");
}

fn all(text: &str) -> String {
    match read("x.toml", text) {
        Ok(_) => "ok".to_owned(),
        Err(diagnostics) => diagnostics.iter().map(|d| format!("{d}\n")).collect(),
    }
}

#[test]
fn the_sample_is_right() {
    assert_eq!(all(GOOD), "ok");
}

#[test]
fn each_slip_is_named_where_it_stands() {
    /// What is replaced, by what, and then: kind, line, column, a part of what was expected, of what was found, suggestion.
    type Row = (&'static str, &'static str, Kind, u32, u32, &'static str, &'static str, Option<&'static str>);
    let table: &[Row] = &[
        ("schema = 1", "schema = 2", Kind::OutOfRange, 1, 10, "from 1 to 1", "2", None),
        ("tags =", "tag =", Kind::UnknownKey, 3, 1, "one of the keys", "`tag`", Some("tags")),
        ("do.stop", "do.stpo", Kind::UnknownVerb, 38, 4, "a verb of `step.do`", "`stpo`", Some("stop")),
        (
            "until.rounds-finalized",
            "until.round-finalised",
            Kind::UnknownVerb,
            32,
            7,
            "a verb of `step.until`",
            "`round-finalised`",
            Some("rounds-finalized"),
        ),
        (
            "always.agreement",
            "always.agrement",
            Kind::UnknownVerb,
            51,
            8,
            "a verb of `expect.always`",
            "`agrement`",
            Some("agreement"),
        ),
        (
            "always.agreement",
            "allways.agreement",
            Kind::UnknownKey,
            51,
            1,
            "one of the keys",
            "`allways`",
            Some("always"),
        ),
        ("signal =", "signl =", Kind::UnknownKey, 38, 35, "node, signal, within", "`signl`", Some("signal")),
        ("\"TERM\"", "\"TREM\"", Kind::UnknownWord, 38, 44, "TERM, KILL", "`TREM`", Some("TERM")),
        (
            "\"server:each\", signal",
            "\"server-9\", signal",
            Kind::UnknownNode,
            38,
            20,
            "a server from server-1 to server-3",
            "`server-9`",
            Some("server-1"),
        ),
        (
            "\"server:each\", signal",
            "\"sever-2\", signal",
            Kind::UnknownNode,
            38,
            20,
            "a node of the topology",
            "`sever-2`",
            Some("server-2"),
        ),
        (
            "for_each = \"server\"\n",
            "",
            Kind::UnknownNode,
            37,
            20,
            "only in a step with `for_each`",
            "`server:each`",
            None,
        ),
        (
            "for_each = \"server\"",
            "for_each = \"servers\"",
            Kind::UnknownWord,
            37,
            12,
            "a role or a list of nodes",
            "`servers`",
            Some("server"),
        ),
        (
            "clients = 24",
            "clients = 24\ndown = \"server:all\"",
            Kind::Unreachable,
            38,
            12,
            "no step before this one starts any",
            "`server`",
            None,
        ),
        (
            "within = \"60s\" }\n\n[[step]]\nid = \"swap\"",
            "within = \"3 parsecs\" }\n\n[[step]]\nid = \"swap\"",
            Kind::WrongUnit,
            32,
            48,
            "a duration with its unit",
            "3 parsecs",
            None,
        ),
        (
            "within = \"5s\"",
            "within = \"5 sec\"",
            Kind::WrongUnit,
            38,
            61,
            "a duration with its unit",
            "5 sec",
            Some("5s"),
        ),
        (
            "within = \"5s\"",
            "within = 5",
            Kind::WrongUnit,
            38,
            61,
            "a duration with its unit",
            "the number 5 without a unit",
            None,
        ),
        ("within = \"5s\"", "within = \"48h\"", Kind::OutOfRange, 38, 61, "at most 24h", "48h", None),
        ("within = \"5s\"", "within = true", Kind::WrongType, 38, 61, "a duration", "true", None),
        ("count = 3", "count = 0", Kind::OutOfRange, 32, 36, "from 1 to 1000", "the number 0", None),
        ("count = 3", "count = 1.5", Kind::WrongType, 32, 36, "a whole number", "the fraction 1.5", None),
        ("permille = 660", "permille = 66000", Kind::OutOfRange, 21, 27, "from 0 to 1000", "66000", None),
        (
            "{ min = 1, max = 240 }",
            "{ min = 9, max = 2 }",
            Kind::OutOfRange,
            21,
            48,
            "`min` not above `max`",
            "holds nothing",
            None,
        ),
        (
            "payload_bytes = { min = 1, max = 240 }",
            "payload_bytes = 241",
            Kind::OutOfRange,
            21,
            1,
            "at most 240",
            "241",
            None,
        ),
        ("servers = 3", "servers = 0", Kind::ImpossibleTopology, 8, 11, "at least 1", "servers = 0", None),
        (
            "aggregators = 1",
            "aggregators = 0",
            Kind::ImpossibleTopology,
            9,
            15,
            "at least 1",
            "aggregators = 0",
            None,
        ),
        (
            "servers = 3",
            "servers = 2",
            Kind::ImpossibleTopology,
            8,
            1,
            "waits for that many voters",
            "no majority",
            None,
        ),
        (
            "servers = 3",
            "servers = 2\nfirst_voters = 2",
            Kind::ImpossibleTopology,
            4,
            11,
            "at least 3 servers for this procedure",
            "servers = 2",
            None,
        ),
        (
            "until.rounds-finalized = { count = 3, within = \"60s\" }",
            "until.voters = { count = 4 }",
            Kind::ImpossibleTopology,
            32,
            1,
            "at most 3",
            "4 servers",
            None,
        ),
        (
            "ZIPNET_MIN_PARTICIPANTS = \"2\"",
            "ZIPNET_MIN_PARTICIPANTS = \"25\"",
            Kind::ImpossibleTopology,
            11,
            11,
            "at most 24",
            "25",
            None,
        ),
        (
            "ZIPNET_MIN_PARTICIPANTS",
            "ZIPNET_MIN_PARTICIPENTS",
            Kind::UnknownVariable,
            12,
            1,
            "a documented variable",
            "`ZIPNET_MIN_PARTICIPENTS`",
            Some("ZIPNET_MIN_PARTICIPANTS"),
        ),
        (
            "[topology.env]",
            "[topology.client_env]",
            Kind::UnknownVariable,
            12,
            1,
            "a variable of the client",
            "only the server reads",
            None,
        ),
        (
            "ZIPNET_MIN_PARTICIPANTS = \"2\"",
            "ZIPNET_ROUND_PERIOD = \"3\"",
            Kind::WrongUnit,
            12,
            23,
            "ZIPNET_ROUND_PERIOD",
            "3",
            None,
        ),
        (
            "ZIPNET_MIN_PARTICIPANTS = \"2\"",
            "ZIPNET_STATE_DIR = \"/tmp\"",
            Kind::UnknownVariable,
            12,
            20,
            "set for each node by the engine",
            "/tmp",
            None,
        ),
        (
            "ZIPNET_MIN_PARTICIPANTS = \"2\"",
            "ZIPNET_MIN_PARTICIPANTS = 2",
            Kind::WrongType,
            12,
            27,
            "as a text, as in a shell",
            "the number 2",
            None,
        ),
        (
            "say = \"Stop the server with SIGTERM. It leaves within five seconds and says goodbye.\"\n",
            "",
            Kind::Missing,
            34,
            1,
            "`say`",
            "nothing",
            None,
        ),
        (
            "say = \"Stop the server with SIGTERM. It leaves within five seconds and says goodbye.\"",
            "say = \" \"",
            Kind::Missing,
            36,
            7,
            "`say`",
            "an empty text",
            None,
        ),
        (
            "prose = \"Servers are replaced one by one.\"\n",
            "",
            Kind::Missing,
            1,
            1,
            "`prose`",
            "nothing",
            None,
        ),
        (
            "with = \"swap\"",
            "with = \"sawp\"",
            Kind::UnknownId,
            44,
            8,
            "the id of a step",
            "`sawp`",
            Some("swap"),
        ),
        (
            "with = \"swap\"",
            "with = \"baseline\"",
            Kind::Unreachable,
            44,
            8,
            "`swap`, whose group is open here",
            "`baseline`",
            Some("swap"),
        ),
        (
            "during = [\"swap\"]",
            "during = [\"swop\"]",
            Kind::UnknownId,
            26,
            11,
            "the id of a step",
            "`swop`",
            Some("swap"),
        ),
        (
            "during = \"swap\" }",
            "during = \"swpa\" }",
            Kind::UnknownId,
            56,
            40,
            "the id of a step",
            "`swpa`",
            Some("swap"),
        ),
        (
            "id = \"start-again\"",
            "id = \"swap\"",
            Kind::DuplicateId,
            42,
            6,
            "an id of its own",
            "`swap` again",
            None,
        ),
        (
            "id = \"start-again\"",
            "id = \"Start again\"",
            Kind::UnknownId,
            42,
            6,
            "lower-case",
            "Start again",
            None,
        ),
        (
            "#rolling-a-committee-server",
            "#rolling-a-comittee-server",
            Kind::UnknownWord,
            4,
            11,
            "a section of the operators' documents",
            "comittee",
            Some("rotations-and-upgrades#rolling-a-committee-server"),
        ),
        (
            "max = \"20s\"",
            "max = 20",
            Kind::WrongUnit,
            63,
            7,
            "a duration",
            "the number 20 without a unit",
            None,
        ),
        (
            "metric = \"zipnet_round_stalled_seconds\"",
            "metric = \"zipnet_round_stalled_second\"",
            Kind::UnknownWord,
            61,
            10,
            "one of",
            "zipnet_round_stalled_second",
            Some("zipnet_round_stalled_seconds"),
        ),
        (
            "target = \"client:any\"",
            "target = \"client:leader\"",
            Kind::UnknownNode,
            27,
            23,
            "only servers lead",
            "`client:leader`",
            None,
        ),
        (
            "{ exit-code = { equals = 0 } }, ",
            "{ exit-code = { equals = 0 }, leaders = { exactly = 1 } }, ",
            Kind::UnknownKey,
            39,
            40,
            "one verb per table",
            "`leaders`",
            None,
        ),
        (
            "p99 = \"150ms\"",
            "p99 = \"10ms\"",
            Kind::OutOfRange,
            15,
            11,
            "`median` not above `p99`",
            "none",
            None,
        ),
        ("title = ", "title == ", Kind::Syntax, 2, 8, "TOML", "", None),
    ];
    let mut wrong = String::new();
    for (old, new, kind, line, column, expected, found, suggestion) in table {
        assert!(GOOD.contains(old), "the sample has no `{old}`");
        let text = GOOD.replacen(old, new, 1);
        let diagnostics = read("x.toml", &text).expect_err(new);
        let hit = diagnostics.iter().any(|d| {
            d.kind == *kind
                && (d.line, d.column) == (*line, *column)
                && d.expected.contains(expected)
                && d.found.contains(found)
                && d.suggestion.as_deref() == *suggestion
        });
        if !hit {
            wrong +=
                &format!("`{new}` wants {kind:?} at {line}:{column} with {suggestion:?}:\n{}\n", all(&text));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn one_slip_is_one_error() {
    for (old, new) in [
        ("do.stop", "do.stpo"),
        ("within = \"5s\"", "within = \"5\""),
        ("\"server:each\", signal", "\"server-9\", signal"),
        ("for_each = \"server\"", "for_each = \"servers\""),
        ("with = \"swap\"", "with = \"sawp\""),
        ("servers = 3", "servers = 0"),
    ] {
        let text = GOOD.replacen(old, new, 1);
        assert_eq!(read("x.toml", &text).expect_err(new).len(), 1, "{}", all(&text));
    }
}

#[test]
fn several_errors_come_in_one_go_and_in_the_order_of_the_file() {
    let text = GOOD.replacen("tags =", "tag =", 1).replacen("do.stop", "do.stpo", 1).replacen(
        "stat = \"p99\"",
        "stat = \"p98\"",
        1,
    );
    let lines: Vec<u32> = read("x.toml", &text).expect_err("bad").iter().map(|d| d.line).collect();
    assert_eq!(lines, [3, 38, 62]);
}

#[test]
fn a_literal_secret_is_refused_and_not_repeated() {
    let text = GOOD.replacen("ZIPNET_MIN_PARTICIPANTS = \"2\"", "ZIPNET_COMMITTEE_SECRET = \"hunter2\"", 1);
    let diagnostics = read("x.toml", &text).expect_err("a secret");
    assert_eq!(diagnostics[0].kind, Kind::SecretLiteral);
    assert_eq!((diagnostics[0].line, diagnostics[0].column), (12, 27));
    assert!(!all(&text).contains("hunter2"));
    assert_eq!(all(&text.replacen("hunter2", "secret:old", 1)), "ok");
}

#[test]
fn another_error_in_the_line_of_a_secret_does_not_repeat_it() {
    for start in [
        "do.start = { node = \"server-9\", env = { ZIPNET_SECRET = \"hunter2\" } }",
        "do.start = { node = \"server-9\", env = { ZIPNET_SECERT = \"x\", ZIPNET_SECRETS = \"hunter2\" } }",
        "do.start = { nod = \"server-1\", env = { ZIPNET_SECRET = 'hunter2' } }",
        "do.start = { node = \"server-1\" env = { ZIPNET_SECRET = 'hunter2' } }",
        "do.start = { node = \"server-1\", env = { ZIPNET_SECRET = [\"a\", \"hunter2\"] } }",
    ] {
        let text = GOOD.replacen("do.start = { node = \"server:each\", identity = \"same\" }", start, 1);
        assert_ne!(all(&text), "ok");
        assert!(!all(&text).contains("hunter2"), "{}", all(&text));
    }
}

#[test]
fn an_error_reads_like_this() {
    let text = GOOD.replacen("\"TERM\"", "\"TREM\"", 1);
    let want = "\
error: expected one of: TERM, KILL, found `TREM`
  --> x.toml:38:44
   |
38 | do.stop = { node = \"server:each\", signal = \"TREM\", within = \"5s\" }
   |                                            ^^^^^^ did you mean `TERM`?
";
    assert_eq!(all(&text), want);
    let diagnostics = read("x.toml", &text).expect_err("bad");
    let json = serde_json::to_value(&diagnostics[0]).expect("it is data");
    assert_eq!(json["kind"], "unknown-word");
    assert_eq!(json["line"], 38);
    assert_eq!(json["suggestion"], "TERM");
}
