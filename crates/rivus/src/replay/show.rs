//! What one replica shows, as a line. A view may be greater than memory is free, so it is written as it is read.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;

use rivus_core::address::class;
use rivus_core::clock::Stamp;
use rivus_core::conflict::Conflict;
use rivus_core::replica::Replica;
use rivus_core::rules::Overlay;
use rivus_core::store::{Store, StoreError};
use rivus_core::value::{Json, Value};
use rivus_core::view::View;
use serde::Serialize;

/// Writes the line of a `show`.
///
/// # Errors
/// [`ShowError`]; part of the line may be written.
pub(super) fn show<S: Store>(replica: &Replica<S>, on: &str, out: &mut dyn Write) -> Result<(), ShowError> {
    let mut buffered = BufWriter::new(out);
    let out = &mut buffered;
    json(out, "{\"on\":", on)?;
    write!(out, ",\"digest\":\"{:032x}\",\"view\":{{", replica.head()?.digest.shown)?;
    let mut kinds = 0;
    for kind in replica.store().kinds()? {
        let mut entities = 0;
        each(replica, &kind, |id, view| {
            if entities == 0 {
                json(out, if kinds == 0 { "" } else { "," }, &kind)?;
                kinds += 1;
            }
            json(out, if entities == 0 { ":{" } else { "," }, id)?;
            entities += 1;
            json(out, ":", view)
        })?;
        if entities > 0 {
            write!(out, "}}")?;
        }
    }
    write!(out, "}},\"conflicts\":[")?;
    let conflicts = replica.conflicts()?;
    let mut lost: Vec<_> = conflicts.iter().map(|(_, conflict)| conflict).collect();
    lost.sort_by(|a, b| place(a).cmp(&place(b)));
    let mut separator = "";
    for conflict in lost {
        json(out, separator, &Lost::of(conflict))?;
        separator = ",";
    }
    write!(out, "],\"overlays\":[")?;
    let (mut separator, mut failed) = ("", None);
    replica.each_overlay(&mut |overlay| match json(out, separator, &Printed::of(&overlay)) {
        Ok(()) => {
            separator = ",";
            ControlFlow::Continue(())
        }
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)?;
    writeln!(out, "]}}")?;
    Ok(out.flush()?)
}

/// Visits the entities of a kind that are not deleted, in byte order of their ids.
fn each<S: Store>(
    replica: &Replica<S>,
    kind: &str,
    mut visit: impl FnMut(&str, &View) -> io::Result<()>,
) -> Result<(), ShowError> {
    let mut after: Option<String> = None;
    loop {
        let ids = replica.store().ids(kind, after.as_deref(), IDS_AT_ONCE)?;
        let Some(last) = ids.last() else { return Ok(()) };
        after = Some(last.clone());
        for id in &ids {
            if let Some(view) = replica.view(kind, id)?.filter(|view| !view.deleted) {
                visit(id, &view)?;
            }
        }
    }
}

fn json<T: Serialize + ?Sized>(out: &mut impl Write, before: &str, what: &T) -> io::Result<()> {
    out.write_all(before.as_bytes())?;
    Ok(serde_json::to_writer(out, what)?)
}

/// An overlay as it is printed.
#[derive(Serialize)]
struct Printed<'o> {
    kind: &'o str,
    id: &'o str,
    field: Option<&'o str>,
    rule: &'o str,
    rival: Option<&'o str>,
    hidden: Json<'o>,
}

impl<'o> Printed<'o> {
    fn of(overlay: &'o Overlay) -> Self {
        Self {
            kind: &overlay.kind,
            id: &overlay.id,
            field: overlay.field.as_deref(),
            rule: &overlay.rule,
            rival: overlay.rival.as_deref(),
            hidden: Json(&overlay.hidden),
        }
    }
}

/// By kind, id and field, whether the entity is alive first; then by key and age.
fn place(conflict: &Conflict) -> (&str, &str, bool, &str, &[u8], Stamp) {
    let parts = conflict.parts();
    let is_field = parts.class != class::LIFE;
    (&conflict.kind, &conflict.id, is_field, parts.name, parts.key, conflict.loser)
}

/// A conflict as it is printed.
#[derive(Serialize)]
struct Lost<'c> {
    kind: &'c str,
    id: &'c str,
    /// None for whether the entity is alive; for a group its name.
    field: Option<&'c str>,
    value: serde_json::Value,
    winner: String,
}

impl<'c> Lost<'c> {
    fn of(conflict: &'c Conflict) -> Self {
        let parts = conflict.parts();
        // An absent key of a map is printed as null, as it is nowhere else.
        let value = Value::decode(&conflict.value).unwrap_or(Value::Null);
        Self {
            kind: &conflict.kind,
            id: &conflict.id,
            field: (parts.class != class::LIFE).then_some(parts.name),
            value: serde_json::to_value(Json(&value)).unwrap_or_default(),
            winner: conflict.winner.to_string(),
        }
    }
}

/// How many ids are in memory at a time.
const IDS_AT_ONCE: usize = 1000;

/// Why a replica cannot be shown.
#[derive(Debug)]
pub(super) enum ShowError {
    Store(StoreError),
    Write(io::Error),
}

impl From<StoreError> for ShowError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for ShowError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}
