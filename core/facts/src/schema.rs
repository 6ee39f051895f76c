//! The schema of lines for programs, made of the table of facts.

use std::collections::BTreeSet;
use std::string::{String, ToString as _};
use std::vec::Vec;
use std::{env, fs, vec};

use serde_json::{Map, Value, json};
use zipnet_core::id::Role;
use zipnet_core::machine::{Abandonment, Outcome};
use zipnet_core::refused::Refused;

use crate::fact::{ROUND_END, TABLE};
use crate::line::Level;
use crate::refusal::{Farewell, Refusal};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lines.schema.json");

/// Types that the schema defines once.
const NAMED: [&str; 12] = [
    "PeerId",
    "LogId",
    "Digest",
    "StoreId",
    "Role",
    "Refused",
    "Refusal",
    "Farewell",
    "Abandonment",
    "Outcome",
    "Stall",
    "Change",
];

/// The schema of a type, as the table spells it.
fn of(name: &str) -> Value {
    if NAMED.contains(&name) {
        return json!({ "$ref": std::format!("#/$defs/{name}") });
    }
    definition(name)
}

fn definition(name: &str) -> Value {
    let name: String = name.split_whitespace().collect();
    let inner = |of: &str| name.strip_prefix(of)?.strip_prefix('<')?.strip_suffix('>');
    if let Some(inner) = inner("Option") {
        return json!({ "anyOf": [of(inner), { "type": "null" }] });
    }
    if let Some(inner) = inner("Vec") {
        return json!({ "type": "array", "items": of(inner) });
    }
    let names = |names: Vec<&str>| json!({ "enum": names });
    match name.as_str() {
        "u8" | "u32" | "u64" | "Round" | "Epoch" | "RegistryVersion" | "RequestId" => {
            json!({ "type": "integer", "minimum": 0 })
        }
        "bool" => json!({ "type": "boolean" }),
        "String" | "Name" => json!({ "type": "string" }),
        "PeerId" | "LogId" | "Digest" => json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        "StoreId" => json!({ "type": "string", "pattern": "^[0-9a-f]{1,16}$" }),
        "Role" => names(vec![Role::Server.name(), Role::Aggregator.name(), Role::Client.name()]),
        "Refused" => names(Refused::ALL.iter().map(|reason| reason.name()).collect()),
        "Refusal" => names(Refusal::ALL.iter().map(|reason| reason.name()).collect()),
        "Farewell" => names(Farewell::ALL.iter().map(|reason| reason.name()).collect()),
        "Abandonment" => names(Abandonment::ALL.iter().map(|reason| reason.name()).collect()),
        "Outcome" => names(Outcome::ALL.iter().map(|outcome| outcome.name()).collect()),
        "BTreeMap<Refused,u32>" => {
            json!({ "type": "object", "propertyNames": of("Refused"), "additionalProperties": of("u32") })
        }
        "Stall" => object([("cause", of("Name")), ("text", of("String"))]),
        "Change" => {
            let member = || object([("peer", of("PeerId")), ("store", of("StoreId"))]);
            let both = object([("old", member()), ("new", member())]);
            let one = ["add-learner", "promote", "remove-voter", "remove-learner"];
            let one = one.map(|change| object([(change, member())])).into_iter();
            json!({ "oneOf": one.chain([object([("replace-store", both)])]).collect::<Vec<_>>() })
        }
        "Box<Fact>" => json!({ "$ref": "#/$defs/fact" }),
        other => panic!("the schema does not know the type {other}"),
    }
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let properties: Map<String, Value> =
        fields.into_iter().map(|(name, schema)| (name.to_string(), schema)).collect();
    let required: Vec<_> = properties.keys().cloned().collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn described(mut schema: Value, text: &str) -> Value {
    schema["description"] = text.trim().into();
    schema
}

fn schema() -> Value {
    let facts = TABLE.iter().map(|row| {
        let own = row.fields.iter().filter(|(_, name, _)| *name != "RoundEnd");
        let end = row.fields.iter().any(|(_, name, _)| *name == "RoundEnd");
        let fields = own.chain(ROUND_END.iter().filter(|_| end));
        let fields = fields.map(|(field, name, meaning)| (*field, described(of(name), meaning)));
        described(object([("event", json!({ "const": row.event }))].into_iter().chain(fields)), row.doc)
    });
    let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace].map(Level::name);
    let line = [
        (
            "timestamp",
            json!({ "type": "string", "format": "date-time" }),
            "When, in UTC, by a clock that may be wrong.",
        ),
        ("level", json!({ "enum": levels }), "How much it matters."),
        ("target", of("String"), "Where it belongs; what RUST_LOG filters by."),
        (
            "seq",
            of("u64"),
            "Rises by one with each fact of the process, also with those that the filter takes out.",
        ),
        ("message", of("String"), "The sentence that people read. Its words may change."),
    ];
    let mut whole = object(line.map(|(field, schema, text)| (field, described(schema, text))));
    whole["properties"]["node"] =
        described(of("PeerId"), "Whose line it is; missing before the process knows its identity.");
    let mut definitions: Map<String, Value> =
        NAMED.iter().map(|name| ((*name).to_string(), definition(name))).collect();
    definitions.insert("fact".to_string(), json!({ "oneOf": facts.collect::<Vec<_>>() }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of a zipnet node with ZIPNET_FORMAT=json",
        "allOf": [whole, { "$ref": "#/$defs/fact" }],
        "$defs": definitions,
    })
}

/// With `UPDATE=1` in the environment the file is written instead.
#[test]
fn the_schema_of_lines_is_that_of_the_facts() {
    let mut text = serde_json::to_string_pretty(&schema()).expect("a value has a text");
    text.push('\n');
    if env::var_os("UPDATE").is_some() {
        fs::write(PATH, &text).expect("the folder can be written");
    }
    let kept = fs::read_to_string(PATH).unwrap_or_default();
    assert!(kept == text, "{PATH} is not what the facts say; UPDATE=1 writes it");
}

#[test]
fn each_fact_has_a_name_of_its_own_and_says_what_it_is() {
    let names: BTreeSet<_> = TABLE.iter().map(|row| row.event).collect();
    assert_eq!(names.len(), TABLE.len());
    for row in TABLE {
        assert!(row.doc.trim().ends_with('.'), "{}", row.event);
    }
}

#[test]
fn names_are_those_that_serde_writes() {
    fn written(value: impl serde::Serialize) -> String {
        serde_json::to_value(value).expect("a name").as_str().expect("a string").into()
    }
    for reason in Refused::ALL {
        assert_eq!(written(reason), reason.name());
    }
    for reason in Refusal::ALL {
        assert_eq!(written(reason), reason.name());
    }
    for reason in Farewell::ALL {
        assert_eq!(written(reason), reason.name());
    }
    for reason in Abandonment::ALL {
        assert_eq!(written(reason), reason.name());
    }
    for outcome in Outcome::ALL {
        assert_eq!(written(outcome), outcome.name());
    }
    for role in [Role::Server, Role::Aggregator, Role::Client] {
        assert_eq!(written(role), role.name());
    }
}
