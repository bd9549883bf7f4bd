//! Having entities back that were evicted, or were never here: the client names them, the authority hands out all of
//! their confirmed registers.
//!
//! One FETCH at a time is under way. What comes is joined like a page, without a position. An answer is read after
//! the pages that are due, so that no checkpoint is of an earlier moment than an answer before it.

use std::collections::{BTreeSet, VecDeque};

use super::{Access, Session, SessionError, SessionEvent, Want, unexpected};
use crate::clock::Millis;
use crate::code::Code;
use crate::replica::{Delta, Replica};
use crate::store::Store;
use crate::wire::{FETCH_ENTITIES_MAX, FRAME_BYTES_MAX, Frame, capability};

/// An entity's kind and id.
pub(super) type Name = (String, String);

/// How many FETCH frames may wait for their answer: a client sends one at a time.
const WAITING_MAX: usize = 4;

/// The client's side.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    /// What is to be asked for.
    wanted: VecDeque<Name>,
    /// What was asked for and has not come, while an answer is under way.
    asked: Option<BTreeSet<Name>>,
    entities: usize,
    registers: usize,
    missing: Vec<Name>,
}

impl Fetching {
    /// Whether an answer is to come.
    pub(super) fn is_awaited(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) fn is_done(&self) -> bool {
        self.wanted.is_empty() && self.asked.is_none()
    }
}

/// The authority's side: what is left of each FETCH.
pub(super) type Giving = VecDeque<VecDeque<Name>>;

impl Session {
    /// Asks the authority for whole entities, by kind and id, as soon as this side is caught up. That they have come is
    /// told by [`SessionEvent::Fetched`].
    pub fn fetch(&mut self, entities: impl IntoIterator<Item = (String, String)>) {
        self.fetching.wanted.extend(entities);
    }

    /// The next FETCH, if something is wanted and it is time.
    pub(super) fn next_fetch(&mut self) -> Result<Option<Vec<u8>>, SessionError> {
        let is_time = self.options.want == Want::Nothing || self.is_caught_up();
        let drained = self.is_drained();
        if self.fetching.wanted.is_empty() || self.fetching.asked.is_some() || !is_time || !drained {
            return Ok(None);
        }
        let peer = self.peer()?;
        if !peer.is_authority || peer.capabilities & capability::FETCH == 0 {
            self.fetching.wanted.clear();
            self.events.push_back(SessionEvent::CannotFetch);
            return Ok(None);
        }
        let count = self.fetching.wanted.len().min(FETCH_ENTITIES_MAX);
        let asked: BTreeSet<Name> = self.fetching.wanted.drain(..count).collect();
        let frame = Frame::Fetch(asked.iter().cloned().collect()).encode();
        self.fetching.asked = Some(asked);
        Ok(Some(frame))
    }

    pub(super) fn handle_fetched<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        bytes: &[u8],
        now: Millis,
    ) -> Result<(), SessionError> {
        let store = self.peer()?.store;
        let Some(asked) = &mut self.fetching.asked else {
            return Err(unexpected("entities that nobody asked for"));
        };
        // After an error it is of no use any more.
        let mut decoder = std::mem::take(&mut self.decoder);
        let fetched = decoder.fetched(bytes, store)?;
        let mut last: Option<Name> = None;
        let mut entities = 0;
        fetched.rows.each(|part| {
            let name = (part.kind.to_owned(), part.id.to_owned());
            // A large one comes in several parts, one after the other.
            if last.as_ref() != Some(&name) {
                if !asked.remove(&name) {
                    return Err(unexpected("an entity that was not asked for, or a second time"));
                }
                entities += 1;
                last = Some(name);
            }
            Ok(())
        })?;
        if entities == 0 && fetched.more {
            return Err(unexpected("an answer to FETCH that says nothing and is not the last"));
        }
        if entities > 0 {
            let joined = replica.join_fetched(now, &fetched.rows, store)?;
            self.fetching.registers += joined.registers;
            self.fetching.entities += entities;
        }
        let more = fetched.more;
        decoder.trim();
        self.decoder = decoder;
        if !more {
            self.fetching.missing.extend(self.fetching.asked.take().into_iter().flatten());
        }
        if self.fetching.is_done() {
            let Fetching { entities, registers, missing, .. } = std::mem::take(&mut self.fetching);
            self.events.push_back(SessionEvent::Fetched { entities, registers, missing });
        }
        Ok(())
    }

    pub(super) fn handle_fetch<S: Store>(
        &mut self,
        replica: &Replica<S>,
        entities: Vec<Name>,
    ) -> Result<(), SessionError> {
        if !self.is_server() || !replica.identity().is_authority {
            return Err(unexpected("FETCH to a side that is no authority"));
        }
        if !self.reads_anything(replica)? {
            return self.deny(replica);
        }
        if self.giving.len() >= WAITING_MAX {
            return Err(unexpected("FETCH again before the answers to earlier ones"));
        }
        self.giving.push_back(entities.into());
        Ok(())
    }

    /// The next part of an answer, if one is due.
    pub(super) fn next_fetched<S: Store>(
        &mut self,
        replica: &Replica<S>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        let Some(mut names) = self.giving.pop_front() else { return Ok(None) };
        if !self.reads_anything(replica)? {
            self.deny(replica)?;
        }
        while !self.encoder.is_full()
            && let Some((kind, id)) = names.pop_front()
        {
            if self.is_asking() && !self.allows(Access::Read, &replica.scope_of(&kind, &id)?) {
                continue;
            }
            let encoder = &mut self.encoder;
            replica.hand_out(&kind, &id, &mut |registers| {
                encoder.entity(&kind, &id, registers.iter().map(|(address, register)| (*address, register)));
            })?;
            if self.encoder.len() > FRAME_BYTES_MAX {
                let message = format!("{kind} `{id}` is longer than a frame: it cannot be fetched");
                return Err(SessionError::Refused { code: Code::TOO_LARGE, message });
            }
        }
        let more = !names.is_empty();
        // What is not held here, or may not be read, goes unsaid.
        if more {
            self.giving.push_front(names);
        }
        Ok(Some(self.encoder.finish_fetched(more)))
    }
}
