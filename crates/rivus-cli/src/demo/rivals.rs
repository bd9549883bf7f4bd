//! Rivals: what both devices did while neither knew of the other, though only one of it can hold.

use std::collections::BTreeMap;

use anyhow::Result;
use rivus::{Action, Db, Op, Overlay, Value};
use serde::Serialize;

use super::NAMES;
use super::story::Told;
use crate::table;

/// What was entered on which device (0 is the phone), how many seconds after the hub stopped.
const ENTERED: [(i64, usize, &str, &str); 4] = [
    (65, 0, "timer", "call"),
    (70, 1, "timer", "report"),
    (75, 0, "project", "garden-1"),
    (80, 1, "project", "garden-2"),
];

/// One of the rivals.
#[derive(Serialize, PartialEq, Debug)]
pub(super) struct Rival {
    kind: &'static str,
    id: &'static str,
    entered: String,
    /// By the hub, the phone and the laptop.
    shown: [String; 3],
    why: String,
}

impl Rival {
    /// Whether all show the same.
    pub(super) fn is_agreed(&self) -> bool {
        let [hub, phone, laptop] = &self.shown;
        hub == phone && phone == laptop
    }

    pub(super) fn cells(&self) -> [String; 4] {
        let [first, ..] = &self.shown;
        [format!("{} {}", self.kind, self.id), self.entered.clone(), first.clone(), self.why.clone()]
    }
}

/// What each device enters, and when: seconds, which device, what.
pub(super) fn edits() -> impl Iterator<Item = (i64, usize, Op)> {
    ENTERED.into_iter().map(|(seconds, device, kind, id)| {
        let fields: Vec<(&str, Value)> = match kind {
            "timer" => vec![
                ("user", "Ann".into()),
                ("text", id.into()),
                ("start", seconds.into()),
                ("stop", Value::Null),
            ],
            _ => vec![("workspace", "home".into()), ("name", "Garden".into())],
        };
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        (seconds, device, Op::new(kind, id, Action::Put(fields)))
    })
}

/// What became of the rivals.
pub(super) fn of(told: &Told) -> Result<Vec<Rival>> {
    let [hub, ..] = &told.cast;
    let overlays: BTreeMap<(String, String), Overlay> = hub
        .overlays()?
        .into_iter()
        .map(|overlay| ((overlay.kind.clone(), overlay.id.clone()), overlay))
        .collect();
    let mut rivals = Vec::new();
    for (seconds, device, kind, id) in ENTERED {
        let field = if kind == "timer" { "stop" } else { "name" };
        let show = |db: &Db| -> Result<String> {
            let view = db.view(kind, id)?.unwrap_or_default();
            Ok(match (field, view.fields.get(field).map(table::shown)) {
                ("stop", Some(stop)) if stop != "null" => format!("stopped at {stop} s"),
                ("stop", _) => "running".to_owned(),
                (_, name) => name.unwrap_or_default(),
            })
        };
        let [hub, phone, laptop] = &told.cast;
        let what = if kind == "timer" { "started" } else { "named Garden" };
        let why = match overlays.get(&(kind.to_owned(), id.to_owned())) {
            Some(overlay) => {
                let rival = overlay.rival.as_deref().unwrap_or_default();
                let order = if kind == "timer" { "was started later" } else { "had the name first" };
                format!("rule `{}`: {rival} {order}", overlay.rule)
            }
            None if kind == "timer" => "the last that was started".to_owned(),
            None => "the first of the name".to_owned(),
        };
        rivals.push(Rival {
            kind,
            id,
            entered: format!("{what} on the {} (at {seconds} s)", NAMES.get(device + 1).unwrap_or(&"")),
            shown: [show(hub)?, show(phone)?, show(laptop)?],
            why,
        });
    }
    Ok(rivals)
}
