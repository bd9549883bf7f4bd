//! Registers that a peer has sent and this side had already, from somebody else: they need not go back to it.
//!
//! A register's source names one store. In a ring a change comes from both neighbours, and without this the second to
//! bring it would have it back. It is a saving and nothing rests on it, so it is bounded, and gone with the connection.

use std::collections::BTreeSet;

use super::{Session, SessionError};
use crate::replica::{Delta, Replica};
use crate::row::{Corrupt, Digested, Row};
use crate::sketch::Key;
use crate::store::{Chunk, Store};
use crate::wire::page::Rows;
use crate::work::damaged;

/// How many are remembered, 32 KiB of keys, and of how long a page: a longer one is a catch-up, and looking through it
/// would cost a second reading.
const ECHOES_MAX: usize = 4096;

/// Of what is not sent yet, that which the other side has.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    keys: BTreeSet<Key>,
}

impl Echoes {
    /// Everything up to the head has been sent, or passed over.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn has(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }
}

impl Session {
    /// Looks which registers of a joined page were here before, and will be sent unless they are noted.
    pub(super) fn note_echoes<S: Store>(
        &mut self,
        replica: &Replica<S>,
        rows: &Rows<'_, '_>,
        registers: usize,
    ) -> Result<(), SessionError> {
        let peer = self.peer()?;
        let store = peer.store;
        let Some(sent) = self.writing.map(|writing| writing.sent()) else { return Ok(()) };
        if peer.is_authority || replica.identity().is_authority || registers > ECHOES_MAX {
            return Ok(());
        }
        let (echoes, mut buffer) = (&mut self.echoes, Vec::new());
        rows.each(|part| {
            let mut digested = Digested::new(&mut buffer, part.kind, part.id);
            let mut chunk: Option<Chunk<'_>> = None;
            for (address, change) in part.changes {
                let address = address.as_ref();
                let holds =
                    |chunk: &Chunk<'_>| Row::new(&chunk.bytes, chunk.seq).is_ok_and(|row| row.holds(address));
                if !chunk.as_ref().is_some_and(holds) {
                    chunk = replica.store().load(part.kind, part.id, address)?;
                }
                let (Some(chunk), Some(register)) = (&chunk, change.register()) else { continue };
                let read = || -> Result<bool, Corrupt> {
                    let Some(entry) = Row::new(&chunk.bytes, chunk.seq)?.find(address)? else {
                        return Ok(false);
                    };
                    let held = entry.state()?;
                    Ok(held.seq > sent && held.source != Some(store) && held.confirmed() == Some(register))
                };
                let is_known = read().map_err(|corrupt| damaged(part.kind, part.id, corrupt))?;
                if is_known && echoes.keys.len() < ECHOES_MAX {
                    echoes.keys.insert(Key::of(digested.hash(address, register)));
                }
            }
            Ok(())
        })
    }
}
