//! Histories: edits on a few replicas, with clocks, and syncs between them.
//!
//! Owns the type, its strategy, and its two written forms: a token (one line, all of it) and a replay script, which
//! `rivus replay` runs on the real engine. Runs nothing itself.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::{NewTree, ValueTree};
use proptest::test_runner::TestRunner;
use rivus_core::edit::{Action, Op};
use rivus_core::value::{Json, Value};
use serde_json::json;

use super::shrink::HistoryTree;
use super::{ids, small_values, values};

/// Edits on two to five replicas and syncs between them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// One for each replica: the authority of its edits. The first is replica 1.
    pub ranks: Vec<u8>,
    /// What happens, in this order.
    pub steps: Vec<Step>,
}

/// One step of a [`History`]. Replicas are counted from 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A replica edits.
    Edit {
        /// Which replica.
        on: usize,
        /// What its clock says, in ms since 1970; it may step back.
        at: i64,
        /// The edit.
        op: Op,
    },
    /// One replica gets all that another has.
    Sync {
        /// Who sends.
        from: usize,
        /// Who receives.
        to: usize,
    },
}

impl History {
    /// The schema that histories are about, as JSON: one kind `task` with a field of every sort. Margins are 5 ms.
    #[must_use]
    pub fn schema() -> &'static str {
        concat!(
            r#"{"kinds":{"task":{"fields":{"title":{},"owner":{"margin_ms":5,"resolver":"rank"},"#,
            r#""note":{"type":"multi"},"tags":{"type":"set"},"labels":{"type":"map"},"views":{"type":"counter"}}}}}"#
        )
    }

    /// A replay script of the history, which ends with all replicas synced and shown: JSON Lines for `rivus replay`.
    #[must_use]
    pub fn to_replay(&self) -> String {
        let mut script = format!("{{\"rivus\":\"replay/1\",\"schema\":{}}}\n", Self::schema());
        let mut line = |keys: Vec<(&str, serde_json::Value)>| {
            let keys: Vec<_> = keys.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            script.push_str(&format!("{{{}}}\n", keys.join(",")));
        };
        for (replica, rank) in self.ranks.iter().enumerate() {
            line(vec![("do", json!("replica")), ("name", json!(name(replica))), ("rank", json!(rank))]);
        }
        for step in &self.steps {
            match step {
                Step::Edit { on, at, op } => {
                    let (word, keys) = action(&op.action);
                    let mut all = vec![("do", json!(word)), ("on", json!(name(*on))), ("at", json!(at))];
                    all.extend([("kind", json!(op.kind)), ("id", json!(op.id))]);
                    all.extend(keys);
                    line(all);
                }
                Step::Sync { from, to } => {
                    line(vec![("do", json!("sync")), ("from", json!(name(*from))), ("to", json!(name(*to)))]);
                }
            }
        }
        line(vec![("do", json!("converge"))]);
        script
    }

    /// The history in one line of letters, digits, `-`, `_` and a dot.
    #[must_use]
    pub fn token(&self) -> String {
        let ranks = Value::List(self.ranks.iter().map(|rank| i64::from(*rank).into()).collect());
        let steps = Value::List(self.steps.iter().map(packed).collect());
        format!("{VERSION}.{}", URL_SAFE_NO_PAD.encode(Value::List(vec![ranks, steps]).to_bytes()))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`BadToken`] if it is of another version, was cut off or changed.
    pub fn from_token(token: &str) -> Result<Self, BadToken> {
        let bad = || BadToken(token.chars().take(40).collect());
        let (version, packed) = token.trim().split_once('.').ok_or_else(bad)?;
        if version != VERSION {
            return Err(bad());
        }
        let bytes = URL_SAFE_NO_PAD.decode(packed).map_err(|_| bad())?;
        let history = Value::decode(&bytes).ok().and_then(unpacked).ok_or_else(bad)?;
        let replicas = history.ranks.len();
        let known = history.steps.iter().all(|step| match step {
            Step::Edit { on, .. } => *on < replicas,
            Step::Sync { from, to } => *from < replicas && *to < replicas && from != to,
        });
        if known { Ok(history) } else { Err(bad()) }
    }
}

/// Histories of two to five replicas and up to 24 steps on two entities. Clocks nearly tie, and step back; values
/// are plain, some hostile. Shrinking drops replicas, then edits, then syncs.
#[must_use]
pub fn histories() -> Histories {
    Histories(())
}

/// The strategy of [`histories`].
#[derive(Clone, Copy, Debug)]
pub struct Histories(());

impl Strategy for Histories {
    type Tree = HistoryTree;
    type Value = History;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let tree = drawn().new_tree(runner)?;
        Ok(HistoryTree::new(tree.current()))
    }
}

fn drawn() -> impl Strategy<Value = History> {
    vec(0..3_u8, 2..6).prop_flat_map(|ranks| {
        let at = prop_oneof![8 => 1000..1016_i64, 1 => 0..3_i64, 1 => 90_000..90_008_i64];
        let everything = steps(ranks.len(), 1..25, at, (ids(), actions()));
        // A few at one register and time: there the rare meetings are, and no later write covers them up.
        let focused = select(vec!["owner", "note", "note", "title"]).prop_flat_map({
            let count = ranks.len();
            move |field| {
                let edits = (Just("e1".to_owned()), put(Just(field.to_owned())));
                steps(count, 3..14, 1000..1016_i64, edits)
            }
        });
        prop_oneof![everything, focused].prop_map(move |steps| History { ranks: ranks.clone(), steps })
    })
}

fn steps(
    replicas: usize,
    count: Range<usize>,
    at: impl Strategy<Value = i64>,
    edits: impl Strategy<Value = (String, Action)>,
) -> impl Strategy<Value = Vec<Step>> {
    let edit = (0..replicas, at, edits).prop_map(|(on, at, (id, action))| Step::Edit {
        on,
        at,
        op: Op::new("task", id, action),
    });
    let sync = (0..replicas, 1..replicas)
        .prop_map(move |(from, by)| Step::Sync { from, to: (from + by) % replicas });
    vec(prop_oneof![5 => edit, 3 => sync], count)
}

fn put(field: impl Strategy<Value = String>) -> impl Strategy<Value = Action> {
    let value = prop_oneof![6 => small_values(), 1 => values()];
    prop::collection::btree_map(field, value, 1..3)
        .prop_map(|fields| Action::Put(fields.into_iter().collect()))
}

fn actions() -> impl Strategy<Value = Action> {
    let key = || select(vec!["k", "l"]).prop_map(str::to_owned);
    let field = select(vec!["title", "owner", "note"]).prop_map(str::to_owned);
    let tags = || "tags".to_owned();
    let labels = || "labels".to_owned();
    prop_oneof![
        10 => put(field),
        2 => key().prop_map(move |key| Action::Add { field: tags(), key }),
        2 => key().prop_map(move |key| Action::Remove { field: tags(), key }),
        2 => (key(), values()).prop_map(move |(key, value)| Action::SetKey { field: labels(), key, value }),
        1 => key().prop_map(move |key| Action::Remove { field: labels(), key }),
        2 => (-2..4_i64).prop_map(|by| Action::Inc { field: "views".to_owned(), by }),
        2 => Just(Action::Delete),
        1 => Just(Action::Revive),
    ]
}

/// `a`, `b`, …: as many as there are replicas.
fn name(replica: usize) -> String {
    u8::try_from(replica)
        .ok()
        .and_then(|n| n.checked_add(b'a'))
        .filter(u8::is_ascii_lowercase)
        .map_or_else(|| format!("r{replica}"), |letter| char::from(letter).to_string())
}

/// The step's word, and the keys of its own.
fn action(action: &Action) -> (&'static str, Vec<(&'static str, serde_json::Value)>) {
    match action {
        Action::Put(fields) => {
            let set: BTreeMap<_, _> =
                fields.iter().map(|(field, value)| (field.clone(), Json(value))).collect();
            ("put", vec![("set", json!(set))])
        }
        Action::Add { field, key } => ("add", vec![("field", json!(field)), ("key", json!(key))]),
        Action::Remove { field, key } => ("remove", vec![("field", json!(field)), ("key", json!(key))]),
        Action::SetKey { field, key, value } => {
            ("set_key", vec![("field", json!(field)), ("key", json!(key)), ("value", json!(Json(value)))])
        }
        Action::Inc { field, by } => ("inc", vec![("field", json!(field)), ("by", json!(by))]),
        Action::Delete => ("delete", Vec::new()),
        Action::Revive => ("revive", Vec::new()),
        Action::Alias { to } => ("alias", vec![("to", json!(to))]),
    }
}

/// A step as a list. Values lie in it as bytes, so that their depth does not add to its own.
fn packed(step: &Step) -> Value {
    let number = |n: &usize| Value::Int(i64::try_from(*n).unwrap_or(i64::MAX));
    match step {
        Step::Sync { from, to } => Value::List(vec![number(from), number(to)]),
        Step::Edit { on, at, op } => {
            let mut list = vec![number(on), Value::Int(*at), op.kind.as_str().into(), op.id.as_str().into()];
            let text = |text: &String| Value::from(text.as_str());
            let bytes = |value: &Value| Value::Bytes(value.to_bytes());
            list.extend(match &op.action {
                Action::Put(fields) => {
                    let fields = fields.iter().flat_map(|(field, value)| [text(field), bytes(value)]);
                    [Value::from("put")].into_iter().chain(fields).collect()
                }
                Action::Add { field, key } => vec!["add".into(), text(field), text(key)],
                Action::Remove { field, key } => vec!["remove".into(), text(field), text(key)],
                Action::SetKey { field, key, value } => {
                    vec!["set_key".into(), text(field), text(key), bytes(value)]
                }
                Action::Inc { field, by } => vec!["inc".into(), text(field), (*by).into()],
                Action::Delete => vec!["delete".into()],
                Action::Revive => vec!["revive".into()],
                Action::Alias { to } => vec!["alias".into(), text(to)],
            });
            Value::List(list)
        }
    }
}

fn unpacked(value: Value) -> Option<History> {
    let Value::List(parts) = value else { return None };
    let [Value::List(ranks), Value::List(steps)] = parts.as_slice() else { return None };
    let rank = |value: &Value| if let Value::Int(n) = value { u8::try_from(*n).ok() } else { None };
    let ranks = ranks.iter().map(rank).collect::<Option<_>>()?;
    Some(History { ranks, steps: steps.iter().map(unpacked_step).collect::<Option<_>>()? })
}

fn unpacked_step(step: &Value) -> Option<Step> {
    let Value::List(parts) = step else { return None };
    let number = |n: &i64| usize::try_from(*n).ok();
    match parts.as_slice() {
        [Value::Int(from), Value::Int(to)] => Some(Step::Sync { from: number(from)?, to: number(to)? }),
        [
            Value::Int(on),
            Value::Int(at),
            Value::Text(kind),
            Value::Text(id),
            Value::Text(word),
            rest @ ..,
        ] => {
            let op = Op::new(kind.as_str(), id.as_str(), unpacked_action(word, rest)?);
            Some(Step::Edit { on: number(on)?, at: *at, op })
        }
        _ => None,
    }
}

fn unpacked_action(word: &str, rest: &[Value]) -> Option<Action> {
    Some(match (word, rest) {
        ("put", fields) => {
            let field = |pair: &[Value]| match pair {
                [Value::Text(field), Value::Bytes(bytes)] => {
                    Some((field.clone(), Value::decode(bytes).ok()?))
                }
                _ => None,
            };
            Action::Put(fields.chunks(2).map(field).collect::<Option<_>>()?)
        }
        ("add", [Value::Text(field), Value::Text(key)]) => {
            Action::Add { field: field.clone(), key: key.clone() }
        }
        ("remove", [Value::Text(field), Value::Text(key)]) => {
            Action::Remove { field: field.clone(), key: key.clone() }
        }
        ("set_key", [Value::Text(field), Value::Text(key), Value::Bytes(bytes)]) => {
            let value = Value::decode(bytes).ok()?;
            Action::SetKey { field: field.clone(), key: key.clone(), value }
        }
        ("inc", [Value::Text(field), Value::Int(by)]) => Action::Inc { field: field.clone(), by: *by },
        ("delete", []) => Action::Delete,
        ("revive", []) => Action::Revive,
        _ => return None,
    })
}

const VERSION: &str = "h1";

/// A text that is no token of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadToken(pub String);

impl std::error::Error for BadToken {}

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no token of a history (`{VERSION}.…`): copy the whole line", self.0)
    }
}
