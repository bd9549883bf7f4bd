//! What a commit is to write.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::derive::Derivation;
use super::{HasMoved, Names, Scratch};
use crate::clock::Stamp;
use crate::conflict::Conflict;
use crate::row::Sums;
use crate::store::{Move, Place, RecordWrite, RowRead, RowWrite};

/// Staged rows that no longer borrow the store.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(super) rows: SmallVec<[FinishedRow; 1]>,
    pub(super) entities: SmallVec<[FinishedEntity; 1]>,
    pub(crate) clashes: Vec<Stamp>,
    pub(crate) losses: Vec<Conflict>,
    pub(crate) sums: Sums,
    pub(super) moves: Vec<HasMoved>,
    /// What is added to the digests of scopes with a name.
    pub(super) scopes: BTreeMap<String, Sums>,
    pub(crate) scratch: Scratch,
    /// Changes of the rules' index.
    pub(crate) index: Vec<RecordWrite>,
    /// The head's seq before anything was read, if there are rules.
    pub(crate) since: Option<u64>,
    /// Entities that rules may show otherwise now.
    pub(super) swayed: BTreeSet<usize>,
    /// What is kept beside the rows.
    pub(crate) derivation: Option<Derivation>,
}

#[derive(Debug)]
pub(super) struct FinishedEntity {
    pub(super) names: Names,
    pub(super) shown_changed: bool,
    /// Where it is, if its kind has scopes.
    pub(super) scope: Option<String>,
    /// Its rows are removed.
    pub(super) leaves: bool,
}

#[derive(Debug)]
pub(super) struct FinishedRow {
    pub(super) entity: usize,
    pub(super) start: Vec<u8>,
    pub(super) seq: u64,
    pub(super) place: Place,
    pub(super) bytes: Option<Vec<u8>>,
}

impl Finished {
    /// Kind and id of the entities whose registers changed.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&str, &str)> {
        let changed = self.entities.iter().filter(|entity| entity.shown_changed);
        changed.map(|entity| (entity.names.kind(), entity.names.id()))
    }

    /// Kind and id of the other entities that rules may show otherwise now.
    pub(crate) fn swayed(&self) -> impl Iterator<Item = (&str, &str)> {
        let swayed = self.swayed.iter().filter_map(|at| self.entities.get(*at));
        let swayed = swayed.filter(|entity| !entity.shown_changed);
        swayed.map(|entity| (entity.names.kind(), entity.names.id()))
    }

    /// Kind and id of the entities whose rows are removed.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = (&str, &str)> {
        let leaving = self.entities.iter().filter(|entity| entity.leaves);
        leaving.map(|entity| (entity.names.kind(), entity.names.id()))
    }

    /// Whether any entity is taken out of the store.
    pub(crate) fn removes(&self) -> bool {
        self.entities.iter().any(|entity| entity.leaves)
    }

    /// Whether a rule was asked about anything.
    pub(crate) fn asked_rules(&self) -> bool {
        !self.swayed.is_empty()
    }

    fn leaves(&self, row: &FinishedRow) -> bool {
        self.entities.get(row.entity).is_some_and(|entity| entity.leaves)
    }

    /// How many rows there are to write and to remove.
    pub(crate) fn written(&self) -> u64 {
        let is_written = |row: &&FinishedRow| row.bytes.is_some() && (row.seq > 0 || !self.leaves(row));
        self.rows.iter().filter(is_written).count() as u64
    }

    /// The rows that were only read, and those to write; one that goes is written empty.
    pub(crate) fn rows(&self) -> (Vec<RowRead<'_>>, Vec<RowWrite<'_>>) {
        let (mut reads, mut rows) = (Vec::new(), Vec::with_capacity(self.rows.len()));
        for row in &self.rows {
            let Some(entity) = self.entities.get(row.entity) else { continue };
            let (kind, id) = (entity.names.kind(), entity.names.id());
            let read = RowRead { kind, id, start: Cow::Borrowed(&row.start), seq: row.seq, place: row.place };
            match &row.bytes {
                // One that was never there does not go.
                Some(bytes) if !entity.leaves || row.seq > 0 => {
                    let scope = entity.scope.as_deref().unwrap_or_default();
                    let bytes = if entity.leaves { &[] } else { bytes.as_slice() };
                    rows.push(RowWrite { row: read, bytes: Cow::Borrowed(bytes), scope });
                }
                _ => reads.push(read),
            }
        }
        (reads, rows)
    }

    /// The entities that move from one scope to another.
    pub(crate) fn moves(&self) -> Vec<Move<'_>> {
        let moves = self.moves.iter().filter_map(|moved| {
            let entity = self.entities.get(moved.at)?;
            Some(Move {
                kind: entity.names.kind(),
                id: entity.names.id(),
                from: moved.from.as_deref(),
                to: entity.scope.as_deref().unwrap_or_default(),
            })
        });
        moves.collect()
    }

    /// What is added to the digests of scopes with a name.
    pub(crate) fn scopes(&self) -> Vec<(&str, Sums)> {
        self.scopes.iter().map(|(scope, sums)| (scope.as_str(), *sums)).collect()
    }
}
