//! Whom a hub lets in, what belongs to whom, what may be read and written, and how much.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::address;
use crate::clock::{Stamp, ticks};
use crate::register::{Candidate, Register};
use crate::replica::{Event, Proposed, Refusal, Rejected, Spot};
use crate::wire::{About, Hello, Subscribe, Welcome};

const NOW: Millis = Millis(100_000);

fn grants() -> Grants {
    Grants::everybody().grant_as("ann", "a1", 5).grant_as("ann", "a2", 0).grant_as("bob", "b1", 5)
}

pub(super) fn serve(gate: &Arc<Gate>) -> Session {
    options(Role::Server { gate: Arc::clone(gate) }, Want::Live)
}

pub(super) fn with(token: &str, want: Want) -> Session {
    options(Role::Client { token: Some(token.to_owned()) }, want)
}

pub(super) fn gate() -> Arc<Gate> {
    Arc::new(Gate::new(grants()))
}

/// Syncs once with this token, at this time.
fn meet(
    one: &mut Device,
    hub: &mut Device,
    gate: &Arc<Gate>,
    token: &str,
    now: i64,
) -> Result<(), SessionError> {
    let (mut s, mut t) = (with(token, Want::Once), serve(gate));
    run_on(one, &mut s, hub, &mut t, now)?;
    assert!(s.is_closed(), "{s:?}");
    Ok(())
}

fn run_on(
    one: &mut Device,
    s: &mut Session,
    hub: &mut Device,
    t: &mut Session,
    now: i64,
) -> Result<(), SessionError> {
    let now = Millis(now);
    let mut two = End { replica: hub, session: t, now };
    run(&mut End { replica: one, session: s, now }, &mut two, usize::MAX).map(|_| ())
}

pub(super) fn code(result: Result<(), SessionError>) -> Code {
    match result.unwrap_err() {
        SessionError::Refused { code, .. } | SessionError::Goaway { code, .. } => code,
        SessionError::Rate { .. } => Code::RATE,
        other => panic!("{other:?}"),
    }
}

/// Says hello under these ids, whoever they belong to.
fn claim(
    hub: &mut Device,
    gate: &Arc<Gate>,
    token: Option<&str>,
    store: u64,
    replicas: &[u128],
) -> (Session, Result<(), SessionError>) {
    let about = About::new(
        StoreId(store),
        replicas.iter().map(|n| ReplicaId::from_u128(*n)),
        &[(Incarnation(store * 1000), 1)],
        1000,
        schema().fingerprint(),
        NOW.0,
    );
    let token = token.map(str::to_owned);
    let hello = Hello { version_min: 1, version_max: 1, capabilities: 0, about, token, offers: true };
    let mut session = serve(gate);
    let result = session.handle(hub, &Frame::Hello(hello).encode(), NOW);
    (session, result)
}

/// Pushes an edit of one register of task t, as the device with these ids would, and returns the answer's codes.
fn push_title(
    session: &mut Session,
    hub: &mut Device,
    of: u128,
    ms: u64,
    value: &[u8],
) -> Result<Ack, SessionError> {
    let mut encoder = RowEncoder::default();
    let stamp = Stamp { generation: 0, time: ticks(ms), replica: ReplicaId::from_u128(of) };
    let register = Register::plain(Candidate { stamp, rank: 0, saw: None, value });
    encoder.start_edit(1, 1);
    encoder.entity("task", "t", [(&*address::field("title"), &register)].into_iter());
    session.handle(hub, &encoder.finish_push(0, 1, None), NOW)?;
    let answer = session.poll_transmit(hub, NOW)?.unwrap();
    let Frame::Ack(ack) = Frame::decode(&answer).unwrap() else { panic!("{answer:?}") };
    Ok(ack)
}

#[test]
fn ids_that_belong_to_somebody_else_cannot_be_named() {
    let (mut a, mut h, gate) = (device(1), hub(9), gate());
    put(&mut a, 1000, "t", "title", "ann's");
    meet(&mut a, &mut h, &gate, "a1", 50_000).unwrap();
    for token in [Some("b1"), None] {
        for (store, replicas) in [(66, [66, 1]), (1, [66, 67])] {
            let (mut session, result) = claim(&mut h, &gate, token, store, &replicas);
            assert_eq!(code(result), Code::OWNER, "{token:?} as {store}");
            let told = session.poll_transmit(&mut h, NOW).unwrap().unwrap();
            assert!(matches!(Frame::decode(&told), Ok(Frame::Goaway { code: Code::OWNER, .. })), "{told:?}");
            assert_eq!(session.poll_transmit(&mut h, NOW).unwrap(), None, "nothing of the hub is told");
            assert!(session.is_closed());
        }
    }
    let (_, result) = claim(&mut h, &gate, Some("b1"), 66, &[66]);
    assert_eq!(result, Ok(()), "what was refused has bound nothing");
    meet(&mut a, &mut h, &gate, "a1", 60_000).unwrap();
}

#[test]
fn a_list_of_lost_writes_is_told_to_its_author_alone() {
    let (mut a, mut b, mut h, gate) = (device(1), device(2), hub(9), gate());
    put(&mut a, 1000, "t", "title", "ann's");
    put(&mut b, 2000, "t", "title", "bob's secret");
    meet(&mut b, &mut h, &gate, "b1", 50_000).unwrap();
    meet(&mut a, &mut h, &gate, "a1", 50_000).unwrap();
    put(&mut b, 60_000, "t", "title", "bob's next");
    // Neither the push of ann's loss nor its list is heard by anybody but ann.
    let (_, result) = claim(&mut h, &gate, Some("b1"), 66, &[66, 1]);
    assert_eq!(code(result), Code::OWNER);
    let (mut session, _) = claim(&mut h, &gate, Some("b1"), 66, &[66]);
    let mut told = Vec::new();
    while let Some(frame) = session.poll_transmit(&mut h, NOW).unwrap() {
        told.push(frame);
    }
    assert!(told.iter().all(|frame| frame[0] != tag::LOST), "{told:?}");
    assert_eq!(a.conflicts().unwrap().len(), 1, "ann has heard of it");
}

#[test]
fn a_token_that_takes_the_place_of_another_of_the_same_name_keeps_the_databases() {
    let (mut a, mut h, gate) = (device(1), hub(9), gate());
    put(&mut a, 1000, "t", "title", "one");
    meet(&mut a, &mut h, &gate, "a1", 50_000).unwrap();
    put(&mut a, 60_000, "t", "note", "two");
    meet(&mut a, &mut h, &gate, "a2", 70_000).unwrap();
    assert_eq!(shows(&h, "t", "title"), text("one"));
    assert_same(&[&a, &h]);
}

#[test]
fn a_copy_of_a_database_names_former_ids_under_the_same_name_only() {
    let (mut a, mut h, gate) = (device(1), hub(9), gate());
    put(&mut a, 1000, "t", "title", "one");
    meet(&mut a, &mut h, &gate, "a1", 50_000).unwrap();
    let mut copy = open(a.store().copy(), 5, Admission::Quarantine { drift_ms_max: 60_000 });
    put(&mut a, 60_000, "t", "title", "original");
    meet(&mut a, &mut h, &gate, "a1", 70_000).unwrap();
    put(&mut copy, 60_001, "t", "note", "copy");
    assert_eq!(code(meet(&mut copy, &mut h, &gate, "b1", 70_000)), Code::OWNER);
    assert_eq!(copy.identity().store, StoreId(1), "nothing was told that a copy would begin anew for");
    assert!(matches!(meet(&mut copy, &mut h, &gate, "a1", 80_000), Err(SessionError::Copied)));
    meet(&mut copy, &mut h, &gate, "a1", 80_000).unwrap();
    assert_eq!(shows(&h, "t", "note"), text("copy"));
    meet(&mut a, &mut h, &gate, "a1", 90_000).unwrap();
    assert_same(&[&a, &copy, &h]);
}

#[test]
fn what_is_nobodys_goes_to_the_first_name_that_shows_it() {
    let (mut a, mut h, gate) = (device(1), hub(9), gate());
    put(&mut a, 1000, "t", "title", "before signing up");
    sync(&mut a, &mut h);
    meet(&mut a, &mut h, &gate, "a1", 110_000).unwrap();
    assert_eq!(h.owner(ReplicaId::from_u128(1)).unwrap().as_deref(), Some("ann"));
    let (_, anonymous) = claim(&mut h, &gate, None, 1, &[1]);
    assert_eq!(code(anonymous), Code::OWNER);
    assert_eq!(h.accounts().unwrap(), BTreeMap::from([("ann".to_owned(), vec![StoreId(1)])]));
    assert_eq!(h.disown("ann").unwrap(), 2);
    assert!(h.accounts().unwrap().is_empty());
    meet(&mut a, &mut h, &gate, "b1", 120_000).unwrap();
    assert_eq!(h.accounts().unwrap().keys().collect::<Vec<_>>(), ["bob"]);
    assert_eq!(h.owner(ReplicaId::from_u128(1)).unwrap().as_deref(), Some("bob"));
}

#[test]
fn nobody_names_the_hubs_own_replica() {
    let (mut h, gate) = (hub(9), gate());
    put(&mut h, 1000, "t", "title", "the hub's");
    for token in [None, Some("a1")] {
        let (_, result) = claim(&mut h, &gate, token, 66, &[66, 9]);
        assert_eq!(code(result), Code::OWNER);
    }
}

#[test]
fn what_one_account_may_bring_is_bounded_and_the_others_go_on() {
    let (mut h, gate) = (hub(9), gate());
    let most = u128::from(crate::replica::OWNED_MAX);
    let mut results = Vec::new();
    for first in (0..most).step_by(1024) {
        let ids: Vec<u128> = (first..first + 1024).map(|n| n + 1_000_000).collect();
        results.push(claim(&mut h, &gate, Some("b1"), 66, &ids).1);
    }
    assert_eq!(code(results.pop().unwrap()), Code::OWNER, "with the store that is one too many");
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(claim(&mut h, &gate, Some("a1"), 67, &[67]).1, Ok(()));
}

pub(super) fn switched(switch: &Arc<AtomicBool>, of: Access) -> Arc<Gate> {
    let switch = Arc::clone(switch);
    let allows = move |_: &str, access: Access, _: &str| access != of || switch.load(Ordering::Relaxed);
    Arc::new(Gate::new(grants()).authorizer(Arc::new(By(allows))))
}

#[test]
fn a_right_to_read_that_is_taken_away_acts_on_the_next_page() {
    let (mut a, mut h) = (device(1), hub(9));
    let may = Arc::new(AtomicBool::new(true));
    let gate = switched(&may, Access::Read);
    let (mut s, mut t) = (with("a1", Want::Live), serve(&gate));
    put(&mut h, 1000, "t", "title", "for all");
    run_on(&mut a, &mut s, &mut h, &mut t, 50_000).unwrap();
    assert_eq!(shows(&a, "t", "title"), text("for all"));
    may.store(false, Ordering::Relaxed);
    put(&mut h, 60_000, "t", "title", "secret");
    assert_eq!(code(run_on(&mut a, &mut s, &mut h, &mut t, 60_000)), Code::SCOPE);
    assert!(s.is_closed() && t.is_closed());
    // What it has read has left it.
    assert_eq!(shows(&a, "t", "title"), None);
    // A fetch is no way around it, nor is another connection.
    let (mut session, _) = claim(&mut h, &gate, Some("b1"), 66, &[66]);
    let fetch = Frame::Fetch(vec![("task".to_owned(), "t".to_owned())]);
    assert_eq!(code(session.handle(&mut h, &fetch.encode(), NOW)), Code::SCOPE);
    assert_eq!(code(meet(&mut a, &mut h, &gate, "a1", 70_000)), Code::SCOPE);
    assert_eq!(shows(&a, "t", "title"), None);
}

/// Syncs once with this token, in vain: the device hears why.
fn is_refused(one: &mut Device, hub: &mut Device, gate: &Arc<Gate>, token: &str, now: i64) -> Code {
    let (mut s, mut t) = (with(token, Want::Once), serve(gate));
    run_on(one, &mut s, hub, &mut t, now).unwrap_err();
    let now = Millis(now);
    loop {
        let frame = t.poll_transmit(hub, now).unwrap().unwrap();
        if let Err(error) = s.handle(one, &frame, now) {
            return code(Err(error));
        }
    }
}

#[test]
fn who_may_not_read_everything_any_more_keeps_unsent_edits_and_nothing_else() {
    let (mut a, mut h) = (device(1), hub(9));
    a.watch(Watching::Yes);
    let may = Arc::new(AtomicBool::new(true));
    let gate = switched(&may, Access::Read);
    put(&mut h, 1000, "t", "title", "for all");
    put(&mut h, 1000, "u", "title", "for all");
    meet(&mut a, &mut h, &gate, "a1", 50_000).unwrap();
    may.store(false, Ordering::Relaxed);
    put(&mut a, 60_000, "t", "note", "not sent yet");
    a.poll_events();
    // The greeting alone tells nothing, and edits go before anything is asked for.
    assert_eq!(is_refused(&mut a, &mut h, &gate, "a1", 60_000), Code::SCOPE);
    assert_eq!(
        (shows(&a, "t", "title"), shows(&a, "u", "title"), shows(&a, "t", "note")),
        (None, None, None)
    );
    assert_eq!((shows(&h, "t", "note"), a.pending_count().unwrap()), (text("not sent yet"), 0));
    let events = a.poll_events();
    assert!(events.contains(&Event::Denied { scope: String::new() }), "{events:?}");
    assert!(events.contains(&Event::Revoked { scope: String::new(), entities: 2 }), "{events:?}");
    assert!(a.verify().unwrap().is_sound());
    // What it writes now it holds until that is judged, and no longer.
    put(&mut a, 61_000, "v", "title", "mine");
    assert_eq!(shows(&a, "v", "title"), text("mine"));
    assert_eq!(is_refused(&mut a, &mut h, &gate, "a1", 62_000), Code::SCOPE);
    assert_eq!((shows(&h, "v", "title"), a.pending_count().unwrap()), (text("mine"), 0));
    // Given back, everything is there again.
    may.store(true, Ordering::Relaxed);
    meet(&mut a, &mut h, &gate, "a1", 70_000).unwrap();
    assert_eq!((shows(&a, "u", "title"), shows(&a, "v", "title")), (text("for all"), text("mine")));
    assert_eq!(a.head().unwrap().digest.shown, h.head().unwrap().digest.shown);
}

#[test]
fn who_was_never_let_read_loses_nothing_of_its_own() {
    let (mut a, mut h) = (device(1), hub(9));
    let gate = switched(&Arc::default(), Access::Read);
    put(&mut a, 1000, "t", "title", "mine");
    assert_eq!(is_refused(&mut a, &mut h, &gate, "a1", 50_000), Code::SCOPE);
    assert_eq!((shows(&a, "t", "title"), shows(&h, "t", "title")), (text("mine"), text("mine")));
}

#[test]
fn a_right_to_write_that_is_taken_away_acts_on_the_next_edit() {
    let (mut a, mut h) = (device(1), hub(9));
    let may = Arc::new(AtomicBool::new(true));
    let gate = switched(&may, Access::Write);
    let (mut s, mut t) = (with("a1", Want::Live), serve(&gate));
    put(&mut a, 1000, "t", "title", "mine");
    run_on(&mut a, &mut s, &mut h, &mut t, 50_000).unwrap();
    may.store(false, Ordering::Relaxed);
    put(&mut a, 60_000, "t", "title", "no more");
    run_on(&mut a, &mut s, &mut h, &mut t, 60_000).unwrap();
    assert_eq!((shows(&h, "t", "title"), shows(&a, "t", "title")), (text("mine"), text("mine")));
    assert_eq!(a.rejected().unwrap()[0].code, Code::SCOPE);
    assert!(s.is_synced(a.head().unwrap().seq), "the connection goes on");
}

#[test]
fn who_may_not_restore_uploads_own_writes_alone() {
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    let gate = switched(&Arc::default(), Access::Restore);
    put(&mut a, 1000, "t", "title", "own");
    put(&mut b, 1000, "u", "title", "as somebody else");
    sync(&mut a, &mut b);
    meet(&mut a, &mut h, &gate, "a1", 110_000).unwrap();
    assert_eq!((shows(&h, "t", "title"), shows(&h, "u", "title")), (text("own"), None));
    put(&mut a, 120_000, "v", "title", "judged");
    meet(&mut a, &mut h, &gate, "a1", 130_000).unwrap();
    assert_eq!((shows(&h, "v", "title"), shows(&h, "u", "title")), (text("judged"), None));
    // A page that nobody asked for is no upload.
    let (mut session, _) = claim(&mut h, &gate, Some("b1"), 66, &[66]);
    let header = crate::wire::page::PageHeader {
        at: 1,
        more: false,
        incarnation: None,
        start: true,
        checkpoint: false,
    };
    let page = RowEncoder::default().finish_page(header);
    assert_eq!(code(session.handle(&mut h, &page, NOW)), Code::UNEXPECTED);
}

#[test]
fn what_a_device_wrote_before_it_met_the_hub_is_validated_too() {
    let (mut a, mut h, gate) = (device(1), hub(9), validating());
    put(&mut a, 1000, "t", "title", "bad");
    put(&mut a, 1001, "t", "note", "beside it");
    put(&mut a, 1002, "u", "title", "fine");
    meet(&mut a, &mut h, &gate, "a1", 50_000).unwrap();
    assert_eq!((shows(&h, "t", "title"), shows(&h, "t", "note")), (None, text("beside it")));
    assert_eq!(shows(&h, "u", "title"), text("fine"));
}

/// A task needs a title, and one that is done stays so.
fn validate(_: &str, edit: &Proposed<'_>) -> Result<(), Refusal> {
    for task in edit.entities().iter().filter(|entity| entity.kind == "task") {
        if task.field("title") == Some(&Value::from("bad")) {
            return Err(Refusal::of_field(task, "title", "not that title"));
        }
        let before = edit.view("task", &task.id).map_err(|error| Refusal::new(error.to_string()))?;
        let done = before.and_then(|view| view.fields.get("done").cloned());
        if done == Some(Shown::Value(Value::Bool(true))) {
            return Err(Refusal::of(task, "it is done"));
        }
    }
    Ok(())
}

pub(super) fn validating() -> Arc<Gate> {
    validating_by(validate)
}

pub(super) fn validating_by(
    validate: impl Fn(&str, &Proposed<'_>) -> Result<(), Refusal> + Send + Sync + 'static,
) -> Arc<Gate> {
    Arc::new(Gate::new(grants()).validator(Arc::new(By(validate))))
}

#[test]
fn a_refused_write_tells_where_and_shows_what_the_hub_has_though_its_author_never_saw_that() {
    let (mut a, mut b, mut h, gate) = (device(1), device(2), hub(9), validating());
    meet(&mut a, &mut h, &gate, "a1", 500).unwrap();
    put(&mut b, 1000, "t", "title", "good");
    meet(&mut b, &mut h, &gate, "b1", 50_000).unwrap();
    // Never having seen the task, and newer.
    put(&mut a, 2000, "t", "title", "bad");
    put(&mut a, 2001, "u", "title", "fine");
    put(&mut a, 2002, "t", "note", "on what was refused");
    meet(&mut a, &mut h, &gate, "a1", 60_000).unwrap();
    let Rejected { code, message, spot, .. } = a.rejected().unwrap().remove(0);
    let (kind, id, field) = ("task".to_owned(), "t".to_owned(), Some("title".to_owned()));
    assert_eq!((code, &*message), (Code::INVALID, "not that title"));
    assert_eq!(spot, Some(Spot { kind, id, field }));
    assert_eq!(shows(&a, "t", "title"), text("good"));
    assert_eq!(
        (shows(&h, "u", "title"), shows(&h, "t", "note")),
        (text("fine"), text("on what was refused"))
    );
    assert_eq!(a.pending_count().unwrap(), 0);
    let head = a.head().unwrap().digest;
    assert_eq!(head.shown, head.confirmed);
    assert_same(&[&a, &h]);
}

#[test]
fn each_edit_of_a_push_is_validated_on_what_those_before_it_made() {
    let (mut a, mut h, gate) = (device(1), hub(9), validating());
    meet(&mut a, &mut h, &gate, "a1", 500).unwrap();
    put(&mut a, 1000, "t", "title", "one");
    put(&mut a, 1001, "t", "done", true);
    put(&mut a, 1002, "t", "title", "two");
    put(&mut a, 1003, "u", "title", "another");
    meet(&mut a, &mut h, &gate, "a1", 50_000).unwrap();
    let rejected = a.rejected().unwrap();
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert_eq!((rejected[0].code, rejected[0].spot.as_ref().unwrap().field.as_ref()), (Code::INVALID, None));
    assert_eq!((shows(&a, "t", "title"), shows(&h, "u", "title")), (text("one"), text("another")));
    assert_same(&[&a, &h]);
}

#[test]
fn kinds_and_fields_that_nobody_declared_pass_a_validator_that_lets_them() {
    let (mut h, gate) = (hub(9), validating());
    let (mut session, _) = claim(&mut h, &gate, None, 66, &[66]);
    session.poll_transmit(&mut h, NOW).unwrap();
    let mut encoder = RowEncoder::default();
    let stamp = Stamp { generation: 0, time: ticks(1000), replica: ReplicaId::from_u128(66) };
    let register = Register::plain(Candidate { stamp, rank: 0, saw: None, value: &[0xf6] });
    encoder.start_edit(1, 1);
    encoder.entity("later", "x", [(&[200, 0, 1, b'x', 9][..], &register)].into_iter());
    session.handle(&mut h, &encoder.finish_push(0, 1, None), NOW).unwrap();
    assert_eq!(h.head().unwrap().digest.count, 1);
}

/// Tokens `name until`: the name, and when the grant ends.
fn until(token: Option<&str>, _: Millis) -> Result<Grant, Denial> {
    let (subject, ends) = token.unwrap_or_default().split_once(' ').ok_or(Denial::unauthorised("who?"))?;
    let expires = ends.parse().ok().map(Millis);
    Ok(Grant { subject: subject.to_owned(), rank: 3, expires, ..Grant::default() })
}

#[test]
fn a_grant_that_ends_closes_the_connection_unless_another_token_is_shown_in_time() {
    let (mut a, mut h) = (device(1), hub(9));
    let gate = Arc::new(Gate::new(By(until)));
    let (mut s, mut t) = (with("ann 60000", Want::Live), serve(&gate));
    run_on(&mut a, &mut s, &mut h, &mut t, 50_000).unwrap();
    assert_eq!(s.grant_ends(), Some(Millis(60_000)));
    s.refresh_token("ann 70000");
    run_on(&mut a, &mut s, &mut h, &mut t, 59_000).unwrap();
    assert_eq!(s.grant_ends(), Some(Millis(70_000)));
    assert!(s.poll_events().any(|event| event == SessionEvent::Refreshed { rank: 3 }));
    put(&mut a, 61_000, "t", "title", "in time");
    run_on(&mut a, &mut s, &mut h, &mut t, 69_999).unwrap();
    assert_eq!(shows(&h, "t", "title"), text("in time"));
    put(&mut a, 69_999, "t", "title", "late");
    assert_eq!(code(run_on(&mut a, &mut s, &mut h, &mut t, 70_000)), Code::EXPIRED);
    assert_eq!(shows(&h, "t", "title"), text("in time"));
    assert_eq!(a.pending_count().unwrap(), 1, "it waits for the next connection");
    assert_eq!(code(meet(&mut a, &mut h, &gate, "ann 70000", 71_000)), Code::EXPIRED);
    meet(&mut a, &mut h, &gate, "ann 90000", 71_000).unwrap();
    assert_eq!(shows(&h, "t", "title"), text("late"));
}

#[test]
fn a_connection_that_only_listens_ends_with_its_grant() {
    let (mut a, mut h) = (device(1), hub(9));
    let gate = Arc::new(Gate::new(By(until)));
    let (mut s, mut t) = (with("ann 60000", Want::Live), serve(&gate));
    run_on(&mut a, &mut s, &mut h, &mut t, 50_000).unwrap();
    put(&mut h, 60_000, "t", "title", "not for those without a grant");
    let told = t.poll_transmit(&mut h, Millis(60_000)).unwrap().unwrap();
    assert!(matches!(Frame::decode(&told), Ok(Frame::Goaway { code: Code::EXPIRED, .. })), "{told:?}");
    assert_eq!(t.poll_transmit(&mut h, Millis(60_000)).unwrap(), None);
    assert!(t.is_closed());
}

#[test]
fn a_connection_cannot_become_somebody_elses() {
    let (mut a, mut h) = (device(1), hub(9));
    let gate = Arc::new(Gate::new(By(until)));
    for (token, expected) in
        [("bob 90000", Code::UNAUTHORISED), ("nobody", Code::UNAUTHORISED), ("ann 1", Code::EXPIRED)]
    {
        let (mut s, mut t) = (with("ann 60000", Want::Live), serve(&gate));
        run_on(&mut a, &mut s, &mut h, &mut t, 50_000).unwrap();
        s.refresh_token(token);
        assert_eq!(code(run_on(&mut a, &mut s, &mut h, &mut t, 50_001)), expected, "{token}");
        assert_eq!(t.poll_transmit(&mut h, Millis(50_001)).unwrap().map(|frame| frame[0]), Some(tag::GOAWAY));
        assert!(t.is_closed());
    }
}

fn limited(limits: Limits) -> Arc<Gate> {
    Arc::new(Gate::new(grants()).limits(limits))
}

#[test]
fn a_device_sets_aside_what_the_hub_would_refuse_and_sends_the_rest() {
    let (mut a, mut h) = (device(1), hub(9));
    let gate = limited(Limits { value_bytes_max: 100, registers_max: 4, ..Limits::default() });
    meet(&mut a, &mut h, &gate, "a1", 500).unwrap();
    put(&mut a, 1000, "t", "title", "x".repeat(200));
    for n in 0..10 {
        put(&mut a, 2000 + n, &format!("u{n}"), "title", "fits");
    }
    let many = (0..5).map(|n| (format!("f{n}"), Value::from("y"))).collect();
    act(&mut a, 3000, "v", Action::Put(many));
    put(&mut a, 3001, "t", "note", "rests on it");
    let (mut s, mut t) = (with("a1", Want::Once), serve(&gate));
    run_on(&mut a, &mut s, &mut h, &mut t, 50_000).unwrap();
    assert!(s.is_closed());
    let rejected = a.rejected().unwrap();
    let told: Vec<_> = rejected.iter().map(|rejected| (rejected.code, &*rejected.message)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].1.contains("at most 100") && told[1].1.contains("at most 4"), "{told:?}");
    assert!(told.iter().all(|(code, _)| *code == Code::TOO_LARGE));
    let judged = t.poll_events().map(|event| match event {
        SessionEvent::Judged { excepted, .. } => excepted,
        _ => 0,
    });
    assert_eq!(judged.sum::<usize>(), 0, "the hub had nothing to refuse");
    assert_eq!((shows(&a, "t", "title"), shows(&h, "t", "note")), (None, text("rests on it")));
    assert_eq!(a.pending_count().unwrap(), 0);
    assert_same(&[&a, &h]);
}

#[test]
fn a_client_that_heeds_no_limit_meets_each_of_them() {
    let mut h = hub(9);
    let gate =
        limited(Limits { value_bytes_max: 100, frame_bytes_max: 0, registers_max: 1, ..Limits::default() });
    let (mut session, _) = claim(&mut h, &gate, None, 66, &[66]);
    let welcome = session.poll_transmit(&mut h, NOW).unwrap().unwrap();
    let Ok(Frame::Welcome(Welcome { bounds: Some(bounds), .. })) = Frame::decode(&welcome) else { panic!() };
    assert_eq!((bounds.value_bytes_max, bounds.registers_max), (Some(100), Some(1)));
    assert_eq!(bounds.frame_bytes_max, Some(FRAME_BYTES_LEAST as u64));
    let long = Value::from("x".repeat(200)).to_bytes();
    let ack = push_title(&mut session, &mut h, 66, 1000, &long).unwrap();
    assert_eq!(ack.exceptions[0].code, Some(Code::TOO_LARGE));
    assert_eq!(ack.exceptions[0].spot.as_ref().unwrap().field.as_deref(), Some("title"));
    let frame = vec![tag::PUSH; FRAME_BYTES_LEAST + 1];
    assert_eq!(code(session.handle(&mut h, &frame, NOW)), Code::TOO_LARGE);
    let (mut session, _) = claim(&mut h, &gate, None, 66, &[66]);
    let mut encoder = RowEncoder::default();
    for number in 1..3 {
        let stamp = Stamp { generation: 0, time: ticks(1000 + number), replica: ReplicaId::from_u128(66) };
        let register = Register::plain(Candidate { stamp, rank: 0, saw: None, value: &[0xf6] });
        encoder.start_edit(1, 1);
        encoder.entity("task", "t", [(&*address::field("title"), &register)].into_iter());
    }
    assert_eq!(code(session.handle(&mut h, &encoder.finish_push(0, 1, None), NOW)), Code::TOO_LARGE);
    assert_eq!(h.head().unwrap().digest.count, 0);
}

/// A client that has not heard how much may be sent in a second.
fn meet_heedless(
    one: &mut Device,
    hub: &mut Device,
    gate: &Arc<Gate>,
    token: &str,
    now: i64,
) -> Result<(), SessionError> {
    let (mut s, mut t) = (with(token, Want::Once), serve(gate));
    let at = Millis(now);
    run(
        &mut End { replica: one, session: &mut s, now: at },
        &mut End { replica: hub, session: &mut t, now: at },
        2,
    )?;
    s.granted.pace = super::super::rate::Pace::default();
    run_on(one, &mut s, hub, &mut t, now)
}

#[test]
fn a_device_keeps_to_the_rate_that_the_hub_told_and_is_never_asked_to_wait() {
    let (mut a, mut h) = (device(1), hub(9));
    let gate = limited(Limits { registers_per_second: Some(20), ..Limits::default() });
    let started = 50_000;
    let (mut s, mut t) = (with("a1", Want::Once), serve(&gate));
    run_on(&mut a, &mut s, &mut h, &mut t, started).unwrap();
    assert!(s.is_closed());
    for n in 0..300 {
        put(&mut a, 1000 + n, &format!("t{n}"), "title", "x");
    }
    let (mut s, mut t) = (with("a1", Want::Once), serve(&gate));
    let (mut now, mut pauses) = (started, 0);
    while !s.is_closed() {
        run_on(&mut a, &mut s, &mut h, &mut t, now).unwrap();
        if let Some(ms) = s.paused_ms() {
            now += i64::try_from(ms).unwrap();
            pauses += 1;
        }
        assert!(pauses < 1000);
    }
    assert_eq!(a.pending_count().unwrap(), 0);
    assert_same(&[&a, &h]);
    // 600 registers, and what the frames cost; one frame for each half a second.
    let seconds = (now - started) / 1000;
    assert!((29..=40).contains(&seconds), "{seconds} s and {pauses} pauses");
}

#[test]
fn a_frame_is_paid_for_by_what_it_unpacks_to() {
    let mut h = hub(9);
    let gate = limited(Limits { registers_per_second: Some(10), ..Limits::default() });
    let (mut session, _) = claim(&mut h, &gate, None, 66, &[66]);
    // It may be ignored, and 16 of its like cost what 272 short ones do.
    let frame = vec![200; 64 << 10];
    let taken = (0..16).take_while(|_| session.handle(&mut h, &frame, NOW).is_ok()).count();
    assert_eq!(taken, 4, "60 in credit, 17 for each and 1 for the greeting");
}

#[test]
fn who_sends_too_much_is_asked_to_wait_and_loses_nothing_and_others_go_on() {
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    let gate = limited(Limits { registers_per_second: Some(10), ..Limits::default() });
    meet_heedless(&mut a, &mut h, &gate, "a1", 500).unwrap();
    let mut now = 50_000;
    for n in 0..300 {
        put(&mut a, 1000 + n, &format!("t{n}"), "title", "x");
    }
    put(&mut b, 1000, "u", "title", "y");
    // In debt after the first, large push; the next frame is one too many.
    let mut waited = 0;
    for _ in 0..10 {
        match meet_heedless(&mut a, &mut h, &gate, "a1", now) {
            Ok(()) => break,
            Err(error) => {
                assert!(
                    matches!(
                        error,
                        SessionError::Goaway { code: Code::RATE, .. } | SessionError::Rate { .. }
                    ),
                    "{error:?}"
                );
                let wait = error.retry_after_ms().unwrap();
                assert_eq!(
                    code(meet_heedless(&mut a, &mut h, &gate, "a1", now)),
                    Code::RATE,
                    "at once is too early"
                );
                meet_heedless(&mut b, &mut h, &gate, "b1", now).unwrap();
                now += i64::try_from(wait).unwrap();
                waited += 1;
            }
        }
    }
    assert!(waited > 0 && a.pending_count().unwrap() == 0, "waited {waited} times");
    assert_eq!(shows(&h, "t299", "title"), text("x"));
    assert!(a.rejected().unwrap().is_empty());
}

#[test]
fn a_flood_of_frames_that_carry_nothing_runs_out_of_credit() {
    let mut h = hub(9);
    let gate = limited(Limits { registers_per_second: Some(10), ..Limits::default() });
    let (mut session, _) = claim(&mut h, &gate, None, 66, &[66]);
    let subscribe = Subscribe {
        cursor: crate::identity::Cursor::default(),
        incarnation: None,
        live: true,
        everything: true,
        digest: None,
    };
    let mut taken = 0;
    let ended = loop {
        match session.handle(&mut h, &Frame::Subscribe(subscribe).encode(), NOW) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(taken < 60 && matches!(ended, SessionError::Rate { retry_after_ms: 1.. }), "{taken}: {ended:?}");
    let (_, again) = claim(&mut h, &gate, None, 66, &[66]);
    assert_eq!(code(again), Code::RATE, "another connection helps nothing");
    let (_, again) = claim(&mut h, &gate, None, 67, &[67]);
    assert_eq!(code(again), Code::RATE, "nor does another store");
    let (_, other) = claim(&mut h, &gate, Some("b1"), 68, &[68]);
    assert_eq!(other, Ok(()), "and nobody with a name pays for it");
}

/// A hub that lets nobody bring back what others wrote, and judges what is brought.
pub(super) fn gate_without_restore() -> Arc<Gate> {
    switched(&Arc::default(), Access::Restore)
}

/// A device, its hub, and who watches the hub's door.
pub(super) struct Bench {
    pub(super) device: Device,
    pub(super) hub: Device,
    pub(super) gate: Arc<Gate>,
}

impl Bench {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { device: device(1), hub: hub(9), gate }
    }

    pub(super) fn sessions(&self) -> (Session, Session) {
        (with("a1", Want::Once), serve(&self.gate))
    }

    /// Passes one frame each way, if there is one.
    pub(super) fn pass(&mut self, s: &mut Session, t: &mut Session, now: i64) {
        self.pass_at(s, now, t, now);
    }

    /// Each by its own clock.
    pub(super) fn pass_at(&mut self, s: &mut Session, here: i64, t: &mut Session, there: i64) {
        let (here, there) = (Millis(here), Millis(there));
        if let Some(frame) = s.poll_transmit(&mut self.device, here).unwrap() {
            t.handle(&mut self.hub, &frame, there).unwrap();
        }
        if let Some(frame) = t.poll_transmit(&mut self.hub, there).unwrap() {
            s.handle(&mut self.device, &frame, here).unwrap();
        }
    }

    pub(super) fn run(&mut self, s: &mut Session, t: &mut Session, now: i64) {
        self.run_at(s, Millis(now), t, Millis(now));
    }

    /// Each by its own clock.
    pub(super) fn run_at(&mut self, s: &mut Session, here: Millis, t: &mut Session, there: Millis) {
        let mut two = End { replica: &mut self.hub, session: t, now: there };
        run(&mut End { replica: &mut self.device, session: s, now: here }, &mut two, usize::MAX).unwrap();
        assert!(s.is_closed(), "{s:?}");
    }

    /// Syncs once, and says what happened at the device.
    pub(super) fn meet(&mut self, now: i64) -> Vec<SessionEvent> {
        let (mut s, mut t) = self.sessions();
        self.run(&mut s, &mut t, now);
        s.poll_events().collect()
    }
}
