//! The usual change, by its bytes: one plain register over another.
//!
//! Does what [`step`](super::change::step) does, without building states, where the registers that matter are plain
//! and no stamp is met twice. All else is left to `step`; a test holds the two to the same bytes and sums.

use super::change::{Change, Digested, Sums};
use super::form::{encode_plain, plain, sole};
use super::{CHUNK_BYTES_MAX, ConfirmedForm, Corrupt, Entry, Forms, Row, VERSION, flag};
use crate::address::LIFE;
use crate::bytes::{Put, Reader};
use crate::id::StoreId;
use crate::register::Candidate;

/// An entry after a usual change.
pub(super) struct After<'a> {
    seq: u64,
    source: Option<StoreId>,
    shown: Form<'a>,
    confirmed: Option<Form<'a>>,
    is_absent: bool,
    pub(super) shown_changed: bool,
}

enum Form<'a> {
    Held(&'a [u8]),
    New(&'a Candidate<'a>),
}

/// What the change makes of the entry: `None` if it is not a usual one, `Some(None)` if nothing changes.
pub(super) fn usual<'a>(
    entry: &Entry<'a>,
    change: &'a Change<'a>,
    digested: &mut Digested<'_>,
) -> Result<Option<Option<After<'a>>>, Corrupt> {
    let (new, source, pends) = match change {
        Change::Join { register, source } => (register.as_plain(), *source, false),
        Change::Pend(register) => (register.as_plain(), None, true),
        Change::Accept(_) | Change::Withdraw => (None, None, false),
    };
    let forms = entry.forms()?;
    let (Some(new), Some(old)) = (new, plain(forms.shown)) else { return Ok(None) };
    if old.stamp == new.stamp {
        return Ok(None);
    }
    let mut hash = |candidate: &Candidate<'_>| digested.hash_plain(entry.address, candidate);
    let Forms { seq, source: held_source, shown, confirmed } = forms;
    if pends {
        if old.stamp > new.stamp {
            return Ok(None);
        }
        let sum = hash(new).wrapping_sub(hash(&old));
        digested.sums.add(Sums { shown: sum, ..Sums::default() });
        let (confirmed, is_absent) = match confirmed {
            ConfirmedForm::Same => (Some(Form::Held(shown)), false),
            ConfirmedForm::Register(form) => (Some(Form::Held(form)), false),
            ConfirmedForm::Absent => (None, true),
        };
        let shown = Form::New(new);
        return Ok(Some(Some(After { seq: 0, source, shown, confirmed, is_absent, shown_changed: true })));
    }
    let before = match confirmed {
        ConfirmedForm::Same => Some(old),
        ConfirmedForm::Absent => None,
        ConfirmedForm::Register(form) => match plain(form) {
            Some(before) if before.stamp != new.stamp && before.stamp < old.stamp => Some(before),
            _ => return Ok(None),
        },
    };
    if before.is_some_and(|before| before.stamp > new.stamp) {
        return Ok(Some(None));
    }
    let come = hash(new);
    let gone = before.map_or(0, |before| hash(&before));
    let mut sums = Sums { shown: 0, confirmed: come.wrapping_sub(gone), count: i64::from(before.is_none()) };
    let after = if new.stamp > old.stamp {
        let is_same = matches!(confirmed, ConfirmedForm::Same);
        sums.shown = come.wrapping_sub(if is_same { gone } else { hash(&old) });
        After {
            seq: 0,
            source,
            shown: Form::New(new),
            confirmed: None,
            is_absent: false,
            shown_changed: true,
        }
    } else {
        After {
            seq,
            source: held_source,
            shown: Form::Held(shown),
            confirmed: Some(Form::New(new)),
            is_absent: false,
            shown_changed: false,
        }
    };
    digested.sums.add(sums);
    Ok(Some(Some(after)))
}

/// The entry that a usual edit changes, found in one pass over its row.
pub(crate) struct Spot<'a> {
    row: Row<'a>,
    entry: Entry<'a>,
    /// What the application sees there.
    pub(crate) shown: Candidate<'a>,
    /// From where to where the entry goes.
    place: (usize, usize),
    /// Another entry that shares the row's seq, likewise.
    fresh: Option<(Entry<'a>, usize, usize)>,
}

/// The plain register at this address of an entity that shows, if the whole entity is in this row and at most one
/// other register was written by the row's last commit.
pub(crate) fn spot<'a>(row: Row<'a>, address: &[u8]) -> Option<Spot<'a>> {
    let mut rest = Reader::new(row.entries);
    let (mut at, mut found, mut fresh) = (0, None, None);
    while !rest.is_empty() {
        let mut body = Reader::new(rest.slice().ok()?);
        let (flags, here) = (body.u8().ok()?, body.slice().ok()?);
        let end = row.entries.len() - rest.remaining();
        let entry = Entry { address: here, flags, tail: body.rest(), row_seq: row.seq };
        if at == 0 && (here != LIFE || sole(entry.forms().ok()?.shown)?.value != TRUE) {
            return None;
        }
        if here == address {
            found = Some((entry, (at, end)));
        } else if flags & flag::SEQ == 0 && fresh.replace((entry, at, end)).is_some() {
            return None;
        }
        at = end;
    }
    let (entry, place) = found.filter(|_| row.end.is_empty() && row.seq != 0)?;
    Some(Spot { row, entry, shown: plain(entry.forms().ok()?.shown)?, place, fresh })
}

impl<'a> Spot<'a> {
    /// Whether the row stays one row if a value of `bytes` bytes is written.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.row.entries.len() + 2 * self.entry.address.len() + bytes + ENTRY_BYTES_MAX <= CHUNK_BYTES_MAX
    }

    /// Writes the row with the change into `out`; `false` if the change is not a usual one.
    pub(crate) fn apply(&self, change: &Change<'_>, out: &mut Vec<u8>, digested: &mut Digested<'_>) -> bool {
        let Ok(Some(Some(after))) = usual(&self.entry, change, digested) else { return false };
        out.clear();
        out.push(VERSION);
        out.slice(&[]);
        let mut copied = 0;
        let copy = |out: &mut Vec<u8>, from, to| {
            out.extend_from_slice(self.row.entries.get(from..to).unwrap_or_default());
        };
        if let Some((entry, start, end)) = self.fresh.filter(|(_, start, _)| *start < self.place.0) {
            copy(out, copied, start);
            entry.encode_with_seq(out);
            copied = end;
        }
        copy(out, copied, self.place.0);
        after.encode(self.entry.address, out);
        copied = self.place.1;
        if let Some((entry, start, end)) = self.fresh.filter(|(_, start, _)| *start > self.place.0) {
            copy(out, copied, start);
            entry.encode_with_seq(out);
            copied = end;
        }
        copy(out, copied, self.row.entries.len());
        true
    }
}

/// More than an entry takes beside its address and values, in bytes, with a seq and a source and its two stamps.
const ENTRY_BYTES_MAX: usize = 160;
/// The value of the life register of an entity that shows.
const TRUE: &[u8] = crate::view::TRUE;

impl After<'_> {
    /// Appends the entry.
    pub(super) fn encode(&self, address: &[u8], out: &mut Vec<u8>) {
        let flags = if self.seq == 0 { 0 } else { flag::SEQ }
            | if self.source.is_none() { 0 } else { flag::SOURCE }
            | if self.confirmed.is_none() { 0 } else { flag::CONFIRMED }
            | if self.is_absent { flag::CONFIRMED_ABSENT } else { 0 };
        out.sized(|out| {
            out.push(flags);
            out.slice(address);
            if self.seq != 0 {
                out.varint(self.seq);
            }
            if let Some(source) = self.source {
                out.extend_from_slice(&source.0.to_be_bytes());
            }
            match &self.confirmed {
                None => self.shown.encode(out),
                Some(confirmed) => {
                    match self.shown {
                        Form::Held(form) => out.slice(form),
                        Form::New(_) => out.sized(|out| self.shown.encode(out)),
                    }
                    confirmed.encode(out);
                }
            }
        });
    }
}

impl Form<'_> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Held(form) => out.extend_from_slice(form),
            Self::New(candidate) => encode_plain(candidate, out),
        }
    }
}
