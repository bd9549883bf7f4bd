//! `rivus conflicts`: this database's lost writes.

use std::io::Write;

use anyhow::{Result, bail};
use rivus::rivus_core::value::Json;
use rivus::{Conflict, Value};
use serde::Serialize;

use crate::args::{Conflicts, Global};
use crate::database;
use crate::output::Output;
use crate::table::{self, printable, when, writer};

/// `rivus conflicts`.
pub(crate) fn run(global: &Global, conflicts: &Conflicts, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct DoneJson {
        #[serde(skip_serializing_if = "Option::is_none")]
        dismissed: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        restored: Option<u64>,
    }
    let db = database::open(global)?;
    for number in &conflicts.dismiss {
        if !db.dismiss_conflict(*number)? {
            bail!("there is no conflict {number}: `conflicts` lists them");
        }
        let done = DoneJson { dismissed: Some(*number), restored: None };
        out.say(format_args!("conflict {number} dismissed"), &done)?;
    }
    for number in &conflicts.restore {
        if db.restore_conflict(*number)?.is_none() {
            bail!("there is no conflict {number}: `conflicts` lists them");
        }
        let done = DoneJson { dismissed: None, restored: Some(*number) };
        out.say(format_args!("conflict {number}: the lost value is written again"), &done)?;
    }
    if !conflicts.dismiss.is_empty() || !conflicts.restore.is_empty() {
        return Ok(());
    }
    let all = db.conflicts()?;
    for conflict in &all {
        if out.is_json() {
            out.json(&ConflictJson::of(conflict))?;
        } else {
            write!(out, "{}", told(conflict))?;
        }
    }
    let dropped = db.conflicts_dropped()?;
    if !out.is_json() {
        match (all.is_empty(), dropped) {
            (true, 0) => writeln!(out, "no conflicts")?,
            (_, 0) => {}
            (_, dropped) => writeln!(out, "and {dropped} earlier, dropped because there were too many")?,
        }
    }
    Ok(())
}

fn told(conflict: &Conflict) -> String {
    let value = |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), table::value);
    let Conflict { number, kind, id, field, key, .. } = conflict;
    let field = match (field, key) {
        (None, _) => "its life".to_owned(),
        (Some(field), None) => printable(field),
        (Some(field), Some(key)) => format!("{}[{}]", printable(field), printable(key)),
    };
    let winner = if conflict.deleted {
        "the entity was deleted".to_owned()
    } else {
        format!("it shows {}", value(&conflict.winner_value))
    };
    let gap = match u64::try_from(conflict.gap_ms) {
        Ok(ms) => format!("{ms} ms later"),
        Err(_) => "earlier by its clock, after a later one that it had seen".to_owned(),
    };
    format!(
        "{number}  {} `{}` {field}: {} written by {} at {}\n   lost: {winner} by {} at {}, {gap}\n",
        printable(kind),
        printable(id),
        value(&conflict.value),
        writer(conflict.stamp),
        when(conflict.stamp),
        writer(conflict.winner),
        when(conflict.winner),
    )
}

#[derive(Serialize)]
struct ConflictJson<'c> {
    number: u64,
    kind: &'c str,
    id: &'c str,
    /// None for whether the entity is alive.
    field: Option<&'c str>,
    key: Option<&'c str>,
    /// None if a key was taken out.
    value: Option<Json<'c>>,
    stamp: String,
    at: String,
    winner_value: Option<Json<'c>>,
    winner: String,
    winner_at: String,
    gap_ms: i64,
    deleted: bool,
}

impl<'c> ConflictJson<'c> {
    fn of(conflict: &'c Conflict) -> Self {
        Self {
            number: conflict.number,
            kind: &conflict.kind,
            id: &conflict.id,
            field: conflict.field.as_deref(),
            key: conflict.key.as_deref(),
            value: conflict.value.as_ref().map(Json),
            stamp: conflict.stamp.to_string(),
            at: when(conflict.stamp),
            winner_value: conflict.winner_value.as_ref().map(Json),
            winner: conflict.winner.to_string(),
            winner_at: when(conflict.winner),
            gap_ms: conflict.gap_ms,
            deleted: conflict.deleted,
        }
    }
}
