//! Control frames in CBOR, read within bounds.
//!
//! Before anything is built of a frame it is walked once, so that neither nesting nor what an unknown key holds costs
//! memory. Lists that could grow are kept in their bytes, or cut off where they are longer than they may be.

use minicbor::data::Type;
use minicbor::decode::{Decode, Decoder, Error};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};

use super::{LEVELS_MAX, Policy, WireError};
use crate::identity::INCARNATIONS_TOLD;

/// Appends a frame.
pub(super) fn put<T: Encode<()>>(out: &mut Vec<u8>, tag: u8, value: &T) {
    out.push(tag);
    #[expect(clippy::expect_used, reason = "a vector takes every write")]
    minicbor::encode(value, out).expect("encoding into memory does not fail");
}

/// Reads a frame's body.
pub(super) fn read<'b, T: Decode<'b, ()>>(frame: &'static str, body: &'b [u8]) -> Result<T, WireError> {
    let wrong = |error: Error| WireError::Cbor { frame, error: error.to_string() };
    let mut decoder = Decoder::new(body);
    if !is_shallow(&mut decoder, LEVELS_MAX).map_err(wrong)? {
        return Err(WireError::Bound { what: "levels of nesting", max: LEVELS_MAX });
    }
    if decoder.position() != body.len() {
        return Err(WireError::Malformed { frame });
    }
    Decoder::new(body).decode().map_err(wrong)
}

/// Goes past one item and says whether it has at most so many levels.
fn is_shallow(decoder: &mut Decoder<'_>, levels: usize) -> Result<bool, Error> {
    let items = match decoder.datatype()? {
        Type::Array | Type::ArrayIndef => decoder.array()?,
        Type::Map | Type::MapIndef => decoder.map()?.map(|entries| entries.saturating_mul(2)),
        Type::Tag => decoder.tag().map(|_| Some(1))?,
        _ => return decoder.skip().map(|()| true),
    };
    let Some(inner) = levels.checked_sub(1) else { return Ok(false) };
    let mut left = items;
    while left != Some(0) {
        if left.is_none() && decoder.datatype()? == Type::Break {
            decoder.skip()?;
            break;
        }
        if !is_shallow(decoder, inner)? {
            return Ok(false);
        }
        left = left.map(|left| left - 1);
    }
    Ok(true)
}

/// Incarnations; of more than there may be, one too many.
pub(super) fn history<Ctx>(decoder: &mut Decoder<'_>, _: &mut Ctx) -> Result<Vec<(u64, u64)>, Error> {
    let mut kept = Vec::new();
    for each in decoder.array_iter::<(u64, u64)>()? {
        let each = each?;
        if kept.len() <= INCARNATIONS_TOLD {
            kept.push(each);
        }
    }
    Ok(kept)
}

/// The policies that a schema declares, in their bytes: an array of [kind, field or null, policy].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policies {
    cbor: Vec<u8>,
}

impl Policies {
    /// Puts them together.
    #[must_use]
    pub fn new(policies: &[Policy]) -> Self {
        Self {
            cbor: packed(
                policies.len(),
                policies.iter().map(|(k, f, p)| (k.as_str(), f.as_deref(), p.as_str())),
            ),
        }
    }

    /// Kind, field (none for the kind's life) and policy of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>, &str)> {
        let mut decoder = Decoder::new(&self.cbor);
        let count = decoder.array().ok().flatten().unwrap_or(0);
        (0..count).map_while(move |_| decoder.decode().ok())
    }
}

fn packed<'p>(count: usize, policies: impl Iterator<Item = (&'p str, Option<&'p str>, &'p str)>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    #[expect(clippy::expect_used, reason = "a vector takes every write")]
    encoder.array(count as u64).expect("encoding into memory does not fail");
    for policy in policies {
        #[expect(clippy::expect_used, reason = "a vector takes every write")]
        encoder.encode(policy).expect("encoding into memory does not fail");
    }
    encoder.into_writer()
}

impl<Ctx> Encode<Ctx> for Policies {
    fn encode<W: Write>(&self, encoder: &mut Encoder<W>, _: &mut Ctx) -> Result<(), EncodeError<W::Error>> {
        encoder.map(1)?.u8(0)?;
        encoder.writer_mut().write_all(&self.cbor).map_err(EncodeError::write)
    }
}

impl<'b, Ctx> Decode<'b, Ctx> for Policies {
    fn decode(decoder: &mut Decoder<'b>, _: &mut Ctx) -> Result<Self, Error> {
        let mut cbor = None;
        let mut left = decoder.map()?;
        while left != Some(0) {
            if left.is_none() && decoder.datatype()? == Type::Break {
                decoder.skip()?;
                break;
            }
            match decoder.i64()? {
                0 => cbor = Some(policies(decoder)?),
                _ => decoder.skip()?,
            }
            left = left.map(|left| left - 1);
        }
        cbor.map(|cbor| Self { cbor }).ok_or_else(|| Error::missing_value(0))
    }
}

/// Copies an array of policies in its shortest form: an item is no longer than it came.
fn policies(decoder: &mut Decoder<'_>) -> Result<Vec<u8>, Error> {
    type Borrowed<'b> = (&'b str, Option<&'b str>, &'b str);
    let start = decoder.position();
    let mut count = 0;
    for policy in decoder.array_iter::<Borrowed<'_>>()? {
        policy?;
        count += 1;
    }
    let mut again = Decoder::new(decoder.input().get(start..).unwrap_or_default());
    let policies = again.array_iter::<Borrowed<'_>>()?.map_while(Result::ok);
    Ok(packed(count, policies))
}
