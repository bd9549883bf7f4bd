//! Lost writes: listed, written again or dismissed.

use rivus_core::address::class;
use rivus_core::clock::Stamp;
use rivus_core::conflict::{self, LostTo};
use rivus_core::replica::{Edited, Explanation};
use rivus_core::value::{ABSENT, Value};

use crate::{Db, Error};

/// A write of this database that lost to one whose author had not seen it.
///
/// Where an authority judges edits the list is exact. Without one it may name too much: a plain field does not tell
/// what its last writer had seen, and nothing is lost in silence.
///
/// ```
/// # use rivus::{Db, Schema, Value};
/// # let db = Db::memory(Schema::open())?;
/// for conflict in db.conflicts()? {
///     let field = conflict.field.as_deref().unwrap_or("its life");
///     println!("{field} of {} `{}` was {:?}", conflict.kind, conflict.id, conflict.value);
///     println!("and {} ms later somebody wrote {:?}", conflict.gap_ms, conflict.winner_value);
/// }
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Conflict {
    /// Its number, which stays its own.
    pub number: u64,
    /// The entity's kind.
    pub kind: String,
    /// The entity's id.
    pub id: String,
    /// The field, or the group of fields; `None` if it is whether the entity is deleted.
    pub field: Option<String>,
    /// The key, if the field is a set or a map.
    pub key: Option<String>,
    /// What was written; `None` if it took a key out. Of a group, its members.
    pub value: Option<Value>,
    /// When and by which replica of this database.
    pub stamp: Stamp,
    /// What shows in its place; `None` if a key was taken out, or the entity was deleted.
    pub winner_value: Option<Value>,
    /// When and by whom that was written.
    pub winner: Stamp,
    /// How much later that was by the clocks, in ms; negative if it was earlier and had seen a later one.
    pub gap_ms: i64,
    /// Whether the entity was deleted: the value is there still, and shows again if it is revived.
    pub deleted: bool,
}

impl Conflict {
    fn of(number: u64, conflict: &conflict::Conflict) -> Self {
        let parts = conflict.parts();
        let value = |bytes: &[u8]| if bytes == ABSENT { None } else { Value::decode(bytes).ok() };
        let deleted = conflict.to == LostTo::Delete;
        Self {
            number,
            kind: conflict.kind.clone(),
            id: conflict.id.clone(),
            field: (parts.class != class::LIFE).then(|| parts.name.to_owned()),
            key: parts.text_key().filter(|_| parts.class == class::KEY).map(str::to_owned),
            value: value(&conflict.value),
            stamp: conflict.loser,
            winner_value: value(&conflict.winner_value).filter(|_| !deleted),
            winner: conflict.winner,
            gap_ms: conflict.gap_ms(),
            deleted,
        }
    }
}

impl Db {
    /// The writes of this database that lost to one whose author had not seen them, oldest first.
    ///
    /// They stay until they are dismissed or restored; of more than 10,000 the oldest are dropped, and counted.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// assert!(db.conflicts()?.is_empty(), "nobody else wrote");
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn conflicts(&self) -> Result<Vec<Conflict>, Error> {
        let all = self.lock()?.conflicts()?;
        Ok(all.iter().map(|(number, conflict)| Conflict::of(*number, conflict)).collect())
    }

    /// How many conflicts were dropped from the list because it was full.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// assert_eq!(db.conflicts_dropped()?, 0);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn conflicts_dropped(&self) -> Result<u64, Error> {
        Ok(self.lock()?.conflicts_dropped()?)
    }

    /// Takes a conflict off the list: what won is right. `false` if there is none of this number.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// for conflict in db.conflicts()?.iter().filter(|conflict| conflict.gap_ms > 60_000) {
    ///     db.dismiss_conflict(conflict.number)?;
    /// }
    /// assert!(!db.dismiss_conflict(7)?);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn dismiss_conflict(&self, number: u64) -> Result<bool, Error> {
        Ok(self.lock()?.dismiss_conflict(number)?)
    }

    /// Writes the lost value again, as a new edit that has seen what won, and takes the conflict off the list. A
    /// deleted entity is revived for it. `None` if there is no conflict of this number.
    ///
    /// # Errors
    /// [`Error::Edit`] or [`Error::Store`]: the conflict is listed still.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// for conflict in db.conflicts()?.iter().filter(|conflict| conflict.field.as_deref() == Some("title")) {
    ///     db.restore_conflict(conflict.number)?;
    /// }
    /// assert_eq!(db.restore_conflict(7)?, None);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn restore_conflict(&self, number: u64) -> Result<Option<Edited>, Error> {
        let now = self.shared.clock.now();
        Ok(self.lock()?.restore_conflict(now, number)?)
    }

    /// Why an entity, or one field of it, shows what it does: the writes in the running, who made them when, which of
    /// them the field's policy shows, and which rule shows something else. `None` if it is not held.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// let explanation = db.explain("task", "t1", Some("title"))?.expect("it is there");
    /// let [title] = explanation.fields.as_slice() else { panic!("one field was asked for") };
    /// assert_eq!(title.registers[0].candidates[0].value, Some("write".into()));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn explain(&self, kind: &str, id: &str, field: Option<&str>) -> Result<Option<Explanation>, Error> {
        Ok(self.lock()?.explain(kind, id, field)?)
    }
}
