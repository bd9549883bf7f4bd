use super::*;
use crate::clock::Stamp;
use crate::value::Value;

const EXAMPLE: &str = r#"{"kinds":{
  "task":{"life":"delete-wins","open":true,"fields":{
     "title":{}, "owner":{"margin_ms":5000,"resolver":"rank"}, "score":{"margin_ms":"inf","resolver":"max"},
     "tags":{"type":"set"}, "labels":{"type":"map"}, "views":{"type":"counter"}}},
  "time_entry":{"life":"edit-revives","fields":{"user":{},"text":{},"start":{},"stop":{}},
     "groups":{"interval":["stop","start"]},"rules":[]},
  "project":{"life":"newest","fields":{"a":{"type":"value"},"b":{"type":"multi"},"c":{"type":"set","wins":"remove"},
     "d":{"type":"max"},"e":{"type":"min"},"f":{"type":"flag"},"g":{"margin_ms":0,"resolver":"oldest"},
     "h":{"margin_ms":7,"resolver":"min"},"i":{"type":"set","wins":"add"}}}}}"#;

const CANONICAL: &str = concat!(
    r#"{"kinds":{"project":{"life":"newest","fields":{"a":{},"b":{"type":"multi"},"#,
    r#""c":{"type":"set","wins":"remove"},"d":{"type":"max"},"e":{"type":"min"},"f":{"type":"flag"},"#,
    r#""g":{"resolver":"oldest"},"h":{"margin_ms":7,"resolver":"min"},"i":{"type":"set"}}},"#,
    r#""task":{"open":true,"fields":{"labels":{"type":"map"},"owner":{"margin_ms":5000,"resolver":"rank"},"#,
    r#""score":{"margin_ms":"inf","resolver":"max"},"tags":{"type":"set"},"title":{},"#,
    r#""views":{"type":"counter"}}},"#,
    r#""time_entry":{"life":"edit-revives","fields":{"start":{},"stop":{},"text":{},"user":{}},"#,
    r#""groups":{"interval":["start","stop"]}}}}"#,
);

fn json(text: &str) -> Schema {
    Schema::from_json_str(text).unwrap()
}

/// A schema of one kind `k` with this body.
fn kind(body: &str) -> Result<Schema, SchemaError> {
    Schema::from_json_str(&format!(r#"{{"kinds":{{"k":{body}}}}}"#))
}

fn one_of(candidates: &[Candidate<'_>]) -> Value {
    candidates.first().map_or(Value::Null, |c| c.value.clone())
}

#[test]
fn json_is_read_exactly_and_written_canonically() {
    let schema = json(EXAMPLE);
    assert_eq!(schema.to_json(), CANONICAL);
    assert_eq!(json(CANONICAL).to_json(), CANONICAL);
    assert_eq!(json(CANONICAL).fingerprint(), schema.fingerprint());
    let task = schema.kind("task").unwrap();
    assert_eq!((task.life, task.open), (Life::DeleteWins, true));
    let owner = FieldType::Value { margin: Margin::Ms(5000), resolver: Resolver::Rank };
    assert_eq!(task.field("owner").unwrap().ty, owner);
    assert_eq!(task.field("title").unwrap().ty, FieldType::PLAIN);
    assert_eq!(
        schema.kinds().map(|k| k.name.as_str()).collect::<Vec<_>>(),
        ["project", "task", "time_entry"]
    );
    let interval = schema.kind("time_entry").unwrap().group("interval").unwrap();
    assert_eq!(interval.members, ["start", "stop"]);
    assert_eq!(json(r#"{"kinds":{"k":{}}}"#).to_json(), r#"{"kinds":{"k":{}}}"#);
}

#[test]
fn the_builder_makes_what_the_text_does() {
    let built = Schema::builder()
        .kind("time_entry", |k| {
            k.life(Life::EditRevives)
                .group("interval", ["start", "stop"])
                .value("user")
                .value("text")
                .value("start")
                .value("stop")
        })
        .kind("task", |k| {
            k.open()
                .counter("views")
                .map("labels")
                .set("tags")
                .value_with("score", Margin::Infinite, Resolver::Max)
                .value_with("owner", Margin::Ms(5000), Resolver::Rank)
                .value("title")
        })
        .kind("project", |k| {
            k.life(Life::Newest)
                .value("a")
                .multi("b")
                .set_with("c", SetWins::Remove)
                .max("d")
                .min("e")
                .flag("f")
                .value_with("g", Margin::ZERO, Resolver::Oldest)
                .value_with("h", Margin::Ms(7), Resolver::Min)
                .set("i")
        })
        .build()
        .unwrap();
    assert_eq!(built.to_json(), CANONICAL);
}

#[test]
fn the_fingerprint_is_that_of_the_canonical_json() {
    assert_eq!(json(EXAMPLE).fingerprint(), xxhash_rust::xxh3::xxh3_128(CANONICAL.as_bytes()));
    // Pinned: peers of other versions compare it.
    let empty = Schema::builder().build().unwrap();
    assert_eq!(empty.fingerprint(), 116_333_466_789_839_148_024_516_977_911_658_542_194);
}

#[test]
fn an_open_schema_takes_every_kind_and_survives_its_text() {
    for open in [Schema::open(), json(&Schema::open().to_json()), Schema::builder().open().build().unwrap()] {
        let any = open.kind("whatever").unwrap();
        assert!(any.open && any.life == Life::DeleteWins && any.fields().next().is_none());
        assert!(matches!(any.slot("x"), Slot::Open));
        assert!(open.kind("").is_none() && open.kind(&"k".repeat(256)).is_none());
        assert_eq!(open.kinds().count(), 0);
        assert_eq!(open.to_json(), r#"{"kinds":{},"open":true}"#);
    }
    assert!(json(r#"{"kinds":{}}"#).kind("whatever").is_none());
    assert_ne!(Schema::open().fingerprint(), json(r#"{"kinds":{}}"#).fingerprint());
}

#[test]
fn slots_tell_fields_members_open_and_undeclared() {
    let schema = json(EXAMPLE);
    let (task, entry) = (schema.kind("task").unwrap(), schema.kind("time_entry").unwrap());
    assert!(matches!(task.slot("tags"), Slot::Field(f) if f.name == "tags"));
    assert!(matches!(task.slot("new"), Slot::Open));
    assert!(matches!(task.slot(&"f".repeat(65_535)), Slot::Open));
    assert!(matches!(task.slot(&"f".repeat(65_536)), Slot::Undeclared));
    assert!(matches!(task.slot(""), Slot::Undeclared));
    assert!(matches!(entry.slot("new"), Slot::Undeclared));
    assert!(matches!(entry.slot("stop"), Slot::Member(g) if g.name == "interval"));
    assert!(matches!(entry.slot("interval"), Slot::Undeclared));
    assert!(matches!(entry.slot("user"), Slot::Field(_)));
    assert_eq!(
        entry.fields().map(|f| f.name.as_str()).collect::<Vec<_>>(),
        ["start", "stop", "text", "user"]
    );
}

#[test]
fn margins_follow_the_type() {
    let schema = json(EXAMPLE);
    let margin = |kind: &str, field: &str| schema.kind(kind).unwrap().field(field).unwrap().ty.margin();
    for (field, expected) in [
        ("title", Margin::ZERO),
        ("owner", Margin::Ms(5000)),
        ("score", Margin::Infinite),
        ("tags", Margin::Infinite),
        ("labels", Margin::ZERO),
        ("views", Margin::ZERO),
    ] {
        assert_eq!(margin("task", field), expected, "{field}");
    }
    for field in ["b", "c", "d", "e", "f"] {
        assert_eq!(margin("project", field), Margin::Infinite, "{field}");
    }
    let lives = Life::ALL.map(Life::margin);
    assert_eq!(lives, [Margin::Infinite, Margin::Infinite, Margin::ZERO]);
}

#[test]
fn a_group_may_bear_the_name_of_a_field() {
    let schema = kind(r#"{"fields":{"a":{},"b":{}},"groups":{"a":["a","b"]}}"#).unwrap();
    assert!(matches!(schema.kind("k").unwrap().slot("a"), Slot::Member(g) if g.name == "a"));
}

#[test]
fn declarations_that_do_not_hold_are_refused_with_the_place_and_the_way_out() {
    let long = format!(r#"{{"fields":{{"{}":{{}}}}}}"#, "f".repeat(65_536));
    for (body, message) in [
        (r#"{"fields":{"a":{},"b":{},"a":{}}}"#, "field `a` of kind `k` is declared twice: remove one"),
        (
            r#"{"fields":{"a":{}},"groups":{"g":["a"],"g":["a"]}}"#,
            "group `g` of kind `k` is declared twice: remove one",
        ),
        (r#"{"fields":{"":{}}}"#, "a field of kind `k` has a name of 0 bytes: use 1 to 65535"),
        (long.as_str(), "a field of kind `k` has a name of 65536 bytes: use 1 to 65535"),
        (
            r#"{"fields":{"a":{}},"groups":{"":["a"]}}"#,
            "a group of kind `k` has a name of 0 bytes: use 1 to 65535",
        ),
        (
            r#"{"fields":{"a":{"margin_ms":4294967296001}}}"#,
            "field `a` of kind `k` has a margin of 4294967296001 ms: use at most 4294967296000, or inf",
        ),
        (r#"{"groups":{"g":[]}}"#, "group `g` of kind `k` is empty: name its fields, or remove it"),
        (
            r#"{"fields":{"a":{}},"groups":{"g":["a","a"]}}"#,
            "group `g` of kind `k` names `a` twice: remove one",
        ),
        (
            r#"{"open":true,"groups":{"g":["a"]}}"#,
            "group `g` of kind `k` names `a`, which is no field of it: declare it as a value",
        ),
        (
            r#"{"fields":{"a":{"margin_ms":1}},"groups":{"g":["a"]}}"#,
            "group `g` of kind `k` names `a`, which is \"value, margin 1 ms, newest\": make it a plain value, or take it out of the group",
        ),
        (
            r#"{"fields":{"a":{"resolver":"rank"}},"groups":{"g":["a"]}}"#,
            "group `g` of kind `k` names `a`, which is \"value, margin 0 ms, rank\": make it a plain value, or take it out of the group",
        ),
        (
            r#"{"fields":{"a":{"type":"set"}},"groups":{"g":["a"]}}"#,
            "group `g` of kind `k` names `a`, which is \"set, add wins\": make it a plain value, or take it out of the group",
        ),
        (
            r#"{"fields":{"a":{}},"groups":{"h":["a"],"g":["a"]}}"#,
            "field `a` of kind `k` is in the groups `g` and `h`: leave it in one",
        ),
        (r#"{"life":"never"}"#, "kind `k` has the life `never`: use delete-wins, edit-revives or newest"),
        (
            r#"{"fields":{"a":{"type":"list"}}}"#,
            "field `a` of kind `k` has the type `list`: use value, multi, set, map, counter, max, min or flag",
        ),
        (
            r#"{"fields":{"a":{"resolver":"best"}}}"#,
            "field `a` of kind `k` has the resolver `best`: use newest, oldest, rank, min or max",
        ),
        (
            r#"{"fields":{"a":{"type":"set","wins":"both"}}}"#,
            "field `a` of kind `k` has the wins `both`: use add or remove",
        ),
        (
            r#"{"fields":{"a":{"type":"multi","margin_ms":"inf"}}}"#,
            "field `a` of kind `k` is a multi with `margin_ms`, which only a value has: remove the key or change the type",
        ),
        (
            r#"{"fields":{"a":{"type":"max","resolver":"max"}}}"#,
            "field `a` of kind `k` is a max with `resolver`, which only a value has: remove the key or change the type",
        ),
        (
            r#"{"fields":{"a":{"wins":"add"}}}"#,
            "field `a` of kind `k` is a value with `wins`, which only a set has: remove the key or change the type",
        ),
        (
            r#"{"fields":{"a":{"resolver":"custom:x"}}}"#,
            "field `a` of kind `k` is resolved by a function: declare this schema in Rust",
        ),
        (
            r#"{"fields":{"a":{"type":"custom","resolver":"custom:x"}}}"#,
            "field `a` of kind `k` is resolved by a function: declare this schema in Rust",
        ),
        (
            r#"{"rules":[{"rule":"unique","name":"name per workspace","group":["workspace"],"field":"name"}]}"#,
            "rule `name per workspace` of kind `k` names `name`, which is no field of it: declare it",
        ),
    ] {
        assert_eq!(kind(body).unwrap_err().to_string(), message, "{body}");
    }
    let twice = Schema::from_json_str(r#"{"kinds":{"k":{},"j":{},"k":{}}}"#).unwrap_err();
    assert_eq!(twice.to_string(), "kind `k` is declared twice: remove one");
    let nameless = Schema::from_json_str(r#"{"kinds":{"":{}}}"#).unwrap_err();
    assert_eq!(nameless.to_string(), "a kind has a name of 0 bytes: use 1 to 255");
    let long = Schema::builder().kind("k".repeat(256), |k| k).build().unwrap_err();
    assert_eq!(long.to_string(), "a kind has a name of 256 bytes: use 1 to 255");
    assert!(Schema::builder().kind("k".repeat(255), |k| k.value("f".repeat(65_535))).build().is_ok());
    assert!(kind(r#"{"fields":{"a":{"margin_ms":4294967296000}}}"#).is_ok());
    let nameless = Schema::builder().kind("k", |k| k.custom("a", "", one_of)).build().unwrap_err();
    assert_eq!(
        nameless.to_string(),
        "the resolver of field `a` of kind `k` has a name of 0 bytes: use 1 to 255"
    );
}

#[test]
fn text_of_another_form_is_refused_with_its_position() {
    for (text, message) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{}", "missing field `kinds` at line 1 column 2"),
        (
            r#"{"kinds":{},"version":1}"#,
            "unknown field `version`, expected one of `kinds`, `open`, `epoch` at line 1 column 21",
        ),
        (r#"{"kinds":{},"kinds":{}}"#, "duplicate field `kinds` at line 1 column 19"),
        (r#"{"kinds":[]}"#, "invalid type: sequence, expected a map by name at line 1 column 9"),
        (
            r#"{"kinds":{"k":{"color":1}}}"#,
            "unknown field `color`, expected one of `life`, `open`, `aliases`, `fields`, `groups`, `scope`, `rules`, `migrations` at line 1 column 22",
        ),
        (
            r#"{"kinds":{"k":{"fields":{"a":{"margin":1}}}}}"#,
            "unknown field `margin`, expected one of `type`, `margin_ms`, `resolver`, `wins`, `authority`, `on_conflict`, `was`, `default` at line 1 column 38",
        ),
        (
            r#"{"kinds":{"k":{"fields":{"a":{"margin_ms":-1}}}}}"#,
            "invalid value: integer `-1`, expected a margin: a whole number of milliseconds, 0 or more, or \"inf\" at line 1 column 44",
        ),
        (
            r#"{"kinds":{"k":{"fields":{"a":{"margin_ms":"long"}}}}}"#,
            "invalid value: string \"long\", expected a margin: a whole number of milliseconds, 0 or more, or \"inf\" at line 1 column 48",
        ),
        (
            r#"{"kinds":{"k":{"fields":{"a":{"margin_ms":1.5}}}}}"#,
            "invalid type: floating point `1.5`, expected a margin: a whole number of milliseconds, 0 or more, or \"inf\" at line 1 column 45",
        ),
        (r#"{"kinds":{"k":{"life":null}}}"#, "invalid type: null, expected a string at line 1 column 26"),
        (r#"{"kinds":{"k":{"rules":[{"rule":"unique"}]}}}"#, "missing field `name` at line 1 column 41"),
        (r#"{"kinds":{}} x"#, "trailing characters at line 1 column 14"),
    ] {
        let error = Schema::from_json_str(text).unwrap_err();
        assert_eq!(error.to_string(), format!("the schema cannot be read: {message}"), "{text}");
    }
}

#[cfg(feature = "toml")]
#[test]
fn toml_holds_the_same_tree() {
    let toml = r#"
[kinds.task]
open = true
[kinds.task.fields]
title = {}
owner = { margin_ms = 5000, resolver = "rank" }
score = { margin_ms = "inf", resolver = "max" }
tags = { type = "set" }
views = { type = "counter" }
[kinds.task.fields.labels]
type = "map"
[kinds.time_entry]
life = "edit-revives"
rules = []
[kinds.time_entry.fields]
user = {}
text = {}
start = {}
stop = {}
[kinds.time_entry.groups]
interval = ["start", "stop"]
[kinds.project]
life = "newest"
[kinds.project.fields]
a = { type = "value" }
b = { type = "multi" }
c = { type = "set", wins = "remove" }
d = { type = "max" }
e = { type = "min" }
f = { type = "flag" }
g = { margin_ms = 0, resolver = "oldest" }
h = { margin_ms = 7, resolver = "min" }
i = { type = "set", wins = "add" }
"#;
    assert_eq!(Schema::from_toml_str(toml).unwrap().to_json(), CANONICAL);
    let open = Schema::from_toml_str("open = true\n[kinds]").unwrap();
    assert_eq!(open.to_json(), Schema::open().to_json());
}

#[cfg(feature = "toml")]
#[test]
fn toml_is_refused_as_json_is() {
    for (text, message) in [
        ("[kinds.k]\n[kinds.k]", "duplicate key"),
        ("[kinds.k.fields.a]\nmargin_ms = -1", "invalid value: integer `-1`, expected a margin"),
        ("[kinds.k.fields.a]\nmargin_ms = inf", "invalid type: floating point `inf`, expected a margin"),
        ("[kinds.k]\ncolor = 1", "unknown field `color`"),
        (
            "[[kinds.k.rules]]\nrule = \"unique\"\nname = \"n\"\nfield = \"f\"",
            "rule `n` of kind `k`: it lacks `group`: add it",
        ),
        ("[kinds.k.groups]\ng = []", "group `g` of kind `k` is empty"),
    ] {
        let error = Schema::from_toml_str(text).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
        assert_eq!(error.trim_end(), error);
    }
}

#[test]
fn the_fingerprint_ignores_order_and_feels_every_policy() {
    let one = kind(r#"{"fields":{"a":{},"b":{"type":"set"}},"groups":{"g":["a"]},"open":true}"#).unwrap();
    let two = kind(r#"{"open":true,"groups":{"g":["a"]},"fields":{"b":{"type":"set"},"a":{}}}"#).unwrap();
    assert_eq!(one.fingerprint(), two.fingerprint());
    let mut seen = std::collections::BTreeMap::new();
    let bodies = [
        "{}",
        r#"{"open":true}"#,
        r#"{"life":"edit-revives"}"#,
        r#"{"life":"newest"}"#,
        r#"{"fields":{"a":{}}}"#,
        r#"{"fields":{"b":{}}}"#,
        r#"{"fields":{"a":{},"b":{}}}"#,
        r#"{"fields":{"a":{"margin_ms":1}}}"#,
        r#"{"fields":{"a":{"margin_ms":2}}}"#,
        r#"{"fields":{"a":{"margin_ms":"inf"}}}"#,
        r#"{"fields":{"a":{"margin_ms":1,"resolver":"oldest"}}}"#,
        r#"{"fields":{"a":{"margin_ms":1,"resolver":"rank"}}}"#,
        r#"{"fields":{"a":{"margin_ms":1,"resolver":"min"}}}"#,
        r#"{"fields":{"a":{"margin_ms":1,"resolver":"max"}}}"#,
        r#"{"fields":{"a":{"type":"multi"}}}"#,
        r#"{"fields":{"a":{"type":"set"}}}"#,
        r#"{"fields":{"a":{"type":"set","wins":"remove"}}}"#,
        r#"{"fields":{"a":{"type":"map"}}}"#,
        r#"{"fields":{"a":{"type":"counter"}}}"#,
        r#"{"fields":{"a":{"type":"max"}}}"#,
        r#"{"fields":{"a":{"type":"min"}}}"#,
        r#"{"fields":{"a":{"type":"flag"}}}"#,
        r#"{"fields":{"a":{},"b":{}},"groups":{"g":["a"]}}"#,
        r#"{"fields":{"a":{},"b":{}},"groups":{"g":["a","b"]}}"#,
        r#"{"fields":{"a":{},"b":{}},"groups":{"h":["a","b"]}}"#,
        r#"{"fields":{"a":{},"b":{}},"groups":{"g":["a"],"h":["b"]}}"#,
    ];
    for body in bodies {
        if let Some(same) = seen.insert(kind(body).unwrap().fingerprint(), body) {
            panic!("{same} and {body} have one fingerprint");
        }
    }
    let custom = |name: &str| {
        Schema::builder()
            .kind("k", |k| k.resolver("a", Margin::Ms(1), name, one_of))
            .build()
            .unwrap()
            .fingerprint()
    };
    let fold = Schema::builder().kind("k", |k| k.custom("a", "x", one_of)).build().unwrap().fingerprint();
    for print in [custom("x"), custom("y"), custom("rank"), fold] {
        assert!(seen.insert(print, "a function").is_none());
    }
    assert_eq!(custom("x"), custom("x"));
}

#[test]
fn a_custom_resolver_sees_the_candidates_and_equals_by_name() {
    let schema = Schema::builder()
        .kind("k", |k| {
            k.resolver("a", Margin::Ms(1), "greatest rank", |candidates| {
                candidates.iter().max_by_key(|c| c.rank).map_or(Value::Null, |c| c.value.clone())
            })
        })
        .build()
        .unwrap();
    let FieldType::Value { resolver: Resolver::Custom(custom), .. } =
        &schema.kind("k").unwrap().field("a").unwrap().ty
    else {
        panic!("not the resolver that was given");
    };
    let (low, high) = (Value::Int(1), Value::Int(2));
    let candidates =
        [(9, &high), (1, &low)].map(|(rank, value)| Candidate { stamp: Stamp::LOWEST, rank, value });
    assert_eq!((custom.f)(&candidates), high);
    assert_eq!(*custom, CustomResolver::new("greatest rank", one_of));
    assert_ne!(*custom, CustomResolver::new("other", one_of));
    assert_eq!(format!("{custom:?}"), r#"CustomResolver("greatest rank")"#);
    assert_eq!(
        schema.to_json(),
        r#"{"kinds":{"k":{"fields":{"a":{"margin_ms":1,"resolver":"custom:greatest rank"}}}}}"#
    );
}

#[test]
fn compare_names_what_both_declare_and_merge_differently() {
    let ours = json(
        r#"{"kinds":{"only_ours":{"life":"newest"},"k":{"life":"newest","fields":{
            "same":{"type":"set"},"ours":{"type":"map"},"owner":{"margin_ms":5000,"resolver":"rank"},
            "tags":{"type":"set"},"start":{},"stop":{},"zone":{}},"groups":{"interval":["start","stop"]}}}}"#,
    );
    let theirs = json(
        r#"{"kinds":{"only_theirs":{},"k":{"open":true,"fields":{
            "same":{"type":"set"},"theirs":{"type":"map"},"owner":{},
            "tags":{"type":"set","wins":"remove"},"start":{},"stop":{},"zone":{},"more":{}},
            "groups":{"interval":["start","zone","more"]}}}}"#,
    );
    let found: Vec<_> = ours.compare(&theirs).iter().map(ToString::to_string).collect();
    let alike = "declare it alike on both sides";
    assert_eq!(
        found,
        [
            format!(r#"life of kind `k` merges as "newest" here and as "delete-wins" there: {alike}"#),
            format!(
                r#"field `owner` of kind `k` merges as "value, margin 5000 ms, rank" here and as "value, margin 0 ms, newest" there: {alike}"#
            ),
            format!(
                r#"field `stop` of kind `k` merges as "member of group `interval`" here and as "value, margin 0 ms, newest" there: {alike}"#
            ),
            format!(
                r#"field `tags` of kind `k` merges as "set, add wins" here and as "set, remove wins" there: {alike}"#
            ),
            format!(
                r#"field `zone` of kind `k` merges as "value, margin 0 ms, newest" here and as "member of group `interval`" there: {alike}"#
            ),
        ]
    );
    let mirrored: Vec<_> =
        ours.compare(&theirs).into_iter().map(|m| Mismatch { ours: m.theirs, theirs: m.ours, ..m }).collect();
    assert_eq!(theirs.compare(&ours), mirrored);
    assert!(ours.compare(&ours).is_empty());
    assert!(ours.compare(&Schema::open()).is_empty() && Schema::open().compare(&ours).is_empty());
}
