//! Values that have lost are written again, where the schema says so: by a new edit after the join, never by the
//! merge, which gives the same on every replica.
//!
//! A field that does so has a margin, so that a register tells which writes had not seen each other: those are in the
//! running together. The new edit has seen all of them and replaces them, so each loser speaks up once for each
//! concurrent write that it meets. Among replicas that all do so the writer of the newest one has nothing to write
//! again, and all come to rest.

use super::{Delta, Replica};
use crate::address::{Parts, class};
use crate::clock::{Force, Millis};
use crate::edit::{Action, EditError, Op};
use crate::row::Row;
use crate::schema::{OnConflict, Slot};
use crate::store::{Store, StoreError};
use crate::value::Value;
use crate::work::damaged;

impl<S: Store> Replica<S> {
    /// Writes this replica's values again that have lost to what was joined. What was joined stays joined if that
    /// cannot be done.
    pub(super) fn restamp<D: Delta + ?Sized>(&mut self, now: Millis, joined: &D) {
        if !self.schema.restamps() {
            return;
        }
        let written = self.lost(joined).map_err(EditError::from).and_then(|lost| {
            let write = |op: &Op, tx: &mut crate::edit::Tx<'_, S>| match tx.apply(op) {
                // It is gone: nothing of it shows. Or not at hand: it speaks up when it is fetched.
                Err(EditError::Deleted { .. } | EditError::Evicted { .. }) => Ok(()),
                done => done,
            };
            self.transact(now, Force::No, |tx| lost.iter().try_for_each(|op| write(op, tx)))
        });
        if let Err(error) = written {
            tracing::warn!(%error, "values that have lost could not be written again");
        }
    }

    /// What writes this replica's lost values again.
    fn lost<D: Delta + ?Sized>(&self, joined: &D) -> Result<Vec<Op>, StoreError> {
        let mut ops = Vec::new();
        joined.each(|part| {
            let Some(kind) = self.schema.kind(part.kind).filter(|kind| kind.restamps()) else {
                return Ok(());
            };
            // Of one that another stands for nothing shows, so nothing of it has lost.
            if self.root(part.kind, part.id)?.is_some() {
                return Ok(());
            }
            for (address, _) in part.changes {
                let parts = Parts::parse(address.as_ref()).filter(|parts| parts.class == class::FIELD);
                let Some(parts) = parts else { continue };
                let restamps = matches!(kind.slot(parts.name), Slot::Field(field)
                    if field.on_conflict == OnConflict::Restamp);
                if restamps && let Some(value) = self.lost_at(part.kind, part.id, address.as_ref())? {
                    let put = Action::Put(vec![(parts.name.to_owned(), value)]);
                    ops.push(Op::new(part.kind, part.id, put));
                }
            }
            Ok::<_, StoreError>(())
        })?;
        Ok(ops)
    }

    /// This replica's value at the address, if another one shows.
    fn lost_at(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Value>, StoreError> {
        let Some(chunk) = self.store.load(kind, id, address)? else { return Ok(None) };
        let found = || {
            let Some(entry) = Row::new(&chunk.bytes, chunk.seq)?.find(address)? else { return Ok(None) };
            let register = entry.shown()?;
            let shown = register.newest();
            let own = register.alive.iter().find(|c| c.stamp.replica == self.id());
            let own = own.filter(|own| own.value != shown.value);
            own.map(|own| Value::decode(own.value).map_err(|_| crate::row::Corrupt)).transpose()
        };
        found().map_err(|corrupt| damaged(kind, id, corrupt))
    }
}
