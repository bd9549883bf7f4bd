//! Sessions in the middle of what they do.

use std::sync::Arc;

use rivus_core::clock::{Admission, Millis};
use rivus_core::edit::{Action, Op};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::{Cursor, Position, Seeds};
use rivus_core::replica::{OpenOptions, Replica};
use rivus_core::schema::Schema;
use rivus_core::session::{Grants, Role, Session, SessionOptions, Want};
use rivus_core::sketch::{Key, Sketch};
use rivus_core::store::MemoryStore;
use rivus_core::wire::page::{PageHeader, RowEncoder};
use rivus_core::wire::{
    About, Checkpoint, Frame, Hello, Policies, Reset, Subscribe, VERSION, Welcome, capability,
};

/// The clock of both sides.
pub const NOW: Millis = Millis(1_700_000_000_000);

/// The other side's store and replica.
pub(super) const PEER: u64 = 7;
/// This side's.
const OWN: u64 = 9;

/// What a session has done before the bad frame comes. It is reached with sound frames alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum State {
    /// An authority that waits for HELLO.
    AuthorityGreeting,
    /// An authority after HELLO, with an edit of its own.
    AuthorityOpen,
    /// The same, the client's schema being another one: waits for SCHEMA.
    AuthoritySchema,
    /// The same after RESET: reads what the client has confirmed, with no more than rank 0.
    AuthorityUpload,
    /// The same after the last page of that.
    AuthorityUploaded,
    /// A server that judges nothing, after HELLO; it has subscribed to the client.
    ServerOpen,
    /// The same, having read the client up to seq 5.
    ServerCaughtUp,
    /// A server that lets in those with the token `boss` alone, and waits for HELLO.
    ServerGuarded,
    /// A server that has an authority itself, and waits for HELLO.
    ServerOwned,
    /// A client that waits for WELCOME.
    ClientGreeting,
    /// A client of a peer that has subscribed.
    ClientOpen,
    /// A client of a peer that wants nothing, and has not been asked for anything.
    ClientIdle,
    /// A client of a peer that has subscribed and offers nothing.
    ClientTaker,
    /// A client of an authority that has pushed an edit.
    ClientPushed,
    /// A client of an authority that has subscribed.
    ClientQuiet,
    /// The same, caught up, that has asked for task `t`.
    ClientFetching,
    /// A client after WELCOME, the server's schema being another one: waits for SCHEMA.
    ClientSchema,
    /// A server that judges nothing, after HELLO and SUBSCRIBE.
    ServerRead,
    /// The same, after it has told two symbols of its sketch.
    ServerTold,
    /// A client of an authority whose digest differs: it has asked for symbols.
    ClientLocating,
    /// The same, told of a register that it lacks: it has asked for that.
    ClientMending,
}

/// How many symbols a client asks for first.
pub(super) const SYMBOLS_FIRST: usize = 64;

impl State {
    /// Every state.
    pub const ALL: [Self; 21] = [
        Self::AuthorityGreeting,
        Self::AuthorityOpen,
        Self::AuthoritySchema,
        Self::AuthorityUpload,
        Self::AuthorityUploaded,
        Self::ServerOpen,
        Self::ServerCaughtUp,
        Self::ServerGuarded,
        Self::ServerOwned,
        Self::ClientGreeting,
        Self::ClientOpen,
        Self::ClientIdle,
        Self::ClientTaker,
        Self::ClientPushed,
        Self::ClientQuiet,
        Self::ClientFetching,
        Self::ClientSchema,
        Self::ServerRead,
        Self::ServerTold,
        Self::ClientLocating,
        Self::ClientMending,
    ];

    /// A replica and its session in this state, with nothing left to send.
    ///
    /// # Panics
    /// If a sound frame is refused on the way.
    #[must_use]
    pub fn reach(self) -> (Replica<MemoryStore>, Session) {
        let (mut replica, mut session) = (replica(), session(self));
        if self == Self::ClientFetching {
            session.fetch([("task".to_owned(), "t".to_owned())]);
        }
        if self.is_authority() {
            sound(replica.become_authority());
        }
        match self {
            Self::ServerOwned => sound(replica.meet_authority(StoreId(99), 0)),
            Self::ClientPushed
            | Self::ClientQuiet
            | Self::ClientFetching
            | Self::ClientLocating
            | Self::ClientMending => {
                sound(replica.meet_authority(StoreId(PEER), 0));
                sound(replica.update_authority(|authority| authority.met = true));
            }
            _ => {}
        }
        let is_quiet = matches!(
            self,
            Self::ClientQuiet | Self::ClientFetching | Self::ClientLocating | Self::ClientMending
        );
        if !is_quiet {
            edit(&mut replica);
        }
        let mut both = (replica, session);
        drain(&mut both);
        for frame in self.before(&both.0) {
            sound(both.1.handle(&mut both.0, &frame, NOW));
            drain(&mut both);
        }
        both.1.poll_events().for_each(drop);
        both
    }

    fn is_authority(self) -> bool {
        matches!(
            self,
            Self::AuthorityGreeting
                | Self::AuthorityOpen
                | Self::AuthoritySchema
                | Self::AuthorityUpload
                | Self::AuthorityUploaded
        )
    }

    fn before(self, replica: &Replica<MemoryStore>) -> Vec<Vec<u8>> {
        let same = replica.schema().fingerprint();
        let reset = || Frame::Reset(Reset::new(Position::default(), &[])).encode();
        match self {
            Self::AuthorityGreeting | Self::ServerGuarded | Self::ServerOwned | Self::ClientGreeting => {
                vec![]
            }
            Self::AuthorityOpen | Self::ServerOpen => vec![hello(same)],
            Self::AuthoritySchema => vec![hello(same ^ 1)],
            Self::AuthorityUpload => vec![hello(same), reset()],
            Self::AuthorityUploaded => vec![hello(same), reset(), page(5)],
            Self::ServerCaughtUp => vec![hello(same), page(5)],
            Self::ClientOpen | Self::ClientIdle | Self::ClientTaker => vec![welcome(same, false)],
            Self::ClientSchema => vec![welcome(same ^ 1, false)],
            Self::ClientPushed | Self::ClientQuiet => vec![welcome(same, true)],
            Self::ClientFetching => vec![welcome(same, true), page(5)],
            Self::ServerRead => vec![hello(same), subscribe()],
            Self::ServerTold => vec![hello(same), subscribe(), Frame::AskSketch { count: 2 }.encode()],
            Self::ClientLocating => vec![welcome(same, true), page(5), differs()],
            Self::ClientMending => vec![welcome(same, true), page(5), differs(), symbols(SYMBOLS_FIRST)],
        }
    }
}

/// The other side's HELLO.
pub(super) fn hello(fingerprint: u128) -> Vec<u8> {
    let about = about(fingerprint);
    let (version_min, version_max) = (VERSION, VERSION);
    Frame::Hello(Hello { version_min, version_max, capabilities: 0, about, token: None, offers: true })
        .encode()
}

/// The other side's WELCOME.
pub(super) fn welcome(fingerprint: u128, is_authority: bool) -> Vec<u8> {
    let about = about(fingerprint);
    Frame::Welcome(Welcome {
        version: VERSION,
        capabilities: capability::FETCH | capability::SKETCH,
        about,
        is_authority,
        rank: 0,
        known: None,
        bounds: None,
        expires_in_ms: None,
        leases: None,
    })
    .encode()
}

fn about(fingerprint: u128) -> About {
    let replica = ReplicaId::from_u128(u128::from(PEER));
    About::new(StoreId(PEER), [replica].into_iter(), &[(Incarnation(70), 1)], 5, fingerprint, NOW.0)
}

/// The only schema that is declared here.
pub(super) fn schema() -> Schema {
    sound(Schema::builder().kind("task", |kind| kind.value("title").set("tags").counter("views")).build())
}

/// A SCHEMA frame with one policy.
pub(super) fn policy(kind: &str, field: &str, policy: &str) -> Vec<u8> {
    Frame::Schema(Policies::new(&[(kind.to_owned(), Some(field.to_owned()), policy.to_owned())])).encode()
}

/// An empty page, the last one.
pub(super) fn page(at: u64) -> Vec<u8> {
    let header = PageHeader { at, more: false, incarnation: None, start: true, checkpoint: false };
    RowEncoder::default().finish_page(header)
}

/// Reads the other side from the start.
fn subscribe() -> Vec<u8> {
    let cursor = Cursor::default();
    Frame::Subscribe(Subscribe { cursor, incarnation: None, live: true, everything: false, digest: None })
        .encode()
}

/// A CHECKPOINT whose digest is not that of an empty store.
fn differs() -> Vec<u8> {
    Frame::Checkpoint(Checkpoint { seq: 5, digest: 1, count: 1, read: None }).encode()
}

/// The first symbols of a store with one register.
pub(super) fn symbols(count: usize) -> Vec<u8> {
    let mut sketch = Sketch::default();
    sketch.add(Key(1));
    Frame::Sketch(sketch.symbols().iter().take(count).copied().collect()).encode()
}

fn replica() -> Replica<MemoryStore> {
    let seeds = Seeds {
        store: StoreId(OWN),
        replica: ReplicaId::from_u128(u128::from(OWN)),
        incarnation: Incarnation(90),
    };
    let admission = Admission::Quarantine { drift_ms_max: 60_000 };
    let options = OpenOptions { seeds, slot: 0, admission, rank: 0 };
    sound(Replica::open(MemoryStore::new(), Arc::new(schema()), options))
}

fn session(state: State) -> Session {
    let seeds =
        Seeds { store: StoreId(0xaa), replica: ReplicaId::from_u128(0xaa), incarnation: Incarnation(0xaa) };
    let role = match state {
        State::ServerGuarded => Role::server(Grants::nobody().grant("boss", 3)),
        State::ClientGreeting
        | State::ClientOpen
        | State::ClientIdle
        | State::ClientTaker
        | State::ClientPushed
        | State::ClientQuiet
        | State::ClientFetching
        | State::ClientLocating
        | State::ClientMending
        | State::ClientSchema => Role::Client { token: None },
        _ => Role::server(Grants::everybody()),
    };
    let want = if state == State::ClientIdle { Want::Nothing } else { Want::Live };
    let offers = state != State::ClientTaker;
    Session::new(SessionOptions { role, want, offers, seeds, capabilities: 0 })
}

fn edit(replica: &mut Replica<MemoryStore>) {
    let fields = vec![("title".to_owned(), "own".into())];
    sound(replica.edit(NOW, &[Op::new("task", "own", Action::Put(fields))]));
}

fn drain((replica, session): &mut (Replica<MemoryStore>, Session)) {
    while sound(session.poll_transmit(replica, NOW)).is_some() {}
}

/// What must succeed, or the table is wrong.
#[expect(clippy::expect_used, reason = "the table of bad frames rests on sound ones")]
fn sound<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("sound frames and edits are taken")
}
