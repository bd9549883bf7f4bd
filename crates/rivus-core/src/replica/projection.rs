//! The tables of views that a replica keeps: making them, following other programs, and what each commit adds.
//!
//! A table belongs to the program that opened last with its layout; another that finds it taken over leaves it alone
//! until it is opened anew. Every program whose rules are evaluated marks the entities that these show otherwise
//! since, wherever somebody keeps a table of them, so that whoever does finds out.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::{Replica, STALE_RETRIES_MAX, unreadable};
use crate::projection::{
    COVERS_KEY, Cover, Covers, Layout, MARKS, Making, Projection, ProjectionError, ViewWrite, Which, mark,
    marked,
};
use crate::store::{Batch, CommitError, RecordKey, RecordRead, RecordWrite, Store, StoreError, Table};
use crate::work::{Finished, ViewRow};

/// The tables that this replica is to keep.
#[derive(Debug, Default)]
pub(super) struct Projections {
    wanted: Vec<Wanted>,
    /// What the store says of all tables, as it was read last.
    stored: Option<Vec<u8>>,
    /// Up to which row this replica's tables follow.
    seq: u64,
}

#[derive(Debug)]
struct Wanted {
    layout: Arc<Layout>,
    /// By which the table was made or found last; 0 if never.
    fingerprint: u128,
}

/// How many entities are looked at for one commit.
const ENTITIES_AT_ONCE: usize = 2_000;
/// How far the stored cover may be behind: so many rows are looked at again after a restart.
const LAG_MAX: u64 = 1_000;

impl<S: Store> Replica<S> {
    /// Keeps tables of these kinds from now on, and makes those that are not there or are of another form. Called
    /// once, after opening.
    ///
    /// # Errors
    /// [`ProjectionError`]; tables that could not be made are made by the next call.
    pub fn project(&mut self, projections: &[Projection]) -> Result<(), ProjectionError> {
        if projections.is_empty() {
            return Ok(());
        }
        if !self.store.projects() {
            return Err(ProjectionError::NoTables);
        }
        for projection in projections {
            let layout = Arc::new(Layout::new(&self.schema, projection)?);
            self.projections.wanted.retain(|wanted| wanted.layout.kind != layout.kind);
            self.projections.wanted.push(Wanted { layout, fingerprint: 0 });
        }
        self.catch_up_views()?;
        Ok(())
    }

    /// What the tables that this replica keeps look like.
    pub fn layouts(&self) -> impl Iterator<Item = &Layout> {
        self.projections.wanted.iter().map(|wanted| &*wanted.layout)
    }

    /// Takes over what other programs have done to this store, and follows it with the tables of views.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read or written.
    pub fn follow(&mut self) -> Result<(), StoreError> {
        self.refresh()
    }

    /// Makes the tables that are missing or of another form, and follows what others have written.
    pub(super) fn catch_up_views(&mut self) -> Result<(), StoreError> {
        if !self.store.projects() {
            return Ok(());
        }
        let (mut size, mut retries) = (ENTITIES_AT_ONCE, 0);
        loop {
            match self.catch_up_views_once(size) {
                Ok(ControlFlow::Break(())) => return Ok(()),
                Ok(ControlFlow::Continue(())) => size = (size * 2).min(ENTITIES_AT_ONCE),
                Err(CommitError::Stale) if retries < STALE_RETRIES_MAX => {
                    // Less at once is more often in time.
                    (size, retries) = ((size / 4).max(1), retries + 1);
                }
                Err(CommitError::Stale) => {
                    return Err(StoreError::Busy("others keep changing the store".to_owned()));
                }
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
    }

    /// One step; breaks off if there is none left.
    fn catch_up_views_once(&mut self, size: usize) -> Result<ControlFlow<()>, CommitError> {
        let stored = self.store.record(Table::Rule, COVERS_KEY)?;
        let mut covers = match &stored {
            Some(bytes) => {
                Covers::decode(bytes).map_err(|_| unreadable("the state of the tables of views"))?
            }
            None => Covers::default(),
        };
        self.projections.stored = stored;
        let head = self.store.head()?.seq;
        if self.rules().is_some() && self.cover.seq != head {
            // The rules' index first: from it is read what shows.
            self.catch_up()?;
            return if self.rules().is_some() && self.cover.seq != head {
                Err(CommitError::Stale)
            } else {
                Ok(ControlFlow::Continue(()))
            };
        }
        if let Some(layout) = self.missing(&covers) {
            let cover = Cover {
                table: layout.table.to_ascii_lowercase(),
                kind: layout.kind.clone(),
                fingerprint: self.fingerprint(&layout),
                seq: head,
                making: Making::Upto(None),
            };
            covers.put(cover);
            self.commit_views(head, &covers, Vec::new(), &[ViewWrite::Make(&layout)])?;
            return Ok(ControlFlow::Continue(()));
        }
        self.take_stock(&covers);
        let making = covers.0.iter().find(|cover| cover.making != Making::Done && self.keeps(cover)).cloned();
        match making {
            Some(cover) => self.make(head, covers, cover, size),
            None => self.follow_rows(head, covers, size),
        }
    }

    /// By what a table is made.
    fn fingerprint(&self, layout: &Layout) -> u128 {
        let rules = self.rules().map_or(0, crate::rules::Rules::fingerprint) ^ u128::from(self.is_partial);
        xxh3_128([layout.fingerprint.to_be_bytes(), rules.to_be_bytes()].as_flattened())
    }

    /// A table that is to be made: it is not there, or as this replica has not left it and nobody has taken it over.
    fn missing(&self, covers: &Covers) -> Option<Arc<Layout>> {
        let is_missing = |wanted: &&Wanted| {
            let fingerprint = self.fingerprint(&wanted.layout);
            match covers.get(&wanted.layout.table.to_ascii_lowercase()) {
                None => true,
                Some(found) => found.fingerprint != fingerprint && wanted.fingerprint != fingerprint,
            }
        };
        self.projections.wanted.iter().find(is_missing).map(|wanted| Arc::clone(&wanted.layout))
    }

    /// Which tables are this replica's, and which are others'.
    fn take_stock(&mut self, covers: &Covers) {
        let mut layouts = std::collections::BTreeMap::new();
        let mut fingerprints = Vec::new();
        for wanted in &self.projections.wanted {
            let fingerprint = self.fingerprint(&wanted.layout);
            fingerprints.push(fingerprint);
            let found = covers.get(&wanted.layout.table.to_ascii_lowercase());
            if found.is_some_and(|cover| cover.fingerprint == fingerprint) {
                layouts.insert(wanted.layout.kind.clone(), Arc::clone(&wanted.layout));
            }
        }
        for (wanted, fingerprint) in self.projections.wanted.iter_mut().zip(fingerprints) {
            wanted.fingerprint = fingerprint;
        }
        let kinds = covers.0.iter().map(|cover| &cover.kind);
        let others = kinds.filter(|kind| !layouts.contains_key(*kind)).cloned().collect();
        if layouts != self.derived.layouts {
            // What another program has kept meanwhile was not followed here.
            self.projections.seq = 0;
        }
        (self.derived.layouts, self.derived.others) = (layouts, others);
    }

    fn keeps(&self, cover: &Cover) -> bool {
        let own = self.derived.layouts.get(&cover.kind);
        own.is_some_and(|layout| layout.table.to_ascii_lowercase() == cover.table)
    }

    /// Goes on with a table that is being made.
    fn make(
        &mut self,
        head: u64,
        mut covers: Covers,
        mut cover: Cover,
        size: usize,
    ) -> Result<ControlFlow<()>, CommitError> {
        let Some(layout) = self.derived.layouts.get(&cover.kind).cloned() else {
            return Ok(ControlFlow::Continue(()));
        };
        let Making::Upto(after) = &cover.making else { return Ok(ControlFlow::Continue(())) };
        let ids = self.store.ids(&cover.kind, after.as_deref(), size)?;
        let rows = self.view_rows(head, ids.iter().map(|id| (cover.kind.as_str(), id.as_str())))?;
        let mut writes: Vec<_> = rows.iter().map(|row| row.write(Which::Begun)).collect();
        cover.making = if ids.len() < size {
            writes.push(ViewWrite::Finish(&layout));
            Making::Done
        } else {
            Making::Upto(ids.into_iter().next_back())
        };
        covers.put(cover);
        self.commit_views(head, &covers, Vec::new(), &writes)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Looks again at what others have written since.
    fn follow_rows(
        &mut self,
        head: u64,
        mut covers: Covers,
        size: usize,
    ) -> Result<ControlFlow<()>, CommitError> {
        if self.derived.layouts.is_empty() {
            return Ok(ControlFlow::Break(()));
        }
        let stored = covers.0.iter().filter(|cover| self.keeps(cover)).map(|cover| cover.seq).min();
        let from = stored.unwrap_or(0).max(self.projections.seq);
        let (mut entities, mut seq) = (BTreeSet::new(), head);
        let layouts = &self.derived.layouts;
        if from < head {
            self.store.changes(from, &mut |changed| {
                if layouts.contains_key(changed.kind) {
                    if entities.len() >= size {
                        return ControlFlow::Break(());
                    }
                    seq = changed.seq;
                    entities.insert((changed.kind.to_owned(), changed.id.to_owned()));
                }
                ControlFlow::Continue(())
            })?;
            seq = if entities.len() >= size { seq } else { head };
        }
        let mut marks = Vec::new();
        self.store.records(Table::Rule, MARKS, &mut |key, _| {
            let Some((kind, id)) = marked(key) else { return ControlFlow::Break(()) };
            if layouts.contains_key(kind) {
                entities.insert((kind.to_owned(), id.to_owned()));
                marks.push(RecordWrite::remove(Table::Rule, key));
            }
            if marks.len() < size { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if from >= head && marks.is_empty() {
            self.projections.seq = head;
            return Ok(ControlFlow::Break(()));
        }
        let rows = self.view_rows(head, entities.iter().map(|(kind, id)| (kind.as_str(), id.as_str())))?;
        let writes: Vec<_> = rows.iter().map(|row| row.write(Which::Table)).collect();
        self.move_covers(&mut covers, seq);
        self.commit_views(head, &covers, marks, &writes)?;
        self.projections.seq = seq;
        Ok(ControlFlow::Continue(()))
    }

    fn move_covers(&self, covers: &mut Covers, seq: u64) {
        let own: Vec<bool> = covers.0.iter().map(|cover| self.keeps(cover)).collect();
        for (cover, _) in covers.0.iter_mut().zip(own).filter(|(_, own)| *own) {
            cover.seq = cover.seq.max(seq);
        }
    }

    /// The rows of these entities as of this head.
    fn view_rows<'n>(
        &self,
        head: u64,
        entities: impl Iterator<Item = (&'n str, &'n str)>,
    ) -> Result<Vec<ViewRow>, CommitError> {
        self.store.together(|| {
            if self.store.head()?.seq != head {
                return Err(CommitError::Stale);
            }
            let mut work = self.reading();
            let mut rows = Vec::new();
            for (kind, id) in entities {
                rows.extend(work.view_row(&self.derived, kind, id)?);
            }
            Ok(rows)
        })?
    }

    /// Commits what was made of the rows as of this head, if neither they nor the covers have changed.
    fn commit_views(
        &mut self,
        head: u64,
        covers: &Covers,
        mut records: Vec<RecordWrite>,
        writes: &[ViewWrite<'_>],
    ) -> Result<(), CommitError> {
        let unchanged = vec![self.covers_read()];
        let stored = covers.encode();
        records.push(RecordWrite::put(Table::Rule, COVERS_KEY, stored.clone()));
        self.store.commit(Batch {
            head: Some(head),
            unchanged: unchanged.into(),
            records: records.into(),
            views: writes.into(),
            ..Batch::default()
        })?;
        self.projections.stored = Some(stored);
        Ok(())
    }

    fn covers_read(&self) -> RecordRead {
        let value = self.projections.stored.clone();
        RecordRead { table: Table::Rule, key: COVERS_KEY.to_vec(), value }
    }

    /// What a commit depends on for the sake of tables, and what it tells those who keep them.
    pub(super) fn commit_with_views(
        &mut self,
        finished: &Finished,
        records: &mut Vec<RecordWrite>,
        unchanged: &mut Vec<RecordRead>,
    ) -> Result<(), CommitError> {
        if self.others.is_none() || !self.store.projects() {
            return Ok(());
        }
        let derived = &self.derived;
        if !derived.others.is_empty() {
            let marks = finished.swayed().filter(|(kind, _)| derived.others.contains(*kind));
            records.extend(marks.map(marked_anew));
            // What is removed has no row from which they could tell.
            let gone = finished.leaving().filter(|(kind, _)| derived.others.contains(*kind));
            records.extend(gone.map(marked_anew));
        }
        if !derived.layouts.is_empty() || finished.asked_rules() {
            // Who takes a table over or begins one meanwhile has to be told, too.
            unchanged.push(self.covers_read());
        }
        let Some(derivation) = finished.derivation.as_ref().filter(|_| !self.derived.layouts.is_empty())
        else {
            return Ok(());
        };
        if derivation.since != self.projections.seq {
            // Another program has written since this edit began.
            self.catch_up_views()?;
            return Err(CommitError::Stale);
        }
        records.extend(self.moved_covers(derivation.since + finished.written()));
        Ok(())
    }

    /// The covers at this seq, once the stored ones are far enough behind.
    fn moved_covers(&self, seq: u64) -> Option<RecordWrite> {
        let mut covers = self.projections.stored.as_deref().and_then(|bytes| Covers::decode(bytes).ok())?;
        let stored = covers.0.iter().filter(|cover| self.keeps(cover)).map(|cover| cover.seq).min()?;
        if seq < stored + LAG_MAX {
            return None;
        }
        self.move_covers(&mut covers, seq);
        Some(RecordWrite::put(Table::Rule, COVERS_KEY, covers.encode()))
    }

    /// Notes a commit that the tables followed, with what it stored.
    pub(super) fn views_follow(&mut self, since: u64, seq: u64, records: &[RecordWrite]) {
        if self.projections.seq == since {
            self.projections.seq = seq;
        }
        let covers = records.iter().rev().find(|record| is_covers(record));
        if let Some(covers) = covers {
            self.projections.stored.clone_from(&covers.value);
        }
    }

    /// Whether somebody keeps tables in the store.
    pub(super) fn is_projected(&self) -> Result<bool, StoreError> {
        Ok(self.store.projects() && self.store.record(Table::Rule, COVERS_KEY)?.is_some())
    }
}

/// The mark of an entity that the rules show otherwise now.
pub(super) fn marked_anew((kind, id): (&str, &str)) -> RecordWrite {
    RecordWrite::put(Table::Rule, mark(kind, id), Vec::new())
}

fn is_covers(record: &RecordWrite) -> bool {
    record.table == Table::Rule && record.key == RecordKey::Bytes(COVERS_KEY.to_vec())
}
