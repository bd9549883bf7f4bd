//! The same views, read from the real engine.

use std::collections::BTreeMap;

use rivus_core::replica::Replica;
use rivus_core::schema::{FieldType, Schema};
use rivus_core::store::{Store, StoreError};
use rivus_core::value::Value;
use rivus_core::view;

use super::{Shown, Views};

/// What a real replica shows, in the form of the model.
///
/// # Errors
/// [`StoreError`] if its store cannot be read.
pub fn views<S: Store>(replica: &Replica<S>) -> Result<Views, StoreError> {
    let mut views = Views::new();
    for kind in replica.store().kinds()? {
        let mut entities = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let ids = replica.store().ids(&kind, after.as_deref(), IDS_AT_ONCE)?;
            let Some(last) = ids.last() else { break };
            after = Some(last.clone());
            for id in &ids {
                if let Some(view) = replica.view(&kind, id)?.filter(|view| !view.deleted) {
                    let fields = view.fields.into_iter();
                    let fields = fields.map(|(name, shown)| {
                        let shown = convert(replica.schema(), &kind, &name, shown);
                        (name, shown)
                    });
                    entities.insert(id.clone(), fields.collect());
                }
            }
        }
        if !entities.is_empty() {
            views.insert(kind, entities);
        }
    }
    Ok(views)
}

/// How many ids are in memory at a time.
const IDS_AT_ONCE: usize = 1000;

fn convert(schema: &Schema, kind: &str, field: &str, shown: view::Shown) -> Shown {
    let declared = schema.kind(kind).and_then(|kind| kind.field(field));
    let is_multi = declared.is_some_and(|field| field.ty == FieldType::Multi);
    match shown {
        view::Shown::Value(Value::List(all)) if is_multi => Shown::Many(all),
        view::Shown::Value(value) => Shown::Value(value),
        view::Shown::Set(keys) => Shown::Set(keys),
        view::Shown::Map(entries) => Shown::Map(entries),
        view::Shown::Counter(sum) => Shown::Count(sum),
    }
}
