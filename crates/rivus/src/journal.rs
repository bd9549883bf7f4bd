//! The journal: what changed, when and by whom, and taking an edit of one's own back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rivus_core::clock::Force;
use rivus_core::edit::{Action, Op};
use rivus_core::journal::{Change, Entry, Keep, What};
use rivus_core::replica::{Edited, Origin};
use rivus_core::schema::{FieldType, Kind, Slot};
use rivus_core::value::Value;
use rivus_core::view::{Shown, View};

use crate::{Db, Error, Transaction};

impl Db {
    /// What changed, oldest first: one entry for each commit that changed what registers show, with before, after and
    /// origin. Kept if [`Builder::journal`](crate::Builder::journal) began a journal in this store. What rules show is
    /// not in it.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, JournalKeep, LogFilter, Schema};
    /// let db = Db::builder().schema(Schema::open()).journal(JournalKeep::default()).memory()?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// db.put("task", "t1", [("title", "write it down".into())])?;
    /// let log = db.log(&LogFilter::default().entity("task", "t1").last(1))?;
    /// assert_eq!(log[0].changes[0].before, Some("write".into()));
    /// assert_eq!(log[0].changes[0].after, Some("write it down".into()));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn log(&self, filter: &LogFilter) -> Result<Vec<Entry>, Error> {
        let mut found = std::collections::VecDeque::new();
        self.lock()?.journal(filter.from, &mut |mut entry| {
            entry.changes.retain(|change| filter.takes(change));
            if !entry.changes.is_empty() {
                found.push_back(entry);
            }
            if filter.last.is_some_and(|last| found.len() > last) {
                found.pop_front();
            }
            ControlFlow::Continue(())
        })?;
        Ok(found.into())
    }

    /// How much of the past the store's journal keeps; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Reentrant`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// assert_eq!(Db::memory(Schema::open())?.journal_keep()?, None);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn journal_keep(&self) -> Result<Option<Keep>, Error> {
        Ok(self.lock()?.journal_keep())
    }

    /// As [`Builder::journal`](crate::Builder::journal), on a database that is open.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, JournalKeep, Schema};
    /// let db = Db::memory(Schema::open())?;
    /// db.keep_journal(JournalKeep { entries: Some(1_000), ..JournalKeep::default() })?;
    /// assert!(db.journal_keep()?.is_some());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn keep_journal(&self, keep: impl Into<Option<Keep>>) -> Result<(), Error> {
        Ok(self.lock()?.keep_journal(keep.into())?)
    }

    /// Takes back an edit that was made here, given its number in the log, by a new edit: what it changed shows again
    /// what it did before. What shows something else meanwhile stays, and is reported. A counter goes back by as much
    /// as the edit added. An entity that the edit created is deleted if all of it stands as the edit left it.
    ///
    /// A field that was not there before shows null; one that showed several values at once stays.
    ///
    /// # Errors
    /// [`Error::Undo`] if there is no such entry, or somebody else made the change; others as [`Db::apply`].
    ///
    /// ```
    /// # use rivus::{Db, JournalKeep, LogFilter, Schema, Shown};
    /// let db = Db::builder().schema(Schema::open()).journal(JournalKeep::default()).memory()?;
    /// db.put("task", "t1", [("title", "write".into()), ("done", false.into())])?;
    /// db.put("task", "t1", [("title", "oops".into()), ("done", true.into())])?;
    /// db.put("task", "t1", [("title", "write it down".into())])?;
    /// let log = db.log(&LogFilter::default())?;
    /// let undone = db.undo(log[1].number)?;
    /// let view = db.view("task", "t1")?.unwrap_or_default();
    /// assert_eq!(view.fields["done"], Shown::Value(false.into()));
    /// assert_eq!(view.fields["title"], Shown::Value("write it down".into()));
    /// assert_eq!(undone.left.len(), 1);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn undo(&self, number: u64) -> Result<Undone, Error> {
        let (mut found, replica) = (None, self.lock()?);
        replica.journal(number, &mut |entry| {
            found = Some(entry);
            ControlFlow::Break(())
        })?;
        // What was set aside until it was due is joined here and is somebody else's all the same.
        let is_own =
            |change: &Change| replica.identity().all_replicas().any(|own| own == change.stamp.replica);
        let is_kept = replica.journal_keep().is_some();
        let missing = if is_kept { UndoError::Missing { number } } else { UndoError::NoJournal };
        let entry = found.filter(|entry| entry.number == number).ok_or(missing)?;
        let is_own = entry.origin == Origin::Local && entry.changes.iter().all(is_own);
        drop(replica);
        if !is_own {
            return Err(UndoError::NotOwn { number }.into());
        }
        let mut entities: BTreeMap<(&str, &str), Vec<&Change>> = BTreeMap::new();
        for change in &entry.changes {
            entities.entry((&change.kind, &change.id)).or_default().push(change);
        }
        let (left, edited) = self.commit(Force::No, |tx| {
            let mut left = Vec::new();
            for ((kind, id), changes) in &entities {
                self.undo_entity(tx, (kind, id), changes, &mut left)?;
            }
            Ok(left)
        })?;
        Ok(Undone { edited, left })
    }

    fn undo_entity(
        &self,
        tx: &mut Transaction<'_, '_>,
        (kind, id): (&str, &str),
        changes: &[&Change],
        left: &mut Vec<Change>,
    ) -> Result<(), Error> {
        let leave = |changes: &[&Change]| changes.iter().map(|change| (*change).clone()).collect::<Vec<_>>();
        let declared = self.schema().kind(kind);
        let view = declared.map(|_| tx.view(kind, id)).transpose()?.flatten();
        let (Some(declared), Some(view)) = (declared, view) else {
            left.extend(leave(changes));
            return Ok(());
        };
        let alive = Some(Value::Bool(true));
        let life = changes.iter().find(|change| change.what == What::Life);
        let fields: Vec<&Change> = changes.iter().copied().filter(|c| c.what != What::Life).collect();
        let is_as_left = life.is_none_or(|life| view.deleted == (life.after != alive));
        let was_deleted = life.is_some_and(|life| life.after != alive);
        if !is_as_left || (view.deleted && !was_deleted) {
            left.extend(leave(changes));
            return Ok(());
        }
        if life.is_some_and(|life| life.before.is_none()) {
            // It was made by the edit: there is no state to go back to but not being there.
            let stands = fields.iter().all(|change| standing(declared, &view, change) == Standing::Whole)
                && !has_more(declared, &view, &fields);
            if stands {
                tx.apply(&Op::new(kind, id, Action::Delete))?;
            } else {
                left.extend(leave(changes));
            }
            return Ok(());
        }
        if was_deleted {
            tx.apply(&Op::new(kind, id, Action::Revive))?;
        }
        for change in fields {
            let standing = standing(declared, &view, change);
            if standing != Standing::Whole {
                left.push(change.clone());
            }
            if let Some(action) =
                Some(standing).filter(|s| *s != Standing::Gone).and(inverse(declared, &view, change))
            {
                tx.apply(&Op::new(kind, id, action))?;
            }
        }
        if life.is_some() && !was_deleted {
            tx.apply(&Op::new(kind, id, Action::Delete))?;
        }
        Ok(())
    }
}

/// Which entries of the journal; see [`Db::log`].
///
/// ```
/// # use rivus::LogFilter;
/// let last_ten_of_tasks = LogFilter::default().kind("task").last(10);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogFilter {
    kind: Option<String>,
    id: Option<String>,
    from: u64,
    last: Option<usize>,
}

impl LogFilter {
    /// Changes of this kind.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Changes of this entity.
    #[must_use]
    pub fn entity(mut self, kind: impl Into<String>, id: impl Into<String>) -> Self {
        (self.kind, self.id) = (Some(kind.into()), Some(id.into()));
        self
    }

    /// Entries of this number and later ones.
    #[must_use]
    pub fn from(mut self, number: u64) -> Self {
        self.from = number;
        self
    }

    /// The newest, at most so many.
    #[must_use]
    pub fn last(mut self, entries: usize) -> Self {
        self.last = Some(entries);
        self
    }

    fn takes(&self, change: &Change) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == change.kind)
            && self.id.as_ref().is_none_or(|id| *id == change.id)
    }
}

/// What [`Db::undo`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undone {
    /// The new edit.
    pub edited: Edited,
    /// What was left as it is: something else shows meanwhile, or what was before cannot be written.
    pub left: Vec<Change>,
}

/// Why an edit is not taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UndoError {
    /// The journal does not have it (any more).
    #[error("the journal has no entry {number}: look for its number in the log")]
    Missing {
        /// The number.
        number: u64,
    },
    /// Nothing is kept of what was.
    #[error(
        "no journal is kept, so nothing is known of earlier edits: begin one, and later edits can be taken back"
    )]
    NoJournal,
    /// It came from elsewhere, or was a refused edit's withdrawal.
    #[error("entry {number} is not an edit that was made here: edit what shows instead")]
    NotOwn {
        /// The number.
        number: u64,
    },
}

/// Whether the entity shows anything that these changes have not written.
fn has_more(kind: &Kind, view: &View, written: &[&Change]) -> bool {
    let is_written = |name: &String| {
        written.iter().any(|change| match &change.what {
            What::Group(group) => kind.group(group).is_some_and(|group| group.members.contains(name)),
            what => what.name() == Some(name),
        })
    };
    view.fields.iter().any(|(name, shown)| {
        let is_empty = match shown {
            Shown::Value(Value::Null) => true,
            Shown::Value(value) => {
                kind.field(name).is_some_and(|field| field.default.as_ref() == Some(value))
            }
            Shown::Set(keys) => keys.is_empty(),
            Shown::Map(entries) => entries.is_empty(),
            Shown::Counter(sum) => *sum == 0,
        };
        !is_empty && !is_written(name)
    })
}

/// How much of what an edit wrote still shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Whole,
    /// Some members of a group.
    Part,
    Gone,
}

fn standing(kind: &Kind, view: &View, change: &Change) -> Standing {
    let whole = |stands: bool| if stands { Standing::Whole } else { Standing::Gone };
    match &change.what {
        What::Field(field) if inverse(kind, view, change).is_some() => {
            whole(view.fields.get(field) == change.after.clone().map(Shown::Value).as_ref())
        }
        What::Group(_) => {
            let moved = moved(change);
            match moved.iter().filter(|(member, after, _)| shows(view, member, after)).count() {
                0 => Standing::Gone,
                some if some < moved.len() => Standing::Part,
                _ => Standing::Whole,
            }
        }
        What::Key { field, key } if inverse(kind, view, change).is_some() => {
            let now = match view.fields.get(field) {
                Some(Shown::Set(keys)) => keys.contains(key).then_some(Value::Bool(true)),
                Some(Shown::Map(entries)) => entries.get(key).cloned(),
                _ => None,
            };
            whole(now == change.after)
        }
        What::Count { .. } => whole(inverse(kind, view, change).is_some()),
        _ => Standing::Gone,
    }
}

fn shows(view: &View, field: &str, value: &Value) -> bool {
    matches!(view.fields.get(field), Some(Shown::Value(shown)) if shown == value)
}

/// The members of a group that a change moved: what it set them to, and from what.
fn moved(change: &Change) -> Vec<(&String, &Value, &Value)> {
    let Some(Value::Map(after)) = &change.after else { return Vec::new() };
    let before = match &change.before {
        Some(Value::Map(before)) => Some(before),
        _ => None,
    };
    let was = |member: &String| before.and_then(|before| before.get(member)).unwrap_or(&Value::Null);
    let all = after.iter().map(|(member, value)| (member, value, was(member)));
    all.filter(|(_, after, before)| after != before).collect()
}

/// What takes a change back; `None` if nothing does.
fn inverse(kind: &Kind, view: &View, change: &Change) -> Option<Action> {
    let before = change.before.clone();
    match (&change.what, change.what.name().map(|name| kind.slot(name))) {
        (What::Field(field), Some(slot @ (Slot::Field(_) | Slot::Open))) => {
            let is_multi = matches!(slot, Slot::Field(field) if field.ty == FieldType::Multi);
            let value = match before {
                Some(Value::List(mut all)) if is_multi => all.pop().filter(|_| all.is_empty())?,
                None if is_multi => return None,
                before => before.unwrap_or(Value::Null),
            };
            Some(Action::Put(vec![(field.clone(), value)]))
        }
        (What::Group(_), _) => {
            let moved = moved(change).into_iter().filter(|(member, after, _)| shows(view, member, after));
            let fields: Vec<_> = moved.map(|(member, _, before)| (member.clone(), before.clone())).collect();
            (!fields.is_empty()).then_some(Action::Put(fields))
        }
        (What::Key { field, key }, Some(Slot::Field(declared))) => {
            let (field, key) = (field.clone(), key.clone());
            match (&declared.ty, before) {
                (FieldType::Set { .. } | FieldType::Map, None) => Some(Action::Remove { field, key }),
                (FieldType::Set { .. }, Some(_)) => Some(Action::Add { field, key }),
                (FieldType::Map, Some(value)) => Some(Action::SetKey { field, key, value }),
                _ => None,
            }
        }
        (What::Count { field, .. }, Some(Slot::Field(declared))) if declared.ty == FieldType::Counter => {
            let total = |value: &Option<Value>| if let Some(Value::Int(total)) = value { *total } else { 0 };
            let by = total(&change.before).checked_sub(total(&change.after))?;
            Some(Action::Inc { field: field.clone(), by })
        }
        _ => None,
    }
}
