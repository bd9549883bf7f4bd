//! What speaks against an edit by itself: its form, its length, its ranks.

use std::collections::BTreeSet;

use super::judge::refused;
use super::taint::entity_key;
use super::{Delta, Principal, Pushed, Review, Spot, Verdict};
use crate::address::Parts;
use crate::code::Code;
use crate::edit::{EDIT_BYTES_MAX, EDIT_REGISTERS_MAX};
use crate::register::REGISTER_BYTES_MAX;
use crate::store::{CommitError, Store, StoreError};
use crate::work::{Work, damaged};

/// Why a register is not accepted.
pub(super) enum Objection {
    Refused(Code, String),
    Placed(Verdict),
    Store(StoreError),
}

impl From<StoreError> for Objection {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why an edit is none that names an address, or an entity in two places, twice: who looks at edits sees one of them.
pub(super) fn named_twice(delta: &impl Delta) -> Option<Verdict> {
    let (mut earlier, mut last): (BTreeSet<Vec<u8>>, Vec<u8>) = (BTreeSet::new(), Vec::new());
    let mut address: Vec<u8> = Vec::new();
    let read = delta.each(|part| {
        let key = entity_key(&part);
        if key != last {
            let before = std::mem::replace(&mut last, key);
            if !before.is_empty() {
                earlier.insert(before);
            }
            address.clear();
        }
        let mut before = address.as_slice();
        for (next, _) in part.changes {
            let next = next.as_ref();
            if !before.is_empty() && next <= before || earlier.contains(&last) {
                let message = "the edit names an entity or a register twice".to_owned();
                let spot = Some(spot(part.kind, part.id, next));
                return Err(Verdict::Refused { code: Code::MALFORMED, message, spot });
            }
            before = next;
        }
        address = before.to_vec();
        Ok(())
    });
    read.err()
}

/// Which field of which entity an address is of.
pub(super) fn spot(kind: &str, id: &str, address: &[u8]) -> Spot {
    let name = Parts::parse(address).map(|parts| parts.name.to_owned());
    Spot { kind: kind.to_owned(), id: id.to_owned(), field: name.filter(|name| !name.is_empty()) }
}

/// Why an edit is more than the authority takes.
pub(super) fn too_large(delta: &impl Delta, review: Review<'_>) -> Option<Verdict> {
    let Review { registers_max, value_bytes_max, .. } = review;
    let registers_max = registers_max.min(EDIT_REGISTERS_MAX);
    let (mut registers, mut bytes, mut last) = (0, 0, Vec::new());
    let measured = delta.each(|part| {
        registers += part.changes.len();
        if registers > registers_max {
            let message = format!("more than {registers_max} registers: make several edits of it");
            return Err(refused(Code::TOO_LARGE, message));
        }
        // As an edit is measured where it is made; see `Tx::intend`.
        let key = entity_key(&part);
        if key != last {
            bytes += part.kind.len() + part.id.len();
            last = key;
        }
        bytes += part
            .changes
            .iter()
            .map(|(address, change)| {
                let values = change.register().into_iter().flat_map(|register| register.alive.iter());
                address.as_ref().len() + values.map(|candidate| candidate.value.len()).sum::<usize>()
            })
            .sum::<usize>();
        if bytes > EDIT_BYTES_MAX {
            let message = format!("more than {EDIT_BYTES_MAX} bytes: make several edits of it");
            return Err(refused(Code::TOO_LARGE, message));
        }
        part.changes.iter().try_for_each(|(address, change)| {
            let values = change.register().into_iter().flat_map(|register| register.alive.iter());
            let Some(bytes) =
                values.map(|candidate| candidate.value.len()).find(|bytes| *bytes > value_bytes_max)
            else {
                return Ok(());
            };
            let message = format!("a value of {bytes} bytes: at most {value_bytes_max} are taken");
            let spot = Some(spot(part.kind, part.id, address.as_ref()));
            Err(Verdict::Refused { code: Code::TOO_LARGE, message, spot })
        })
    });
    measured.err()
}

/// Why an edit may not be joined that would make a register too long to be told to anybody.
pub(super) fn overgrown<S: Store>(
    delta: &impl Delta,
    work: &mut Work<'_, S>,
) -> Result<Option<Verdict>, CommitError> {
    let looked = delta.each(|part| {
        let at = work.entity(part.kind, part.id);
        part.changes.iter().try_for_each(|(address, change)| {
            let Some(register) = change.register() else { return Ok(()) };
            let Some(bytes) = work.overgrown(at, address.as_ref(), register).map_err(Grown::Failed)? else {
                return Ok(());
            };
            let message = format!(
                "with it the field's concurrent values would have {bytes} bytes, at most {REGISTER_BYTES_MAX}: sync, \
                 and write the field once more in place of the others"
            );
            let spot = Some(spot(part.kind, part.id, address.as_ref()));
            Err(Grown::Beyond(Verdict::Refused { code: Code::TOO_LARGE, message, spot }))
        })
    });
    match looked {
        Ok(()) => Ok(None),
        Err(Grown::Beyond(verdict)) => Ok(Some(verdict)),
        Err(Grown::Failed(error)) => Err(error),
    }
}

/// Why the look for registers that grow too long ended early.
enum Grown {
    Beyond(Verdict),
    Failed(CommitError),
}

/// Why an edit may not be accepted whose generations are above what its author can have seen. A generation beats every
/// time and rank: it rises by one from the greatest that the registers hold.
pub(super) fn too_high<S: Store, D: Delta>(
    edit: &Pushed<D>,
    principal: &Principal<'_>,
    work: &mut Work<'_, S>,
) -> Result<Option<Verdict>, CommitError> {
    let own = edit.stamp.generation;
    // What a register has seen is below what it holds.
    if own == 0 {
        return Ok(None);
    }
    let (mut greatest, mut unseen) = (0, None);
    edit.delta.each(|part| {
        let at = work.entity(part.kind, part.id);
        for (address, change) in part.changes {
            let address = address.as_ref();
            let corrupt = |corrupt| CommitError::from(damaged(part.kind, part.id, corrupt));
            let entry = work.row(at, address)?.find(address).map_err(corrupt)?;
            let held = match entry {
                Some(entry) => entry.shown().map_err(corrupt)?.newest().stamp.generation,
                None => 0,
            };
            greatest = held.max(greatest);
            let others = change.register().into_iter().flat_map(|register| &register.seen);
            let mut others = others.filter(|seen| !principal.replicas.contains(&seen.replica));
            if others.any(|seen| seen.instant.generation > held) {
                unseen.get_or_insert_with(|| spot(part.kind, part.id, address));
            }
        }
        Ok::<_, CommitError>(())
    })?;
    let message = if unseen.is_some() {
        "the edit claims to have seen a write of a generation that is unknown".to_owned()
    } else if own > greatest.saturating_add(1) {
        format!(
            "the stamp is of generation {own}, its registers are of generation {greatest}: at most one more is taken"
        )
    } else {
        return Ok(None);
    };
    Ok(Some(Verdict::Refused { code: Code::SEEN, message, spot: unseen }))
}
