//! `rivus overlays`: what rules show in place of what registers hold.

use std::io::Write;

use anyhow::Result;
use rivus::{Overlay, Value};
use serde::Serialize;

use crate::args::Global;
use crate::database;
use crate::explain::OverlayJson;
use crate::output::{Form, Output};
use crate::table::{self, printable};

/// `rivus overlays`.
pub(crate) fn run(global: &Global, kind: Option<&str>, id: Option<&str>, out: &mut Output) -> Result<()> {
    let db = database::open(global)?;
    if let Some(why) = db.unresolved()? {
        crate::note(&format!("rules are not evaluated: {why}"), Form::of(global));
    }
    let is_meant = |overlay: &Overlay| {
        kind.is_none_or(|kind| kind == overlay.kind) && id.is_none_or(|id| id == overlay.id)
    };
    let overlays: Vec<_> = db.overlays()?.into_iter().filter(is_meant).collect();
    for overlay in &overlays {
        out.say(told(overlay), &PlacedJson::of(overlay))?;
    }
    if !out.is_json() && overlays.is_empty() {
        writeln!(out, "rules show nothing in place of what was written")?;
    }
    Ok(())
}

fn told(overlay: &Overlay) -> String {
    let Overlay { kind, id, field, rule, rival, shown, hidden } = overlay;
    let entity = format!("{} `{}`", printable(kind), printable(id));
    let what = match field {
        Some(field) => {
            format!("{} shows {} in place of {}", printable(field), table::value(shown), table::value(hidden))
        }
        None if *shown == Value::Bool(false) => "shows as deleted".to_owned(),
        None => "shows, though it is deleted".to_owned(),
    };
    let rival = rival.as_ref().map(|id| format!(", on account of `{}`", printable(id))).unwrap_or_default();
    format!("{entity} {what}: rule `{}`{rival}", printable(rule))
}

#[derive(Serialize)]
struct PlacedJson<'o> {
    kind: &'o str,
    id: &'o str,
    /// None for whether the entity shows.
    field: Option<&'o str>,
    #[serde(flatten)]
    overlay: OverlayJson<'o>,
}

impl<'o> PlacedJson<'o> {
    fn of(overlay: &'o Overlay) -> Self {
        let Overlay { kind, id, field, .. } = overlay;
        Self { kind, id, field: field.as_deref(), overlay: OverlayJson::of(overlay) }
    }
}
