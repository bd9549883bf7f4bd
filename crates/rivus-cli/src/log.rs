//! The journal: what changed, and taking an edit back.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use rivus::rivus_core::clock::{Stamp, ticks};
use rivus::rivus_core::value::Json;
use rivus::{Edited, JournalKeep, LogChange, LogEntry, LogFilter, LogWhat, Origin, Value};
use serde::Serialize;

use crate::args::Global;
use crate::database;
use crate::output::Output;
use crate::table::{self, Table, printable, when, writer};

/// Which changes to print, or how many to keep.
#[derive(Args, Debug)]
pub(crate) struct Log {
    /// Changes of this kind
    kind: Option<String>,
    /// Changes of this entity
    id: Option<String>,
    /// The newest, at most so many entries
    #[arg(long, value_name = "N", default_value_t = 100)]
    last: usize,
    /// Begin a journal, and keep what is younger than so many days
    #[arg(long, value_name = "DAYS", conflicts_with_all = ["off", "kind"])]
    keep: Option<u32>,
    /// End the journal and drop what it has
    #[arg(long, conflicts_with = "kind")]
    off: bool,
}

/// Which edit to take back.
#[derive(Args, Debug)]
pub(crate) struct Undo {
    /// Its number in the log
    number: u64,
}

pub(crate) const LOG: &str = "\
A database keeps a journal once it was told to. Every program that opens it goes on with it.

Examples:
  rivus log --keep 90
  rivus log
  rivus log task t1 --last 5
  rivus --json log task | jq '.changes[] | {id, field, before, after}'";

pub(crate) const UNDO: &str = "\
What the edit changed shows again what it did before; what shows something else meanwhile stays. It is a new
edit: others get it as any other.

Example:
  rivus undo 17";

/// `rivus log`.
pub(crate) fn log(global: &Global, log: &Log, out: &mut Output) -> Result<()> {
    let db = database::open(global)?;
    if log.off || log.keep.is_some() {
        let keep = log.keep.map(|days| JournalKeep { days: Some(days), ..JournalKeep::default() });
        db.keep_journal(keep)?;
        let text = log.keep.map_or("no journal is kept".to_owned(), |days| {
            format!("changes are kept for {days} days, up to 16 MiB of them")
        });
        return Ok(out.say(text, &KeptJson { days: log.keep })?);
    }
    if db.journal_keep()?.is_none() {
        bail!("{} keeps no journal: begin one with `log --keep DAYS`", global.db.display());
    }
    let filter = LogFilter::default().last(log.last);
    let filter = match (&log.kind, &log.id) {
        (Some(kind), Some(id)) => filter.entity(kind, id),
        (Some(kind), None) => filter.kind(kind),
        _ => filter,
    };
    let entries = db.log(&filter)?;
    if out.is_json() {
        return Ok(entries.iter().try_for_each(|entry| out.json(&EntryJson::of(entry)))?);
    }
    let header = ["number", "when", "whose", "entity", "what", "before", "after"];
    let mut table = Table::new(header, [10, 24, 12, 30, 24, 30, 30]);
    for entry in &entries {
        for (at, change) in entry.changes.iter().enumerate() {
            let once = |text: String| if at == 0 { text } else { String::new() };
            let text = |value: &Option<Value>| value.as_ref().map(table::value).unwrap_or_default();
            table.push([
                once(entry.number.to_string()),
                once(applied(entry)),
                once(whose(entry)),
                printable(&format!("{} {}", change.kind, change.id)),
                printable(&what(change)),
                text(&change.before),
                text(&change.after),
            ]);
        }
    }
    Ok(write!(out, "{table}")?)
}

/// `rivus undo`.
pub(crate) fn undo(global: &Global, undo: &Undo, out: &mut Output) -> Result<()> {
    let undone = database::open(global)?.undo(undo.number)?;
    let left: Vec<_> = undone.left.iter().map(ChangeJson::of).collect();
    let undone_at = match undone.edited {
        Edited::Committed { stamp, .. } => Some(stamp),
        Edited::Nothing => None,
    };
    if out.is_json() {
        return Ok(out.json(&UndoneJson { stamp: undone_at.map(|stamp| stamp.to_string()), left })?);
    }
    match undone_at {
        Some(_) => writeln!(out, "edit {} is taken back", undo.number)?,
        None => writeln!(out, "nothing of edit {} is taken back", undo.number)?,
    }
    for change in &undone.left {
        let (kind, id, what) = (printable(&change.kind), printable(&change.id), printable(&what(change)));
        writeln!(out, "left as it is, having changed since: {kind} `{id}` {what}")?;
    }
    Ok(())
}

fn applied(entry: &LogEntry) -> String {
    let ms = u64::try_from(entry.at.0).unwrap_or(0);
    when(Stamp { time: ticks(ms), ..Stamp::LOWEST })
}

fn whose(entry: &LogEntry) -> String {
    match entry.origin {
        Origin::Local => "here".to_owned(),
        Origin::Remote(_) => {
            let stamp = entry.changes.iter().map(|change| change.stamp).max();
            stamp.map(writer).unwrap_or_default()
        }
        Origin::Withdrawn => "taken back".to_owned(),
        Origin::Evicted => "evicted".to_owned(),
        Origin::OtherProcess => "by another process".to_owned(),
        Origin::Left => "left the scopes that are followed".to_owned(),
    }
}

fn what(change: &LogChange) -> String {
    match &change.what {
        LogWhat::Life => "alive".to_owned(),
        LogWhat::AtHand => "at hand".to_owned(),
        LogWhat::Field(field) | LogWhat::Group(field) => field.clone(),
        LogWhat::Key { field, key } => format!("{field}.{key}"),
        LogWhat::Count { field, .. } => format!("{field} (of one writer)"),
        _ => "unknown".to_owned(),
    }
}

#[derive(Serialize)]
struct KeptJson {
    days: Option<u32>,
}

#[derive(Serialize)]
struct UndoneJson<'c> {
    /// Of the new edit; null if there was nothing to do.
    stamp: Option<String>,
    left: Vec<ChangeJson<'c>>,
}

#[derive(Serialize)]
struct EntryJson<'e> {
    number: u64,
    at: String,
    /// `local`, `remote`, `withdrawn` or `evicted`.
    origin: &'static str,
    /// The store that sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    changes: Vec<ChangeJson<'e>>,
}

impl<'e> EntryJson<'e> {
    fn of(entry: &'e LogEntry) -> Self {
        let (origin, from) = match entry.origin {
            Origin::Local => ("local", None),
            Origin::Remote(store) => ("remote", Some(store.to_string())),
            Origin::Withdrawn => ("withdrawn", None),
            Origin::Evicted => ("evicted", None),
            Origin::OtherProcess => ("other-process", None),
            Origin::Left => ("left", None),
        };
        let changes = entry.changes.iter().map(ChangeJson::of).collect();
        Self { number: entry.number, at: applied(entry), origin, from, changes }
    }
}

#[derive(Serialize)]
struct ChangeJson<'c> {
    kind: &'c str,
    id: &'c str,
    /// `life`, `at_hand`, `field`, `group`, `key` or `count`.
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Absent where there was nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Json<'c>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Json<'c>>,
    stamp: String,
}

impl<'c> ChangeJson<'c> {
    fn of(change: &'c LogChange) -> Self {
        let (what, key) = match &change.what {
            LogWhat::Life => ("life", None),
            LogWhat::AtHand => ("at_hand", None),
            LogWhat::Field(_) => ("field", None),
            LogWhat::Group(_) => ("group", None),
            LogWhat::Key { key, .. } => ("key", Some(key.clone())),
            LogWhat::Count { replica, .. } => ("count", Some(replica.to_string())),
            _ => ("unknown", None),
        };
        Self {
            kind: &change.kind,
            id: &change.id,
            what,
            field: change.what.name(),
            key,
            before: change.before.as_ref().map(Json),
            after: change.after.as_ref().map(Json),
            stamp: change.stamp.to_string(),
        }
    }
}
