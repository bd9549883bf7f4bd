//! What two sides that meet tell of themselves: HELLO, WELCOME, RESET.

use minicbor::{Decode, Encode};

use super::{REPLICAS_MAX, TOKEN_BYTES_MAX, WireError, cbor};
use crate::id::{Incarnation, ReplicaId, StoreId};
use crate::identity::{INCARNATIONS_TOLD, Position};

/// The first frame of the side that connects.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// The lowest protocol version spoken.
    #[n(0)]
    pub version_min: u16,
    /// The highest protocol version spoken.
    #[n(1)]
    pub version_max: u16,
    /// See [`capability`](super::capability).
    #[n(2)]
    pub capabilities: u64,
    /// Who connects.
    #[n(3)]
    pub about: About,
    /// What grants access.
    #[n(4)]
    pub token: Option<String>,
    /// Whether the other side may subscribe to this one.
    #[n(5)]
    pub offers: bool,
}

/// The answer to HELLO.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The protocol version from now on.
    #[n(0)]
    pub version: u16,
    /// See [`capability`](super::capability).
    #[n(1)]
    pub capabilities: u64,
    /// Who answers.
    #[n(2)]
    pub about: About,
    /// Whether it judges edits.
    #[n(3)]
    pub is_authority: bool,
    /// The rank that the other's edits may bear.
    #[n(4)]
    pub rank: u8,
    /// What it last knew of the other's store, if the other's HELLO does not agree with that: then the other is
    /// a copy or a restored backup.
    #[n(5)]
    pub known: Option<Reset>,
    /// What it takes, where that is less than usual.
    #[n(6)]
    pub bounds: Option<Bounds>,
    /// After how many ms the grant ends, if it does: another token is due before, by AUTH.
    #[n(7)]
    pub expires_in_ms: Option<u64>,
    /// What an authority tells of leases and collections.
    #[n(8)]
    pub leases: Option<Leases>,
}

/// What an authority tells of leases and collections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Leases {
    /// How long a lease runs, from the last sign of life on, in ms.
    #[n(0)]
    pub lasts_ms: u64,
    /// The seq of the newest collection, if there ever was one.
    #[n(1)]
    pub newest: Option<u64>,
    /// The seq of the newest collection that is not told of any more.
    #[n(2)]
    pub floor: Option<u64>,
}

/// What a server takes of one connection. What is not told is as usual.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Bounds {
    /// The longest frame, in bytes after decompression.
    #[n(0)]
    pub frame_bytes_max: Option<u64>,
    /// The longest value, in bytes.
    #[n(1)]
    pub value_bytes_max: Option<u64>,
    /// The most registers of an edit and of a push.
    #[n(2)]
    pub registers_max: Option<u64>,
    /// The most scopes.
    #[n(3)]
    pub scopes_max: Option<u64>,
    /// The most registers in a second, of all connections of one account.
    #[n(4)]
    pub registers_per_second: Option<u32>,
}

/// A client shows another token; a server answers what that grants.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Auth {
    /// From a client: what grants access from now on.
    #[n(0)]
    pub token: Option<String>,
    /// From a server: the rank that the client's edits may bear from now on.
    #[n(1)]
    pub rank: Option<u8>,
    /// From a server: after how many ms the grant ends, if it does.
    #[n(2)]
    pub expires_in_ms: Option<u64>,
}

/// What both sides tell of themselves.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct About {
    #[n(0)]
    store: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    replicas: Vec<u8>,
    #[cbor(n(2), decode_with = "cbor::history")]
    history: Vec<(u64, u64)>,
    /// The store's head seq.
    #[n(3)]
    pub head: u64,
    #[cbor(n(4), with = "minicbor::bytes")]
    fingerprint: [u8; 16],
    /// The clock, in ms since 1970.
    #[n(5)]
    pub clock_ms: i64,
    /// The latest version of the rules that the sender knows of; none is 0.
    #[n(6)]
    pub epoch: Option<u32>,
}

impl About {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        store: StoreId,
        replicas: impl Iterator<Item = ReplicaId>,
        history: &[(Incarnation, u64)],
        head: u64,
        fingerprint: u128,
        clock_ms: i64,
    ) -> Self {
        Self {
            store: store.0,
            replicas: replicas.flat_map(|replica| replica.0).collect(),
            history: numbers(history),
            head,
            fingerprint: fingerprint.to_be_bytes(),
            clock_ms,
            epoch: None,
        }
    }

    /// With the latest version of the rules that the sender knows of.
    #[must_use]
    pub fn with_epoch(self, epoch: u32) -> Self {
        Self { epoch: (epoch > 0).then_some(epoch), ..self }
    }

    /// The store's id.
    #[must_use]
    pub fn store(&self) -> StoreId {
        StoreId(self.store)
    }

    /// Whose stamps its edits may bear.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaId> {
        self.replicas.as_chunks::<16>().0.iter().map(|id| ReplicaId(*id)).collect()
    }

    /// Its newest incarnations, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<(Incarnation, u64)> {
        history(&self.history)
    }

    /// The schema's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        u128::from_be_bytes(self.fingerprint)
    }
}

/// "You do not know the position that I have of you": the receiver is a copy or a restored backup. Also the
/// first frame to an authority that the sender has not met: then the position is the default one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Reset {
    #[n(0)]
    incarnation: u64,
    #[n(1)]
    seq: u64,
    #[cbor(n(2), decode_with = "cbor::history")]
    pub(super) history: Vec<(u64, u64)>,
}

impl Reset {
    /// Puts the parts together.
    #[must_use]
    pub fn new(position: Position, history: &[(Incarnation, u64)]) -> Self {
        Self { incarnation: position.incarnation.0, seq: position.seq, history: numbers(history) }
    }

    /// The position that was once told of the receiver.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { incarnation: Incarnation(self.incarnation), seq: self.seq }
    }

    /// The receiver's incarnations as they were then.
    #[must_use]
    pub fn history(&self) -> Vec<(Incarnation, u64)> {
        history(&self.history)
    }
}

fn numbers(history: &[(Incarnation, u64)]) -> Vec<(u64, u64)> {
    history.iter().map(|(incarnation, first)| (incarnation.0, *first)).collect()
}

fn history(numbers: &[(u64, u64)]) -> Vec<(Incarnation, u64)> {
    numbers.iter().map(|(incarnation, first)| (Incarnation(*incarnation), *first)).collect()
}

pub(super) fn check_about(frame: &'static str, about: &About) -> Result<(), WireError> {
    // Stores count seqs in signed 64 bits.
    if i64::try_from(about.head).is_err() {
        return Err(WireError::Malformed { frame });
    }
    let rises =
        about.history.is_sorted_by(|a, b| a.1 < b.1) && about.history.iter().all(|(_, first)| *first > 0);
    if about.replicas.is_empty() || !about.replicas.len().is_multiple_of(16) || !rises {
        return Err(WireError::Malformed { frame });
    }
    if about.replicas.len() / 16 > REPLICAS_MAX {
        return Err(WireError::Bound { what: "replica ids", max: REPLICAS_MAX });
    }
    check_history(&about.history)
}

pub(super) fn check_token(token: Option<&str>) -> Result<(), WireError> {
    if token.is_none_or(|token| token.len() <= TOKEN_BYTES_MAX) {
        return Ok(());
    }
    Err(WireError::Bound { what: "a token's bytes", max: TOKEN_BYTES_MAX })
}

pub(super) fn check_history(history: &[(u64, u64)]) -> Result<(), WireError> {
    if history.len() <= INCARNATIONS_TOLD {
        return Ok(());
    }
    Err(WireError::Bound { what: "incarnations", max: INCARNATIONS_TOLD })
}
