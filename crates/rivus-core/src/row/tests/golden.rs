//! One row of each kind in its bytes, in `tests/golden/rows.hex`. They are for ever: stores in use hold such rows.

use super::evicted::evict;
use super::*;
use crate::address::{LIFE, count, field, group, key};
use crate::golden::{assert_same, pieces};
use crate::register::Seen;
use crate::value::{ABSENT, Value};

const FILE: &str = "rows.hex";

/// The seq of the row when it is read.
const SEQ: u64 = 300;

type Changes = Vec<(Vec<u8>, Change<'static>)>;
type States = Vec<(Vec<u8>, State<'static>)>;

/// A row: where the next chunk starts, the commits that made it, and what it holds.
struct Golden {
    name: &'static str,
    end: Vec<u8>,
    commits: Vec<Changes>,
    states: States,
}

fn value(value: impl Into<Value>) -> &'static [u8] {
    value.into().to_bytes().leak()
}

fn candidate(replica: u128, value: &'static [u8]) -> Candidate<'static> {
    let time = crate::clock::ticks(1_700_000_000_123) + u64::try_from(replica).unwrap();
    let stamp = Stamp { generation: 0, time, replica: ReplicaId::from_u128(replica) };
    Candidate { stamp, rank: 0, saw: None, value }
}

fn plain(value: &'static [u8]) -> Register<'static> {
    Register::plain(candidate(1, value))
}

/// A register of candidates of which neither replaces the other.
fn open(alive: Vec<Candidate<'static>>) -> Register<'static> {
    Register { floor: Stamp::LOWEST, alive: alive.into(), seen: Vec::new() }
}

fn ranked() -> Candidate<'static> {
    let saw = Some(Saw { incarnation: Incarnation(0xab), done: 299 });
    Candidate { rank: 9, saw, ..candidate(1, value("ranked")) }
}

fn state(shown: Register<'static>) -> State<'static> {
    State { shown, confirmed: Confirmed::Same, seq: SEQ, source: None }
}

fn join(at: &[u8], register: &Register<'static>, source: Option<StoreId>) -> (Vec<u8>, Change<'static>) {
    (at.to_vec(), Change::Join { register: register.clone(), source })
}

/// A row that came about in one commit, with nothing pending.
fn simple(name: &'static str, registers: &[(Vec<u8>, Register<'static>)]) -> Golden {
    let commits = vec![registers.iter().map(|(at, register)| join(at, register, None)).collect()];
    let states = registers.iter().map(|(at, register)| (at.clone(), state(register.clone()))).collect();
    Golden { name, end: Vec::new(), commits, states }
}

fn simple_rows() -> Vec<Golden> {
    let title = field("title");
    let (one, two) = (candidate(1, value("one")), candidate(2, value("two")));
    let early = Stamp { time: one.stamp.time - 1000, replica: ReplicaId::default(), ..one.stamp };
    let seen = vec![Seen { replica: ReplicaId::from_u128(3), instant: early.instant() }];
    let margin = Register { floor: early, seen, ..open(vec![one, two]) };
    let later = Candidate { stamp: Stamp { generation: 300, ..one.stamp }, ..one };
    let [yes, no] = [true, false].map(|v| open(vec![candidate(1, value(v))]));
    let span = [("start", 5), ("stop", 7)].map(|(name, v)| (name.to_owned(), Value::Int(v)));
    let counts =
        [1, 2].map(|n| (count("views", ReplicaId::from_u128(n)), Register::plain(candidate(n, value(3)))));
    vec![
        simple("plain", &[(title.clone(), plain(one.value))]),
        simple("plain_of_a_rank", &[(title.clone(), Register::plain(ranked()))]),
        simple("plain_of_a_generation", &[(title.clone(), Register::plain(later))]),
        simple("margin", &[(field("owner"), margin)]),
        simple(
            "margin_of_a_rank",
            &[(field("owner"), Register { floor: early, ..Register::plain(ranked()) })],
        ),
        simple("multi", &[(field("notes"), open(vec![one, two]))]),
        simple("group", &[(group("span"), plain(value(Value::Map(span.into()))))]),
        simple("set", &[(key("tags", "blue"), no.clone()), (key("tags", "red"), yes.clone())]),
        simple("map", &[(key("labels", "a"), plain(value(1.5))), (key("labels", "b"), plain(ABSENT))]),
        simple("counter", &counts),
        simple("life", &[(LIFE.to_vec(), yes), (title.clone(), plain(value(Value::Null)))]),
        simple("life_deleted", &[(LIFE.to_vec(), no)]),
        simple("of_a_newer_version", &[(vec![200, 0, 1, b'x', 9], plain(b"\xd9\x03\xe7\x41\x00"))]),
        Golden { end: field("u"), ..simple("chunk", &[(title, plain(one.value))]) },
    ]
}

/// Rows that later commits wrote again, and rows with pending edits.
fn other_rows() -> Vec<Golden> {
    let (title, notes) = (field("title"), field("notes"));
    let [one, two] = [1, 2].map(|n| candidate(n, value("value")));
    let [old, new] = [one, two].map(Register::plain);
    let [left, right] = [one, two].map(|one| open(vec![one]));
    let source = Some(StoreId(0x0102_0304));
    let pend = |at: &Vec<u8>, register: &Register<'static>| (at.clone(), Change::Pend(register.clone()));
    vec![
        Golden {
            name: "own_seq_and_source",
            end: Vec::new(),
            commits: vec![vec![join(&title, &old, source)], vec![join(&notes, &left, source)]],
            states: vec![
                (notes.clone(), State { source, ..state(left.clone()) }),
                (title.clone(), State { source, seq: 1, ..state(old.clone()) }),
            ],
        },
        Golden {
            name: "pending",
            end: Vec::new(),
            commits: vec![vec![pend(&title, &new)]],
            states: vec![(title.clone(), State { confirmed: Confirmed::Absent, ..state(new.clone()) })],
        },
        Golden {
            name: "pending_beside_confirmed",
            end: Vec::new(),
            commits: vec![
                vec![join(&notes, &left, source), join(&title, &old, source)],
                vec![pend(&notes, &right), pend(&title, &new)],
            ],
            states: vec![
                (notes, State { confirmed: Confirmed::Register(left), ..state(open(vec![one, two])) }),
                (title.clone(), State { confirmed: Confirmed::Register(old.clone()), ..state(new.clone()) }),
            ],
        },
        Golden {
            name: "confirmed_under_pending",
            end: Vec::new(),
            commits: vec![vec![pend(&title, &new)], vec![join(&title, &old, source)]],
            states: vec![(title, State { confirmed: Confirmed::Register(old), seq: 1, ..state(new) })],
        },
    ]
}

fn rows() -> impl Iterator<Item = Golden> {
    simple_rows().into_iter().chain(other_rows())
}

/// The bytes of the row after its commits.
fn written(golden: &Golden) -> Vec<u8> {
    let (mut buffer, mut scratch, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    let mut digested = Digested::new(&mut buffer, "task", "t");
    for (changes, seq) in golden.commits.iter().zip(0..) {
        let first = Row { end: &golden.end, ..Row::empty() };
        let row = if seq == 0 { first } else { Row::new(&bytes, seq).unwrap() };
        let applied = apply(row, changes, &mut scratch, &mut digested).unwrap();
        bytes = applied.rows.into_iter().next().unwrap().1;
    }
    bytes
}

/// What is evicted: whether it is alive, and a title that is not at hand.
fn leaving() -> [(Vec<u8>, Register<'static>); 2] {
    [(LIFE.to_vec(), plain(value(true))), (field("title"), plain(value("far away")))]
}

/// The row of an evicted entity, which has version 2.
fn evicted() -> Vec<u8> {
    let bytes = written(&simple("evicted", &leaving()));
    let mut buffer = Vec::new();
    let mut digested = Digested::new(&mut buffer, "task", "t");
    evict(Row::new(&bytes, SEQ).unwrap(), &mut digested).unwrap().unwrap().bytes
}

#[test]
fn rows_have_the_bytes_of_their_versions() {
    let others = [("digest".to_owned(), digest().to_be_bytes().to_vec()), ("evicted".to_owned(), evicted())];
    let rows = rows().map(|golden| (golden.name.to_owned(), written(&golden)));
    assert_same(FILE, &rows.chain(others).collect::<Vec<_>>());
}

#[test]
fn a_row_of_version_2_holds_what_stayed_and_the_shares_of_what_left() {
    let bytes = pieces(FILE).remove("evicted").unwrap();
    let row = Row::new(&bytes, SEQ).unwrap();
    let [(life, alive), (title, far)] = leaving();
    let held: Vec<_> = row.entries().map(|entry| entry.unwrap().address.to_vec()).collect();
    assert_eq!((bytes[0], row.is_evicted(), held), (2, true, vec![life.clone()]));
    assert_eq!(row.find(&life).unwrap().unwrap().shown().unwrap(), alive);
    let mut buffer = Vec::new();
    let share = Digested::new(&mut buffer, "task", "t").hash(&title, &far);
    let shares: Vec<_> = row.shares().map(Result::unwrap).collect();
    assert_eq!(shares, [(&title[..], share)]);
}

#[test]
fn rows_of_version_1_hold_what_was_written() {
    let kept = pieces(FILE);
    for Golden { name, end, states, .. } in rows() {
        let row = Row::new(&kept[name], SEQ).unwrap();
        let entries = row.entries().map(Result::unwrap);
        let found: Vec<_> = entries.map(|entry| (entry.address.to_vec(), entry.state().unwrap())).collect();
        assert_eq!((row.end, found), (&end[..], states), "{name}");
    }
}

/// The sum of the summands of everything that shows, which replicas of all versions compare.
fn digest() -> u128 {
    let mut buffer = Vec::new();
    let mut digested = Digested::new(&mut buffer, "task", "t");
    let all: Vec<_> = rows().flat_map(|golden| golden.states).collect();
    all.iter().fold(0, |sum, (at, state)| digested.hash(at, &state.shown).wrapping_add(sum))
}
