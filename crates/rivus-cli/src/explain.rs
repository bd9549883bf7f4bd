//! `rivus explain`: why a field shows what it does.

use std::io::Write;

use anyhow::{Result, bail};
use rivus::rivus_core::register::{Saw, Seen};
use rivus::rivus_core::rules::Overlay;
use rivus::rivus_core::value::Json;
use rivus::{CandidateExplanation, Explanation, FieldExplanation, RegisterExplanation, Shown};
use serde::Serialize;

use crate::args::Global;
use crate::database;
use crate::output::Output;
use crate::table::{self, count, printable, when, writer};

/// `rivus explain`.
pub(crate) fn run(
    global: &Global,
    kind: &str,
    id: &str,
    field: Option<&str>,
    out: &mut Output,
) -> Result<()> {
    let db = database::open(global)?;
    let Some(explanation) = db.explain(kind, id, field)? else {
        let file = global.db.display();
        bail!("{kind} `{id}` is not in {file}: `list {kind}` tells what is, `sync` fetches what others have");
    };
    if explanation.fields.is_empty() {
        bail!("{kind} `{id}` has no field `{}`: `show` tells what it has", field.unwrap_or_default());
    }
    if out.is_json() {
        return Ok(out.json(&ExplanationJson::of(&explanation))?);
    }
    let state = if explanation.deleted { ", which is DELETED" } else { "" };
    writeln!(out, "{} `{}`{state}", printable(kind), printable(id))?;
    explanation.fields.iter().try_for_each(|field| tell(field, out))
}

fn tell(field: &FieldExplanation, out: &mut Output) -> Result<()> {
    let name = field.field.as_deref().map_or("whether it is alive".to_owned(), printable);
    let shown = field.shown.as_ref().map_or("nothing".to_owned(), table::shown);
    writeln!(out, "\n{name} shows {shown}   ({})", printable(&field.policy))?;
    for register in &field.registers {
        if !register.key.is_empty() {
            writeln!(out, "  key {}", printable(&register.key))?;
        }
        for candidate in register.candidates.iter().rev() {
            let value = candidate.value.as_ref().map_or("absent".to_owned(), table::value);
            let rank = if candidate.rank == 0 { String::new() } else { format!(", rank {}", candidate.rank) };
            let verdict = if candidate.pending { ", pending" } else { "" };
            let (by, at) = (writer(candidate.stamp), when(candidate.stamp));
            writeln!(out, "  {value} written by {by} at {at}{rank}{verdict}")?;
        }
        if register.candidates.len() > 1 {
            writeln!(
                out,
                "  {} in the running: none had seen another, and none is below the floor",
                count(register.candidates.len(), "write")
            )?;
        }
    }
    for overlay in &field.overlays {
        let rival = overlay.rival.as_ref().map(|id| format!(" on account of `{}`", printable(id)));
        writeln!(
            out,
            "  rule `{}` shows {} in place of {}{}",
            printable(&overlay.rule),
            table::value(&overlay.shown),
            table::value(&overlay.hidden),
            rival.unwrap_or_default()
        )?;
    }
    Ok(())
}

#[derive(Serialize)]
struct ExplanationJson<'e> {
    kind: &'e str,
    id: &'e str,
    deleted: bool,
    fields: Vec<FieldJson<'e>>,
}

#[derive(Serialize)]
struct FieldJson<'e> {
    /// None for whether the entity is alive.
    field: Option<&'e str>,
    policy: &'e str,
    registers: Vec<RegisterJson<'e>>,
    resolved: Option<&'e Shown>,
    overlays: Vec<OverlayJson<'e>>,
    shown: Option<&'e Shown>,
}

#[derive(Serialize)]
struct RegisterJson<'e> {
    key: &'e str,
    group: Option<&'e str>,
    was: Option<&'e str>,
    floor: String,
    seen: Vec<String>,
    candidates: Vec<CandidateJson<'e>>,
}

#[derive(Serialize)]
struct CandidateJson<'e> {
    stamp: String,
    at: String,
    rank: u8,
    saw: Option<String>,
    /// None if it took a key out.
    value: Option<Json<'e>>,
    absent: bool,
    pending: bool,
}

/// What a rule shows in place of what registers hold.
#[derive(Serialize)]
pub(crate) struct OverlayJson<'e> {
    rule: &'e str,
    rival: Option<&'e str>,
    shown: Json<'e>,
    hidden: Json<'e>,
}

impl<'e> OverlayJson<'e> {
    pub(crate) fn of(overlay: &'e Overlay) -> Self {
        Self {
            rule: &overlay.rule,
            rival: overlay.rival.as_deref(),
            shown: Json(&overlay.shown),
            hidden: Json(&overlay.hidden),
        }
    }
}

impl<'e> ExplanationJson<'e> {
    fn of(explanation: &'e Explanation) -> Self {
        let fields = explanation.fields.iter().map(FieldJson::of).collect();
        Self { kind: &explanation.kind, id: &explanation.id, deleted: explanation.deleted, fields }
    }
}

impl<'e> FieldJson<'e> {
    fn of(field: &'e FieldExplanation) -> Self {
        Self {
            field: field.field.as_deref(),
            policy: &field.policy,
            registers: field.registers.iter().map(RegisterJson::of).collect(),
            resolved: field.resolved.as_ref(),
            overlays: field.overlays.iter().map(OverlayJson::of).collect(),
            shown: field.shown.as_ref(),
        }
    }
}

impl<'e> RegisterJson<'e> {
    fn of(register: &'e RegisterExplanation) -> Self {
        let seen = |seen: &Seen| seen.instant.by(seen.replica).to_string();
        Self {
            key: &register.key,
            group: register.group.as_deref(),
            was: register.was.as_deref(),
            floor: register.floor.to_string(),
            seen: register.seen.iter().map(seen).collect(),
            candidates: register.candidates.iter().map(CandidateJson::of).collect(),
        }
    }
}

impl<'e> CandidateJson<'e> {
    fn of(candidate: &'e CandidateExplanation) -> Self {
        let saw = |saw: Saw| format!("{}:{}", saw.incarnation, saw.done);
        Self {
            stamp: candidate.stamp.to_string(),
            at: when(candidate.stamp),
            rank: candidate.rank,
            saw: candidate.saw.map(saw),
            value: candidate.value.as_ref().map(Json),
            absent: candidate.value.is_none(),
            pending: candidate.pending,
        }
    }
}
