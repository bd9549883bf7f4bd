//! The usual change, by its bytes: one plain register over another.
//!
//! Does what [`step`](super::change::step) does, without building states, where the registers that matter are plain
//! and no stamp is met twice. All else is left to `step`; a test holds the two to the same bytes and sums.

use super::change::{Change, Digested, Sums};
use super::form::{encode_plain, plain, sole_value};
use super::{CHUNK_BYTES_MAX, ConfirmedForm, Corrupt, Entries, Entry, Forms, Row, VERSION, flag, put_head};
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
        Change::Accept(_) | Change::Withdraw | Change::Forget => (None, None, false),
    };
    let forms = entry.forms()?;
    let (Some(new), Some(old)) = (new, plain(forms.shown)) else { return Ok(None) };
    if old.stamp == new.stamp {
        return Ok(None);
    }
    let Forms { seq, source: held_source, shown, confirmed } = forms;
    digested.at(entry.address);
    if pends {
        if old.stamp > new.stamp {
            return Ok(None);
        }
        let sum = digested.hash_plain(new).wrapping_sub(digested.hash_plain(&old));
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
    if let Some(witness) = digested.witness {
        digested.losses.extend(witness.plain(entry.address, (&old, seq, held_source), new));
    }
    if before.is_some_and(|before| before.stamp > new.stamp) {
        return Ok(Some(None));
    }
    let mut hash = |candidate: &Candidate<'_>| digested.hash_plain(candidate);
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
    place: Place,
    /// Where the first and the last of the other entries are that share the row's seq.
    fresh: Option<(Place, Place)>,
}

/// Where an entry is among the row's entries, in bytes.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    end: usize,
}

/// The plain register at this address.
pub(crate) fn spot<'a>(row: Row<'a>, address: &[u8]) -> Option<Spot<'a>> {
    let (mut start, mut found, mut fresh) = (0, None, None);
    let mut rest = Reader::new(row.entries);
    while !rest.is_empty() {
        let body = rest.slice().ok()?;
        let end = row.entries.len() - rest.remaining();
        let [flags, len, tail @ ..] = body else { return None };
        let is_here = usize::from(*len) == address.len() && begins(tail, address);
        if is_here {
            found = Some(Place { start, end });
        } else if flags & flag::SEQ == 0 {
            let here = Place { start, end };
            fresh = Some((fresh.map_or(here, |(first, _)| first), here));
        }
        start = end;
    }
    let place = found?;
    let entry = entry_at(row, place)?;
    Some(Spot { row, entry, shown: plain(entry.forms().ok()?.shown)?, place, fresh })
}

/// As `starts_with`, without a call: addresses are short, and most differ early.
#[inline(always)]
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.len() >= with.len() && bytes.iter().zip(with).all(|(one, other)| one == other)
}

/// Whether the entity that begins with this row shows, as far as that can be told at a glance.
pub(crate) fn shows(row: Row<'_>) -> bool {
    if row.is_evicted() {
        return false;
    }
    let first = row.entries().next_entry().ok().flatten().filter(|first| first.address == LIFE);
    let only = first.and_then(|first| sole_value(first.forms().ok()?.shown));
    only == Some(crate::view::TRUE)
}

fn entry_at(row: Row<'_>, place: Place) -> Option<Entry<'_>> {
    let reader = Reader::new(row.entries.get(place.start..place.end)?);
    Entries { reader, row_seq: row.seq, whole: false }.next_entry().ok().flatten()
}

impl<'a> Spot<'a> {
    /// Whether the row stays one row if a value of `bytes` bytes is written.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.row.entries.len() + self.row.end.len() + 2 * self.entry.address.len() + bytes + ENTRY_BYTES_MAX
            <= CHUNK_BYTES_MAX
    }

    /// Writes the row with the change into `out`; `false` if the change is not a usual one.
    pub(crate) fn apply(&self, change: &Change<'_>, out: &mut Vec<u8>, digested: &mut Digested<'_>) -> bool {
        let Ok(Some(Some(after))) = usual(&self.entry, change, digested) else { return false };
        out.clear();
        out.push(VERSION);
        out.slice(self.row.end);
        let mut copied = 0;
        let mut copy_to = |out: &mut Vec<u8>, place: Place| {
            out.extend_from_slice(self.row.entries.get(copied..place.start).unwrap_or_default());
            copied = place.end;
        };
        let write = |out: &mut Vec<u8>| after.encode(self.entry.address, out);
        let mut written = false;
        for place in self.fresh() {
            if !written && place.start > self.place.start {
                copy_to(out, self.place);
                write(out);
                written = true;
            }
            copy_to(out, place);
            if let Some(entry) = entry_at(self.row, place) {
                entry.encode_with_seq(out);
            }
        }
        if !written {
            copy_to(out, self.place);
            write(out);
        }
        let end = self.row.entries.len();
        copy_to(out, Place { start: end, end });
        true
    }

    /// The other entries that share the row's seq.
    fn fresh(&self) -> impl Iterator<Item = Place> {
        let (from, to) = self.fresh.map_or((0, 0), |(first, last)| (first.start, last.end));
        let mut rest = Reader::new(self.row.entries.get(from..to).unwrap_or_default());
        let place = std::iter::from_fn(move || {
            let start = to - rest.remaining();
            let flags = rest.slice().ok()?.first()?;
            Some((flags & flag::SEQ == 0, Place { start, end: to - rest.remaining() }))
        });
        let is_other = |place: &Place| place.start != self.place.start;
        place.filter(|(shares, _)| *shares).map(|(_, place)| place).filter(is_other)
    }
}

/// More than an entry takes beside its address and values, in bytes, with a seq and a source and its two stamps.
const ENTRY_BYTES_MAX: usize = 160;

impl After<'_> {
    /// Appends the entry.
    pub(super) fn encode(&self, address: &[u8], out: &mut Vec<u8>) {
        let confirmed = if self.confirmed.is_none() { 0 } else { flag::CONFIRMED }
            | if self.is_absent { flag::CONFIRMED_ABSENT } else { 0 };
        out.sized(|out| {
            put_head(out, confirmed, address, self.seq, self.source);
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

#[cfg(test)]
mod tests;
