//! Two writers of one store.

use super::verdicts::{HUB, Line, assert_equal, hub, ranked};
use super::*;
use crate::code::Code;
use crate::register::{Candidate, Reach};
use crate::session::pair::{End, run};
use crate::session::{Grants, Role, Session, SessionError, SessionEvent, SessionOptions, Want};
use crate::store::Chunk;

/// A store that several replicas in this process have open, as several processes have one file.
#[derive(Clone)]
struct Shared {
    store: Rc<RefCell<MemoryStore>>,
    commits: Rc<Cell<i64>>,
    own: i64,
    /// Runs once, before the next commit of this handle.
    meanwhile: Meanwhile,
    /// Runs once, before this handle next asks for others' commits.
    before_others: Meanwhile,
    /// Runs once, after this handle has next asked for others' commits.
    after_others: Meanwhile,
}

type Meanwhile = Rc<RefCell<Option<Box<dyn FnOnce()>>>>;

impl Shared {
    fn new() -> Self {
        let (store, commits, meanwhile, before_others, after_others) = Default::default();
        Self { store, commits, own: 0, meanwhile, before_others, after_others }
    }

    fn handle(&self) -> Self {
        let hooks = Self::new();
        Self { own: 0, store: Rc::clone(&self.store), commits: Rc::clone(&self.commits), ..hooks }
    }

    fn open(&self, n: u64, slot: u32) -> Replica<Self> {
        let options = OpenOptions { seeds: seeds(n), slot, admission: Admission::Off, rank: 0 };
        Replica::open(self.handle(), schema(), options).unwrap()
    }
}

macro_rules! shared {
    ($self:expr, $store:ident => $do:expr) => {{
        let $store = $self.store.borrow();
        $do
    }};
}

impl Store for Shared {
    crate::forward_reads!(shared);

    fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError> {
        let store = self.store.borrow();
        let found = store.load(kind, id, address)?;
        Ok(found.map(|chunk| Chunk {
            start: chunk.start.into_owned().into(),
            seq: chunk.seq,
            place: chunk.place,
            bytes: chunk.bytes.into_owned().into(),
        }))
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError> {
        let meanwhile = self.meanwhile.borrow_mut().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let seq = self.store.borrow_mut().commit(batch)?;
        self.own += 1;
        self.commits.set(self.commits.get() + 1);
        Ok(seq)
    }

    fn others(&self) -> Result<Option<i64>, StoreError> {
        let meanwhile = self.before_others.borrow_mut().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let others = self.commits.get() - self.own;
        let meanwhile = self.after_others.borrow_mut().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        Ok(Some(others))
    }
}

/// Lets `other` do something between what `replica` reads next and its commit.
fn meanwhile(
    replica: &Replica<Shared>,
    other: &Rc<RefCell<Replica<Shared>>>,
    what: impl FnOnce(&mut Replica<Shared>) + 'static,
) {
    let other = Rc::clone(other);
    *replica.store().meanwhile.borrow_mut() = Some(Box::new(move || what(&mut other.borrow_mut())));
}

fn must(edited: Edited) {
    assert_ne!(edited, Edited::Nothing);
}

fn two() -> (Replica<Shared>, Rc<RefCell<Replica<Shared>>>) {
    let store = Shared::new();
    let a = store.open(1, 0);
    let b = store.open(2, 1);
    assert_ne!(a.id(), b.id());
    assert_eq!(a.identity().store, b.identity().store);
    (a, Rc::new(RefCell::new(b)))
}

#[test]
fn an_edit_that_another_writer_overtook_runs_again_on_what_is_there_now() {
    let (mut a, b) = two();
    act(&mut a, 1000, inc("views", 1));
    meanwhile(&a, &b, |b| must(act(b, 1000, inc("views", 10))));
    act(&mut a, 1000, inc("views", 100));
    assert_eq!(shows(&a, "views"), Some(Shown::Counter(111)));
    meanwhile(&a, &b, |b| must(act(b, 9000, field("title", "b, later by the clock"))));
    let mut runs = 0;
    let edit = |tx: &mut Tx<'_, Shared>| {
        runs += 1;
        let before = tx.view("task", "t")?.and_then(|mut view| view.fields.remove("title"));
        tx.apply(&Op::new("task", "t", field("title", "a")))?;
        Ok(before)
    };
    let (before, _) = a.transact(Millis(1000), Force::No, edit).unwrap();
    assert_eq!((runs, before), (2, value("b, later by the clock")));
    assert_eq!(shows(&a, "title"), value("a"), "it has seen b's and replaces it");
    assert_eq!(a.head().unwrap().digest, a.recompute_digest().unwrap());
}

#[test]
fn pages_and_edits_of_two_writers_interleave_and_lose_nothing() {
    let (mut a, b) = two();
    let mut elsewhere = device(3);
    for n in 0..20 {
        act(&mut elsewhere, 1000 + n, inc("views", 1));
        act(&mut elsewhere, 1000 + n, add("tags", &format!("elsewhere {n}")));
        let tag = format!("b {n}");
        meanwhile(&a, &b, move |b| {
            act(b, 1000 + n, add("tags", &tag));
            act(b, 1000, inc("views", 1000));
        });
        give(&elsewhere, &mut a);
        let tag = format!("b again {n}");
        meanwhile(&a, &b, move |b| must(act(b, 1000 + n, add("tags", &tag))));
        act(&mut a, 1000 + n, add("tags", &format!("a {n}")));
        act(&mut a, 1000 + n, inc("views", 1_000_000));
    }
    for replica in [&a, &*b.borrow()] {
        let Some(Shown::Set(tags)) = shows(replica, "tags") else { panic!("no tags") };
        assert_eq!(tags.len(), 80);
        assert_eq!(shows(replica, "views"), Some(Shown::Counter(20_020_020)));
        assert_eq!(replica.head().unwrap().digest, replica.recompute_digest().unwrap());
    }
    exchange(&mut a, &mut elsewhere);
}

#[test]
fn seqs_are_one_each_and_in_the_order_of_commits() {
    let (mut a, b) = two();
    let mut seqs = Vec::new();
    for n in 0..10 {
        for replica in [&mut a, &mut *b.borrow_mut()] {
            let Edited::Committed { seq, .. } = act(replica, 1000, inc("views", n)) else { panic!() };
            seqs.push(seq);
        }
    }
    assert_eq!(seqs, (1..=20).collect::<Vec<u64>>());
    assert_eq!(a.head().unwrap().incarnations, [(Incarnation(1000), 1), (Incarnation(2000), 2)]);
}

#[test]
fn each_slot_keeps_its_id_and_an_authority_met_by_one_is_known_to_both() {
    let store = Shared::new();
    let mut a = store.open(1, 0);
    let mut b = store.open(2, 1);
    let (id_a, id_b) = (a.id(), b.id());
    a.meet_authority(StoreId(9), 0).unwrap();
    act(&mut b, 1000, field("title", "x"));
    assert_eq!(b.pending_count().unwrap(), 1, "an edit of either waits for the authority");
    drop((a, b));
    assert_eq!((store.open(3, 0).id(), store.open(4, 1).id()), (id_a, id_b));
    assert_eq!(store.open(4, 1).identity().replicas.len(), 2);
}

#[test]
fn what_another_writer_does_to_the_identity_during_an_opening_is_seen() {
    let store = Shared::new();
    let mut a = store.open(1, 0);
    let (handle, other) = (store.handle(), store.clone());
    drop(store.open(2, 1));
    *handle.before_others.borrow_mut() = Some(Box::new(move || {
        other.open(1, 0).meet_authority(StoreId(9), 0).unwrap();
    }));
    let options = OpenOptions { seeds: seeds(2), slot: 1, admission: Admission::Off, rank: 0 };
    let mut b = Replica::open(handle, schema(), options).unwrap();
    must(act(&mut b, 1000, field("title", "x")));
    act(&mut a, 1000, field("title", "y"));
    assert_eq!(b.pending_count().unwrap(), 2);
}

/// Both ends of a connection that stays up.
fn connection(want: Want) -> (Session, Session) {
    let session = |role| {
        let seeds = seeds(777);
        Session::new(SessionOptions { role, want, offers: true, seeds, capabilities: 0 })
    };
    let (client, server) = (Role::Client { token: None }, Role::server(Grants::everybody()));
    (session(client), session(server))
}

/// Both processes are connected. What one of them pushed is at the hub, its verdict not here yet: the other may
/// compare no digests.
#[test]
fn an_edit_that_another_process_pushed_is_no_divergence_while_it_lacks_a_verdict() {
    let now = Millis(100_000);
    let (mut a, b) = two();
    let mut b = b.borrow_mut();
    let mut hub = device(9);
    hub.serve_as_authority().unwrap();
    let (mut of_a, mut of_b) = (connection(Want::Live), connection(Want::Live));
    for (replica, (client, server)) in [(&mut a, &mut of_a), (&mut *b, &mut of_b)] {
        act(replica, 1000, inc("views", 1));
        let mut one = End { replica, session: client, now };
        run(&mut one, &mut End { replica: &mut hub, session: server, now }, usize::MAX).unwrap();
    }
    act(&mut b, 2000, field("title", "x"));
    let push = of_b.0.poll_transmit(&mut b, now).unwrap().unwrap();
    of_b.1.handle(&mut hub, &push, now).unwrap();
    let verdict = of_b.1.poll_transmit(&mut hub, now).unwrap().unwrap();
    let mut hear = |a: &mut Replica<Shared>, hub: &mut Device| {
        for _ in 0..2 {
            while let Some(frame) = of_a.1.poll_transmit(hub, now).unwrap() {
                of_a.0.handle(a, &frame, now).unwrap();
            }
            of_a.1.handle_quiet();
        }
        of_a.0.poll_events().collect::<Vec<_>>()
    };
    let events = hear(&mut a, &mut hub);
    assert!(!events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. })), "{events:?}");
    of_b.0.handle(&mut b, &verdict, now).unwrap();
    let events = hear(&mut a, &mut hub);
    assert!(!events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. })), "{events:?}");
}

/// Two processes of a device that has met the hub.
fn two_met() -> (Replica<Shared>, Rc<RefCell<Replica<Shared>>>) {
    let (mut a, b) = two();
    a.meet_authority(HUB, 0).unwrap();
    (a, b)
}

/// The stamps of the pending edits, in order.
fn pending_stamps(replica: &Replica<Shared>) -> Vec<Stamp> {
    let mut stamps = Vec::new();
    let add = &mut |_, edit: Pending<'_>| {
        stamps.push(edit.header.stamp);
        ControlFlow::Continue(())
    };
    replica.pending(0, add).unwrap();
    stamps
}

#[test]
fn another_writers_edit_that_is_made_anew_keeps_its_author_and_counts_once() {
    let (mut a, b) = two_met();
    let (mut h, mut of_a, mut of_b) = (hub(), Line::default(), Line::default());
    ranked(&mut a, 1000, "t", field("title", "refused"));
    act(&mut b.borrow_mut(), 1001, inc("views", 5));
    let (keys, frame) = of_a.push(&a, 0, 9);
    let refusal = of_a.judge(&mut h, &a, &frame);
    // Meanwhile the other process gets its own edit accepted, and does not hear of it.
    let (_, frame) = of_b.push(&b.borrow(), keys[0].0, 9);
    assert_eq!(of_b.judge(&mut h, &b.borrow(), &frame).exceptions, []);
    let before = pending_stamps(&a)[1];
    of_a.answer(&mut a, keys, refusal);
    let [after] = pending_stamps(&a)[..] else { panic!("one edit is pending") };
    assert_eq!(after.replica, b.borrow().id(), "who counted it is who counts it now");
    assert!(after > before, "{after} is as new as {before}");
    assert_eq!(of_a.round(&mut a, &mut h), []);
    assert_eq!(shows(&h, "views"), Some(Shown::Counter(5)));
    let next = stamp_of(act(&mut b.borrow_mut(), 1001, inc("views", 1)));
    assert!(next > after, "its author goes on above it");
    assert_eq!(of_a.round(&mut a, &mut h), []);
    assert_eq!(shows(&h, "views"), Some(Shown::Counter(6)));
    assert_equal(&a, &h);
}

/// A refused edit by one, an edit by the other that rests on it, and the answer to both.
fn refusal() -> (Replica<Shared>, Rc<RefCell<Replica<Shared>>>, Line, Vec<(u64, Stamp)>, Verdicts) {
    let (mut a, b) = two_met();
    let (mut h, mut line) = (hub(), Line::default());
    ranked(&mut a, 1000, "t", field("title", "refused"));
    act(&mut b.borrow_mut(), 1001, inc("views", 5));
    let (keys, frame) = line.push(&a, 0, 9);
    let verdicts = line.judge(&mut h, &a, &frame);
    assert_eq!((verdicts.exceptions.len(), verdicts.seq), (2, 0));
    (a, b, line, keys, verdicts)
}

fn all_differ(stamps: &[Stamp]) {
    assert_eq!(stamps.iter().collect::<BTreeSet<_>>().len(), stamps.len(), "{stamps:?}");
}

#[test]
fn a_stamp_made_for_another_writer_is_not_one_that_it_uses_at_the_same_time() {
    // It edits while its other edit is made anew: at the same reading of the clock.
    let (mut a, b, mut line, keys, verdicts) = refusal();
    meanwhile(&a, &b, |b| must(on(b, 100_000, "task", "other", field("title", "x"))));
    line.answer(&mut a, keys, verdicts);
    let stamps = pending_stamps(&a);
    assert_eq!((stamps.len(), stamps.iter().all(|stamp| stamp.replica == b.borrow().id())), (2, true));
    all_differ(&stamps);

    // Its edit is made anew while it edits.
    let (a, b, mut line, keys, verdicts) = refusal();
    let a = Rc::new(RefCell::new(a));
    meanwhile(&b.borrow(), &a, move |a| line.answer(a, keys, verdicts));
    must(on(&mut *b.borrow_mut(), 100_000, "task", "other", field("title", "x")));
    let stamps = pending_stamps(&a.borrow());
    assert_eq!((stamps.len(), stamps.iter().all(|stamp| stamp.replica == b.borrow().id())), (2, true));
    all_differ(&stamps);
}

#[test]
fn an_answer_about_a_stamp_that_another_writer_has_replaced_leaves_the_edit_pending() {
    let (mut a, b, mut of_a, keys, refusal) = refusal();
    let (mut h, mut of_b) = (hub(), Line::default());
    let (of_both, frame) = of_b.push(&b.borrow(), keys[0].0, 9);
    let accepted = of_b.judge(&mut h, &b.borrow(), &frame);
    of_a.answer(&mut a, keys, refusal);
    of_b.answer(&mut b.borrow_mut(), of_both, accepted);
    assert_eq!(a.pending_count().unwrap(), 1, "what was accepted is not what is pending");
    assert_eq!(of_a.round(&mut a, &mut h), []);
    assert_equal(&b.borrow(), &h);
    assert_eq!(shows(&h, "views"), Some(Shown::Counter(5)));
}

#[test]
fn a_clock_that_one_writer_takes_back_is_taken_back_for_both() {
    let (mut a, b) = two_met();
    let (mut h, mut line) = (hub(), Line::default());
    act(&mut a, YEAR, field("title", "far ahead"));
    act(&mut b.borrow_mut(), YEAR, inc("views", 5));
    line.round(&mut a, &mut h);
    let stamp = stamp_of(act(&mut b.borrow_mut(), 1000, inc("views", 5)));
    assert!(stamp.time < ticks(200_000), "{stamp}");
    while a.pending_count().unwrap() > 0 {
        line.round(&mut a, &mut h);
    }
    assert_equal(&a, &h);
}

#[test]
fn a_copy_takes_new_ids_for_all_of_its_writers_and_once_only() {
    let (mut a, b) = two_met();
    let (id_a, id_b, store) = (a.id(), b.borrow().id(), a.identity().store);
    act(&mut a, 1000, inc("views", 1));
    act(&mut b.borrow_mut(), 1000, inc("views", 2));
    a.start_over(Millis(2000), seeds(77), store, 1).unwrap();
    let pending = pending_stamps(&a);
    b.borrow_mut().start_over(Millis(2000), seeds(78), store, 1).unwrap();
    assert_eq!(pending_stamps(&a), pending, "the other had heard of the same copy");
    act(&mut b.borrow_mut(), 2000, inc("views", 4));
    act(&mut a, 2000, inc("views", 8));
    let identity = a.identity();
    assert_eq!((identity.store, &*identity.former), (StoreId(77), &[id_a, id_b][..]));
    let ids: BTreeSet<_> = identity.all_replicas().collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(identity.replicas, [a.id(), b.borrow().id()]);
    assert_eq!(shows(&a, "views"), Some(Shown::Counter(15)));
}

/// One process has a connection up, over which a page is to come.
fn page_on_its_way() -> (Replica<Shared>, Rc<RefCell<Replica<Shared>>>, Device, Session, Vec<u8>) {
    let now = Millis(100_000);
    let ((mut a, b), mut other) = (two(), device(3));
    let (mut client, mut server) = connection(Want::Live);
    let mut one = End { replica: &mut a, session: &mut client, now };
    run(&mut one, &mut End { replica: &mut other, session: &mut server, now }, usize::MAX).unwrap();
    act(&mut other, 2000, field("title", "on its way"));
    let page = server.poll_transmit(&mut other, now).unwrap().unwrap();
    (a, b, other, client, page)
}

/// What both ends show once the process has connected anew.
fn connects_anew(a: &mut Replica<Shared>, other: &mut Device) {
    assert_eq!(a.identity().store, StoreId(77));
    assert_eq!(a.cursor(StoreId(3)).unwrap(), None, "a copy reads from zero");
    let now = Millis(100_000);
    let (mut client, mut server) = connection(Want::Live);
    let mut one = End { replica: a, session: &mut client, now };
    run(&mut one, &mut End { replica: other, session: &mut server, now }, usize::MAX).unwrap();
    assert_eq!(shows(a, "title"), value("on its way"));
    assert_equal(a, other);
}

#[test]
fn a_connection_ends_when_another_writer_has_given_the_store_new_ids() {
    let (mut a, b, mut other, mut client, page) = page_on_its_way();
    let store = a.identity().store;
    b.borrow_mut().start_over(Millis(2000), seeds(77), store, 0).unwrap();
    let ended = client.handle(&mut a, &page, Millis(100_000));
    assert!(matches!(ended, Err(SessionError::NewWriter)), "{ended:?}");
    assert!(!client.poll_events().any(|event| matches!(event, SessionEvent::Joined { registers: 1.., .. })));
    connects_anew(&mut a, &mut other);
}

#[test]
fn a_page_is_not_joined_when_another_writer_gives_the_store_new_ids_meanwhile() {
    let (mut a, b, mut other, mut client, page) = page_on_its_way();
    let store = a.identity().store;
    meanwhile(&a, &b, move |b| b.start_over(Millis(2000), seeds(77), store, 0).unwrap());
    let ended = client.handle(&mut a, &page, Millis(100_000));
    assert!(matches!(ended, Err(SessionError::Commit(CommitError::Stale))), "{ended:?}");
    connects_anew(&mut a, &mut other);
}

#[test]
fn rules_see_what_a_program_without_them_wrote_just_before_an_edit() {
    let timers = |k: crate::schema::KindBuilder| {
        k.value("user").value("start").value("stop").at_most_one("one running", ["user"], "stop", "start")
    };
    let timers = Schema::builder().kind("entry", timers).build().unwrap();
    let store = Shared::new();
    let open = |n, slot, schema| {
        let options = OpenOptions { seeds: seeds(n), slot, admission: Admission::Off, rank: 0 };
        Replica::open(store.handle(), Arc::new(schema), options).unwrap()
    };
    let mut ruled = open(1, 0, timers);
    let mut plain = open(2, 1, Schema::open());
    let start = |user: &str, at: i64| {
        let fields = [("user", user.into()), ("start", at.into()), ("stop", Value::Null)];
        let fields = fields.map(|(field, value): (&str, Value)| (field.to_owned(), value));
        Op::new("entry", at.to_string(), Action::Put(fields.into()))
    };
    must(ruled.edit(Millis(1000), &[start("u", 1000)]).unwrap());
    let second = start("u", 2000);
    *ruled.store().after_others.borrow_mut() =
        Some(Box::new(move || must(plain.edit(Millis(2000), &[second]).unwrap())));
    must(ruled.edit(Millis(3000), &[start("another user", 3000)]).unwrap());
    must(ruled.edit(Millis(4000), &[start("another user", 4000)]).unwrap());
    let view = ruled.view("entry", "1000").unwrap().unwrap();
    assert_eq!(view.fields.get("stop"), Some(&Shown::Value(2000.into())));
}

#[test]
fn two_writers_that_both_bring_an_authority_what_they_have_come_to_an_end() {
    let now = Millis(100_000);
    let mut uploads = 0;
    for cut in 0..24 {
        let ((mut a, b), mut h) = (two(), hub());
        act(&mut a, 1000, inc("views", 1));
        act(&mut b.borrow_mut(), 1000, inc("views", 2));
        let ((mut client, mut server), (mut client_of_b, mut server_of_b)) =
            (connection(Want::Once), connection(Want::Once));
        let mut sync_a = |a: &mut Replica<Shared>, h: &mut Device, frames| {
            let mut one = End { replica: a, session: &mut client, now };
            run(&mut one, &mut End { replica: h, session: &mut server, now }, frames).unwrap();
            (client.is_closed(), server.poll_events().any(|event| event == SessionEvent::CaughtUp))
        };
        let (_, uploaded) = sync_a(&mut a, &mut h, cut);
        let mut b = b.borrow_mut();
        let mut one = End { replica: &mut *b, session: &mut client_of_b, now };
        run(&mut one, &mut End { replica: &mut h, session: &mut server_of_b, now }, usize::MAX).unwrap();
        let (closed, uploads_later) = sync_a(&mut a, &mut h, usize::MAX);
        assert!(closed && client_of_b.is_closed(), "cut after {cut}: {client:?}");
        uploads += usize::from(uploaded || uploads_later);
        assert_eq!(a.pending_count().unwrap(), 0, "cut after {cut}");
        assert_eq!(shows(&h, "views"), Some(Shown::Counter(3)), "cut after {cut}");
        assert_equal(&b, &h);
    }
    assert!(uploads > 0, "no case in which there is something to bring");
}

/// A store of two processes that has met a hub and holds task `t`, all confirmed.
fn two_with_a_hub() -> (Replica<Shared>, Rc<RefCell<Replica<Shared>>>, Device) {
    let ((mut a, b), mut h) = (two(), hub());
    act(&mut a, 1000, field("title", "first"));
    sync_one(&mut a, &mut h, &[]);
    (a, b, h)
}

fn sync_one(a: &mut Replica<Shared>, h: &mut Device, fetch: &[(String, String)]) {
    let (mut client, mut server) = connection(Want::Once);
    client.fetch(fetch.iter().cloned());
    let now = Millis(100_000);
    let mut one = End { replica: a, session: &mut client, now };
    run(&mut one, &mut End { replica: h, session: &mut server, now }, usize::MAX).unwrap();
    assert!(client.is_closed());
}

fn task() -> [(String, String); 1] {
    [("task".to_owned(), "t".to_owned())]
}

#[test]
fn an_edit_of_what_another_writer_evicts_meanwhile_is_refused() {
    let (mut a, b, mut h) = two_with_a_hub();
    meanwhile(&a, &b, |b| assert_eq!(b.evict(Millis(0), &task()).unwrap().entities, 1));
    let refused = a.edit(Millis(2000), &[Op::new("task", "t", field("title", "too late"))]);
    assert_eq!(refused, Err(EditError::Evicted { kind: "task".to_owned(), id: "t".to_owned() }));
    sync_one(&mut a, &mut h, &task());
    act(&mut a, 3000, field("title", "in time"));
    sync_one(&mut a, &mut h, &[]);
    assert_equal(&a, &h);
}

#[test]
fn what_another_writer_edits_meanwhile_is_not_evicted() {
    let (mut a, b, _) = two_with_a_hub();
    meanwhile(&a, &b, |b| must(act(b, 2000, field("title", "pending"))));
    let refused = a.evict(Millis(0), &task());
    assert!(matches!(refused, Err(crate::replica::EvictError::Pending { .. })), "{refused:?}");
    assert_eq!(shows(&a, "title"), value("pending"));
}

#[test]
fn a_page_and_an_eviction_of_another_writer_leave_the_digest_right() {
    let (mut a, b, mut h) = two_with_a_hub();
    act(&mut h, 2000, field("title", "from the hub"));
    let (mut client, mut server) = connection(Want::Live);
    let now = Millis(100_000);
    // Up to the page, which is joined while the other process evicts.
    let mut evicts = Some(b);
    loop {
        let mut moved = false;
        while let Some(frame) = client.poll_transmit(&mut a, now).unwrap() {
            server.handle(&mut h, &frame, now).unwrap();
            moved = true;
        }
        while let Some(frame) = server.poll_transmit(&mut h, now).unwrap() {
            if frame.first() == Some(&crate::wire::tag::DELTA)
                && let Some(b) = evicts.take()
            {
                meanwhile(&a, &b, |b| assert_eq!(b.evict(Millis(0), &task()).unwrap().entities, 1));
            }
            client.handle(&mut a, &frame, now).unwrap();
            moved = true;
        }
        if !moved {
            break;
        }
    }
    assert!(evicts.is_none(), "there was a page");
    assert_equal(&a, &h);
    assert_eq!(a.presence("task", "t"), Ok(crate::edit::Presence::Evicted));
    sync_one(&mut a, &mut h, &task());
    assert_eq!(shows(&a, "title"), value("from the hub"));
    assert_equal(&a, &h);
}

#[test]
fn a_collection_by_another_process_while_an_edit_is_judged_is_noticed() {
    for whole in [false, true] {
        let shared = Shared::new();
        let mut serving = shared.open(9, 0);
        serving.become_authority().unwrap();
        let (f, key, value) = ("labels".to_owned(), "k".to_owned(), Value::from("seen"));
        let set = Op::new("task", "t", Action::SetKey { field: f.clone(), key: key.clone(), value });
        serving.edit(Millis(10), &[Op::new("task", "t", field("title", "x")), set]).unwrap();
        let action = if whole { Action::Delete } else { Action::Remove { field: f, key } };
        serving.edit(Millis(1000), &[Op::new("task", "t", action)]).unwrap();
        let other = RefCell::new(shared.open(10, 1));
        let collected = Cell::new(0);
        let validate = |_: &crate::replica::Proposed<'_>| {
            let done = other.borrow_mut().collect(Millis(5000), 0).unwrap();
            collected.set(collected.get() + done.keys + done.entities);
            Ok(())
        };
        let review = Review { validate: Some(&validate), ..Review::default() };
        let author = ReplicaId::from_u128(1);
        let principal = Principal { store: StoreId(1), replicas: vec![author], rank_max: 0, review };
        let value = Value::from("late").to_bytes();
        let stamp = Stamp { generation: 0, time: ticks(500), replica: author };
        let own = Candidate { stamp, rank: 0, saw: None, value: &value };
        let change = Change::Join { register: Register::write(None, own, Reach::None), source: None };
        let changes = vec![(Arc::<[u8]>::from(address::key("labels", "k")), change)];
        let delta = vec![crate::replica::Incoming { kind: "task".into(), id: "t".into(), changes }];
        let edits = [Pushed { number: 1, stamp, rank: 0, saw: None, delta }];
        let (note, mut taint) = (crate::identity::Peer::default(), Taint::default());
        let verdicts =
            serving.judge(Millis(5000), edits.into_iter(), &principal, &note, &mut taint, 0, 1).unwrap();
        assert_eq!(collected.get(), 1);
        let is_gone = |verdict: &Verdict| matches!(verdict, Verdict::Refused { code: Code::GONE, .. });
        assert!(matches!(&verdicts.exceptions[..], [(1, verdict)] if is_gone(verdict)), "{verdicts:?}");
    }
}
