//! The grammar of rows, for both readings.

use super::{Memory, RowError, Spans};
use crate::address::{self, Parts, class};
use crate::bytes::{Cut, Reader, unzigzag};
use crate::clock::{Instant, Stamp, TIME_END, ticks};
use crate::id::{Incarnation, ReplicaId};
use crate::register::{Alive, Register, Saw, Seen};
use crate::value;
use crate::wire::page::{EDITS_BACK_MAX, Edit, FIELD_FOLLOWS, Last, form};

/// The last edits of a frame.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    edits: [Edit; EDITS_BACK_MAX],
    count: usize,
}

impl Default for Recent {
    fn default() -> Self {
        let none = Edit { stamp: Stamp::LOWEST, rank: 0, saw: None };
        Self { edits: [none; EDITS_BACK_MAX], count: 0 }
    }
}

impl Recent {
    #[inline]
    fn push(&mut self, edit: Edit) {
        if let Some(slot) = self.edits.get_mut(self.count % EDITS_BACK_MAX) {
            *slot = edit;
        }
        self.count += 1;
    }

    /// The edit at this distance, 1 being the last one.
    #[inline]
    fn at(&self, distance: usize) -> Result<Edit, Cut> {
        let at = self.count.checked_sub(distance).filter(|_| (1..=EDITS_BACK_MAX).contains(&distance));
        at.and_then(|at| self.edits.get(at % EDITS_BACK_MAX)).copied().ok_or(Cut)
    }
}

/// One frame being read.
#[derive(Clone, Debug)]
pub(in crate::wire::page) struct Parse<'a, W> {
    pub(in crate::wire::page) words: W,
    pub(super) known: Spans,
    pub(super) last: Last,
    pub(in crate::wire::page) shape: Reader<'a>,
    pub(super) stamps: Reader<'a>,
    pub(super) values: &'a [u8],
    pub(super) edits: Recent,
}

/// An address: the number of its prefix, and its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::wire::page) struct Place<'a> {
    pub(in crate::wire::page) prefix: u64,
    pub(in crate::wire::page) key: Key<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::wire::page) enum Key<'a> {
    None,
    Replica(ReplicaId),
    Bytes(&'a [u8]),
}

impl Key<'_> {
    #[inline]
    pub(in crate::wire::page) fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Replica(replica) => &replica.0,
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// What comes before the candidates of a full register.
pub(super) struct FullHead {
    pub(super) alive: usize,
    pub(super) seen: usize,
    pub(super) floor: Stamp,
}

impl<'a, W: Memory> Parse<'a, W> {
    /// An edit's number, of which `before` is the one before, and how many entities it has.
    pub(in crate::wire::page) fn edit_head(&mut self, before: u64) -> Result<(u64, usize), RowError> {
        let number = before.checked_add(self.shape.varint()?).ok_or(RowError::Cut)?;
        Ok((number, self.shape.count(3)?))
    }

    /// An entity's number in the dictionary, and how many registers it has.
    pub(in crate::wire::page) fn entity(&mut self) -> Result<(u64, usize), RowError> {
        let entity = match self.shape.varint()? {
            0 => self.new_entity()?,
            distance => self.known.entities.at(distance)?,
        };
        let count = self.shape.count(1)?;
        if count == 0 { Err(RowError::Cut) } else { Ok((entity, count)) }
    }

    fn new_entity(&mut self) -> Result<u64, RowError> {
        let kind = match self.shape.varint()? {
            0 => {
                let kind = self.shape.str()?;
                if kind.is_empty() || kind.len() > address::KIND_BYTES_MAX {
                    return Err(RowError::Cut);
                }
                self.words.keep(|words| &mut words.kinds, [kind.as_bytes(), &[]], kind.len())?;
                self.known.kinds.add(&self.words.words().kinds)
            }
            distance => self.known.kinds.at(distance)?,
        };
        let id = self.shape.str()?;
        if id.len() > address::ID_BYTES_MAX {
            return Err(RowError::Cut);
        }
        let kind_len = self.words.words().kinds.word(kind).ok_or(RowError::Cut)?.len();
        // As long as the key by which the other side looks it up.
        let cost = if kind_len < 0x80 { 1 } else { 2 } + kind_len + id.len();
        self.words.keep(|words| &mut words.entities, [&kind.to_be_bytes(), id.as_bytes()], cost)?;
        Ok(self.known.entities.add(&self.words.words().entities))
    }

    /// A register's form and address.
    #[inline]
    pub(in crate::wire::page) fn head(&mut self) -> Result<(u8, Place<'a>), RowError> {
        let head = self.shape.u8()?;
        let prefix = match head >> 3 {
            0 => self.new_prefix()?,
            FIELD_FOLLOWS => {
                let distance = self.shape.varint()?;
                self.known.fields.at(distance)?
            }
            distance => self.known.fields.at(u64::from(distance))?,
        };
        let class = *self.words.words().fields.word(prefix).and_then(<[u8]>::first).ok_or(RowError::Cut)?;
        let key = match class {
            class::LIFE | class::FIELD | class::GROUP => Key::None,
            class::COUNT => Key::Replica(match self.shape.varint()? {
                0 => {
                    let replica = ReplicaId(self.shape.array()?);
                    self.new_replica(replica)?
                }
                distance => self.known_replica(distance)?,
            }),
            _ => {
                let key = self.shape.slice()?;
                if !address::is_key(class, key) {
                    return Err(RowError::Cut);
                }
                Key::Bytes(key)
            }
        };
        Ok((head & 7, Place { prefix, key }))
    }

    fn new_prefix(&mut self) -> Result<u64, RowError> {
        let prefix = self.shape.slice()?;
        let named = Parts::parse(prefix).ok_or(RowError::Cut)?;
        if !named.key.is_empty() || !address::is_name(named.class, named.name) {
            return Err(RowError::Cut);
        }
        self.words.keep(|words| &mut words.fields, [prefix, &[]], prefix.len())?;
        Ok(self.known.fields.add(&self.words.words().fields))
    }

    /// The edit and the floor of a register of any form but the full one: well-formed by its form.
    #[inline]
    pub(super) fn single(&mut self, form: u8) -> Result<(Edit, Stamp), RowError> {
        let edit = match form {
            form::PLAIN_SAME | form::OPEN_SAME => self.edits.at(1)?,
            form::PLAIN_NEW | form::OPEN_NEW => self.edit_header()?,
            form::PLAIN_BACK | form::OPEN_BACK => {
                let edit = self.edits.at(self.shape.len()?.saturating_add(1))?;
                self.edits.push(edit);
                edit
            }
            _ => {
                let edit = self.edit()?;
                let reach = self.shape.varint()?;
                let time = edit.stamp.time.checked_sub(reach).ok_or(RowError::Cut)?;
                return Ok((edit, Stamp { time, replica: ReplicaId::default(), ..edit.stamp }));
            }
        };
        Ok((edit, if form <= form::PLAIN_BACK { edit.stamp } else { Stamp::LOWEST }))
    }

    /// A register whose bytes are known to be sound.
    #[inline]
    pub(in crate::wire::page) fn register(&mut self, form: u8) -> Result<Register<'a>, RowError> {
        if form == form::FULL {
            return self.full();
        }
        let (edit, floor) = self.single(form)?;
        Ok(Register { floor, ..Register::plain(edit.with(self.value()?)) })
    }

    fn full(&mut self) -> Result<Register<'a>, RowError> {
        let head = self.full_head()?;
        let mut alive = Vec::with_capacity(head.alive);
        for _ in 0..head.alive {
            let edit = self.edit()?;
            alive.push(edit.with(self.value()?));
        }
        let mut seen = Vec::with_capacity(head.seen);
        for _ in 0..head.seen {
            seen.push(self.seen()?);
        }
        Ok(Register { floor: head.floor, alive: Alive::from(alive), seen })
    }

    pub(super) fn full_head(&mut self) -> Result<FullHead, RowError> {
        let (alive, seen) = (self.shape.count(1)?, self.shape.len()?);
        // What each takes at least.
        if alive > self.values.len() || seen > self.stamps.remaining() / 4 {
            return Err(RowError::Cut);
        }
        let floor = match self.shape.u8()? {
            0 => Stamp::LOWEST,
            1 => self.shape.stamp()?,
            _ => return Err(RowError::Cut),
        };
        Ok(FullHead { alive, seen, floor })
    }

    pub(super) fn seen(&mut self) -> Result<Seen, RowError> {
        let distance = self.stamps.varint()?;
        let replica = self.replica(distance)?;
        let generation = u16::try_from(self.stamps.varint()?).map_err(|_| RowError::Cut)?;
        Ok(Seen { replica, instant: Instant { generation, time: self.time()? } })
    }

    #[inline]
    pub(super) fn value(&mut self) -> Result<&'a [u8], RowError> {
        let len = value::check_prefix(self.values).map_err(|error| RowError::Wire(error.into()))?;
        let (value, rest) = self.values.split_at_checked(len).ok_or(RowError::Cut)?;
        self.values = rest;
        Ok(value)
    }

    pub(super) fn edit(&mut self) -> Result<Edit, RowError> {
        match self.shape.len()? {
            0 => self.edit_header(),
            distance => Ok(self.edits.at(distance)?),
        }
    }

    fn edit_header(&mut self) -> Result<Edit, RowError> {
        let marks = self.stamps.varint()?;
        let replica = self.replica(marks >> 2)?;
        let (generation, rank) = if marks & 2 == 0 {
            (0, 0)
        } else {
            (u16::try_from(self.stamps.varint()?).map_err(|_| RowError::Cut)?, self.stamps.u8()?)
        };
        let time = self.time()?;
        let saw = if marks & 1 == 0 { None } else { Some(self.saw()?) };
        let edit = Edit { stamp: Stamp { generation, time, replica }, rank, saw };
        self.edits.push(edit);
        Ok(edit)
    }

    fn saw(&mut self) -> Result<Saw, RowError> {
        let number = match self.stamps.varint()? {
            0 => {
                let incarnation: [u8; 8] = self.stamps.array()?;
                self.words.keep(|words| &mut words.incarnations, [&incarnation, &[]], 8)?;
                self.known.incarnations.add(&self.words.words().incarnations)
            }
            distance => self.known.incarnations.at(distance)?,
        };
        let incarnation = self.words.words().incarnations.word(number).and_then(<[u8]>::first_chunk);
        let incarnation = Incarnation(u64::from_be_bytes(*incarnation.ok_or(RowError::Cut)?));
        let done = self.last.done.wrapping_add_signed(unzigzag(self.stamps.varint()?));
        self.last.done = done;
        Ok(Saw { incarnation, done })
    }

    fn replica(&mut self, distance: u64) -> Result<ReplicaId, RowError> {
        if distance > 0 {
            return self.known_replica(distance);
        }
        let replica = ReplicaId(self.stamps.array()?);
        self.new_replica(replica)
    }

    fn known_replica(&self, distance: u64) -> Result<ReplicaId, RowError> {
        let number = self.known.replicas.at(distance)?;
        let replica = self.words.words().replicas.word(number).and_then(<[u8]>::first_chunk);
        Ok(ReplicaId(*replica.ok_or(RowError::Cut)?))
    }

    fn new_replica(&mut self, replica: ReplicaId) -> Result<ReplicaId, RowError> {
        self.words.keep(|words| &mut words.replicas, [&replica.0, &[]], 16)?;
        self.known.replicas.add(&self.words.words().replicas);
        Ok(replica)
    }

    #[inline]
    fn time(&mut self) -> Result<u64, RowError> {
        let last = &mut self.last;
        let ms = last.ms.wrapping_add_signed(unzigzag(self.stamps.varint()?));
        let rest = self.stamps.varint()?;
        let rest = if ms == last.ms { last.rest.wrapping_add_signed(unzigzag(rest)) } else { rest };
        last.ms = ms;
        last.rest = rest;
        let time = ticks(ms).checked_add(rest).filter(|time| *time < TIME_END);
        time.ok_or(RowError::Cut)
    }
}
