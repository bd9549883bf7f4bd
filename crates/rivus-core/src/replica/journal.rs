//! The journal of a replica: whether one is kept, what each commit adds to it, and reading it.

use std::ops::ControlFlow;

use super::{Origin, Replica, commit_records, unreadable};
use crate::journal::{Entry, Head, KEEP_KEY, KEYS_END, Keep, TRIMMED_MAX, encode_changes};
use crate::store::{RecordKey, RecordWrite, Store, StoreError, Table};
use crate::work::Derivation;

impl<S: Store> Replica<S> {
    /// How much of the past the store's journal keeps; `None` if it has none.
    #[must_use]
    pub fn journal_keep(&self) -> Option<Keep> {
        self.derived.journal
    }

    /// Begins a journal, changes how much it keeps, or ends it and drops what it has. That is the store's, not this
    /// replica's: others that have it open follow at their next edit or sync.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn keep_journal(&mut self, keep: Option<Keep>) -> Result<(), StoreError> {
        if keep == self.derived.journal {
            return Ok(());
        }
        let mut records = Vec::new();
        match keep {
            Some(keep) => records.push(RecordWrite::put(Table::Journal, KEEP_KEY, keep.encode())),
            None => self.store.records(Table::Journal, &[], &mut |key, _| {
                records.push(RecordWrite::remove(Table::Journal, key));
                ControlFlow::Continue(())
            })?,
        }
        commit_records(&mut self.store, records)?;
        self.derived.journal = keep;
        Ok(())
    }

    /// Takes over what another process has decided.
    pub(super) fn reload_journal(&mut self) -> Result<(), StoreError> {
        let found = self.store.record(Table::Journal, KEEP_KEY)?;
        let keep = found.map(|bytes| Keep::decode(&bytes)).transpose();
        self.derived.journal = keep.map_err(|_| unreadable("how much the journal keeps"))?;
        Ok(())
    }

    /// Visits the journal from the entry of this number on, oldest first, until the visitor breaks off.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn journal(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut failed = false;
        self.store.records(Table::Journal, &from.to_be_bytes(), &mut |key, record| {
            let entry = Entry::decode(key, record);
            failed = entry.is_err();
            entry.map_or(ControlFlow::Break(()), &mut *visit)
        })?;
        if failed { Err(unreadable("an entry of the journal")) } else { Ok(()) }
    }

    /// What a commit adds to the journal, and takes out of it.
    pub(super) fn journal_records(
        &self,
        derivation: &Derivation,
        origin: Origin,
        records: &mut Vec<RecordWrite>,
    ) -> Result<(), StoreError> {
        let Some(keep) = self.derived.journal.filter(|_| !derivation.journal.is_empty()) else {
            return Ok(());
        };
        let changes = encode_changes(&derivation.journal);
        let last = self.store.last_record(Table::Journal, KEYS_END)?.filter(|(key, _)| key != KEEP_KEY);
        let last = last.map(|(_, record)| head_of(&record).map(|(head, _)| head)).transpose()?;
        let (entries, bytes) = last.map_or((0, 0), |last| (last.entries, last.bytes));
        let bytes = bytes + changes.len() as u64;
        let head = Head { at: self.now, origin, entries: entries + 1, bytes };
        let mut trimmed = 0;
        let mut failed = None;
        self.store.records(Table::Journal, &[0], &mut |key, record| match head_of(record) {
            Ok((old, size)) if keep.is_beyond(&old, size, &head) && trimmed < TRIMMED_MAX => {
                records.push(RecordWrite::remove(Table::Journal, key));
                trimmed += 1;
                ControlFlow::Continue(())
            }
            Ok(_) => ControlFlow::Break(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        let value = Some(head.encode(&changes));
        records.push(RecordWrite { table: Table::Journal, key: RecordKey::CommitSeq, value });
        failed.map_or(Ok(()), Err)
    }
}

/// An entry's head and size.
fn head_of(record: &[u8]) -> Result<(Head, u64), StoreError> {
    let (head, rest) = Head::decode(record).map_err(|_| unreadable("an entry of the journal"))?;
    Ok((head, rest.len() as u64))
}
