//! How far tables of views follow the rows: one record for all of them, and marks of what to look at again.

use crate::bytes::{Cut, Put, Reader};

/// Under which key of the rules' table [`Covers`] are: what goes with the index goes with it, so that tables are made
/// anew when other rules have been at work.
pub(crate) const COVERS_KEY: &[u8] = &[0xff, 0xfe];

/// What the keys of marks begin with: entities that rules may show otherwise since a program without tables wrote.
pub(crate) const MARKS: &[u8] = &[0xff, 0xfd];

/// Which tables there are, by name in lower case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Covers(pub(crate) Vec<Cover>);

/// One table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cover {
    /// Its name, in lower case.
    pub(crate) table: String,
    pub(crate) kind: String,
    /// Of its layout and of the rules that its rows follow.
    pub(crate) fingerprint: u128,
    /// Up to which row it follows.
    pub(crate) seq: u64,
    pub(crate) making: Making,
}

/// Whether a table is being made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Making {
    Done,
    /// Entities up to this id are in it.
    Upto(Option<String>),
}

impl Covers {
    pub(crate) fn get(&self, table: &str) -> Option<&Cover> {
        self.0.iter().find(|cover| cover.table == table)
    }

    pub(crate) fn put(&mut self, cover: Cover) {
        self.0.retain(|other| other.table != cover.table);
        self.0.push(cover);
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.varint(self.0.len() as u64);
        for cover in &self.0 {
            out.slice(cover.table.as_bytes());
            out.slice(cover.kind.as_bytes());
            out.extend_from_slice(&cover.fingerprint.to_be_bytes());
            out.extend_from_slice(&cover.seq.to_be_bytes());
            match &cover.making {
                Making::Done => out.push(0),
                Making::Upto(None) => out.push(1),
                Making::Upto(Some(id)) => {
                    out.push(2);
                    out.slice(id.as_bytes());
                }
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Cut> {
        let mut reader = Reader::new(bytes);
        let count = reader.count(27)?;
        let mut covers = Vec::with_capacity(count);
        for _ in 0..count {
            let (table, kind) = (reader.str()?.to_owned(), reader.str()?.to_owned());
            let (fingerprint, seq) = (reader.u128()?, reader.u64()?);
            let making = match reader.u8()? {
                0 => Making::Done,
                1 => Making::Upto(None),
                2 => Making::Upto(Some(reader.str()?.to_owned())),
                _ => return Err(Cut),
            };
            covers.push(Cover { table, kind, fingerprint, seq, making });
        }
        reader.end()?;
        Ok(Self(covers))
    }
}

/// The key of an entity's mark.
pub(crate) fn mark(kind: &str, id: &str) -> Vec<u8> {
    let mut key = MARKS.to_vec();
    key.slice(kind.as_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

/// The kind and id that a mark's key names; `None` if it is none.
pub(crate) fn marked(key: &[u8]) -> Option<(&str, &str)> {
    let mut reader = Reader::new(key.strip_prefix(MARKS)?);
    let kind = reader.str().ok()?;
    Some((kind, std::str::from_utf8(reader.rest()).ok()?))
}
