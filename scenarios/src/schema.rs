//! The JSON Schema of the format, made from the table of verbs.

use serde_json::{Map, Value as Json, json};

use crate::body::{Argument as _, Shape};
use crate::env::{Holds, VARIABLES};
use crate::runbook::RUNBOOKS;
use crate::scenario::BANDWIDTH_KIB_MAX;
use crate::value::{Draw, Int};
use crate::verbs::{PlaceTable, Row, tables};
use crate::words::{Guard, Metric, Property, Stat, Word};

/// The schema as text, as it is checked in under `schema/scenario.v1.json`.
#[must_use]
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&schema()).expect("the schema is a JSON value");
    text.push('\n');
    text
}

fn schema() -> Json {
    let tables = tables();
    let mut defs = Map::new();
    for table in &tables {
        defs.insert(table.name.to_owned(), place(table));
    }
    let units = "^[0-9]+(ms|s|m|h)$";
    defs.insert("duration".to_owned(), json!({ "type": "string", "pattern": units }));
    defs.insert("id".to_owned(), json!({ "type": "string", "pattern": "^[a-z0-9-]{1,64}$" }));
    defs.insert(
        "node".to_owned(),
        json!({ "type": "string",
            "pattern": "^([a-z0-9]+-)?(server|aggregator|client)(-[1-9][0-9]*|:(all|any|each|rest|leader|follower|target))$" }),
    );
    let share = json!({ "type": "integer", "minimum": 0, "maximum": 1000 });
    defs.insert(
        "share".to_owned(),
        json!({ "anyOf": [
            object(&[("permille", share.clone(), true)]),
            object(&[("min_permille", share.clone(), true), ("max_permille", share, true)]),
        ] }),
    );
    defs.insert("env".to_owned(), env());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "zipnet scenario",
        "$defs": defs,
        "type": "object",
        "additionalProperties": false,
        "required": ["schema", "title", "prose", "topology", "step"],
        "properties": {
            "schema": { "const": 1 },
            "title": sentence(),
            "prose": sentence(),
            "tags": { "type": "array", "items": { "type": "string" } },
            "runbook": { "enum": RUNBOOKS.iter().map(|(name, _)| *name).collect::<Vec<_>>() },
            "limits": object(&[
                ("time_limit", duration(), false),
                ("max_events", integer(1, 1_000_000_000), false),
            ]),
            "topology": deployment(&[]),
            "instance": list(deployment(&[("name", json!({ "type": "string", "pattern": "^[a-z0-9]{1,16}$" }), true)])),
            "network": object(&[
                ("latency", Shape::Latency.schema(), false),
                ("loss", Shape::Share.schema(), false),
                ("duplicate", Shape::Share.schema(), false),
                ("reorder", Shape::Share.schema(), false),
                ("bandwidth_kib", Draw::<Int<0, BANDWIDTH_KIB_MAX>>::shape().schema(), false),
            ]),
            "workload": list(object(&[
                ("id", id(), true),
                ("say", sentence(), true),
                ("during", list(id()), false),
                ("do", reference("workload.do"), true),
            ])),
            "fault": list(object(&[
                ("id", id(), true),
                ("say", sentence(), true),
                ("during", list(id()), false),
                ("at_once", integer(1, 64), false),
                ("times", integer(1, 64), false),
                ("do", reference("fault.do"), true),
            ])),
            "step": list(object(&[
                ("id", id(), true),
                ("say", sentence(), true),
                ("for_each", json!({ "anyOf": [
                    { "enum": ["server", "aggregator", "client"] },
                    { "type": "array", "items": { "$ref": "#/$defs/node" }, "minItems": 1 },
                ] }), false),
                ("with", id(), false),
                ("do", one_or_several("step.do"), false),
                ("until", one_or_several("step.until"), false),
                ("check", one_or_several("step.check"), false),
            ])),
            "expect": list(object(&[
                ("id", id(), true),
                ("say", sentence(), true),
                ("always", reference("expect.always"), false),
                ("eventually", reference("expect.eventually"), false),
                ("sometimes", reference("expect.sometimes"), false),
            ])),
            "threshold": list(object(&[
                ("id", id(), true),
                ("say", sentence(), true),
                ("metric", names::<Metric>(), true),
                ("stat", names::<Stat>(), true),
                ("min", amount(), false),
                ("max", amount(), false),
            ])),
            "canary": object(&[
                ("defect", names::<Guard>(), true),
                ("nodes", nodes(), false),
                ("property", names::<Property>(), true),
            ]),
            "control": object(&[("guard", names::<Guard>(), true), ("nodes", nodes(), false)]),
        },
    })
}

fn object(fields: &[(&str, Json, bool)]) -> Json {
    let required: Vec<&str> =
        fields.iter().filter(|(_, _, required)| *required).map(|(name, _, _)| *name).collect();
    let properties: Map<String, Json> =
        fields.iter().map(|(name, schema, _)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn sentence() -> Json {
    json!({ "type": "string", "minLength": 1 })
}

fn duration() -> Json {
    json!({ "$ref": "#/$defs/duration" })
}

fn id() -> Json {
    json!({ "$ref": "#/$defs/id" })
}

fn integer(min: u64, max: u64) -> Json {
    Shape::Integer { min, max }.schema()
}

fn nodes() -> Json {
    Shape::Either(Box::new(Shape::Node), Box::new(Shape::List(Box::new(Shape::Node)))).schema()
}

fn amount() -> Json {
    json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "$ref": "#/$defs/duration" }] })
}

fn list(items: Json) -> Json {
    json!({ "type": "array", "items": items })
}

fn names<W: Word>() -> Json {
    json!({ "enum": W::ALL.iter().map(|(_, name, _)| *name).collect::<Vec<_>>() })
}

fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn one_or_several(name: &str) -> Json {
    json!({ "anyOf": [reference(name), { "type": "array", "items": reference(name), "minItems": 1 }] })
}

/// A table with exactly one of the verbs.
fn place(table: &PlaceTable) -> Json {
    let mut verbs = Map::new();
    for verb in &table.verbs {
        let rows: Vec<&Row> = verb.arguments.iter().chain(&table.common).collect();
        let fields: Vec<(&str, Json, bool)> =
            rows.iter().map(|row| (row.name, argument(row), row.required)).collect();
        let mut schema = object(&fields);
        schema["description"] = json!(verb.doc);
        verbs.insert(verb.name.to_owned(), schema);
    }
    json!({ "type": "object", "properties": verbs, "additionalProperties": false, "minProperties": 1, "maxProperties": 1 })
}

fn argument(row: &Row) -> Json {
    let mut schema = row.shape.schema();
    let mut doc = row.doc.to_owned();
    if let Some(default) = row.default {
        doc = format!("{doc} Default: {default}.");
    }
    schema["description"] = json!(doc);
    schema
}

fn deployment(more: &[(&str, Json, bool)]) -> Json {
    let env = || json!({ "$ref": "#/$defs/env" });
    let mut fields = vec![
        ("servers", integer(1, 10_000), true),
        ("aggregators", integer(1, 10_000), true),
        ("clients", integer(1, 10_000), true),
        ("down", nodes(), false),
        ("first_voters", integer(1, 64), false),
        (
            "params",
            object(&[
                ("num_slots", integer(1, 4096), false),
                ("slot_bytes", integer(32, 65_536), false),
                ("tag_len", integer(8, 31), false),
            ]),
            false,
        ),
        ("env", env(), false),
        ("server_env", env(), false),
        ("aggregator_env", env(), false),
        ("client_env", env(), false),
    ];
    fields.extend(more.iter().cloned());
    object(&fields)
}

fn env() -> Json {
    let fields: Vec<(&str, Json, bool)> = VARIABLES
        .iter()
        .filter(|variable| variable.holds != Holds::Engine)
        .map(|variable| {
            let literal = match variable.holds {
                Holds::Text | Holds::Nodes | Holds::Engine => json!({ "type": "string" }),
                Holds::Secret => json!({ "type": "string", "pattern": "^(secret:.{1,32})?$" }),
                Holds::Duration => json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h))?$" }),
                Holds::Count { .. } => json!({ "type": "string", "pattern": "^[0-9]*$" }),
                Holds::Flag => json!({ "type": "string", "pattern": "^(true|false)?$" }),
            };
            let schema = json!({ "anyOf": [literal, { "type": "array", "items": literal, "minItems": 1 }] });
            (variable.name, schema, false)
        })
        .collect();
    object(&fields)
}
