//! What a connection's refused edits touched.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::{Delta, Part};
use crate::bytes::Put;

/// What a connection's refused edits touched, until the author has heard of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Taint {
    /// By entity, the number of the answer that told of the refusal.
    entities: BTreeMap<Vec<u8>, u64>,
    /// After a refusal for the clock, all later edits rest on sand.
    pub(super) all: Option<u64>,
    /// Each edit is judged by itself: its author is not going to make it anew.
    is_off: bool,
}

impl Taint {
    /// Holds no edit against those after it.
    #[must_use]
    pub fn off() -> Self {
        Self { is_off: true, ..Self::default() }
    }

    pub(super) fn forget(&mut self, heard: u64) {
        self.entities.retain(|_, answer| *answer > heard);
        self.all = self.all.filter(|answer| *answer > heard);
    }

    /// Whether nothing is tainted.
    pub(super) fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    /// Whether a refused edit touched this entity.
    pub(super) fn holds(&self, (kind, id): &(String, String)) -> bool {
        let part = Part::<'_, &[u8]> { kind, id, changes: &[] };
        self.entities.contains_key(&entity_key(&part))
    }

    pub(super) fn touches<D: Delta>(&self, delta: &D) -> bool {
        let tainted = |part: Part<'_, D::Address>| match self.entities.contains_key(&entity_key(&part)) {
            true => Err(()),
            false => Ok(()),
        };
        !self.is_off && (self.all.is_some() || !self.entities.is_empty() && delta.each(tainted).is_err())
    }

    pub(super) fn add<D: Delta>(&mut self, delta: &D, answer: u64) {
        let added = delta.each::<Infallible>(|part| {
            self.entities.insert(entity_key(&part), answer);
            Ok(())
        });
        added.unwrap_or_else(|never| match never {});
        if self.entities.len() > TAINTED_MAX {
            self.entities.clear();
            self.all = Some(answer);
        }
    }
}

/// How many tainted entities are told apart. Beyond, every edit waits until its author has heard of the refusals.
const TAINTED_MAX: usize = 4096;

pub(super) fn entity_key<A>(part: &Part<'_, A>) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + part.kind.len() + part.id.len());
    key.slice(part.kind.as_bytes());
    key.extend_from_slice(part.id.as_bytes());
    key
}
