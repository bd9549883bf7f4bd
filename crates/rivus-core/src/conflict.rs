//! Conflicts: writes that lost to one whose author had not seen them.
//!
//! Owns the record of such a loss, what decides it (`Witness`), and the bounded list in which it is kept. A loss is
//! found where registers are joined and recorded in the same commit. Where an authority judges edits it alone decides,
//! because it knows in what order it accepted them; the author hears of its own losses in LOST frames. Without an
//! authority each replica decides for its own writes by what it can know, and errs towards reporting.

mod hidden;
mod ledger;
mod witness;

use crate::address::{Parts, class};
use crate::bytes::{Cut, Put, Reader};
use crate::clock::{Stamp, whole_millis};

pub(crate) use ledger::{List, Lists};
pub(crate) use witness::{Held, Loss, Whose, Witness};

/// The most conflicts that are kept in one list; the oldest go first, and are counted.
pub const CONFLICTS_MAX: u64 = 10_000;
/// The most bytes that the conflicts of one list take: one value alone may have 4 MiB.
pub const CONFLICT_BYTES_MAX: u64 = 64 << 20;

/// What a write lost to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LostTo {
    /// Another write of the same register.
    Write,
    /// A deletion of the entity: the write is in its register still, and nobody sees it.
    Delete,
}

/// A write that lost to one whose author had not seen it, or is not known to have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Conflict {
    /// The entity's kind.
    pub kind: String,
    /// The entity's id.
    pub id: String,
    /// The register, as an encoded address.
    pub address: Vec<u8>,
    /// The stamp of the write that lost.
    pub loser: Stamp,
    /// Its value, in canonical bytes.
    pub value: Vec<u8>,
    /// The stamp of what it lost to.
    pub winner: Stamp,
    /// The winner's value in canonical bytes: that of the life register if it is a deletion.
    pub winner_value: Vec<u8>,
    /// What it lost to.
    pub to: LostTo,
}

impl Conflict {
    /// The register's parts.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        Parts::parse(&self.address).unwrap_or(Parts { class: class::LIFE, name: "", key: &[] })
    }

    /// How much later the winner is by the clocks, in ms; negative where it wins by its generation.
    #[must_use]
    pub fn gap_ms(&self) -> i64 {
        let ms = |time| i64::try_from(whole_millis(time)).unwrap_or(i64::MAX);
        ms(self.winner.time).saturating_sub(ms(self.loser.time))
    }

    /// Appends the stored form, which is also the wire's.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.to == LostTo::Delete));
        for part in [self.kind.as_bytes(), self.id.as_bytes(), &self.address, &self.value, &self.winner_value]
        {
            out.slice(part);
        }
        out.stamp(self.loser);
        out.stamp(self.winner);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Cut> {
        let mut reader = Reader::new(bytes);
        let to = match reader.u8()? {
            0 => LostTo::Write,
            1 => LostTo::Delete,
            _ => return Err(Cut),
        };
        let (kind, id) = (reader.str()?.to_owned(), reader.str()?.to_owned());
        let address = reader.slice()?.to_vec();
        if !crate::address::is_well_formed(&address) {
            return Err(Cut);
        }
        let (value, winner_value) = (reader.slice()?.to_vec(), reader.slice()?.to_vec());
        let (loser, winner) = (reader.stamp()?, reader.stamp()?);
        reader.end()?;
        Ok(Self { kind, id, address, loser, value, winner, winner_value, to })
    }
}
