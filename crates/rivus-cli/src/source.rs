//! What is in a database, whatever the schema says of it.
//!
//! Owns by which schema each kind shows: the one that is named, and for kinds that are not in it the one that takes
//! everything, as without a schema. Invariant: a kind that is there can be read.

use anyhow::Result;
use rivus::{Damaged, Db, Schema, View};

use crate::args::Global;
use crate::database;

/// A database to read all of.
pub(crate) struct Source {
    db: Db,
    /// The same file without a schema, if the one that is named does not declare all kinds.
    open: Option<Db>,
    on_damage: OnDamage,
}

/// What is done about an entity that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnDamage {
    Fail,
    Skip,
}

impl Source {
    pub(crate) fn open(global: &Global, on_damage: OnDamage) -> Result<Self> {
        let db = database::open(global)?;
        let is_declared = |kind: &String| db.schema().kind(kind).is_some();
        let open = if db.kinds()?.iter().all(is_declared) {
            None
        } else {
            Some(Db::open(&global.db, Schema::open())?)
        };
        Ok(Self { db, open, on_damage })
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    /// The entities of a kind that are not deleted, and those that are left out since they cannot be read.
    pub(crate) fn views(&self, kind: &str) -> Result<(Vec<(String, View)>, Vec<Damaged>)> {
        let open = self.open.as_ref().filter(|_| self.db.schema().kind(kind).is_none());
        let db = open.unwrap_or(&self.db);
        Ok(match self.on_damage {
            OnDamage::Fail => (db.views(kind)?, Vec::new()),
            OnDamage::Skip => db.views_undamaged(kind)?,
        })
    }
}
