//! Sound frames at the wrong time, and what they may not ask for.

use rivus_core::code::Code;
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::{Cursor, Position};
use rivus_core::sketch::{Key, SYMBOLS_MAX};
use rivus_core::wire::page::RowEncoder;
use rivus_core::wire::{
    About, Ack, Checkpoint, Exception, Frame, Hello, Reset, Scoped, Subscribe, VERSION, Welcome, WireError,
};

use super::parts::slice;
use super::rows::{edit, entity, field};
use super::state::{SYMBOLS_FIRST, hello, page, policy, schema, symbols, welcome};
use super::{BadFrame, Expect, NOW, State};

pub(super) fn add(all: &mut Vec<BadFrame>) {
    before_the_greeting(all);
    greetings(all);
    reading(all);
    fetching(all);
    repairing(all);
    leasing(all);
    scopes(all);
    pushing(all);
}

/// A sound frame of each type.
fn each_type() -> Vec<(&'static str, Vec<u8>)> {
    let same = schema().fingerprint();
    vec![
        ("HELLO", hello(same)),
        ("WELCOME", welcome(same, false)),
        ("SCHEMA", policy("task", "title", "value")),
        ("SUBSCRIBE", subscribe(None, 0, 0)),
        ("EQUAL", Frame::Equal { seq: 5, incarnation: None }.encode()),
        ("DELTA", page(5)),
        ("CHECKPOINT", Frame::Checkpoint(Checkpoint { seq: 5, digest: 0, count: 0, read: None }).encode()),
        ("PUSH", push(0)),
        ("ACK", ack(None)),
        ("SYNCED", Frame::Synced { seq: 0 }.encode()),
        ("WINDOW", Frame::Window { taken: 0 }.encode()),
        ("RESET", reset(Position::default())),
        ("FETCH", fetch()),
        ("FETCHED", RowEncoder::default().finish_fetched(false)),
        ("SKETCH", ask(1)),
        ("REPAIR", RowEncoder::default().finish_repair(false)),
        ("LEASE tells a cut", Frame::Cut { seq: 5 }.encode()),
        ("LEASE tells of a collection", collected()),
        ("LEFT", left()),
        ("DENIED", Frame::Denied { slot: 1 }.encode()),
        ("SCOPED", scoped(1, "", &Frame::Equal { seq: 5, incarnation: None }.encode())),
    ]
}

fn fetch() -> Vec<u8> {
    Frame::Fetch(vec![("task".to_owned(), "t".to_owned())]).encode()
}

fn collected() -> Vec<u8> {
    Frame::Collected { seq: 5, entities: vec![("task".to_owned(), "t".to_owned())] }.encode()
}

fn ask(count: usize) -> Vec<u8> {
    Frame::AskSketch { count }.encode()
}

fn left() -> Vec<u8> {
    Frame::Left(vec![("task".to_owned(), "t".to_owned())]).encode()
}

fn scoped(slot: u32, scope: &str, frame: &[u8]) -> Vec<u8> {
    Scoped { slot, scope, frame }.encode()
}

fn subscribe(incarnation: Option<u64>, done: u64, at: u64) -> Vec<u8> {
    let cursor = Cursor { incarnation: Incarnation::default(), done, at };
    Frame::Subscribe(Subscribe { cursor, incarnation, live: true, everything: false, digest: None }).encode()
}

/// A push without edits.
fn push(heard: u64) -> Vec<u8> {
    RowEncoder::default().finish_push(heard, 5, None)
}

fn ack(exception: Option<Exception>) -> Vec<u8> {
    Frame::Ack(Ack { seq: 5, clock_ms: NOW.0, exceptions: exception.into_iter().collect() }).encode()
}

fn reset(position: Position) -> Vec<u8> {
    Frame::Reset(Reset::new(position, &[])).encode()
}

/// What waits for one frame takes no other.
fn before_the_greeting(all: &mut Vec<BadFrame>) {
    let waiting = [
        (State::AuthorityGreeting, "an authority that waits for HELLO", "HELLO"),
        (State::ClientGreeting, "a client that waits for WELCOME", "WELCOME"),
        (State::AuthoritySchema, "an authority that waits for SCHEMA", "SCHEMA"),
        (State::ClientSchema, "a client that waits for SCHEMA", "SCHEMA"),
    ];
    for (state, who, awaited) in waiting {
        for (frame, bytes) in each_type().into_iter().filter(|(frame, _)| *frame != awaited) {
            let words = if ["DELTA", "PUSH", "FETCHED", "REPAIR", "SCOPED"].contains(&frame) {
                "before the handshake"
            } else {
                "out of order"
            };
            let expect = Expect::Refused(Code::UNEXPECTED, words);
            all.push(BadFrame { name: format!("{frame} to {who}"), state, bytes, expect });
        }
    }
    let open = [
        (State::AuthorityOpen, "an authority"),
        (State::ServerOpen, "a server"),
        (State::ClientOpen, "a client"),
        (State::ClientPushed, "a client that pushes"),
    ];
    for (state, who) in open {
        for (frame, bytes) in
            each_type().into_iter().filter(|(f, _)| ["HELLO", "WELCOME", "SCHEMA"].contains(f))
        {
            let expect = Expect::Refused(Code::UNEXPECTED, "a second greeting");
            all.push(BadFrame { name: format!("{frame} to {who} after the greeting"), state, bytes, expect });
        }
    }
}

fn greetings(all: &mut Vec<BadFrame>) {
    let mut bad = |name: &str, state: State, bytes: Vec<u8>, code: Code, words: &'static str| {
        all.push(BadFrame { name: name.to_owned(), state, bytes, expect: Expect::Refused(code, words) });
    };
    let about = |store: u64, head: u64| {
        let replicas = [ReplicaId::from_u128(7)].into_iter();
        About::new(StoreId(store), replicas, &[(Incarnation(90), 1)], head, schema().fingerprint(), NOW.0)
    };
    let hello = |version: u16, about: About, token: Option<&str>| {
        let (version_min, version_max) = (version, version);
        let token = token.map(str::to_owned);
        Frame::Hello(Hello { version_min, version_max, capabilities: 0, about, token, offers: true }).encode()
    };
    let server = State::AuthorityGreeting;
    bad(
        "HELLO of a later version",
        server,
        hello(VERSION + 1, about(7, 0), None),
        Code::VERSION,
        "versions 2 to 2",
    );
    bad("HELLO of version 0", server, hello(0, about(7, 0), None), Code::VERSION, "versions 0 to 0");
    let guarded = State::ServerGuarded;
    bad("HELLO without a token", guarded, hello(1, about(7, 0), None), Code::UNAUTHORISED, "needed");
    bad(
        "HELLO with a wrong token",
        guarded,
        hello(1, about(7, 0), Some("bosS")),
        Code::UNAUTHORISED,
        "nothing",
    );
    bad("HELLO with an empty token", guarded, hello(1, about(7, 0), Some("")), Code::UNAUTHORISED, "nothing");
    bad(
        "HELLO to a server with an authority",
        State::ServerOwned,
        hello(1, about(7, 0), None),
        Code::NOT_AUTHORITY,
        "alone",
    );
    bad("HELLO of the same store", server, hello(1, about(9, 1), None), Code::SAME_STORE, "same store");
    let welcome = |version: u16| {
        let about = about(7, 5);
        Frame::Welcome(Welcome {
            version,
            capabilities: 0,
            about,
            is_authority: false,
            rank: 0,
            known: None,
            bounds: None,
            expires_in_ms: None,
            leases: None,
        })
        .encode()
    };
    let client = State::ClientGreeting;
    bad("WELCOME in a later version", client, welcome(VERSION + 1), Code::VERSION, "version 2");
    bad("WELCOME in version 0", client, welcome(0), Code::VERSION, "version 0");
    let differs = policy("task", "tags", "counter");
    for state in [State::AuthoritySchema, State::ClientSchema] {
        let name = format!("SCHEMA that declares a field differently, {state:?}");
        bad(&name, state, differs.clone(), Code::SCHEMA, "tags");
    }
}

fn fetching(all: &mut Vec<BadFrame>) {
    let mut bad = |name: &str, state: State, bytes: Vec<u8>, words: &'static str| {
        let expect = Expect::Refused(Code::UNEXPECTED, words);
        all.push(BadFrame { name: name.to_owned(), state, bytes, expect });
    };
    for state in [State::ServerOpen, State::ClientOpen, State::ClientQuiet] {
        bad(&format!("FETCH, {state:?}"), state, fetch(), "no authority");
    }
    let answer =
        |more: u8, shape: &[u8]| [vec![14, more], slice(shape), slice(&edit(7, 1000)), vec![0xf6]].concat();
    let one = [entity(1), field(1, "title")].concat();
    for state in [State::AuthorityOpen, State::ServerOpen, State::ClientOpen, State::ClientQuiet] {
        bad(&format!("FETCHED, {state:?}"), state, answer(0, &one), "nobody asked for");
    }
    let other = [&[0, 0][..], &slice(b"task"), &slice(b"u"), &[1], &field(1, "title")].concat();
    let state = State::ClientFetching;
    bad("FETCHED of another entity", state, answer(0, &other), "not asked for");
    bad("FETCHED of nothing, with more to come", state, vec![14, 1, 0, 0], "says nothing");
}

fn repairing(all: &mut Vec<BadFrame>) {
    let mut bad = |name: &str, state: State, bytes: Vec<u8>, words: &'static str| {
        let expect = Expect::Refused(Code::UNEXPECTED, words);
        all.push(BadFrame { name: name.to_owned(), state, bytes, expect });
    };
    for state in [State::AuthorityOpen, State::ServerOpen, State::ClientOpen, State::ClientLocating] {
        bad(&format!("SKETCH asks, {state:?}"), state, ask(1), "not read");
    }
    let lacks = || Frame::Lacks(vec![Key(1)]).encode();
    for state in [State::AuthorityOpen, State::ServerRead, State::ClientOpen, State::ClientMending] {
        bad(&format!("SKETCH lacks, {state:?}"), state, lacks(), "what was not told of");
    }
    for state in [State::ServerTold, State::ClientOpen, State::ClientQuiet, State::ClientMending] {
        bad(&format!("SKETCH tells, {state:?}"), state, symbols(SYMBOLS_FIRST), "nobody asked for");
    }
    let locating = State::ClientLocating;
    bad("SKETCH tells a symbol too few", locating, symbols(SYMBOLS_FIRST - 1), "nobody asked for");
    bad("SKETCH tells a symbol too many", locating, symbols(SYMBOLS_FIRST + 1), "nobody asked for");
    bad("SKETCH asks for more than there is", State::ServerTold, ask(SYMBOLS_MAX - 1), "more symbols");
    let one = [entity(1), field(1, "title")].concat();
    let rows =
        |more: u8, shape: &[u8]| [vec![19, more], slice(shape), slice(&edit(7, 1000)), vec![0xf6]].concat();
    for state in [State::AuthorityOpen, State::ServerRead, State::ClientQuiet, State::ClientLocating] {
        bad(&format!("REPAIR, {state:?}"), state, rows(0, &one), "not found to differ");
    }
    bad("REPAIR of nothing, with more to come", State::ClientMending, vec![19, 1, 0, 0], "says nothing");
}

fn leasing(all: &mut Vec<BadFrame>) {
    let mut bad = |name: &str, state: State, bytes: Vec<u8>, words: &'static str| {
        let expect = Expect::Refused(Code::UNEXPECTED, words);
        all.push(BadFrame { name: name.to_owned(), state, bytes, expect });
    };
    for state in [State::AuthorityOpen, State::ServerRead, State::ClientOpen] {
        let cut = Frame::Cut { seq: 5 }.encode();
        bad(&format!("LEASE tells a cut, {state:?}"), state, cut, "no authority");
        bad(&format!("LEASE tells of a collection, {state:?}"), state, collected(), "no authority");
    }
    bad("LEASE tells of a collection, ClientPushed", State::ClientPushed, collected(), "nobody asked");
}

fn scopes(all: &mut Vec<BadFrame>) {
    let mut bad = |name: &str, state: State, bytes: Vec<u8>, words: &'static str| {
        let expect = Expect::Refused(Code::UNEXPECTED, words);
        all.push(BadFrame { name: format!("{name}, {state:?}"), state, bytes, expect });
    };
    let equal = Frame::Equal { seq: 5, incarnation: None }.encode();
    let ask = subscribe(None, 0, 0);
    for state in [State::AuthorityOpen, State::ServerOpen, State::ClientOpen, State::ClientQuiet] {
        bad("LEFT", state, left(), "LEFT of a scope that nobody follows");
        bad("DENIED in slot 1", state, Frame::Denied { slot: 1 }.encode(), "that there is not");
        bad("EQUAL in slot 1", state, scoped(1, "", &equal), "that there is not");
        bad("a page in slot 1", state, scoped(1, "", &page(5)), "that there is not");
    }
    bad("SUBSCRIBE to a scope", State::ServerOpen, scoped(1, "a", &ask), "no authority");
    bad("SUBSCRIBE to a scope", State::ClientQuiet, scoped(1, "a", &ask), "that there is not");
    let past = scoped(1, "a", &subscribe(Some(0), 9, 9));
    bad("SUBSCRIBE to a scope from a position past the end", State::AuthorityOpen, past, "never told");
    for (name, bytes) in [
        ("slot 0", scoped(0, "a", &ask)),
        ("a name before EQUAL", scoped(1, "a", &equal)),
        ("ACK in it", scoped(1, "", &ack(None))),
        ("nothing in it", scoped(1, "", &[])),
        ("a name of 256 bytes", scoped(1, &"x".repeat(256), &ask)),
    ] {
        let expect = Expect::Wire(WireError::Malformed { frame: "SCOPED" });
        all.push(BadFrame {
            name: format!("SCOPED with {name}"),
            state: State::AuthorityOpen,
            bytes,
            expect,
        });
    }
}

fn reading(all: &mut Vec<BadFrame>) {
    let mut bad = |name: &str, state: State, bytes: Vec<u8>, words: &'static str| {
        let expect = Expect::Refused(Code::UNEXPECTED, words);
        all.push(BadFrame { name: name.to_owned(), state, bytes, expect });
    };
    let checkpoint = || Frame::Checkpoint(Checkpoint { seq: 5, digest: 0, count: 0, read: None }).encode();
    let equal = || Frame::Equal { seq: 5, incarnation: None }.encode();
    for (state, who) in [
        (State::AuthorityOpen, "an authority that has asked for nothing"),
        (State::ClientIdle, "a client that wants nothing"),
        (State::ClientPushed, "a client that still pushes"),
    ] {
        bad(&format!("DELTA to {who}"), state, page(5), "a page that nobody asked for");
        bad(&format!("EQUAL to {who}"), state, equal(), "EQUAL that nobody asked for");
        if state != State::ClientPushed {
            bad(&format!("CHECKPOINT to {who}"), state, checkpoint(), "a CHECKPOINT that nobody asked for");
        }
    }
    bad(
        "DELTA after the end of an upload",
        State::AuthorityUploaded,
        page(6),
        "a page that nobody asked for",
    );
    bad("EQUAL in an upload", State::AuthorityUpload, equal(), "EQUAL that nobody asked for");
    bad("DELTA that goes back", State::ServerCaughtUp, page(4), "a page that goes back");
    bad("DELTA that goes back to 0", State::ServerCaughtUp, page(0), "a page that goes back");
    for state in [State::AuthorityOpen, State::ServerOpen, State::ClientOpen] {
        let mut bad = |fault: &str, bytes: Vec<u8>, words| {
            bad(&format!("SUBSCRIBE {fault}, {state:?}"), state, bytes, words)
        };
        bad("names an incarnation that was not told", subscribe(Some(1), 0, 0), "not told");
        bad("names incarnation 2^64 - 2", subscribe(Some(u64::MAX - 1), 0, 0), "not told");
        bad("from a position past the end", subscribe(Some(0), 9, 9), "never told");
        bad("at a position past the end", subscribe(Some(0), 0, 1 << 40), "never told");
    }
    bad(
        "SUBSCRIBE to a client that offers nothing",
        State::ClientTaker,
        subscribe(None, 0, 0),
        "offers nothing",
    );
    let synced = |seq| Frame::Synced { seq }.encode();
    let window = |taken| Frame::Window { taken }.encode();
    for (name, state) in [
        ("WINDOW to a side that sends no pages", State::AuthorityOpen),
        ("WINDOW to a client that was not asked", State::ClientOpen),
        ("WINDOW in an upload", State::AuthorityUpload),
    ] {
        bad(name, state, window(0), "WINDOW beyond");
    }
    bad("WINDOW for pages that were never sent", State::ServerCaughtUp, window(1 << 40), "WINDOW beyond");
    bad("SYNCED for what was never sent", State::AuthorityOpen, synced(0), "SYNCED beyond");
    bad("SYNCED beyond the head", State::ServerOpen, synced(1 << 40), "SYNCED beyond");
    bad("SYNCED to a client that was not asked", State::ClientOpen, synced(0), "SYNCED beyond");
}

fn pushing(all: &mut Vec<BadFrame>) {
    let mut bad = |name: &str, state: State, bytes: Vec<u8>, words: &'static str| {
        let expect = Expect::Refused(Code::UNEXPECTED, words);
        all.push(BadFrame { name: name.to_owned(), state, bytes, expect });
    };
    let one = [vec![1, 1], entity(1), field(1, "title")].concat();
    let whole = |heard: u8| [vec![9, 0, heard, 5], slice(&one), slice(&edit(7, 1000)), vec![0xf6]].concat();
    bad("PUSH to a server that judges nothing", State::ServerOpen, whole(0), "judges nothing");
    bad("PUSH to a client", State::ClientOpen, whole(0), "judges nothing");
    bad("PUSH to a client that pushes itself", State::ClientPushed, whole(0), "judges nothing");
    bad("PUSH without edits to a client", State::ClientQuiet, push(0), "judges nothing");
    bad(
        "PUSH that has heard an answer that was not given",
        State::AuthorityOpen,
        whole(1),
        "heard more answers",
    );
    bad("PUSH that has heard 100 answers", State::AuthorityOpen, whole(100), "heard more answers");
    bad(
        "PUSH without edits that has heard 2^64 - 1 answers",
        State::AuthorityOpen,
        push(u64::MAX),
        "heard more answers",
    );
    for state in [State::AuthorityOpen, State::ServerOpen, State::ClientOpen, State::ClientQuiet] {
        bad(&format!("ACK of nothing, {state:?}"), state, ack(None), "ACK of nothing");
    }
    let of = |index| Exception { index, code: Some(Code::RANK), message: "no".into(), spot: None };
    bad("ACK of an edit that was not pushed", State::ClientPushed, ack(Some(of(1))), "not pushed");
    bad("ACK of edit 2^32 - 1", State::ClientPushed, ack(Some(of(u32::MAX))), "not pushed");
    let known = Position { incarnation: Incarnation(90), seq: 1 };
    bad("RESET to a client", State::ClientOpen, reset(Position::default()), "RESET from a server");
    bad("RESET to a client of an authority", State::ClientPushed, reset(known), "RESET from a server");
    bad("a second RESET", State::AuthorityUpload, reset(Position::default()), "a second RESET");
    bad(
        "a second RESET after the upload",
        State::AuthorityUploaded,
        reset(Position::default()),
        "a second RESET",
    );
}
