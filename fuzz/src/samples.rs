//! Good inputs to damage: what real replicas store and say to one another.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use rivus_core::address;
use rivus_core::clock::{Admission, Millis, Stamp};
use rivus_core::edit::{Action, Op};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::register::{Candidate, Register};
use rivus_core::replica::{Incoming, OpenOptions, Replica, Trust};
use rivus_core::row::{Change, Entry, Row};
use rivus_core::schema::{KindBuilder, Life, Margin, Resolver, Schema};
use rivus_core::session::{Grants, Role, Session, SessionOptions, Want};
use rivus_core::store::{MemoryStore, Store};
use rivus_core::value::Value;
use rivus_core::wire::page::{PageHeader, RowEncoder};
use rivus_core::wire::{Frame, tag};
use rivus_testkit::bad_frames::{self, State};

/// The time at which everything happens.
pub const NOW: Millis = Millis(1_700_000_000_000);

/// A kind with a field of each type.
#[must_use]
pub fn schema() -> Arc<Schema> {
    let task = |k: KindBuilder| {
        k.life(Life::EditRevives)
            .open()
            .value("title")
            .value_with("owner", Margin::Ms(5000), Resolver::Rank)
            .multi("notes")
            .set("tags")
            .map("labels")
            .counter("views")
            .max("best")
            .value("start")
            .value("stop")
            .group("span", ["start", "stop"])
    };
    Arc::new(
        Schema::builder()
            .kind("task", task)
            .kind("draft", |k| k.value("title"))
            .build()
            .expect("it is sound"),
    )
}

/// An empty replica.
#[must_use]
pub fn replica(n: u64) -> Replica<MemoryStore> {
    let replica = ReplicaId::from_u128(u128::from(n));
    let seeds = Seeds { store: StoreId(n), replica, incarnation: Incarnation(n) };
    let admission = Admission::Quarantine { drift_ms_max: 60_000 };
    let options = OpenOptions { seeds, slot: 0, admission, rank: 0 };
    Replica::open(MemoryStore::new(), schema(), options).expect("memory does not fail")
}

/// A replica that judges, with some content.
#[must_use]
pub fn hub() -> Replica<MemoryStore> {
    let mut hub = replica(9);
    hub.serve_as_authority().expect("it has no other role");
    edit(&mut hub, "shared", 1);
    hub
}

/// Writes a field of each type.
pub fn edit(replica: &mut Replica<MemoryStore>, id: &str, n: i64) {
    let text = |text: &str| text.to_owned();
    let fields = ["title", "owner", "notes", "best", "start", "undeclared"];
    let fields = fields.map(|field| (text(field), Value::List(vec![Value::from(n), Value::from("text")])));
    let actions = [
        Action::Put(fields.to_vec()),
        Action::Add { field: text("tags"), key: format!("tag {n}") },
        Action::SetKey {
            field: text("labels"),
            key: text("key"),
            value: Value::Unknown { tag: 60_000, bytes: vec![1] },
        },
        Action::Inc { field: text("views"), by: n },
    ];
    let ops: Vec<_> = actions.into_iter().map(|action| Op::new("task", id, action)).collect();
    replica.edit(NOW, &ops).expect("the edit is sound");
}

/// A session of either role.
#[must_use]
pub fn session(role: Role) -> Session {
    let seeds = Seeds {
        store: StoreId(0xaaaa),
        replica: ReplicaId::from_u128(0xaaaa),
        incarnation: Incarnation(0xaaaa),
    };
    Session::new(SessionOptions { role, want: Want::Live, offers: true, seeds, capabilities: 0 })
}

/// The client's role.
#[must_use]
pub fn client() -> Role {
    Role::Client { token: None }
}

/// The server's role.
#[must_use]
pub fn server() -> Role {
    Role::server(Grants::everybody())
}

/// What a client and a server say to each other: frames of both.
#[must_use]
pub fn conversation(judged: bool) -> [Vec<Vec<u8>>; 2] {
    let (mut a, mut b) = (replica(1), if judged { hub() } else { replica(2) });
    edit(&mut a, "shared", 5);
    meet(&mut a, &mut b)
}

/// The same where the server holds registers that no page brings to the client: the digests tell.
#[must_use]
pub fn mending(judged: bool) -> [Vec<Vec<u8>>; 2] {
    let (mut a, mut b) = (replica(1), if judged { hub() } else { replica(2) });
    talk(&mut a, &mut b, 0);
    let stamp = Stamp { generation: 0, time: 9, replica: ReplicaId::from_u128(3) };
    let register = Register::plain(Candidate { stamp, rank: 0, saw: None, value: &[0xf5] });
    let changes = vec![(address::field("lost").into(), Change::Join { register, source: Some(StoreId(1)) })];
    let lost = [Incoming { kind: "task".into(), id: "shared".into(), changes }];
    b.join(NOW, &lost, None, Trust::Authority, None).expect("memory does not fail");
    let said = talk(&mut a, &mut b, 0);
    assert!(
        said.iter().flatten().any(|frame| frame.first() == Some(&tag::REPAIR)),
        "registers are exchanged"
    );
    said
}

/// What a client that follows scopes by name and a hub say to each other.
#[must_use]
pub fn by_name() -> [Vec<Vec<u8>>; 2] {
    let (mut a, mut b) = (replica(1), hub());
    edit(&mut a, "shared", 5);
    let mut session = session(client());
    follow(&mut session);
    let said = talk_in(session, &mut a, &mut b, 3);
    let scoped = |frames: &Vec<Vec<u8>>| frames.iter().any(|frame| frame.first() == Some(&tag::SCOPED));
    assert!(said.iter().all(scoped), "both speak of scopes");
    said
}

/// Has a client follow two scopes, one of which holds everything that the samples write.
pub fn follow(session: &mut Session) {
    session.follow_scopes(["".to_owned(), "a".to_owned()]).expect("two are not too many");
}

fn meet(a: &mut Replica<MemoryStore>, b: &mut Replica<MemoryStore>) -> [Vec<Vec<u8>>; 2] {
    talk(a, b, 6)
}

/// Eight rounds, after the first of which both edit.
fn talk(a: &mut Replica<MemoryStore>, b: &mut Replica<MemoryStore>, edits: i64) -> [Vec<Vec<u8>>; 2] {
    talk_in(session(client()), a, b, edits)
}

fn talk_in(
    mut s: Session,
    a: &mut Replica<MemoryStore>,
    b: &mut Replica<MemoryStore>,
    edits: i64,
) -> [Vec<Vec<u8>>; 2] {
    let mut t = session(server());
    let mut said = [Vec::new(), Vec::new()];
    for round in 0..8 {
        while let Some(frame) = s.poll_transmit(a, NOW).expect("honest ends do not fail") {
            t.handle(b, &frame, NOW).expect("honest frames are taken");
            said[0].push(frame);
        }
        while let Some(frame) = t.poll_transmit(b, NOW).expect("honest ends do not fail") {
            s.handle(a, &frame, NOW).expect("honest frames are taken");
            said[1].push(frame);
        }
        if round < edits {
            edit(a, "mine", round);
            edit(b, "yours", round);
        }
        t.handle_quiet();
        s.handle_quiet();
    }
    said
}

/// A page of a register of each form.
#[must_use]
pub fn page() -> &'static [u8] {
    static PAGE: OnceLock<Vec<u8>> = OnceLock::new();
    PAGE.get_or_init(new_page)
}

fn new_page() -> Vec<u8> {
    let rows = rows();
    let longest = rows.iter().max_by_key(|row| row.len());
    longest.map_or_else(Vec::new, |bytes| {
        let row = Row::new(bytes, 1).expect("the sample is a row");
        let states: Vec<_> = row.entries().map(|entry| entry.expect("the sample is a row")).collect();
        let registers: Vec<_> = states.iter().map(|entry| (entry.address, confirmed(entry))).collect();
        let mut encoder = RowEncoder::default();
        encoder.entity("task", "shared", registers.iter().map(|(address, register)| (*address, register)));
        let incarnation = Some(Incarnation(5));
        encoder.finish_page(PageHeader { at: 9, more: false, incarnation, start: true, checkpoint: false })
    })
}

fn confirmed<'a>(entry: &Entry<'a>) -> Register<'a> {
    let state = entry.state().expect("the sample is a row");
    state.confirmed().unwrap_or(&state.shown).clone()
}

/// Stored rows, with pending edits among them.
#[must_use]
pub fn rows() -> Vec<Vec<u8>> {
    let (mut a, mut b) = (replica(1), replica(2));
    edit(&mut a, "shared", 1);
    edit(&mut b, "shared", 7);
    meet(&mut a, &mut b);
    a.meet_authority(StoreId(9), 3).expect("it has no other role");
    edit(&mut a, "shared", 2);
    edit(&mut a, "pending", 3);
    let mut rows = Vec::new();
    a.store()
        .changes(0, &mut |row| {
            rows.push(row.bytes.to_vec());
            ControlFlow::Continue(())
        })
        .expect("memory does not fail");
    rows
}

/// Every frame of both conversations.
#[must_use]
pub fn frames() -> Vec<Vec<u8>> {
    let both = [true, false];
    let talks = both.into_iter().flat_map(conversation).chain(both.into_iter().flat_map(mending));
    let mut frames: Vec<_> = talks.chain(by_name()).flatten().collect();
    frames.push(Frame::Left(vec![("task".to_owned(), "shared".to_owned())]).encode());
    frames.push(page().to_vec());
    assert!(frames.iter().any(|frame| frame.first() == Some(&tag::PUSH)), "a push is among them");
    frames
}

/// Conversations in the form that [`crate::session`] takes, as either end hears them.
#[must_use]
pub fn heard() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let both = [(true, 0), (false, 1)];
    let talks = both.map(|(judged, mode)| (conversation(judged), mode));
    let mending = both.map(|(judged, mode)| (mending(judged), mode));
    for ([to_server, to_client], mode) in talks.into_iter().chain(mending).chain([(by_name(), 4)]) {
        for (frames, role) in [(to_server, 0), (to_client, 2)] {
            let mut data = vec![mode | role];
            for frame in frames {
                let len = u16::try_from(frame.len()).expect("sample frames are short");
                data.extend_from_slice(&len.to_be_bytes());
                data.extend_from_slice(&frame);
            }
            all.push(data);
        }
    }
    all
}

/// Sound and bad frames in the form that [`crate::session`] takes, one for each error in each state.
fn told() -> Vec<Vec<u8>> {
    let mut known = BTreeSet::new();
    let bad = bad_frames::all().into_iter().filter(|bad| {
        // In each state, one of each kind of fault, roughly: of each type and error.
        known.insert((bad.state, bad.bytes.first().copied(), format!("{:?}", bad.expect)))
    });
    let good = bad_frames::good().into_iter().map(|(_, state, bytes)| (state, bytes));
    let all = good.chain(bad.map(|bad| (bad.state, bad.bytes)));
    all.filter(|(_, frame)| frame.len() < 1000)
        .map(|(state, frame)| {
            let number = State::ALL.iter().position(|each| *each == state).expect("all are there");
            let len = u16::try_from(frame.len()).expect("only short ones");
            [&[0x80 | u8::try_from(number).expect("few states")], &len.to_be_bytes()[..], &frame].concat()
        })
        .collect()
}

fn values() -> Vec<Value> {
    let fields =
        [Value::Null, Value::from(-5), Value::from(1.5), Value::from("text"), Value::Bytes(vec![0; 30])];
    let map = Value::Map(fields.iter().map(|value| (format!("{value:?}"), value.clone())).collect());
    let unknown = Value::Unknown { tag: 60_000, bytes: vec![1, 2] };
    vec![map, Value::List(fields.to_vec()), unknown, Value::from(f64::NAN), Value::from(i64::MIN)]
}

const TOML: &str = r#"
open = true
[kinds.task]
life = "edit-revives"
open = true
[kinds.task.fields]
title = {}
owner = { margin_ms = 5000, resolver = "rank" }
tags = { type = "set" }
views = { type = "counter" }
[kinds.task.groups]
span = ["start", "stop"]
"#;

const SCRIPT: &str = r#"{"rivus":"replay/1","schema":{"kinds":{"task":{"life":"delete-wins","open":true,"fields":{"title":{},"owner":{"margin_ms":5000,"resolver":"rank"},"score":{"margin_ms":"inf","resolver":"max"},"tags":{"type":"set"},"labels":{"type":"map"},"views":{"type":"counter"}}}}}}
{"do":"replica","name":"a","rank":0}
{"do":"replica","name":"hub","rank":9}
{"do":"put","on":"a","at":1000,"kind":"task","id":"t1","set":{"title":"x","owner":null}}
{"do":"add","on":"a","at":1001,"kind":"task","id":"t1","field":"tags","key":"red"}
{"do":"set_key","on":"a","at":1001,"kind":"task","id":"t1","field":"labels","key":"k","value":{"$f64":"NaN"}}
{"do":"remove","on":"a","at":1002,"kind":"task","id":"t1","field":"tags","key":"red"}
{"do":"inc","on":"a","at":1003,"kind":"task","id":"t1","field":"views","by":2}
{"do":"delete","on":"a","at":1004,"kind":"task","id":"t1"}
{"do":"revive","on":"a","at":1005,"kind":"task","id":"t1"}
{"do":"sync","from":"a","to":"hub"}
{"do":"sync","between":["a","hub"]}
{"do":"restart","on":"a"}
{"do":"show","on":"a"}
{"do":"converge"}
"#;

/// Import files, each after a byte of options.
const FILES: [(u8, &str); 6] = [
    (4, r#"[{"id":"t1","title":"x","n":[1,2.5,null,{"$bytes":"AAEC"}]},{"id":7,"title":null}]"#),
    (0, r#"{"task":{"t1":{"title":"x"},"t2":{}},"note":{"n":{"text":"y"}}}"#),
    (0, r#"[{"kind":"task","id":"t1","fields":{"title":"x","big":{"$map":{"$f64":1}}}}]"#),
    (5, "{\"id\":\"t1\",\"title\":\"x\"}\n\n{\"title\":\"y\",\"deep\":[[[[{}]]]]}\n"),
    (18, "id,title,n\nt1,x,1\nt2,\"a \"\"b\"\"\",\n"),
    (10, "\u{feff}key,title\r\nt1,\"two\nlines\"\r\n"),
];

/// The samples of a target.
///
/// # Panics
/// If there is no such target.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let text = |text: &str| vec![text.as_bytes().to_vec()];
    // Operations on stores and states of registers are any bytes: a few long ones to begin with.
    let noise = |len: usize| {
        let mut random = rivus_testkit::random::Random::new(7);
        (0..6).map(|_| (0..len).map(|_| random.next_u64().to_be_bytes()[0]).collect()).collect()
    };
    match target {
        "frame_decode" => frames(),
        "import_file" => FILES.iter().map(|(mode, text)| [&[*mode], text.as_bytes()].concat()).collect(),
        "replay_script" => text(SCRIPT),
        "row" => rows(),
        "schema_json" => text(&schema().to_json()),
        "schema_toml" => text(TOML),
        "session" => [heard(), told()].concat(),
        "store_memory" | "store_sqlite" => noise(300),
        "register_join" | "user_merge" => noise(40),
        "value_decode" => values().iter().map(Value::to_bytes).collect(),
        "value_json" => {
            let json = |value: &Value| serde_json::to_vec(&rivus_core::value::Json(value));
            values().iter().map(|value| json(value).expect("every value has a JSON form")).collect()
        }
        other => panic!("there is no target {other}"),
    }
}
