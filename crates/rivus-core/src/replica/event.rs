//! What an application may want to know of a replica.

use super::{Rejected, Unresolved};
use crate::clock::Stamp;
use crate::conflict::Conflict;
use crate::id::StoreId;

/// Where a change came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// An edit made here.
    Local,
    /// A page from this store.
    Remote(StoreId),
    /// A verdict took a refused edit back.
    Withdrawn,
    /// It was evicted: it is not at hand any more, and not deleted.
    Evicted,
    /// Another process, or another opening of the file in this one, has committed it: an edit of its own, or what it
    /// has received.
    OtherProcess,
    /// It is in no scope any more that is followed here: it is gone from this store, and not deleted.
    Left,
}

/// Something that an application may want to know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The view of an entity may have changed: one event per transaction and entity.
    Changed {
        /// The entity's kind.
        kind: String,
        /// The entity's id.
        id: String,
        /// Whose doing it was.
        origin: Origin,
    },
    /// Another process, or another opening of the file, has committed, and rules may show any entity of this kind
    /// otherwise: read again those that are shown.
    Swayed {
        /// The kind.
        kind: String,
    },
    /// One stamp was met with two contents: somebody copied a database and both copies wrote.
    Clash {
        /// The stamp.
        stamp: Stamp,
    },
    /// Registers with stamps from the future were set aside until their time has come.
    Quarantined {
        /// How many.
        registers: usize,
        /// Who sent them.
        from: Option<StoreId>,
    },
    /// The store was found to be a copy or a restored backup and has taken a new id.
    Copied {
        /// Its id until now.
        before: StoreId,
        /// Its id from now on.
        now: StoreId,
    },
    /// The store was away for longer than its lease at the authority and has missed what was collected: it has taken a new
    /// id, and shows nothing of before until it has read everything again. Its pending edits are made anew then.
    Fenced {
        /// Its id until now.
        before: StoreId,
        /// Its id from now on.
        now: StoreId,
    },
    /// At one position the digests of this store and another differ, which is a fault: the difference is looked for and
    /// mended.
    Diverged {
        /// The other store.
        with: StoreId,
        /// The scope, if it is one that is followed by name.
        scope: Option<String>,
    },
    /// What differed was found and exchanged.
    Repaired {
        /// The other store.
        with: StoreId,
        /// How many registers.
        registers: usize,
    },
    /// Rules are not evaluated any more, or again: any view may be another one.
    Rules {
        /// Why not; `None` if they are.
        unresolved: Option<Unresolved>,
    },
    /// A write of this store lost to one whose author had not seen it, or is not known to have.
    Conflict {
        /// Its number among the conflicts.
        number: u64,
        /// What was lost, and to what.
        conflict: Conflict,
    },
    /// The authority does not let this store read a scope that it was to follow, or not any more. What was read of it
    /// leaves the store once the pending edits of it have their verdicts: then [`Event::Revoked`] tells.
    Denied {
        /// The scope.
        scope: String,
    },
    /// The authority does not let this store read a scope, or not any more: what was read of it has left the store.
    /// Edits of it that the authority refused are among the rejected.
    Revoked {
        /// The scope.
        scope: String,
        /// How many entities have left.
        entities: usize,
    },
    /// The authority refused an edit; it was taken back and kept among the rejected.
    Rejected(Rejected),
    /// A refused edit is off the list: each of its fields was written anew, or somebody said what becomes of it.
    Settled {
        /// Its key.
        key: u64,
    },
}

/// What an edit did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edited {
    /// Everything showed that already: nothing written, no stamp used.
    Nothing,
    /// One transaction.
    Committed {
        /// The edit's stamp.
        stamp: Stamp,
        /// How many registers it wrote.
        registers: usize,
        /// The store's head after it.
        seq: u64,
    },
}

/// Whether a replica keeps events of changed entities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watching {
    /// Somebody polls them.
    Yes,
    /// Nobody does.
    No,
}
