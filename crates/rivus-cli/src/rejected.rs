//! `rivus rejected`: edits that the hub refused, and those that wait for one of them.

use std::io::Write;

use anyhow::{Result, bail};
use rivus::{Blocked, Db, Rejection};
use serde::Serialize;

use crate::args::{Global, Rejected};
use crate::database;
use crate::output::Output;
use crate::table::{count, printable};

/// `rivus rejected`.
pub(crate) fn run(global: &Global, rejected: &Rejected, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct DoneJson {
        #[serde(skip_serializing_if = "Option::is_none")]
        retried: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        discarded: Option<u64>,
    }
    let db = database::open(global)?;
    for key in &rejected.retry {
        if db.retry_rejected(*key)?.is_none() {
            bail!("there is no refused edit {key}: `rejected` lists them");
        }
        let done = DoneJson { retried: Some(*key), discarded: None };
        out.say(format_args!("edit {key} is made once more: `sync` sends it"), &done)?;
    }
    for key in &rejected.discard {
        if !db.discard_rejected(*key)? {
            bail!("there is no refused edit {key}: `rejected` lists them");
        }
        let done = DoneJson { retried: None, discarded: Some(*key) };
        out.say(format_args!("edit {key} is off the list"), &done)?;
    }
    if rejected.retry.is_empty() && rejected.discard.is_empty() { list(&db, out) } else { Ok(()) }
}

fn list(db: &Db, out: &mut Output) -> Result<()> {
    let (rejections, blocked) = (db.rejections()?, db.blocked()?);
    for rejection in &rejections {
        let Rejection { key, code, reason, kind, id, field, ops, .. } = rejection;
        let field_text = field.as_deref().map_or_else(String::new, |field| format!(" {}", printable(field)));
        let entity = format!("{} `{}`{field_text}", printable(kind), printable(id));
        let operations = count(ops.len(), "operation");
        let text = format!("{key}  {entity}, {operations}\n   refused: {}, {code}", printable(reason));
        out.say(text, &RejectionJson { key: *key, code: code.0, reason, kind, id, field: field.as_deref() })?;
    }
    for Blocked { key, root_kind, root_id, .. } in &blocked {
        let text =
            format!("{key}  waits for {} `{}`, which is refused", printable(root_kind), printable(root_id));
        out.say(text, &BlockedJson { key: *key, blocked_by: [root_kind, root_id] })?;
    }
    if !out.is_json() && rejections.is_empty() && blocked.is_empty() {
        writeln!(out, "nothing is refused")?;
    }
    Ok(())
}

#[derive(Serialize)]
struct RejectionJson<'r> {
    key: u64,
    code: u16,
    reason: &'r str,
    kind: &'r str,
    id: &'r str,
    field: Option<&'r str>,
}

#[derive(Serialize)]
struct BlockedJson<'b> {
    key: u64,
    blocked_by: [&'b str; 2],
}
