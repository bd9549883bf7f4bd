//! How the frames of one sync get from replica to replica.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rivus_core::clock::Millis;
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::replica::Replica;
use rivus_core::session::{Grants, Role, Session, SessionError, SessionEvent, SessionOptions, Want, pair};

use crate::any_store::AnyStore;

/// Moves all frames of one sync between two replicas.
pub trait Transport {
    /// Syncs until there is nothing left to move. `from` is the client, `to` the server, as [`Way::client`] and
    /// [`Way::server`] set them up.
    ///
    /// # Errors
    /// [`TransportError`]. What was joined before stays.
    fn sync(&mut self, from: &End, to: &End, way: Way) -> Result<Moved, TransportError>;
}

/// One replica of a run, as a transport gets it.
#[derive(Clone, Debug)]
pub struct End {
    pub(crate) replica: Arc<Mutex<Replica<AnyStore>>>,
    /// What its clock reads.
    pub(crate) now: Millis,
}

impl End {
    /// The replica, for this thread alone.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Replica<AnyStore>> {
        // A replica changes at its commits only: whoever panicked left nothing half done.
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of the two gets what it lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// `to` alone.
    One,
    /// Each.
    Both,
}

impl Way {
    /// The session of `from`.
    #[must_use]
    pub fn client(self) -> SessionOptions {
        let want = match self {
            Self::One => Want::Nothing,
            Self::Both => Want::Once,
        };
        options(Role::Client { token: None }, want)
    }

    /// The session of `to`. It takes what the client offers.
    #[must_use]
    pub fn server(self) -> SessionOptions {
        options(Role::server(Grants::everybody()), Want::Live)
    }
}

fn options(role: Role, want: Want) -> SessionOptions {
    // No store of a run is ever copied, so that nobody takes these.
    let seeds = Seeds { store: StoreId(0), replica: ReplicaId::from_u128(0), incarnation: Incarnation(0) };
    SessionOptions { role, want, offers: true, seeds, capabilities: 0 }
}

/// What a sync did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// Registers received, by both.
    pub registers: usize,
}

/// From memory to memory, frame by frame, in one thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Direct;

impl Transport for Direct {
    fn sync(&mut self, from: &End, to: &End, way: Way) -> Result<Moved, TransportError> {
        let (mut client, mut server) = (Session::new(way.client()), Session::new(way.server()));
        let mut one = pair::End { replica: &mut *from.lock(), session: &mut client, now: from.now };
        let mut two = pair::End { replica: &mut *to.lock(), session: &mut server, now: to.now };
        pair::run(&mut one, &mut two, usize::MAX)?;
        if !client.is_closed() {
            return Err(TransportError::Unfinished);
        }
        let registers = |event| match event {
            SessionEvent::Joined { registers, .. } => registers,
            _ => 0,
        };
        let registers = client.poll_events().chain(server.poll_events()).map(registers).sum();
        Ok(Moved { registers })
    }
}

/// Why a sync failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The two do not understand each other, or a store failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No frame is left to move, but the session is not at its end.
    #[error("the sync stopped before its end: this is a fault of the engine, report it")]
    Unfinished,
    /// The connection failed.
    #[error("{0}")]
    Connection(String),
}
