//! A hostile other side of a connection.

use rivus_core::edit::{Action, Op};
use rivus_core::replica::Replica;
use rivus_core::session::Session;
use rivus_core::store::MemoryStore;
use rivus_testkit::bad_frames::State;

use crate::samples::{self, NOW};

/// Bit 7: one of the states of [`State::ALL`], as the other bits say. Else bit 0: the server judges nothing, and
/// bit 1: this side is the client, and bit 2: as such it follows scopes by name.
const STATE: u8 = 0x80;
const PEERS: u8 = 1;
const CLIENT: u8 = 2;
const BY_NAME: u8 = 4;

/// The first byte says who listens; then frames, each after its length in two bytes, big-endian.
pub fn session(data: &[u8]) {
    let Some((mode, mut rest)) = data.split_first() else { return };
    let (mut replica, mut session) = listener(*mode);
    say_all(&mut session, &mut replica);
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
        let (frame, after) = after.split_at(len);
        rest = after;
        let refused = session.handle(&mut replica, frame, NOW).is_err();
        say_all(&mut session, &mut replica);
        assert!(!refused || session.is_closed(), "an error ends the connection");
    }
    session.handle_quiet();
    say_all(&mut session, &mut replica);
    let kept = replica.head().expect("memory does not fail").digest;
    assert_eq!(kept, replica.recompute_digest().expect("rows are sound"), "the digest is that of the rows");
    let fields = vec![("title".to_owned(), "after".into())];
    replica.edit(NOW, &[Op::new("task", "after", Action::Put(fields))]).expect("a new entity is written");
}

fn listener(mode: u8) -> (Replica<MemoryStore>, Session) {
    if mode & STATE != 0 {
        return State::ALL[usize::from(mode & !STATE) % State::ALL.len()].reach();
    }
    let mut replica = match (mode & CLIENT != 0, mode & PEERS != 0) {
        (true, _) => samples::replica(1),
        (false, true) => samples::replica(2),
        (false, false) => samples::hub(),
    };
    if mode & CLIENT != 0 {
        samples::edit(&mut replica, "shared", 5);
    }
    let role = if mode & CLIENT != 0 { samples::client() } else { samples::server() };
    let mut session = samples::session(role);
    if mode & CLIENT != 0 && mode & BY_NAME != 0 {
        samples::follow(&mut session);
    }
    (replica, session)
}

fn say_all(session: &mut Session, replica: &mut Replica<MemoryStore>) {
    // Bounded: a session that never has enough is a fault too.
    for _ in 0..10_000 {
        match session.poll_transmit(replica, NOW) {
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
    panic!("the session does not stop talking");
}
