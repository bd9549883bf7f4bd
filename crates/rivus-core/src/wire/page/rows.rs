//! What a checked page or push holds, read once more by whoever wants it, some registers at a time.

use std::borrow::Cow;

use super::PageHeader;
use super::decode::{Check, Parse, Place, RowError, Words};
use crate::id::{Incarnation, StoreId};
use crate::replica::{Delta, Part, Pushed};
use crate::row::Change;

/// A page as decoded.
#[derive(Debug)]
pub struct Page<'d, 'a> {
    /// See [`PageHeader`].
    pub header: PageHeader,
    /// What to join.
    pub rows: Rows<'d, 'a>,
}

/// An answer as decoded: registers without a position.
#[derive(Debug)]
pub struct Fetched<'d, 'a> {
    /// Whether more of the answer follows.
    pub more: bool,
    /// To FETCH whole entities.
    pub rows: Rows<'d, 'a>,
}

/// A push as decoded.
#[derive(Debug)]
pub struct Push<'d, 'a> {
    /// How many answers the sender had heard on this connection.
    pub heard: u64,
    /// The sender's head.
    pub head: u64,
    /// Its newest incarnation, if it is not the one told before.
    pub incarnation: Option<Incarnation>,
    /// The edits, in order.
    pub edits: Edits<'d, 'a>,
}

/// Entities with their registers, in the bytes that they came in.
#[derive(Clone, Debug)]
pub struct Rows<'d, 'a> {
    parse: Parse<'a, &'d Words>,
    /// How many entities these are; in a page, all to the end.
    entities: Option<usize>,
    source: StoreId,
    latest: Option<u64>,
}

impl<'d, 'a> Rows<'d, 'a> {
    pub(super) fn page(parse: Parse<'a, &'d Words>, source: StoreId, check: &Check) -> Self {
        Self { parse, entities: None, source, latest: check.latest }
    }
}

impl<'d> Delta for Rows<'d, '_> {
    type Address = Cow<'d, [u8]>;

    fn each<E>(&self, mut visit: impl FnMut(Part<'_, Self::Address>) -> Result<(), E>) -> Result<(), E> {
        let (mut parse, mut left) = (self.parse.clone(), self.entities);
        let mut changes: Vec<(Self::Address, Change<'_>)> = Vec::new();
        while left.map_or(!parse.shape.is_empty(), |left| left > 0) {
            left = left.map(|left| left - 1);
            let (entity, count) = checked(parse.entity());
            let (kind, id) = checked(parse.words.names(entity));
            let mut weight = 0;
            for _ in 0..count {
                let (form, place) = checked(parse.head());
                let register = checked(parse.register(form));
                let address = address(parse.words, &place);
                weight += register.alive.len() + register.seen.len();
                if let Cow::Owned(address) = &address {
                    weight += address.len() / ADDRESS_WEIGHT_BYTES;
                }
                changes.push((address, Change::Join { register, source: Some(self.source) }));
                if weight >= PART_WEIGHT_MAX {
                    visit(Part { kind, id, changes: &changes })?;
                    changes.clear();
                    weight = 0;
                }
            }
            if !changes.is_empty() {
                visit(Part { kind, id, changes: &changes })?;
                changes.clear();
            }
        }
        Ok(())
    }

    fn latest(&self) -> Option<u64> {
        self.latest
    }
}

/// The edits of a push.
#[derive(Clone, Debug)]
pub struct Edits<'d, 'a> {
    parse: Parse<'a, &'d Words>,
    source: StoreId,
    number: u64,
    left: usize,
}

impl<'d, 'a> Edits<'d, 'a> {
    pub(super) fn new(parse: Parse<'a, &'d Words>, source: StoreId, count: usize) -> Self {
        Self { parse, source, number: 0, left: count }
    }
}

impl<'d, 'a> Iterator for Edits<'d, 'a> {
    type Item = Pushed<Rows<'d, 'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (number, entities) = checked(self.parse.edit_head(self.number));
        self.number = number;
        let parse = self.parse.clone();
        let mut check = Check::default();
        (0..entities).for_each(|_| checked(check.entity(&mut self.parse)));
        let mut first = parse.clone();
        checked(first.entity());
        let (form, _) = checked(first.head());
        let newest = *checked(first.register(form)).newest();
        let delta = Rows { parse, entities: Some(entities), source: self.source, latest: check.latest };
        Some(Pushed { number, stamp: newest.stamp, rank: newest.rank, saw: newest.saw, delta })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Edits<'_, '_> {}

/// How much is handed out at a time, about: as many plain registers, or their like in candidates and keys.
const PART_WEIGHT_MAX: usize = 128;
/// How many bytes of an address with a key weigh as much as a register.
const ADDRESS_WEIGHT_BYTES: usize = 256;

fn address<'d>(words: &'d Words, place: &Place<'_>) -> Cow<'d, [u8]> {
    let prefix = words.fields.word(place.prefix).unwrap_or_default();
    match place.key.bytes() {
        [] => Cow::Borrowed(prefix),
        key => Cow::Owned([prefix, key].concat()),
    }
}

/// The second reading finds what the first has found.
#[expect(clippy::expect_used, reason = "the frame was checked from end to end, with the same dictionaries")]
fn checked<T>(read: Result<T, impl Into<RowError>>) -> T {
    read.map_err(Into::into).expect("a checked frame reads as it was checked")
}
