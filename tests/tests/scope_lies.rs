//! Accounts that reach for what is another's, with frames that no device would send: they read nothing of it and write
//! nothing to it, and the hub serves the other meanwhile.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use rivus::{Access, Connection, Db, Hub, HubOptions, Remote, Shown, Value};
use rivus_core::address;
use rivus_core::code::Code;
use rivus_core::wire::{Frame, Scoped, tag};
use rivus_tests::hostile::{greet_of, push_note, schema_of_lists, scoped, subscribe};
use tokio_tungstenite::tungstenite::Message;

/// The id of his note.
const BOBS: &str = "a note of bob";
const SECRET: &str = "what bob has written";
const OWN: &str = "what ann has written";

fn open() -> Db {
    Db::memory(schema_of_lists().unwrap()).unwrap()
}

fn title(of: &Db, id: &str) -> Option<Value> {
    match of.view("note", id).unwrap()?.fields.remove("title") {
        Some(Shown::Value(value)) => Some(value),
        _ => None,
    }
}

/// A hub of two accounts, each with a scope of its own, and a device of the second.
struct Scene {
    hub: Db,
    served: Hub,
    bob: Db,
    connection: Connection,
    /// Under which ids ann connects next.
    n: u64,
    /// How many times it was seen that the other is served.
    turns: i64,
}

impl Scene {
    async fn new() -> Self {
        let hub = open();
        for (id, list, title) in [("a1", "a", OWN), ("a2", "a", OWN), (BOBS, "b", SECRET), ("0", "", SECRET)]
        {
            hub.put("note", id, [("list", list.into()), ("title", title.into())]).unwrap();
        }
        let options = HubOptions::closed().grant_as("ann", "ann", 0).grant_as("bob", "bob", 0);
        let options = options.authorizer(|subject, access, scope| {
            matches!(access, Access::Read | Access::Write)
                && [("ann", "a"), ("bob", "b")].contains(&(subject, scope))
        });
        let served = hub.serve("127.0.0.1:0", options).await.unwrap();
        let bob = open();
        let connection = bob.connect(Remote::new(served.url()).token("bob").scopes(["b"]));
        let mut scene = Self { hub, served, bob, connection, n: 700, turns: 0 };
        scene.serves_the_other().await;
        assert_eq!(title(&scene.bob, BOBS), Some(SECRET.into()));
        scene
    }

    /// What the hub sends to ann when she sends these, up to what it says to an honest question that comes behind them, or
    /// to the end; without envelopes.
    async fn told(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let schema = schema_of_lists().unwrap();
        let mut socket = greet_of(&self.served.url(), Some("ann"), self.n, &schema).await.unwrap();
        self.n += 1;
        // All that is due goes before the answer to this.
        let honest = Frame::Fetch(vec![("note".to_owned(), "a2".to_owned())]).encode();
        for frame in frames.iter().chain([&honest]) {
            // It may have been ended by now.
            let _ = socket.send(Message::Binary(frame.clone().into())).await;
        }
        let mut told = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            let Message::Binary(bytes) = message else { continue };
            let is_named = frames.iter().any(|sent| has(sent, BOBS));
            assert!(!has(&bytes, SECRET) && (is_named || !has(&bytes, BOBS)), "in {bytes:?} after {told:?}");
            let is_last = tag_of(&bytes) == tag::FETCHED && has(&bytes, OWN);
            told.push(match tag_of(&bytes) {
                tag::SCOPED => Scoped::decode(&bytes).unwrap().frame.to_vec(),
                _ => bytes.to_vec(),
            });
            if is_last {
                break;
            }
        }
        assert!(told.first().is_some_and(|first| tag_of(first) == tag::WELCOME), "{told:?}");
        self.serves_the_other().await;
        told
    }

    /// It ends with this code.
    async fn ends(&mut self, frames: &[Vec<u8>], code: Code) {
        let told = self.told(frames).await;
        let last = told.last().map(|last| Frame::decode(last).unwrap());
        assert!(matches!(&last, Some(Frame::Goaway { code: given, .. }) if *given == code), "{last:?}");
        assert!(told.iter().all(|frame| tag_of(frame) != tag::DELTA));
    }

    /// It goes on, and what was asked for in the first slot is denied.
    async fn denies(&mut self, frames: &[Vec<u8>]) {
        let told = self.told(frames).await;
        assert!(told.contains(&Frame::Denied { slot: 1 }.encode()), "{told:?}");
        assert!(told.iter().all(|frame| ![tag::DELTA, tag::SKETCH, tag::REPAIR].contains(&tag_of(frame))));
        assert!(told.last().is_some_and(|last| has(last, OWN)), "honest questions are answered");
    }

    /// What is answered to an edit of a note: nothing, if it is accepted.
    async fn verdict(&mut self, id: &str, writes: &[(Vec<u8>, Value)]) -> Option<Code> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let push = push_note(self.n, u64::try_from(now).unwrap(), id, writes);
        let told = self.told(&[push]).await;
        let acks = told.iter().filter_map(|frame| match Frame::decode(frame) {
            Ok(Frame::Ack(ack)) => Some(ack),
            _ => None,
        });
        let acks: Vec<_> = acks.collect();
        let [ack] = acks.as_slice() else { panic!("{told:?}") };
        ack.exceptions.first().map(|exception| exception.code.unwrap())
    }

    /// Edits go from the other account's device to the hub and back, and nothing else has changed for it.
    async fn serves_the_other(&mut self) {
        self.turns += 1;
        let turn = Value::from(self.turns);
        self.bob.put("note", "from bob", [("list", "b".into()), ("title", turn.clone())]).unwrap();
        self.hub.put("note", "to bob", [("list", "b".into()), ("title", turn.clone())]).unwrap();
        let mut changes = self.bob.subscribe();
        while title(&self.bob, "to bob") != Some(turn.clone()) {
            changes.next().await.unwrap().unwrap();
        }
        self.connection.synced().await.unwrap();
        assert_eq!(title(&self.hub, "from bob"), Some(turn));
        let ids = |of: &Db| of.views("note").unwrap().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(&self.bob), [BOBS, "from bob", "to bob"]);
        for of in [&self.bob, &self.hub] {
            assert_eq!(title(of, BOBS), Some(SECRET.into()));
        }
    }
}

fn tag_of(frame: &[u8]) -> u8 {
    *frame.first().unwrap()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

fn ask_sketch() -> Vec<u8> {
    Frame::AskSketch { count: 64 }.encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_scope_is_read_however_it_is_asked_for() {
    let mut scene = Scene::new().await;
    let of = |scope: &str| scoped(1, scope, &subscribe());
    // What is one's own is told, so that what is not would be seen.
    let told = scene.told(&[of("a")]).await;
    assert!(told.iter().any(|frame| frame[0] == tag::DELTA && has(frame, OWN)), "{told:?}");

    scene.ends(&[subscribe()], Code::SCOPE).await;
    scene.denies(&[of("b")]).await;
    scene.denies(&[of("")]).await;
    scene.denies(&[of("no such scope")]).await;
    scene.ends(&[of("b"), of("b"), scoped(2, "b", &subscribe()), subscribe()], Code::SCOPE).await;
    let told = scene.told(&[of("a"), of("b")]).await;
    let last = told.last().map(|last| Frame::decode(last).unwrap());
    assert!(matches!(last, Some(Frame::Goaway { .. })), "another scope in the same slot: {last:?}");

    // Who asks for an entity is told as little as who asks for one that there is not.
    let fetch = |id: &str| Frame::Fetch(vec![("note".to_owned(), id.to_owned())]).encode();
    let mut answers = Vec::new();
    for id in [BOBS, "another"] {
        let told = scene.told(&[fetch(id)]).await;
        let fetched: Vec<_> = told.into_iter().filter(|frame| frame[0] == tag::FETCHED).collect();
        assert!(fetched.last().is_some_and(|last| has(last, OWN)));
        answers.push(fetched);
    }
    assert_eq!(answers[0], answers[1]);

    let told = scene.told(&[ask_sketch()]).await;
    assert!(told.iter().all(|frame| frame[0] != tag::SKETCH), "{told:?}");
    scene.denies(&[of("b"), scoped(1, "", &ask_sketch())]).await;
    let told = scene.told(&[of("a"), scoped(1, "", &ask_sketch())]).await;
    let sketch = told.iter().find_map(|frame| match Frame::decode(frame) {
        Ok(Frame::Sketch(symbols)) => Some(symbols),
        _ => None,
    });
    let mut own = 0;
    for id in ["a1", "a2"] {
        scene.hub.registers("note", id, |_, _| own += 1).unwrap();
    }
    assert_eq!(sketch.unwrap()[0].count, own, "every key falls on the first symbol");
    scene.served.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_into_another_scope_nor_moved_out_of_it() {
    let mut scene = Scene::new().await;
    let (list, title_of) = (address::field("list"), address::field("title"));
    let in_list = |name: &str| (list.clone(), Value::from(name));
    let lie = || (title_of.clone(), Value::from("a lie"));
    let gone = || (address::LIFE.to_vec(), Value::from(false));
    let before = scene.hub.views("note").unwrap().len();
    for (what, id, writes) in [
        ("a new one there", "x1", vec![in_list("b"), lie()]),
        ("a new one in no scope", "x2", vec![lie()]),
        ("one that is there", BOBS, vec![lie()]),
        ("one that is there, under its own name", BOBS, vec![in_list("b"), lie()]),
        ("one that is in no scope", "0", vec![lie()]),
        ("a deletion there", BOBS, vec![gone()]),
        ("a move there", "a1", vec![in_list("b")]),
        ("a move there, with a change", "a1", vec![in_list("b"), lie()]),
        ("a move out of it", BOBS, vec![in_list("a")]),
        ("a move out of it, with a change", BOBS, vec![in_list("a"), lie()]),
        ("a move where nobody looks", BOBS, vec![in_list("")]),
    ] {
        assert_eq!(scene.verdict(id, &writes).await, Some(Code::SCOPE), "{what}");
        for id in ["a1", "a2"] {
            assert_eq!(title(&scene.hub, id), Some(OWN.into()), "{what}");
        }
        assert_eq!(title(&scene.hub, "0"), Some(SECRET.into()), "{what}");
    }
    assert_eq!(scene.hub.views("note").unwrap().len(), before);
    // The same frames about what is one's own are accepted.
    assert_eq!(scene.verdict("x1", &[in_list("a"), lie()]).await, None);
    assert_eq!(scene.verdict("a1", &[lie()]).await, None);
    assert_eq!(scene.verdict("a2", &[gone()]).await, None);
    assert_eq!(
        (title(&scene.hub, "x1"), title(&scene.hub, "a1")),
        (Some("a lie".into()), Some("a lie".into()))
    );
    scene.served.shutdown().await;
}
