//! What an edit has done so far, as rules show it: the rows as they would be if the edit ended here.
//!
//! What a user sees within a transaction satisfies the rules as any other view does: of two entries that it starts one
//! shows as running. Operations are judged on the view from before the edit all the same, so that an edit that is made
//! again does the same again.

use std::collections::BTreeSet;

use super::{EditError, Finish, Tx, delta};
use crate::clock::{Clock, Instant, Stamp};
use crate::pending::Header;
use crate::row::Change;
use crate::rules::Watch;
use crate::schema::Kind;
use crate::store::Store;
use crate::view::View;
use crate::work::{At, Work};

/// The rows as they would be if the edit ended here.
#[derive(Debug)]
pub(super) struct Ahead<'s, S> {
    /// With what the edit would end; without it nobody looks ahead.
    end: Option<(Clock, Finish)>,
    /// The entities that the edit writes to, as they are staged.
    written: BTreeSet<usize>,
    /// Those of them that it has written to since the rows were made.
    due: BTreeSet<usize>,
    /// Whether rules have to do with any of them.
    is_ruled: bool,
    /// The greatest instant that what it writes over holds.
    newest: Option<Instant>,
    rows: Option<(Stamp, Work<'s, S>)>,
}

impl<S> Default for Ahead<'_, S> {
    fn default() -> Self {
        let (written, due) = (BTreeSet::new(), BTreeSet::new());
        Self { end: None, written, due, is_ruled: false, newest: None, rows: None }
    }
}

impl<S> Ahead<'_, S> {
    /// Notes that the edit writes to an entity, over a register of this instant.
    pub(super) fn note(&mut self, at: At, watch: Option<&Watch>, newest: Option<Instant>) {
        if self.end.is_some() {
            self.written.insert(at.index());
            self.due.insert(at.index());
            self.is_ruled |= watch.is_some();
            self.newest = self.newest.max(newest);
        }
    }
}

impl<'s, S: Store> Tx<'s, S> {
    /// Lets views within the edit follow rules over what it has done, as if it ended in this way.
    pub(crate) fn ends(&mut self, clock: Clock, how: Finish) {
        self.ahead.end = Some((clock, how));
    }

    /// Brings the rows up to what the edit has done; false if rules have no part in that.
    pub(super) fn look_ahead(&mut self) -> Result<bool, EditError> {
        let Some((mut clock, how)) = self.ahead.end.clone().filter(|_| self.ahead.is_ruled) else {
            return Ok(false);
        };
        self.work.settle()?;
        let stamp = clock.tick(how.now, self.ahead.newest, how.force)?;
        let stamp = Stamp { replica: self.replica, ..stamp };
        let due = std::mem::take(&mut self.ahead.due);
        // One edit has one stamp: where that has changed, all of it is made anew.
        let (mut rows, due) = match self.ahead.rows.take().filter(|(of, _)| *of == stamp) {
            Some((_, rows)) => (rows, due),
            None => (self.work.copy(), self.ahead.written.clone()),
        };
        let header = Header { stamp, rank: how.rank, saw: how.saw, force: how.force };
        for index in due {
            self.write_ahead(At::new(index), header, &mut rows)?;
        }
        rows.settle()?;
        self.ahead.rows = Some((stamp, rows));
        // What rules add is added again at the end.
        self.ahead.due.clear();
        Ok(true)
    }

    /// Writes what the edit does to one entity, and what rules add, in place of what was written of it before.
    fn write_ahead(&mut self, at: At, header: Header, rows: &mut Work<'s, S>) -> Result<(), EditError> {
        self.with_rules(at, |tx| {
            let here = rows.restage(&tx.work, at);
            let Some(intents) = tx.intents(at) else { return Ok(()) };
            let join = |register| Change::Join { register, source: None };
            Ok(rows.apply(here, &delta(&tx.work, at, intents, header, join)?)?)
        })
    }

    /// The entity as it shows in the rows ahead.
    pub(super) fn view_ahead(
        &mut self,
        declared: &Kind,
        kind: &str,
        id: &str,
    ) -> Result<Option<View>, EditError> {
        let Some((_, rows)) = &mut self.ahead.rows else { return Ok(None) };
        Ok(rows.view(declared, kind, id)?)
    }

    /// The entity that stands for this one, if it is another: before the edit, or on account of it.
    pub(super) fn root_shown(
        &mut self,
        declared: &Kind,
        kind: &str,
        id: &str,
    ) -> Result<Option<String>, EditError> {
        let root = self.root_of(declared, kind, id)?;
        if root.is_some() || !declared.aliases_by_rule() || !self.look_ahead()? {
            return Ok(root);
        }
        let Some((_, rows)) = &mut self.ahead.rows else { return Ok(None) };
        Ok(rows.first_of_name(declared, kind, id)?.filter(|first| first != id))
    }
}
