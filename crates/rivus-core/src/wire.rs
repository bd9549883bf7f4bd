//! The wire: frames, their bytes and their limits.
//!
//! Owns the protocol's byte forms. Control frames are integer-keyed CBOR maps, in which unknown keys are skipped;
//! pages and pushes use a row coding with dictionaries that live as long as the connection ([`page`]). The first
//! byte of a frame is its type; types from 128 on may be ignored by those that do not know them. Knows nothing of
//! replicas or of what a frame is for.

mod ack;
mod cbor;
mod dictionary;
mod fetch;
mod greeting;
mod lease;
mod lost;
pub mod page;
mod scoped;
mod sketch;

use minicbor::{Decode, Encode};

use crate::bytes::{Cut, Put, Reader};
use crate::code::Code;
use crate::id::Incarnation;
use crate::id::ReplicaId;
use crate::identity::Cursor;
use crate::replica::{Keys, Losses};
use crate::sketch::{Key, Symbol};
use greeting::{check_about, check_history, check_token};

pub use ack::{Ack, Exception, Refused, Words};
pub use cbor::Policies;
pub use greeting::{About, Auth, Bounds, Hello, Leases, Reset, Welcome};
pub use scoped::{SCOPES_MAX, Scoped};

/// The protocol version that this library speaks; HELLO offers a range.
pub const VERSION: u16 = 1;

/// The longest frame, in bytes, after decompression: any edit fits (see
/// [`EDIT_BYTES_MAX`](crate::edit::EDIT_BYTES_MAX)), and so does a register with several large candidates.
pub const FRAME_BYTES_MAX: usize = 32 << 20;
/// How long a page gets before it is sent, in bytes: a page is at least one row.
pub const PAGE_BYTES_AIM: usize = 256 << 10;
/// How many bytes of pages a subscription may have on its way, as the other side has not told yet (WINDOW) that it took
/// them: the page that fills the window may go beyond it. At two million registers a second it is a few tens of ms
/// of joining; a connection of 100 ms carries 10 MiB a second of pages in it.
pub const WINDOW_BYTES: u64 = 4 * PAGE_BYTES_AIM as u64;
/// The longest HELLO, WELCOME or RESET, in bytes: they come from strangers.
pub const GREETING_BYTES_MAX: usize = 64 << 10;
/// The longest SCHEMA, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 4 << 20;
/// The longest frame of a type that is not known and ignored, in bytes: whoever has much to say is to be understood.
pub const IGNORED_BYTES_MAX: usize = 64 << 10;
/// The longest GOAWAY, in bytes.
pub const GOAWAY_BYTES_MAX: usize = 64 << 10;
/// The most replica ids that a HELLO may name.
pub const REPLICAS_MAX: usize = 1024;
/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// The most entities that one FETCH names.
pub const FETCH_ENTITIES_MAX: usize = 1024;

/// The most entities that one frame tells to be collected.
pub const COLLECTED_MAX: usize = 1024;

/// The most keys of sets and maps that one frame tells to be collected, of all its entities.
pub const COLLECTED_KEYS_MAX: usize = 1024;

/// How long the addresses of such keys in one frame are, about, in bytes: one key at least.
pub(crate) const COLLECTED_KEYS_BYTES: usize = 1 << 20;

/// How deep a control frame may be nested: one of this version is at most 5.
const LEVELS_MAX: usize = 16;

/// What a side can do beyond the first version; bits that the other does not know are ignored.
pub mod capability {
    /// Takes frames of type [`COMPRESSED`](super::tag::COMPRESSED).
    pub const ZSTD: u64 = 1;
    /// Answers frames of type [`FETCH`](super::tag::FETCH), if it is an authority.
    pub const FETCH: u64 = 2;
    /// Answers frames of type [`SKETCH`](super::tag::SKETCH), as the side that is connected to.
    pub const SKETCH: u64 = 4;
    /// Takes frames of type [`LEASE`](super::tag::LEASE).
    pub const LEASE: u64 = 8;
}

/// The first byte of a frame.
pub mod tag {
    /// A frame in zstd: the uncompressed length as a varint, then the compressed frame. Made and undone by the
    /// shell; core has no C code.
    pub const COMPRESSED: u8 = 0;
    /// See [`Hello`](super::Hello).
    pub const HELLO: u8 = 1;
    /// See [`Welcome`](super::Welcome).
    pub const WELCOME: u8 = 2;
    /// See [`Frame::Goaway`](super::Frame::Goaway).
    pub const GOAWAY: u8 = 3;
    /// See [`Frame::Schema`](super::Frame::Schema).
    pub const SCHEMA: u8 = 4;
    /// See [`Subscribe`](super::Subscribe).
    pub const SUBSCRIBE: u8 = 5;
    /// See [`Frame::Equal`](super::Frame::Equal).
    pub const EQUAL: u8 = 6;
    /// A page of changes.
    pub const DELTA: u8 = 7;
    /// See [`Checkpoint`](super::Checkpoint).
    pub const CHECKPOINT: u8 = 8;
    /// Edits to be judged.
    pub const PUSH: u8 = 9;
    /// See [`Ack`](super::Ack).
    pub const ACK: u8 = 10;
    /// See [`Frame::Synced`](super::Frame::Synced).
    pub const SYNCED: u8 = 11;
    /// See [`Reset`](super::Reset).
    pub const RESET: u8 = 12;
    /// See [`Frame::Fetch`](super::Frame::Fetch).
    pub const FETCH: u8 = 13;
    /// Whole entities that were asked for.
    pub const FETCHED: u8 = 14;
    /// See [`Frame::Left`](super::Frame::Left).
    pub const LEFT: u8 = 15;
    /// See [`Frame::Auth`](super::Frame::Auth).
    pub const AUTH: u8 = 16;
    /// See [`Frame::Window`](super::Frame::Window).
    pub const WINDOW: u8 = 17;
    /// See [`Frame::AskSketch`](super::Frame::AskSketch), [`Frame::Sketch`](super::Frame::Sketch) and
    /// [`Frame::Lacks`](super::Frame::Lacks).
    pub const SKETCH: u8 = 18;
    /// Registers of which a sketch has told that one side lacks them.
    pub const REPAIR: u8 = 19;
    /// See [`Frame::Cut`](super::Frame::Cut), [`Frame::Collected`](super::Frame::Collected) and
    /// [`Frame::CollectedKeys`](super::Frame::CollectedKeys).
    pub const LEASE: u8 = 22;
    /// See [`Frame::Denied`](super::Frame::Denied).
    pub const DENIED: u8 = 20;
    /// A frame of the subscription of one scope, see [`Scoped`](super::Scoped).
    pub const SCOPED: u8 = 21;
    /// Types from here on may be ignored.
    pub const OPTIONAL: u8 = 128;
    /// See [`Frame::Lost`](super::Frame::Lost).
    pub const LOST: u8 = 129;
    /// See [`Frame::Heard`](super::Frame::Heard).
    pub const HEARD: u8 = 130;
    /// See [`Frame::Refused`](super::Frame::Refused).
    pub const REFUSED: u8 = 131;
    /// See [`Frame::Readable`](super::Frame::Readable).
    pub const READABLE: u8 = 132;
}

#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
struct Goaway {
    #[n(0)]
    code: u16,
    #[n(1)]
    message: String,
    #[n(2)]
    retry_after_ms: Option<u64>,
}

/// One declared policy: kind, field (none for the kind's life), and the policy in words.
pub type Policy = (String, Option<String>, String);

/// Asks for changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribe {
    /// Where to start.
    pub cursor: Cursor,
    /// Which of the incarnations told by the other the cursor names, from the newest, from 0; none for the start.
    pub incarnation: Option<u64>,
    /// Whether changes are wanted as they come, after the catch-up.
    pub live: bool,
    /// Whether to send also what came from the subscriber itself.
    pub everything: bool,
    /// The low 64 bits of the subscriber's digest: if the other's are equal there is nothing to send.
    pub digest: Option<u64>,
}

/// Where the sender stands, taken in the snapshot of the page before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Its head.
    pub seq: u64,
    /// The digest there.
    pub digest: u128,
    /// How many registers it covers.
    pub count: u64,
    /// Between peers: how far the sender has read the receiver.
    pub read: Option<Cursor>,
}

/// A frame that needs no dictionary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// The sender ends the connection, and why.
    Goaway {
        /// Why.
        code: Code,
        /// Why, in words, and what to do.
        message: String,
        /// How long to wait before connecting again, in ms, if the sender asks for that.
        retry_after_ms: Option<u64>,
    },
    /// The sender's declared policies, sent if the fingerprints differ.
    Schema(Policies),
    /// See [`Subscribe`].
    Subscribe(Subscribe),
    /// The digests are equal: nothing to send.
    Equal {
        /// The sender's head.
        seq: u64,
        /// Its newest incarnation, if that is not the newest one that it has told already.
        incarnation: Option<Incarnation>,
    },
    /// See [`Checkpoint`].
    Checkpoint(Checkpoint),
    /// See [`Ack`].
    Ack(Ack),
    /// The sender has received and kept everything of the receiver up to this seq.
    Synced {
        /// The receiver's seq.
        seq: u64,
    },
    /// So many bytes of the pages of the receiver's have been taken since SUBSCRIBE.
    Window {
        /// Bytes of DELTA frames, as they are without zstd.
        taken: u64,
    },
    /// See [`Reset`].
    Reset(Reset),
    /// See [`Auth`].
    Auth(Auth),
    /// Asks an authority for all confirmed registers of entities, by kind and id.
    Fetch(Vec<(String, String)>),
    /// Asks for the next symbols of the other's sketch (see [`sketch`](crate::sketch)).
    AskSketch {
        /// How many, at least 1.
        count: usize,
    },
    /// Symbols of the sender's confirmed registers, after those sent before.
    Sketch(Vec<Symbol>),
    /// The keys, ascending, of registers of the other that the sender has not, and asks for.
    Lacks(Vec<Key>),
    /// The authority tells up to which of its seqs every store with a running lease has everything.
    Cut {
        /// The seq.
        seq: u64,
    },
    /// The authority has collected entities, by kind and id: the receiver drops what it holds of them. The next page goes
    /// past that.
    Collected {
        /// With which of its seqs.
        seq: u64,
        /// Which.
        entities: Vec<(String, String)>,
    },
    /// The authority has collected keys that were taken out of sets and maps: the receiver drops their registers. The next
    /// page goes past that.
    CollectedKeys {
        /// With which of its seqs.
        seq: u64,
        /// Of which entities, and which: at least one each, ascending by address.
        keys: Vec<Keys>,
    },
    /// What an upload has brought that the authority does not take: its author keeps it with the reason, and shows it no
    /// more.
    Refused {
        /// The authority's clock, in ms.
        clock_ms: i64,
        /// What one edit each has written.
        parts: Vec<Refused>,
    },
    /// The scopes that the receiver may read, of those that there are. GOAWAY follows: it may not read everything.
    Readable(Vec<String>),
    /// Entities, by kind and id, that have left the scope, and are in none now that the receiver subscribes to.
    Left(Vec<(String, String)>),
    /// The subscription in this slot is over. From an authority: the scope may not be read, or not any more. From a
    /// client: it is not wanted any more.
    Denied {
        /// Which.
        slot: u32,
    },
    /// The authority tells which writes of a replica of the receiver lost to one that had not seen them. Who does not
    /// know the frame is told again at every connection.
    Lost(Losses),
    /// LOST was kept: it need not be told again.
    Heard {
        /// Whose writes it told of.
        replica: ReplicaId,
        /// The number of the last.
        last: u64,
    },
    /// A frame of a type that may be ignored.
    Ignored,
}

impl Frame {
    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Hello(hello) => cbor::put(&mut out, tag::HELLO, hello),
            Self::Welcome(welcome) => cbor::put(&mut out, tag::WELCOME, welcome),
            Self::Goaway { code, message, retry_after_ms } => {
                let (message, retry_after_ms) = (message.clone(), *retry_after_ms);
                cbor::put(&mut out, tag::GOAWAY, &Goaway { code: code.0, message, retry_after_ms });
            }
            Self::Schema(policies) => cbor::put(&mut out, tag::SCHEMA, policies),
            Self::Reset(reset) => cbor::put(&mut out, tag::RESET, reset),
            Self::Subscribe(subscribe) => subscribe.encode(&mut out),
            Self::Equal { seq, incarnation } => {
                out.push(tag::EQUAL);
                out.varint(*seq);
                out.push(u8::from(incarnation.is_some()));
                out.extend(incarnation.iter().flat_map(|i| i.0.to_be_bytes()));
            }
            Self::Checkpoint(checkpoint) => checkpoint.encode(&mut out),
            Self::Ack(ack) => ack.encode(&mut out),
            Self::Synced { seq } => {
                out.push(tag::SYNCED);
                out.varint(*seq);
            }
            Self::Window { taken } => {
                out.push(tag::WINDOW);
                out.varint(*taken);
            }
            Self::Auth(auth) => cbor::put(&mut out, tag::AUTH, auth),
            Self::Fetch(entities) => fetch::put(tag::FETCH, entities, &mut out),
            Self::AskSketch { count } => sketch::put_ask(*count, &mut out),
            Self::Sketch(symbols) => sketch::put(symbols, &mut out),
            Self::Lacks(keys) => sketch::put_lacks(keys, &mut out),
            Self::Cut { seq } => lease::put_cut(*seq, &mut out),
            Self::Collected { seq, entities } => lease::put_collected(*seq, entities, &mut out),
            Self::CollectedKeys { seq, keys } => lease::put_keys(*seq, keys, &mut out),
            Self::Left(entities) => fetch::put(tag::LEFT, entities, &mut out),
            Self::Denied { slot } => {
                out.push(tag::DENIED);
                out.varint(u64::from(*slot));
            }
            Self::Lost(losses) => lost::put(losses, &mut out),
            Self::Readable(scopes) => scoped::put_readable(scopes, &mut out),
            Self::Refused { clock_ms, parts } => ack::put_refused(*clock_ms, parts, &mut out),
            Self::Heard { replica, last } => lost::put_heard(*replica, *last, &mut out),
            Self::Ignored => out.push(tag::OPTIONAL),
        }
        out
    }

    /// Reads a frame that is neither a page nor a push.
    ///
    /// # Errors
    /// [`WireError`], saying what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (first, body) = bytes.split_first().ok_or(WireError::Empty)?;
        if body.len() > bytes_max(*first) {
            return Err(WireError::Bound { what: "bytes in a frame of this type", max: bytes_max(*first) });
        }
        let mut reader = Reader::new(body);
        let frame = match *first {
            tag::HELLO => {
                let hello: Hello = cbor::read("HELLO", body)?;
                check_about("HELLO", &hello.about)?;
                check_token(hello.token.as_deref())?;
                return Ok(Self::Hello(hello));
            }
            tag::WELCOME => {
                let welcome: Welcome = cbor::read("WELCOME", body)?;
                check_about("WELCOME", &welcome.about)?;
                welcome.known.as_ref().map_or(Ok(()), |known| check_history(&known.history))?;
                return Ok(Self::Welcome(welcome));
            }
            tag::GOAWAY => {
                let Goaway { code, message, retry_after_ms } = cbor::read("GOAWAY", body)?;
                return Ok(Self::Goaway { code: Code(code), message, retry_after_ms });
            }
            tag::SCHEMA => return Ok(Self::Schema(cbor::read("SCHEMA", body)?)),
            tag::RESET => {
                let reset: Reset = cbor::read("RESET", body)?;
                check_history(&reset.history)?;
                return Ok(Self::Reset(reset));
            }
            tag::AUTH => {
                let auth: Auth = cbor::read("AUTH", body)?;
                check_token(auth.token.as_deref())?;
                return Ok(Self::Auth(auth));
            }
            tag::SUBSCRIBE => Subscribe::read(&mut reader).map(Self::Subscribe),
            tag::EQUAL => read_equal(&mut reader),
            tag::CHECKPOINT => Checkpoint::read(&mut reader).map(Self::Checkpoint),
            tag::ACK => Ack::read(&mut reader).map(Self::Ack),
            tag::SYNCED => reader.varint().map(|seq| Self::Synced { seq }),
            tag::WINDOW => reader.varint().map(|taken| Self::Window { taken }),
            tag::FETCH => fetch::read(&mut reader).map(Self::Fetch),
            tag::SKETCH => sketch::read(&mut reader),
            tag::LEASE => lease::read(&mut reader),
            tag::LEFT => fetch::read(&mut reader).map(Self::Left),
            tag::DENIED => scoped::read_slot(&mut reader).map(|slot| Self::Denied { slot }),
            tag::LOST => lost::read(&mut reader).map(Self::Lost),
            tag::HEARD => lost::read_heard(&mut reader),
            tag::READABLE => scoped::read_readable(&mut reader).map(Self::Readable),
            tag::REFUSED => {
                ack::read_refused(&mut reader).map(|(clock_ms, parts)| Self::Refused { clock_ms, parts })
            }
            tag::OPTIONAL.. => return Ok(Self::Ignored),
            other => return Err(WireError::UnknownFrame { tag: other }),
        };
        let frame = frame.map_err(|Cut| WireError::Malformed { frame: name(*first) })?;
        reader.end().map_err(|Cut| WireError::Malformed { frame: name(*first) })?;
        Ok(frame)
    }
}

fn name(tag: u8) -> &'static str {
    match tag {
        tag::SUBSCRIBE => "SUBSCRIBE",
        tag::EQUAL => "EQUAL",
        tag::CHECKPOINT => "CHECKPOINT",
        tag::ACK => "ACK",
        tag::SYNCED => "SYNCED",
        tag::WINDOW => "WINDOW",
        tag::FETCH => "FETCH",
        tag::SKETCH => "SKETCH",
        tag::LEASE => "LEASE",
        tag::LEFT => "LEFT",
        tag::DENIED => "DENIED",
        tag::SCOPED => "SCOPED",
        tag::LOST => "LOST",
        tag::HEARD => "HEARD",
        tag::REFUSED => "REFUSED",
        tag::READABLE => "READABLE",
        _ => "frame",
    }
}

/// How long the frames of this type may be, in bytes.
fn bytes_max(tag: u8) -> usize {
    match tag {
        tag::HELLO | tag::WELCOME | tag::RESET | tag::AUTH => GREETING_BYTES_MAX,
        tag::GOAWAY => GOAWAY_BYTES_MAX,
        tag::SCHEMA => SCHEMA_BYTES_MAX,
        tag::LOST => FRAME_BYTES_MAX,
        tag::OPTIONAL.. => IGNORED_BYTES_MAX,
        _ => FRAME_BYTES_MAX,
    }
}

/// Whether something that may be left out follows: a frame that is cut short is then no shorter frame.
fn follows(reader: &mut Reader<'_>) -> Result<bool, Cut> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Cut),
    }
}

fn put_cursor(out: &mut Vec<u8>, cursor: Cursor) {
    out.varint(cursor.done);
    out.varint(cursor.at.saturating_sub(cursor.done));
}

fn read_cursor(reader: &mut Reader<'_>, incarnation: Incarnation) -> Result<Cursor, Cut> {
    let done = reader.varint()?;
    let at = done.checked_add(reader.varint()?).ok_or(Cut)?;
    Ok(Cursor { incarnation, done, at })
}

fn read_equal(reader: &mut Reader<'_>) -> Result<Frame, Cut> {
    let seq = reader.varint()?;
    let incarnation = if follows(reader)? { Some(Incarnation(reader.u64()?)) } else { None };
    Ok(Frame::Equal { seq, incarnation })
}

impl Subscribe {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(tag::SUBSCRIBE);
        out.push(u8::from(self.live) | u8::from(self.everything) << 1 | u8::from(self.digest.is_some()) << 2);
        out.varint(self.incarnation.map_or(0, |index| index + 1));
        put_cursor(out, self.cursor);
        if let Some(digest) = self.digest {
            out.extend_from_slice(&digest.to_be_bytes());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Cut> {
        let flags = reader.u8()?;
        if flags > 7 {
            return Err(Cut);
        }
        let incarnation = reader.varint()?.checked_sub(1);
        let cursor = read_cursor(reader, Incarnation::default())?;
        let digest = if flags & 4 == 0 { None } else { Some(reader.u64()?) };
        Ok(Self { cursor, incarnation, live: flags & 1 != 0, everything: flags & 2 != 0, digest })
    }
}

impl Checkpoint {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(tag::CHECKPOINT);
        out.varint(self.seq);
        out.extend_from_slice(&self.digest.to_be_bytes());
        out.varint(self.count);
        out.push(u8::from(self.read.is_some()));
        if let Some(read) = self.read {
            out.extend_from_slice(&read.incarnation.0.to_be_bytes());
            put_cursor(out, read);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Cut> {
        let (seq, digest, count) = (reader.varint()?, reader.u128()?, reader.varint()?);
        let read = if follows(reader)? {
            let incarnation = Incarnation(reader.u64()?);
            Some(read_cursor(reader, incarnation)?)
        } else {
            None
        };
        Ok(Self { seq, digest, count, read })
    }
}

/// Why bytes are no frame. Nothing was taken from them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// No bytes at all.
    #[error("an empty frame")]
    Empty,
    /// A type that this version does not know and may not ignore.
    #[error("a frame of unknown type {tag}: the other side speaks a newer protocol, update this program")]
    UnknownFrame {
        /// The first byte.
        tag: u8,
    },
    /// The frame is longer than allowed.
    #[error("a frame of {bytes} bytes: at most {FRAME_BYTES_MAX} are taken")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Bytes that break the frame's form.
    #[error("a malformed {frame}")]
    Malformed {
        /// The frame's name.
        frame: &'static str,
    },
    /// Bytes that are not the CBOR expected.
    #[error("a malformed {frame}: {error}")]
    Cbor {
        /// The frame's name.
        frame: &'static str,
        /// What the decoder said.
        error: String,
    },
    /// More of something than allowed.
    #[error("too many {what}: at most {max}")]
    Bound {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A register that breaks its laws.
    #[error("a register that no replica can hold: {0}")]
    Register(#[from] crate::register::Malformed),
    /// Bytes that are no canonical value.
    #[error("a value: {0}")]
    Value(#[from] crate::value::ValueError),
}

#[cfg(test)]
mod tests;
