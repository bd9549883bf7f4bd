//! Reading entities from files.
//!
//! Owns the transactions and what a field in a file means by its policy; the formats are in [`records`].
//! Invariant: what a file says is so already is not written again, so an import can be repeated.

mod records;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rivus::rivus_core::schema::{Field, Slot};
use rivus::{Action, Db, EditError, Error, FieldType, Op, Shown, Transaction, Value, View};
use serde::Serialize;

use crate::args::{Format, Global, Import};
use crate::database::{self, extension};
use crate::output::Output;
use records::{Options, Record};

/// `rivus import`.
pub(crate) fn run(global: &Global, import: &Import, out: &mut Output) -> Result<()> {
    let Some(format) = import.format.or_else(|| format_of(&import.file)) else {
        return Err(crate::usage("the file's extension does not say its format: give --format"));
    };
    if format == Format::Csv && import.kind.is_none() {
        return Err(crate::usage("a CSV file does not say what its rows are: give --kind"));
    }
    let (input, bar) = open_file(&import.file)?;
    let db = database::open_or_make(global)?;
    let mut importer = Importer { db: &db, batch: Vec::new(), bytes: 0, entities: 0, transactions: 0 };
    let options = Options { kind: import.kind.as_deref(), id: import.id.as_deref(), infer: import.infer };
    let read = records::read(BufReader::new(input), format, options, &mut |record| importer.add(record));
    let done = read.and_then(|()| importer.flush());
    bar.finish_and_clear();
    done.map_err(|error| {
        let entities = entities_text(importer.entities);
        let then = if is_of_the_store(&error) { "then" } else { "mend the file and" };
        anyhow!("{error:#}; {entities} before that went in: {then} import it again")
    })?;
    #[derive(Serialize)]
    struct Done {
        entities: usize,
        transactions: usize,
    }
    let done = Done { entities: importer.entities, transactions: importer.transactions };
    let (entities, file) = (entities_text(done.entities), global.db.display());
    Ok(out.say(format_args!("imported {entities} into {file}"), &done)?)
}

/// Whether it is the database that failed, and not what was read.
fn is_of_the_store(error: &anyhow::Error) -> bool {
    let of_store = |error: &Error| matches!(error, Error::Store(_) | Error::Edit(EditError::Commit(_)));
    error.chain().filter_map(|cause| cause.downcast_ref()).any(of_store)
}

/// The format that a file's extension names.
pub(crate) fn format_of(path: &Path) -> Option<Format> {
    match extension(path)?.as_str() {
        "json" => Some(Format::Json),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}

/// `1 entity`, `2 entities`.
pub(crate) fn entities_text(entities: usize) -> String {
    if entities == 1 { "1 entity".to_owned() } else { format!("{entities} entities") }
}

/// The file, and a bar that follows how much of it is read.
fn open_file(path: &Path) -> Result<(Box<dyn Read>, ProgressBar)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), ProgressBar::hidden()));
    }
    let failed = || format!("{} cannot be read", path.display());
    let file = File::open(path).with_context(failed)?;
    let about = file.metadata().with_context(failed)?;
    if about.is_dir() {
        bail!("{} is a folder: give a file", path.display());
    }
    // On standard error, and only if that is a terminal.
    let bar = ProgressBar::new(about.len());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    Ok((Box::new(bar.wrap_read(file)), bar))
}

struct Importer<'d> {
    db: &'d Db,
    /// Of the transaction that is being filled.
    batch: Vec<Record>,
    bytes: usize,
    /// What is in.
    entities: usize,
    transactions: usize,
}

impl Importer<'_> {
    fn add(&mut self, record: Record) -> Result<()> {
        self.bytes += record.bytes;
        self.batch.push(record);
        if self.batch.len() < ENTITIES_MAX && self.bytes < BYTES_MAX { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        self.commit(&batch)
    }

    fn commit(&mut self, records: &[Record]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut at = None;
        let done = self.db.transaction(|tx| {
            for record in records {
                at = Some(record.place);
                for action in actions(self.db, tx, record)? {
                    tx.apply(&Op::new(&record.kind, &record.id, action))?;
                }
            }
            at = None;
            Ok(())
        });
        match (done, at) {
            (Ok(()), _) => {
                self.entities += records.len();
                self.transactions += 1;
                Ok(())
            }
            // Many registers of few bytes each: half of it at a time.
            (Err(Error::Edit(EditError::TooLarge { .. })), _) if records.len() > 1 => {
                let (first, second) = records.split_at(records.len() / 2);
                self.commit(first)?;
                self.commit(second)
            }
            (Err(error), Some(place)) => Err(error).with_context(|| place.to_string()),
            (Err(error), None) => Err(error.into()),
        }
    }
}

/// What is to be done so that the entity shows what the record says.
fn actions(db: &Db, tx: &mut Transaction<'_, '_>, record: &Record) -> Result<Vec<Action>, Error> {
    let Some(kind) = db.schema().kind(&record.kind) else {
        return Err(EditError::UndeclaredKind { kind: record.kind.clone() }.into());
    };
    let mut view = None;
    let (mut plain, mut others) = (Vec::new(), Vec::new());
    for (name, value) in &record.fields {
        let ty = match kind.slot(name) {
            Slot::Field(Field { ty, .. }) => ty,
            _ => &FieldType::PLAIN,
        };
        if !matches!(ty, FieldType::Set { .. } | FieldType::Map | FieldType::Counter | FieldType::Multi) {
            plain.push((name.clone(), value.clone()));
            continue;
        }
        let view = match &mut view {
            Some(view) => view,
            None => view.insert(tx.view(&record.kind, &record.id)?.unwrap_or_default()),
        };
        others.extend(keyed(ty, name, value, view)?);
    }
    // First, and even if it is empty: it creates the entity.
    others.insert(0, Action::Put(plain));
    Ok(others)
}

/// The same for a field that is more than one value.
fn keyed(ty: &FieldType, name: &str, value: &Value, view: &View) -> Result<Vec<Action>, Error> {
    let wrong = |takes| {
        let value = crate::table::value(value);
        Error::app(format!("field `{name}` is {takes}, not {value}; a CSV file needs --infer for that"))
    };
    let (field, shown) = (|| name.to_owned(), view.fields.get(name));
    match (ty, value) {
        (FieldType::Set { .. }, Value::List(keys)) => {
            let is_in = |key: &String| matches!(shown, Some(Shown::Set(keys)) if keys.contains(key));
            let texts = keys.iter().map(|key| match key {
                Value::Text(key) => Ok(key.clone()),
                _ => Err(wrong("a set: give a list of texts")),
            });
            let keys = texts.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|key| !is_in(key));
            Ok(keys.map(|key| Action::Add { field: field(), key }).collect())
        }
        (FieldType::Set { .. }, _) => Err(wrong("a set: give a list of texts")),
        (FieldType::Map, Value::Map(entries)) => {
            let before = |key| match shown {
                Some(Shown::Map(entries)) => entries.get(key),
                _ => None,
            };
            let changed = entries.iter().filter(|(key, value)| before(*key) != Some(*value));
            let set = |(key, value): (&String, &Value)| Action::SetKey {
                field: field(),
                key: key.clone(),
                value: value.clone(),
            };
            Ok(changed.map(set).collect())
        }
        (FieldType::Map, _) => Err(wrong("a map: give an object")),
        (FieldType::Counter, Value::Int(number)) => {
            let before = match shown {
                Some(Shown::Counter(sum)) => *sum,
                _ => 0,
            };
            let by =
                i64::try_from(i128::from(*number) - before).map_err(|_| wrong("a counter too far away"))?;
            Ok(if by == 0 { Vec::new() } else { vec![Action::Inc { field: field(), by }] })
        }
        (FieldType::Counter, _) => Err(wrong("a counter: give a whole number")),
        // A multi field shows the list of all its candidates.
        (_, value) if matches!(shown, Some(Shown::Value(shown)) if shown == value) => Ok(Vec::new()),
        (_, Value::List(values)) => match values.as_slice() {
            [one] => Ok(vec![Action::Put(vec![(field(), one.clone())])]),
            _ => Err(wrong("a multi field: give a list of the one value that it is to have")),
        },
        (_, one) => Ok(vec![Action::Put(vec![(field(), one.clone())])]),
    }
}

/// The most entities of one transaction: enough that its commit costs little per entity.
const ENTITIES_MAX: usize = 1000;
/// A transaction is full at so many bytes of input: far below what one edit may write, as a rule.
const BYTES_MAX: usize = 1 << 20;
