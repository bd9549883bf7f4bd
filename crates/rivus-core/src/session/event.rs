//! How a session is run, and what it tells of what happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Answered, Authenticator, Gate};
use crate::code::Code;
use crate::id::StoreId;
use crate::identity::Seeds;

/// What a session wants of the other side's changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Nothing: only give.
    Nothing,
    /// Everything up to now; then the session ends by itself.
    Once,
    /// Everything up to now and whatever comes.
    Live,
}

/// Which end of the connection this is.
#[derive(Clone, Debug)]
pub enum Role {
    /// It has connected.
    Client {
        /// What grants access.
        token: Option<String>,
    },
    /// It was connected to.
    Server {
        /// Whom it lets in, and what they may do. The connections of one hub share it.
        gate: Arc<Gate>,
    },
}

impl Role {
    /// A server that lets these in, and lets them do everything.
    #[must_use]
    pub fn server(authenticator: impl Authenticator + 'static) -> Self {
        Self::Server { gate: Arc::new(Gate::new(authenticator)) }
    }
}

/// How a session is run.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Which end this is.
    pub role: Role,
    /// What it wants. A server wants what its clients offer, live, whatever this says.
    pub want: Want,
    /// Whether the other side may have this one's changes.
    pub offers: bool,
    /// Ids in case the store is found to be a copy.
    pub seeds: Seeds,
    /// What the shell can do, see [`capability`](crate::wire::capability).
    pub capabilities: u64,
}

/// What happened, for whoever runs the session.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SessionEvent {
    /// The handshake is done.
    Opened {
        /// The other store.
        peer: StoreId,
        /// Whether it judges this store's edits.
        is_authority: bool,
        /// The rank that it grants.
        rank: u8,
        /// What it can do, see [`capability`](crate::wire::capability).
        capabilities: u64,
    },
    /// A page was joined.
    Joined {
        /// Registers in it.
        registers: usize,
        /// Registers set aside because they are from the future.
        quarantined: usize,
        /// Registers among them that this store wrote itself.
        own: usize,
        /// Entities that may show something else now.
        changed: usize,
    },
    /// Everything that the other had up to now is here.
    CaughtUp,
    /// The page before it was not the last: more is waiting, as the sender says.
    More {
        /// The position behind the page, in the sender's changes.
        at: u64,
    },
    /// So many edits are to be sent on this connection, those of now and no later ones unless it is live.
    Offering {
        /// How many.
        edits: usize,
    },
    /// Edits were sent to the authority.
    Pushed {
        /// Their keys in the outbox, ascending.
        edits: Vec<u64>,
    },
    /// The authority's answer to edits that were sent, in classes that add up to them.
    Answered(Answered),
    /// So many edits that an upload has brought are refused, by reason.
    Returned(BTreeMap<Code, usize>),
    /// The authority has judged edits.
    Judged {
        /// How many it accepted.
        accepted: usize,
        /// How many it refused or wants again.
        excepted: usize,
    },
    /// The gate has let somebody in. The handshake goes on.
    Admitted {
        /// The principal's name; empty for the anonymous.
        subject: String,
    },
    /// A page went out.
    Sent {
        /// Registers in it.
        registers: usize,
    },
    /// A push was taken, and what it holds was judged.
    Taken {
        /// Registers in it.
        registers: usize,
        /// Why edits in it were refused, one code for each.
        refused: Vec<Code>,
    },
    /// At the same position the digests differ: a fault. The difference is looked for and mended, or everything is read
    /// again from the start.
    Diverged {
        /// This store's digest.
        ours: u128,
        /// The other's.
        theirs: u128,
    },
    /// After the digests differed, the registers that do were found and exchanged.
    Repaired {
        /// How many registers were asked for and given.
        registers: usize,
        /// How many bytes of frames it took to find them, without the registers themselves.
        bytes: usize,
        /// How many round trips, the exchange of the registers being one.
        rounds: usize,
    },
    /// The other side has found the digests to differ, and asks where.
    AskedToCompare,
    /// At the same position the digests are equal.
    Verified {
        /// The position.
        seq: u64,
        /// The digest.
        digest: u128,
    },
    /// This store is a copy and took a new id: connect again.
    Copied,
    /// This store was away for longer than its lease and begins anew under a new id: connect again.
    Fenced,
    /// Up to here in the authority's changes everybody with a lease has everything.
    Cut {
        /// The seq.
        seq: u64,
    },
    /// The authority has collected entities, or keys that were taken out of sets and maps, and so has this store.
    Collected {
        /// How many entities.
        entities: usize,
        /// How many keys.
        keys: usize,
        /// How many pending edits of theirs are refused now.
        refused: usize,
    },
    /// The authority has taken another token.
    Refreshed {
        /// The rank that it grants.
        rank: u8,
    },
    /// What was asked for by [`Session::fetch`](super::Session::fetch) is here.
    Fetched {
        /// How many entities came.
        entities: usize,
        /// How many registers they have.
        registers: usize,
        /// Those that the authority does not have, by kind and id.
        missing: Vec<(String, String)>,
    },
    /// The authority does not let this store read a scope, or not any more.
    Denied {
        /// The scope.
        scope: String,
    },
    /// The other side does not hand out entities: it is no authority, or older than this. Nothing was asked for.
    CannotFetch,
}
