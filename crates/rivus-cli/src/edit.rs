//! Edits of one entity.

use anyhow::Result;
use rivus::{Action, Db, Edited, Op};
use serde::Serialize;

use crate::args::{Global, Put};
use crate::database;
use crate::output::Output;
use crate::table::printable;

/// `rivus put`.
pub(crate) fn put(global: &Global, put: &Put, out: &mut Output) -> Result<()> {
    if put.id.is_empty() {
        return Err(crate::usage("the id is empty, as of a variable that is not set: give one, such as t1"));
    }
    let db = database::open_or_make(global)?;
    let fields = || put.fields.iter().map(|set| (set.field.clone(), set.value.clone()));
    let edited = if put.force {
        db.force_set(&put.kind, &put.id, fields())?
    } else {
        let mut actions = Vec::new();
        if !put.fields.is_empty() {
            actions.push(Action::Put(fields().collect()));
        }
        let added = put.add.iter().cloned();
        actions.extend(added.map(|one| Action::Add { field: one.field, key: one.key }));
        let removed = put.remove.iter().cloned();
        actions.extend(removed.map(|one| Action::Remove { field: one.field, key: one.key }));
        let set = put.set_key.iter().cloned();
        actions.extend(set.map(|one| Action::SetKey { field: one.field, key: one.key, value: one.value }));
        let counted = put.inc.iter().cloned();
        actions.extend(counted.map(|one| Action::Inc { field: one.field, by: one.by }));
        let op = |action| Op::new(&put.kind, &put.id, action);
        db.apply(&actions.into_iter().map(op).collect::<Vec<_>>())?
    };
    say(out, "written", &put.kind, &put.id, edited)
}

/// `rivus delete`.
pub(crate) fn delete(global: &Global, kind: &str, id: &str, out: &mut Output) -> Result<()> {
    let edited = act(&database::open(global)?, kind, id, Action::Delete)?;
    say(out, "deleted", kind, id, edited)
}

/// `rivus revive`.
pub(crate) fn revive(global: &Global, kind: &str, id: &str, out: &mut Output) -> Result<()> {
    let edited = act(&database::open(global)?, kind, id, Action::Revive)?;
    say(out, "revived", kind, id, edited)
}

fn act(db: &Db, kind: &str, id: &str, action: Action) -> Result<Edited> {
    Ok(db.apply(&[Op::new(kind, id, action)])?)
}

#[derive(Serialize)]
struct Done<'e> {
    kind: &'e str,
    id: &'e str,
    /// Registers written.
    registers: usize,
    /// The edit's stamp; none if nothing was to be written.
    stamp: Option<String>,
}

fn say(out: &mut Output, done: &str, kind: &str, id: &str, edited: Edited) -> Result<()> {
    let (registers, stamp) = match edited {
        Edited::Nothing => (0, None),
        Edited::Committed { registers, stamp, .. } => (registers, Some(stamp.to_string())),
    };
    let (shown_kind, shown_id) = (printable(kind), printable(id));
    let text = match registers {
        0 => format!("{shown_kind} `{shown_id}`: shows that already, nothing written"),
        _ => format!("{shown_kind} `{shown_id}`: {done}"),
    };
    Ok(out.say(text, &Done { kind, id, registers, stamp })?)
}
