//! Noticing what other openings of the store have committed, for whoever listens.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::{Event, Origin, Replica};
use crate::store::{Store, StoreError};

/// How far [`Replica::notice`] has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Noticed {
    /// Up to which seq.
    pub seq: u64,
    /// Whether that was the head.
    pub is_all: bool,
}

/// At most so many rows are looked at in one step: so long others wait for the replica.
const ROWS_AT_ONCE: usize = 1024;

impl<S: Store> Replica<S> {
    /// Takes over what other openings of the store have committed after the seq `after`, and keeps events of it: one
    /// for each entity whose rows have changed, and one for each kind that rules may show otherwise on their account.
    ///
    /// `is_own` tells the seqs of this opening's commits, which it has told of already.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read, or tables of views that follow it cannot be written.
    pub fn notice(&mut self, after: u64, is_own: impl Fn(u64) -> bool) -> Result<Noticed, StoreError> {
        // Tables of views first: whoever hears of a change may read them at once.
        self.refresh()?;
        let (mut rows, mut entities) = (0, BTreeSet::new());
        let mut noticed = Noticed { seq: after, is_all: true };
        let head = self.store.changes(after, &mut |changed| {
            if rows == ROWS_AT_ONCE {
                noticed.is_all = false;
                return ControlFlow::Break(());
            }
            rows += 1;
            noticed.seq = changed.seq;
            if !is_own(changed.seq) {
                entities.insert((changed.kind.to_owned(), changed.id.to_owned()));
            }
            ControlFlow::Continue(())
        })?;
        if noticed.is_all {
            noticed.seq = head.seq;
        }
        if self.watching {
            // What an entity has left behind in the index is not known here: only that something may show otherwise.
            let rules =
                self.rules().filter(|rules| entities.iter().any(|(kind, _)| rules.watch(kind).is_some()));
            let swayed: Vec<_> =
                rules.iter().flat_map(|rules| rules.laid_across()).map(str::to_owned).collect();
            let changed = entities.into_iter();
            let event = |(kind, id)| Event::Changed { kind, id, origin: Origin::OtherProcess };
            self.events.extend(changed.map(event));
            self.events.extend(swayed.into_iter().map(|kind| Event::Swayed { kind }));
        }
        Ok(noticed)
    }
}
