//! Marks: what an authority has collected, in the order of changes, until everybody was told.
//!
//! A mark stands under the seq of the commit that collected, and names what went. Owns their records, how far they go, and
//! which edits come too late.

use std::ops::ControlFlow;

use super::{Delta, Meanwhile, Origin, Pushed, Replica, STALE_RETRIES_MAX, Spot, Verdict, evict, unreadable};
use crate::address::{LIFE, Parts, class};
use crate::bytes::{Cut, Put, Reader};
use crate::code::Code;
use crate::identity::{Position, knows};
use crate::rules::{COVER_KEY, Cover};
use crate::store::{CommitError, Head, RecordRead, RecordWrite, Store, StoreError, Table};
use crate::view::TRUE;
use crate::work::{Scratch, Work};

/// The key of the record that says how far marks go.
const MARKS_KEY: &[u8] = &[0xff];

/// What begins the key under which the seq of an entity's newest mark is.
const BY_NAME: u8 = 0xfe;

/// What begins the key under which the seq of a register's newest mark is. Seqs begin with less.
const BY_ADDRESS: u8 = 0xfd;

/// What follows the seq in the key of a mark of registers, which leaves the rest of their entities alone.
const OF_REGISTERS: u8 = 1;

/// An entity's kind and id.
pub(super) type Name = (String, String);

/// How far the marks of collections go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// The seq of the newest there ever was; 0 if there was none.
    pub newest: u64,
    /// The seq of the newest that was removed: who has read less has missed something.
    pub floor: u64,
}

impl<S: Store> Replica<S> {
    /// How far the marks of collections go.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn marks(&self) -> Result<Marks, StoreError> {
        Ok(self.marks_read()?.0)
    }

    /// The same, and that it was read: a commit that rests on it is stale if there is another mark by then.
    pub(super) fn marks_read(&self) -> Result<(Marks, RecordRead), StoreError> {
        let value = self.store.record(Table::Collected, MARKS_KEY)?.map(|bytes| bytes.to_vec());
        let mut reader = Reader::new(value.as_deref().unwrap_or(&[0, 0]));
        let mut read =
            || -> Result<_, Cut> { Ok(Marks { newest: reader.varint()?, floor: reader.varint()? }) };
        let marks = read().map_err(|_| unreadable("how far collections go"))?;
        Ok((marks, RecordRead { table: Table::Collected, key: MARKS_KEY.to_vec(), value }))
    }

    /// Removes all marks up to `cut`, see [`Replica::forget_mark`].
    pub(super) fn forget_marks(&mut self, cut: u64) -> Result<(), CommitError> {
        while self.forget_mark(cut)?.is_some() {}
        Ok(())
    }

    /// Removes the oldest mark up to `cut` and the rows that it has emptied: everybody has been told. Says of how many
    /// entities, if there was one.
    pub(super) fn forget_mark(&mut self, cut: u64) -> Result<Option<usize>, CommitError> {
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            let since = self.store.head()?.seq;
            // Whoever follows the rows has to see them empty first.
            let until = cut.min(self.indexed_until()?);
            let Some((seq, marked)) = self.marks_after(0, until, 1)?.pop() else { return Ok(None) };
            let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
            let mut records = vec![RecordWrite::remove(Table::Collected, mark_key(seq, &marked))];
            let mut entities = 0;
            for one in &marked {
                for key in one.index() {
                    // A later collection has a mark of its own.
                    let at = self.store.record(Table::Collected, &key)?;
                    if at.is_some_and(|at| *at == seq.to_be_bytes()) {
                        records.push(RecordWrite::remove(Table::Collected, key));
                    }
                }
                if one.addresses.is_empty() {
                    entities += 1;
                    let at = work.entity(&one.name.0, &one.name.1);
                    work.remove(at, seq)?;
                }
            }
            records.push(Marks { floor: seq, ..self.marks()? }.record());
            let meanwhile = Meanwhile::Nothing { since, high_water: None };
            match self.commit(work.finish()?, records, meanwhile, Origin::Local) {
                Ok(_) => return Ok(Some(entities)),
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CommitError::Stale)
    }

    /// Up to which row the index of the rules follows, if anybody keeps one.
    fn indexed_until(&self) -> Result<u64, StoreError> {
        if self.rules().is_some() {
            return Ok(self.cover.seq);
        }
        let cover = self.store.record(Table::Rule, COVER_KEY)?;
        let cover = cover.map(|bytes| Cover::decode(&bytes)).transpose();
        Ok(cover.map_err(|_| unreadable("how far the index of the rules goes"))?.map_or(u64::MAX, |c| c.seq))
    }

    /// At most `limit` marks after `after` up to `until`, oldest first, with what each is of.
    pub(crate) fn marks_after(
        &self,
        after: u64,
        until: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<Marked>)>, StoreError> {
        let (mut marks, mut failed) = (Vec::new(), false);
        self.store.records(Table::Collected, &after.saturating_add(1).to_be_bytes(), &mut |key, value| {
            let Some((seq, rest)) = key.split_first_chunk::<8>() else { return ControlFlow::Break(()) };
            let seq = u64::from_be_bytes(*seq);
            if seq > until || marks.len() == limit || key.first() >= Some(&BY_ADDRESS) {
                return ControlFlow::Break(());
            }
            match Marked::read_all(value, rest == [OF_REGISTERS]) {
                Ok(marked) => marks.push((seq, marked)),
                Err(Cut) => failed = true,
            }
            ControlFlow::Continue(())
        })?;
        if failed { Err(unreadable("the mark of a collection")) } else { Ok(marks) }
    }

    /// Why an edit comes too late, if it does: it is of what was collected before its author knew. What `rests` on a
    /// refused edit may be of an entity that is not here because of that.
    pub(super) fn gone<D: Delta>(
        &self,
        marks: Marks,
        head: &Head,
        edit: &Pushed<D>,
        work: &mut Work<'_, S>,
        rests: &dyn Fn() -> Result<bool, StoreError>,
    ) -> Result<Option<Verdict>, CommitError> {
        let had_read = edit.saw.filter(|saw| {
            knows(&head.incarnations, head.seq, Position { incarnation: saw.incarnation, seq: saw.done })
        });
        let had_read = had_read.map_or(0, |saw| saw.done);
        if had_read >= marks.newest {
            return Ok(None);
        }
        let mark = |key: Vec<u8>| -> Result<u64, Late> {
            let mark = self.store.record(Table::Collected, &key).map_err(Late::failed)?;
            Ok(mark.and_then(|seq| Reader::new(&seq).u64().ok()).unwrap_or(0))
        };
        let looked = edit.delta.each(|part| {
            let (kind, id) = (part.kind, part.id);
            let creates = |(address, change): &(D::Address, crate::row::Change<'_>)| {
                address.as_ref() == LIFE && change.register().is_some_and(|life| life.newest().value == TRUE)
            };
            let is_late = had_read < mark(by_name(kind, id))?
                || had_read < marks.floor && !part.changes.iter().any(creates) && {
                    let at = work.entity(kind, id);
                    !work.is_held(at).map_err(Late::Failed)? && !rests().map_err(Late::failed)?
                };
            if is_late {
                return Err(Late::Gone(kind.to_owned(), id.to_owned()));
            }
            for (address, _) in part.changes {
                let address = address.as_ref();
                let is_key = address.first() == Some(&class::KEY);
                if is_key && had_read < mark(by_address(kind, id, address))? {
                    return Err(Late::Removed(kind.to_owned(), id.to_owned(), address.to_vec()));
                }
            }
            Ok(())
        });
        match looked {
            Ok(()) => Ok(None),
            Err(Late::Gone(kind, id)) => Ok(Some(gone(kind, id))),
            Err(Late::Removed(kind, id, address)) => Ok(Some(removed(kind, id, &address))),
            Err(Late::Failed(error)) => Err(error),
        }
    }
}

/// What is under a mark, of one entity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Marked {
    pub(crate) name: Name,
    /// The addresses of the registers that went; none if the whole entity did.
    pub(crate) addresses: Vec<Vec<u8>>,
    /// At an authority: the scopes in which somebody may know it.
    pub(crate) scopes: Vec<String>,
}

impl Marked {
    /// A whole entity, of a store that nobody is told by.
    pub(super) fn of(kind: &str, id: &str) -> Self {
        Self { name: (kind.to_owned(), id.to_owned()), addresses: Vec::new(), scopes: Vec::new() }
    }

    /// The keys under which the seq of the newest mark of what went is.
    fn index(&self) -> Vec<Vec<u8>> {
        let (kind, id) = &self.name;
        if self.addresses.is_empty() {
            return vec![by_name(kind, id)];
        }
        self.addresses.iter().map(|address| by_address(kind, id, address)).collect()
    }

    fn read_all(mark: &[u8], of_registers: bool) -> Result<Vec<Self>, Cut> {
        let (mut reader, mut all) = (Reader::new(mark), Vec::new());
        while !reader.is_empty() {
            let name = (reader.str()?.to_owned(), reader.str()?.to_owned());
            let count = reader.count(1)?;
            let scopes = (0..count).map(|_| Ok(reader.str()?.to_owned())).collect::<Result<_, _>>()?;
            let count = if of_registers { reader.count(1)? } else { 0 };
            let addresses = (0..count).map(|_| Ok(reader.slice()?.to_vec())).collect::<Result<_, _>>()?;
            all.push(Self { name, addresses, scopes });
        }
        Ok(all)
    }
}

/// The key of the mark of a collection that ended with this seq: it is of entities, or of registers.
fn mark_key(seq: u64, marked: &[Marked]) -> Vec<u8> {
    let mut key = seq.to_be_bytes().to_vec();
    if marked.iter().any(|one| !one.addresses.is_empty()) {
        key.push(OF_REGISTERS);
    }
    key
}

/// The mark of a collection that ended with this seq.
pub(super) fn mark(seq: u64, marked: &[Marked]) -> RecordWrite {
    let mut value = Vec::new();
    for Marked { name: (kind, id), addresses, scopes } in marked {
        value.slice(kind.as_bytes());
        value.slice(id.as_bytes());
        value.varint(scopes.len() as u64);
        scopes.iter().for_each(|scope| value.slice(scope.as_bytes()));
        if !addresses.is_empty() {
            value.varint(addresses.len() as u64);
            addresses.iter().for_each(|address| value.slice(address));
        }
    }
    RecordWrite::put(Table::Collected, mark_key(seq, marked), value)
}

/// What an authority keeps of a collection that ended with this seq.
pub(super) fn marks_of(seq: u64, marked: &[Marked], marks: Marks) -> Vec<RecordWrite> {
    let keys = marked.iter().flat_map(Marked::index);
    let index = keys.map(|key| RecordWrite::put(Table::Collected, key, seq.to_be_bytes().to_vec()));
    let marks = Marks { newest: seq, ..marks };
    index.chain([mark(seq, marked), marks.record()]).collect()
}

impl Marks {
    fn record(self) -> RecordWrite {
        let mut value = Vec::new();
        value.varint(self.newest);
        value.varint(self.floor);
        RecordWrite::put(Table::Collected, MARKS_KEY, value)
    }
}

/// Why the look at an edit ended early.
enum Late {
    Gone(String, String),
    Removed(String, String, Vec<u8>),
    Failed(CommitError),
}

impl Late {
    fn failed(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// The verdict on an edit of what was collected.
pub(super) fn gone(kind: String, id: String) -> Verdict {
    let message = format!(
        "{kind} `{id}` was deleted, and forgotten by the hub before it heard of this edit: make a new one of what it was \
         to hold"
    );
    Verdict::Refused { code: Code::GONE, message, spot: Some(Spot { kind, id, field: None }) }
}

/// Under which key the seq of an entity's mark is.
fn by_name(kind: &str, id: &str) -> Vec<u8> {
    let mut key = vec![BY_NAME];
    key.extend(evict::key(kind, id));
    key
}

/// The verdict on an edit of a key that was taken out of a set or map, and collected.
pub(super) fn removed(kind: String, id: String, address: &[u8]) -> Verdict {
    let parts = Parts::parse(address).unwrap_or(Parts { class: class::KEY, name: "", key: &[] });
    let (field, key) = (parts.name.to_owned(), String::from_utf8_lossy(parts.key));
    let message = format!(
        "`{key}` was taken out of {field} of {kind} `{id}`, and forgotten by the hub before it heard of this edit: retry \
         it to put it in again"
    );
    Verdict::Refused { code: Code::GONE, message, spot: Some(Spot { kind, id, field: Some(field) }) }
}

/// Under which key the seq of a register's newest mark is.
fn by_address(kind: &str, id: &str, address: &[u8]) -> Vec<u8> {
    let mut key = vec![BY_ADDRESS];
    key.slice(kind.as_bytes());
    key.slice(id.as_bytes());
    key.extend_from_slice(address);
    key
}
