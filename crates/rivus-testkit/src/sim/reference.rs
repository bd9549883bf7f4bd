//! The reference model beside a run, where the run is one that it covers.
//!
//! It hears of every edit, and of every page with what its sender knew when the page was made. It covers runs between
//! peers, without crashes, copies and restored backups, and without stamps that are set aside.

use std::collections::BTreeSet;
use std::sync::Arc;

use rivus_core::clock::Millis;
use rivus_core::edit::{Action as EditAction, Op};
use rivus_core::replica::{Edited, Replica};
use rivus_core::value::Value;

use super::Oracle;
use super::plan::{Action, Plan, Shape, name};
use super::store::SimStore;
use super::witness::Finding;
use crate::model::{Known, Model, Outcome, views};

#[derive(Debug)]
pub(super) struct Reference {
    model: Model,
}

/// Whether the model can follow a plan.
pub(super) fn covers(plan: &Plan) -> bool {
    let beyond = |action: &Action| match action {
        Action::Die { .. }
        | Action::Backup { .. }
        | Action::Restore { .. }
        | Action::Copy { .. }
        | Action::Overtake { .. } => true,
        // An entity of several rows may be cut between two pages.
        Action::Edit { ops, .. } => ops.len() > 50 || ops.iter().any(is_long),
        _ => false,
    };
    plan.shape != Shape::Hub
        && plan.sites.iter().all(|site| site.drift_ms_max.is_none() && site.twin.is_none())
        && !plan.steps.iter().flatten().any(|step| beyond(&step.action))
}

fn is_long(op: &Op) -> bool {
    let text = |value: &Value| matches!(value, Value::Text(text) if text.len() > 1000);
    matches!(&op.action, EditAction::Put(fields) if fields.iter().any(|(_, value)| text(value)))
}

impl Reference {
    pub(super) fn new(plan: &Plan) -> Self {
        let schema = plan.sites.first().map_or(super::plan::Version::New, |site| site.version).schema();
        Self { model: Model::new(Arc::clone(schema)) }
    }

    /// Sites are added in the order of their numbers.
    pub(super) fn add(&mut self, replica: &Replica<SimStore>, rank: u8) {
        self.model.add_with_schema(replica.id(), rank, Arc::clone(replica.schema()));
    }

    /// What a site knows now.
    pub(super) fn known(&self, site: usize) -> Known {
        self.model.snapshot(site)
    }

    pub(super) fn deliver(&mut self, to: usize, known: &Known, entities: &BTreeSet<(String, String)>) {
        self.model.deliver_entities(to, known, entities);
    }

    /// Makes the same edit, which must come to the same.
    pub(super) fn edit(
        &mut self,
        site: usize,
        now: Millis,
        ops: &[Op],
        edited: Option<&Edited>,
    ) -> Result<(), Finding> {
        let expected = self.model.edit(site, now, ops);
        let agrees = match (&expected, edited) {
            (Outcome::Committed { stamp: own }, Some(Edited::Committed { stamp, .. })) => own == stamp,
            (Outcome::Nothing, Some(Edited::Nothing)) | (Outcome::Refused(_), None) => true,
            _ => false,
        };
        if agrees {
            return Ok(());
        }
        Err((
            Oracle::Model,
            format!("the edit at {} came to {edited:?}, in the model to {expected:?}", name(site)),
        ))
    }

    /// Whether a site shows what the model shows.
    pub(super) fn compare(&self, site: usize, replica: &Replica<SimStore>) -> Result<(), Finding> {
        let shown = views(replica);
        let shown =
            shown.map_err(|error| (Oracle::Store, format!("{} cannot be read: {error}", name(site))))?;
        let expected = self.model.view(site);
        if shown == expected {
            return Ok(());
        }
        let differs = |kind: &String, id: &String| {
            let of = |views: &crate::model::Views| views.get(kind).and_then(|ids| ids.get(id)).cloned();
            let (one, other) = (of(&shown), of(&expected));
            (one != other).then(|| format!("{kind} {id}: expected {other:?}, shown {one:?}"))
        };
        let all = shown.iter().chain(&expected);
        let mut pairs = all.flat_map(|(kind, ids)| ids.keys().map(move |id| (kind, id)));
        let text = pairs.find_map(|(kind, id)| differs(kind, id)).unwrap_or_default();
        Err((Oracle::Model, format!("at {} {text}", name(site))))
    }
}
