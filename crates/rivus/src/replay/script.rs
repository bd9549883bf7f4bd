//! The text of a script: one JSON object a line.
//!
//! Owns the format. Whatever it does not know is refused, with its line, before anything is run; whether an edit
//! fits the schema is for the engine to say when it comes to it.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::sync::Arc;

use rivus_core::clock::{MILLIS_MAX, Millis};
use rivus_core::edit::{Action, Op};
use rivus_core::schema::{Schema, SchemaError};
use rivus_core::value::{Value, ValueError};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{ReplayError, Way};

/// A script that was read and found good, ready for [`run`](super::run).
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) schema: Arc<Schema>,
    /// How far ahead a stamp may be; without it all are taken.
    pub(super) drift_ms_max: Option<u64>,
    pub(super) steps: Vec<Line>,
}

/// One step and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    pub(super) step: Step,
}

/// What is to be done. Replicas are named by their place in the order of declaration, from 0.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Replica { name: String, rank: u8 },
    On { replica: usize, at: Option<Millis>, act: Act },
    Sync { from: usize, to: usize, way: Way },
    Converge,
}

/// What one replica does, at its own time.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Edit(Op),
    Restart,
    Show,
}

impl Script {
    /// Reads a script to its end. Blank lines are passed over.
    ///
    /// # Errors
    /// [`ReplayError::Script`] for the first line with anything in it that the format does not know;
    /// [`ReplayError::Empty`]; [`ReplayError::Read`].
    ///
    /// ```
    /// use rivus::replay::Script;
    /// let newer = Script::parse(&br#"{"rivus":"replay/2","schema":{"kinds":{}}}"#[..]);
    /// assert!(newer.unwrap_err().to_string().starts_with("line 1: "));
    /// ```
    pub fn parse(reader: impl BufRead) -> Result<Self, ReplayError> {
        let mut lines = Lines { reader, buffer: Vec::new(), number: 0 };
        let Some((number, text)) = lines.next()? else { return Err(ReplayError::Empty) };
        let mut script = header(text).map_err(|fault| ReplayError::Script { line: number, fault })?;
        let mut names = BTreeMap::new();
        while let Some((number, text)) = lines.next()? {
            let step = step(text, &mut names);
            let step = step.map_err(|fault| ReplayError::Script { line: number, fault })?;
            script.steps.push(Line { number, step });
        }
        Ok(script)
    }
}

fn header(text: &str) -> Result<Script, Fault> {
    let mut keys = Keys::parse("the header", text)?;
    // First of all: what else a line of another version means is not known here.
    let version: String = keys.take("rivus")?;
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    let schema: &RawValue = keys.take("schema")?;
    let schema = Arc::new(Schema::from_json_str(schema.get())?);
    let drift_ms_max = keys.take_if("max_drift_ms")?;
    keys.end()?;
    Ok(Script { schema, drift_ms_max, steps: Vec::new() })
}

type Names = BTreeMap<String, usize>;

fn step(text: &str, names: &mut Names) -> Result<Step, Fault> {
    let mut keys = Keys::parse("a step", text)?;
    let word: String = keys.take("do")?;
    let Some(known) = STEPS.into_iter().find(|step| *step == word) else {
        return Err(Fault::UnknownStep(word));
    };
    keys.owner = known;
    let step = match known {
        "replica" => declare(&mut keys, names)?,
        "sync" => sync(&mut keys, names)?,
        "converge" => Step::Converge,
        _ => {
            let replica = known_name(names, keys.take("on")?)?;
            let at = keys.take_if("at")?.map(reading).transpose()?;
            Step::On { replica, at, act: act(known, &mut keys)? }
        }
    };
    keys.end()?;
    Ok(step)
}

fn declare(keys: &mut Keys<'_>, names: &mut Names) -> Result<Step, Fault> {
    let name: String = keys.take("name")?;
    let rank = keys.take_if("rank")?.unwrap_or_default();
    let number = names.len();
    if names.insert(name.clone(), number).is_some() {
        return Err(Fault::ReplicaTwice(name));
    }
    Ok(Step::Replica { name, rank })
}

fn sync(keys: &mut Keys<'_>, names: &Names) -> Result<Step, Fault> {
    let (way, [from, to]) = match keys.take_if::<[String; 2]>("between")? {
        Some(pair) => (Way::Both, pair),
        None => (Way::One, [keys.take("from")?, keys.take("to")?]),
    };
    if from == to {
        return Err(Fault::WithItself(from));
    }
    Ok(Step::Sync { from: known_name(names, from)?, to: known_name(names, to)?, way })
}

fn act(word: &str, keys: &mut Keys<'_>) -> Result<Act, Fault> {
    match word {
        "restart" => return Ok(Act::Restart),
        "show" => return Ok(Act::Show),
        _ => {}
    }
    let (kind, id): (String, String) = (keys.take("kind")?, keys.take("id")?);
    let action = match word {
        "put" => {
            let Object(fields) = keys.take("set")?;
            let fields = fields.into_iter().map(|(field, raw)| {
                let value = value(&field, raw)?;
                Ok((field, value))
            });
            Action::Put(fields.collect::<Result<_, Fault>>()?)
        }
        "add" => Action::Add { field: keys.take("field")?, key: keys.take("key")? },
        "remove" => Action::Remove { field: keys.take("field")?, key: keys.take("key")? },
        "set_key" => {
            let value = value("value", keys.take("value")?)?;
            Action::SetKey { field: keys.take("field")?, key: keys.take("key")?, value }
        }
        "inc" => Action::Inc { field: keys.take("field")?, by: keys.take("by")? },
        "delete" => Action::Delete,
        "revive" => Action::Revive,
        other => return Err(Fault::UnknownStep(other.to_owned())),
    };
    Ok(Act::Edit(Op { kind, id, action }))
}

fn known_name(names: &Names, name: String) -> Result<usize, Fault> {
    names.get(&name).copied().ok_or(Fault::UnknownReplica(name))
}

fn reading(at: i64) -> Result<Millis, Fault> {
    if at > MILLIS_MAX { Err(Fault::TooLate(at)) } else { Ok(Millis(at)) }
}

fn value(key: &str, raw: &RawValue) -> Result<Value, Fault> {
    Value::from_json(raw).map_err(|error| Fault::BadValue { key: key.to_owned(), error })
}

/// The lines of a script, with their numbers.
struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    /// The next line that is not blank.
    fn next(&mut self) -> Result<Option<(usize, &str)>, ReplayError> {
        loop {
            self.buffer.clear();
            let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX + 1);
            if bounded.read_until(b'\n', &mut self.buffer).map_err(ReplayError::Read)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.buffer.len() as u64 > LINE_BYTES_MAX {
                return Err(ReplayError::Script { line: self.number, fault: Fault::TooLong });
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        let refused = |_| ReplayError::Script { line: self.number, fault: Fault::NotUtf8 };
        let text = str::from_utf8(&self.buffer).map_err(refused)?;
        Ok(Some((self.number, text)))
    }
}

/// The keys of one line, taken out one by one: what is left at the end is not known.
struct Keys<'a> {
    /// Whose keys they are.
    owner: &'static str,
    left: BTreeMap<String, &'a RawValue>,
}

impl<'a> Keys<'a> {
    fn parse(owner: &'static str, text: &'a str) -> Result<Self, Fault> {
        let object = serde_json::from_str(text);
        let Object(left) =
            object.map_err(|error| Fault::Syntax { reason: reason(&error), column: error.column() })?;
        Ok(Self { owner, left })
    }

    fn take<T: Deserialize<'a>>(&mut self, key: &'static str) -> Result<T, Fault> {
        self.take_if(key)?.ok_or(Fault::MissingKey { owner: self.owner, key })
    }

    fn take_if<T: Deserialize<'a>>(&mut self, key: &'static str) -> Result<Option<T>, Fault> {
        let Some(raw) = self.left.remove(key) else { return Ok(None) };
        let read = serde_json::from_str(raw.get());
        read.map(Some).map_err(|error| Fault::BadKey { key, reason: reason(&error) })
    }

    fn end(self) -> Result<(), Fault> {
        match self.left.into_keys().next() {
            Some(key) => Err(Fault::UnknownKey { owner: self.owner, key }),
            None => Ok(()),
        }
    }
}

/// An object whose entries are still unread; a key twice is refused.
struct Object<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object<'de>, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = access.next_entry::<String, &RawValue>()? {
                    if entries.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("key `{key}` is there twice")));
                    }
                    entries.insert(key, value);
                }
                Ok(Object(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// What serde says, without a place: that would be the one within the value.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

const VERSION: &str = "replay/1";

const STEPS: [&str; 12] = [
    "replica", "put", "add", "set_key", "remove", "inc", "delete", "revive", "sync", "restart", "show",
    "converge",
];

/// How long a line may be: an edit of the greatest size fits, however it is escaped.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The line is longer than any edit can be.
    #[error("longer than {LINE_BYTES_MAX} bytes: make several edits of it")]
    TooLong,
    /// The bytes are no text.
    #[error("not UTF-8: save the script as UTF-8")]
    NotUtf8,
    /// The line is not one JSON object.
    #[error("not one JSON object ({reason}, column {column}): each line is an object of its own")]
    Syntax {
        /// What was met instead.
        reason: String,
        /// Where, from 1.
        column: usize,
    },
    /// Another version of the format.
    #[error("the version is `{0}`, this program reads `{VERSION}`: update it, or the script")]
    Version(String),
    /// The schema does not hold.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A step that the format does not have.
    #[error("unknown step `{0}`: use one of {steps}", steps = STEPS.join(", "))]
    UnknownStep(String),
    /// A key that the step does not have.
    #[error("{owner} takes no key `{key}`: remove it")]
    UnknownKey {
        /// The step.
        owner: &'static str,
        /// The key.
        key: String,
    },
    /// A key that the step must have.
    #[error("{owner} needs the key `{key}`: add it")]
    MissingKey {
        /// The step.
        owner: &'static str,
        /// The key.
        key: &'static str,
    },
    /// What a key holds is of the wrong type.
    #[error("`{key}` cannot be read ({reason}): correct it")]
    BadKey {
        /// The key.
        key: &'static str,
        /// What was met, and what was expected.
        reason: String,
    },
    /// What a field is to be set to is no value.
    #[error("`{key}` holds no value ({error}): correct it")]
    BadValue {
        /// The field, or `value`.
        key: String,
        /// What is wrong with it.
        error: ValueError,
    },
    /// A replica that no line above declares.
    #[error("no replica `{0}` is declared above: declare it with {{\"do\":\"replica\",\"name\":…}}")]
    UnknownReplica(String),
    /// A name that is taken.
    #[error("replica `{0}` is declared twice: give each a name of its own")]
    ReplicaTwice(String),
    /// A sync with one end.
    #[error("`{0}` cannot sync with itself: name two replicas")]
    WithItself(String),
    /// A reading that stamps cannot follow.
    #[error("`at` is {0}, but clocks end in 2106: use at most {MILLIS_MAX}")]
    TooLate(i64),
}
