//! Pages and pushes: cut, out of order, beyond their bounds, with references to nothing and broken registers.

use rivus_core::address::{ID_BYTES_MAX, KEY_BYTES_MAX, KIND_BYTES_MAX, class};
use rivus_core::register::Malformed;
use rivus_core::wire::page::{REGISTERS_MAX, SEEN_MAX};

use super::parts::{Parts, prefix, slice, varint, zigzag};
use super::{BadFrame, Expect, State, bound, malformed};

/// The three sections of a page or push.
#[derive(Clone)]
pub(super) struct Sections {
    shape: Parts,
    stamps: Parts,
    values: Parts,
}

/// The frames that hold rows.
pub(super) const FRAMES: [&str; 4] = ["DELTA", "PUSH", "FETCHED", "REPAIR"];

/// Those of them that tell no position.
const WITHOUT_POSITION: [&str; 2] = ["FETCHED", "REPAIR"];

/// Who takes it.
pub(super) fn state_of(frame: &str) -> State {
    match frame {
        "DELTA" => State::ServerOpen,
        "PUSH" => State::AuthorityOpen,
        "REPAIR" => State::ClientMending,
        _ => State::ClientFetching,
    }
}

/// The frame of these sections: a first page, or a push of one edit of one entity.
pub(super) fn frame(name: &str, shape: &[u8], stamps: &[u8], values: &[u8]) -> Vec<u8> {
    let edit: &[u8] = if name == "PUSH" { &[1, 1] } else { &[] };
    [head(name), slice(&[edit, shape].concat()), slice(stamps), values.to_vec()].concat()
}

fn head(name: &str) -> Vec<u8> {
    match name {
        "DELTA" => vec![7, 4, 1],
        "PUSH" => vec![9, 0, 0, 0],
        "REPAIR" => vec![19, 0],
        _ => vec![14, 0],
    }
}

/// A new entity of `count` registers, without them.
pub(super) fn entity(count: u64) -> Vec<u8> {
    [&[0, 0][..], &slice(b"task"), &slice(b"t"), &varint(count)].concat()
}

/// A register's first byte and its field, told in full.
pub(super) fn field(form: u8, name: &str) -> Vec<u8> {
    [&[form][..], &slice(&prefix(class::FIELD, name.as_bytes()))].concat()
}

/// The header of an edit of a new replica at this time.
pub(super) fn edit(replica: u8, ms: i64) -> Vec<u8> {
    [&[0][..], &[replica; 16], &zigzag(ms), &[0]].concat()
}

/// An entity with a register of each way to write one.
fn sample() -> Sections {
    let (title, tags, views) = (
        slice(&prefix(class::FIELD, b"title")),
        slice(&prefix(class::KEY, b"tags")),
        slice(&prefix(class::COUNT, b"views")),
    );
    let known = slice(&prefix(class::FIELD, b"known"));
    Sections {
        shape: Parts::new(&[
            ("entity", &[0]),
            ("kind", &[0]),
            ("kind's name", &slice(b"task")),
            ("id", &slice(b"t")),
            ("count of registers", &[5]),
            ("form and field", &[1]),
            ("prefix of a field", &known),
            ("form full", &[7]),
            ("prefix of a full register", &title),
            ("count of candidates", &[1]),
            ("count of seen entries", &[1]),
            ("mark of a floor", &[1]),
            ("floor's generation", &[0]),
            ("floor's time", &[0, 0, 0, 0, 0, 0, 0, 1]),
            ("floor's replica", &[0; 16]),
            ("reference to an edit", &[1]),
            ("form margin", &[6]),
            ("prefix of a register with a margin", &tags),
            ("key", &slice(b"red")),
            ("margin's edit", &[1]),
            ("margin", &[1]),
            ("form back", &[2]),
            ("prefix of a counter", &views),
            ("counter's replica", &[1]),
            ("distance back", &[0]),
            ("form of a later version", &[0]),
            ("prefix of an unknown class", &slice(&prefix(200, b"x"))),
            ("key of an unknown class", &slice(&[9, 9])),
        ]),
        stamps: Parts::new(&[
            ("marks", &[3]),
            ("replica", &[7; 16]),
            ("generation", &[0]),
            ("rank", &[0]),
            ("ms", &zigzag(1000)),
            ("rest", &[5]),
            ("incarnation", &[0]),
            ("incarnation's id", &[0, 0, 0, 0, 0, 0, 0, 9]),
            ("done", &zigzag(3)),
            ("seen replica", &[0]),
            ("seen replica's id", &[8; 16]),
            ("seen generation", &[0]),
            ("seen ms", &zigzag(-1)),
            ("seen rest", &[0]),
        ]),
        values: Parts::new(&[
            ("first value", b"\x01"),
            ("second value", b"\x63abc"),
            ("third value", b"\xf5"),
            ("fourth value", b"\xf6"),
            ("fifth value", b"\x82\x01\x02"),
        ]),
    }
}

pub(super) fn good() -> Vec<(&'static str, State, Vec<u8>)> {
    FRAMES.into_iter().map(|name| (name, state_of(name), assemble(name, &sample()))).collect()
}

fn assemble(name: &str, sections: &Sections) -> Vec<u8> {
    frame(name, &sections.shape.bytes(), &sections.stamps.bytes(), &sections.values.bytes())
}

pub(super) fn add(all: &mut Vec<BadFrame>) {
    for name in FRAMES {
        let mut bad = |fault: &str, bytes: Vec<u8>, expect: Expect| {
            all.push(BadFrame { name: format!("{name}: {fault}"), state: state_of(name), bytes, expect });
        };
        headers(name, &mut bad);
        cuts(name, &mut bad);
        counts(name, &mut bad);
        references(name, &mut bad);
        addresses(name, &mut bad);
        times(name, &mut bad);
        registers(name, &mut bad);
    }
    edits(all);
}

type Bad<'b> = &'b mut dyn FnMut(&str, Vec<u8>, Expect);

fn headers(name: &'static str, bad: Bad<'_>) {
    let whole = assemble(name, &sample());
    let tag = whole.first().copied().unwrap_or_default();
    let sections = whole.get(head(name).len()..).unwrap_or_default();
    let mut with = |fault: &str, head: &[u8]| bad(fault, [head, sections].concat(), malformed(name));
    let unknown = match name {
        "DELTA" => vec![tag, 20, 1],
        "PUSH" => vec![tag, 1, 0, 0],
        _ => vec![tag, 2],
    };
    with("an unknown flag", &unknown);
    if !WITHOUT_POSITION.contains(&name) {
        with("a position in more bytes than it needs", &[&[tag, 0, 0x81, 0][..], &[0]].concat());
        with("a position above 64 bits", &[&[tag, 0][..], &[0xff; 10], &[0]].concat());
    }
    let mut cut = |fault: &str, bytes: &[u8]| bad(fault, [&[tag], bytes].concat(), malformed(name));
    cut("nothing but its type", &[]);
    if !WITHOUT_POSITION.contains(&name) {
        cut("cut after the flags", &[0]);
    }
    cut("cut in the position", &[0, 0x80]);
    cut("cut in the incarnation", &[2, 1, 1, 0, 0, 0]);
    if name == "PUSH" {
        cut("cut before the head", &[0, 0]);
    }
    let start = head(name);
    let mut after = |fault: &str, bytes: &[u8]| bad(fault, [&start, bytes].concat(), malformed(name));
    after("no sections", &[]);
    after("a shape longer than the frame", &[5, 0]);
    after("a shape of 2^63 bytes", &varint(1 << 63));
    after("no stamps", &[0]);
    after("stamps longer than the frame", &[0, 9]);
    after("a stamp that nobody names", &[0, 1, 0]);
    after("a value that nobody names", &[0, 0, 0xf6]);
}

fn cuts(name: &'static str, bad: Bad<'_>) {
    let whole = sample();
    for (part, bytes) in whole.shape.cuts() {
        let bytes = frame(name, &bytes, &whole.stamps.bytes(), &whole.values.bytes());
        bad(&format!("the shape is cut before {part}"), bytes, malformed(name));
    }
    for (part, bytes) in whole.stamps.cuts() {
        let bytes = frame(name, &whole.shape.bytes(), &bytes, &whole.values.bytes());
        bad(&format!("the stamps are cut before {part}"), bytes, malformed(name));
    }
    for (part, bytes) in whole.values.cuts() {
        let bytes = frame(name, &whole.shape.bytes(), &whole.stamps.bytes(), &bytes);
        let cut = rivus_core::value::ValueError::Truncated { at: 0 };
        // A full register is not begun where there are fewer bytes of values than candidates.
        let expect = if part == "second value" { malformed(name) } else { Expect::Wire(cut.into()) };
        bad(&format!("the values are cut before {part}"), bytes, expect);
    }
    let more = |section: Parts| [&section.bytes()[..], &[0]].concat();
    let bytes = frame(name, &whole.shape.bytes(), &more(whole.stamps.clone()), &whole.values.bytes());
    bad("a byte too many among the stamps", bytes, malformed(name));
    let bytes = frame(name, &whole.shape.bytes(), &whole.stamps.bytes(), &more(whole.values.clone()));
    bad("a byte too many among the values", bytes, malformed(name));
    let bytes = frame(name, &more(whole.shape.clone()), &whole.stamps.bytes(), &whole.values.bytes());
    bad("a byte too many in the shape", bytes, malformed(name));
}

fn counts(name: &'static str, bad: Bad<'_>) {
    let whole = sample();
    let with = |part: &str, bytes: &[u8]| {
        assemble(name, &Sections { shape: whole.shape.with(part, bytes), ..whole.clone() })
    };
    bad("an entity without registers", with("count of registers", &[0]), malformed(name));
    bad("one register less than there are", with("count of registers", &[4]), malformed(name));
    bad("more registers than bytes", with("count of registers", &varint(1 << 20)), malformed(name));
    bad("2^64 - 1 registers", with("count of registers", &varint(u64::MAX)), malformed(name));
    let registers = [entity(REGISTERS_MAX as u64 + 1), vec![0; REGISTERS_MAX + 1]].concat();
    let too_many = bound("registers in a frame", REGISTERS_MAX);
    bad("more registers than a frame may have", frame(name, &registers, &[], &[]), too_many.clone());
    bad("more candidates than bytes", with("count of candidates", &varint(1 << 40)), malformed(name));
    bad("more candidates than values", with("count of candidates", &varint(20)), malformed(name));
    bad("2^64 - 1 candidates", with("count of candidates", &varint(u64::MAX)), malformed(name));
    let count = REGISTERS_MAX + 1;
    let candidates = [entity(1), field(7, "f"), varint(count as u64), vec![0, 0], vec![1; count]].concat();
    let bytes = frame(name, &candidates, &[0; 40], &vec![0xf6; count]);
    bad("more candidates than a frame may have", bytes, too_many);
    bad("more seen entries than stamps", with("count of seen entries", &varint(1 << 20)), malformed(name));
    bad("2^64 - 1 seen entries", with("count of seen entries", &varint(u64::MAX)), malformed(name));
    let seen = [entity(1), field(7, "f"), vec![1], varint(SEEN_MAX as u64 + 1), vec![0, 0]].concat();
    let bytes = frame(name, &seen, &vec![0; 4 * SEEN_MAX + 64], &[0xf6]);
    bad("more seen entries than a frame may have", bytes, bound("seen entries in a frame", SEEN_MAX));
    bad("a count in more bytes than it needs", with("count of registers", &[0x85, 0]), malformed(name));
    bad("a count above 64 bits", with("count of registers", &[0xff; 10]), malformed(name));
    bad("a floor that is neither there nor not", with("mark of a floor", &[2]), malformed(name));
}

fn references(name: &'static str, bad: Bad<'_>) {
    let mut shape = |fault: &str, shape: &[u8]| {
        bad(fault, frame(name, shape, &edit(7, 1000), &[0xf6]), malformed(name));
    };
    shape("an entity that was never told", &[1, 1, 0]);
    shape("an entity 2^64 - 1 back", &[&varint(u64::MAX)[..], &[1, 0]].concat());
    shape("a kind that was never told", &[0, 1, 1, b't', 1, 0, 0]);
    shape(
        "a kind further back than there are",
        &[&[0, 0][..], &slice(b"k"), &[0, 1, 1, 3 << 3, 0, 2, 0]].concat(),
    );
    shape("a field that was never told", &[entity(1), vec![1 | 1 << 3]].concat());
    shape("a field 30 back", &[entity(1), vec![1 | 30 << 3]].concat());
    shape("a field 40 back that was never told", &[entity(1), vec![1 | 31 << 3, 40]].concat());
    shape("a field at distance 0", &[entity(1), vec![1 | 31 << 3, 0]].concat());
    shape("the edit before the first", &[entity(1), field(0, "f")].concat());
    shape("the open edit before the first", &[entity(1), field(3, "f")].concat());
    shape("an edit back before the first", &[entity(1), field(2, "f"), vec![0]].concat());
    shape("an open edit far back", &[entity(1), field(5, "f"), vec![9]].concat());
    shape("an edit 2^64 - 1 back", &[entity(1), field(2, "f"), varint(u64::MAX)].concat());
    shape("a margin's edit that was never told", &[entity(1), field(6, "f"), vec![1, 0]].concat());
    shape("a candidate's edit that was never told", &[entity(1), field(7, "f"), vec![1, 0, 0, 1]].concat());
    let count = [&[1][..], &slice(&prefix(class::COUNT, b"c")), &[1]].concat();
    shape("a counter's replica that was never told", &[entity(1), count].concat());
    let mut stamps = |fault: &str, stamps: &[u8]| {
        let shape = [entity(1), field(1, "f")].concat();
        bad(fault, frame(name, &shape, stamps, &[0xf6]), malformed(name));
    };
    stamps("a replica that was never told", &[1 << 2, 0, 0]);
    stamps("a replica far back", &[&varint(1000 << 2)[..], &[0, 0]].concat());
    stamps("an incarnation that was never told", &[&[1][..], &[7; 16], &[0, 0, 1, 0]].concat());
    let seen = [entity(1), field(7, "f"), vec![1, 1, 0, 0]].concat();
    let bytes = frame(name, &seen, &[edit(7, 1000), vec![9, 0, 1, 0]].concat(), &[0xf6]);
    bad("a seen entry of a replica that was never told", bytes, malformed(name));
    // 17 edits, then the first one once more: a reader keeps 16.
    let mut far = entity(18);
    let mut times = Vec::new();
    for n in 0..17 {
        far.extend(field(1, &format!("{n:02}")));
        times.extend(if n == 0 { edit(7, 1000) } else { vec![4, 2, 0] });
    }
    far.extend([field(2, "far"), vec![16]].concat());
    bad("an edit further back than is kept", frame(name, &far, &times, &[0xf6; 18]), malformed(name));
}

fn addresses(name: &'static str, bad: Bad<'_>) {
    let mut shape = |fault: &str, shape: Vec<u8>| {
        bad(fault, frame(name, &shape, &edit(7, 1000), &[0xf6; 2]), malformed(name));
    };
    let at = |form: u8, class: u8, name: &[u8], key: &[u8]| {
        [&[form][..], &slice(&prefix(class, name)), key].concat()
    };
    let two = |one: Vec<u8>, two: Vec<u8>| [entity(2), one, two].concat();
    shape("an address twice", two(field(1, "f"), vec![1 << 3]));
    shape("an address twice, told twice", two(field(1, "f"), field(0, "f")));
    shape("addresses that fall", two(field(1, "g"), field(0, "f")));
    shape("a longer name before a shorter one", two(field(1, "aa"), field(0, "b")));
    shape("a field before the life register", two(field(1, "f"), at(0, class::LIFE, b"", &[])));
    shape("a key twice", two(at(1, class::KEY, b"s", &slice(b"k")), [&[1 << 3][..], &slice(b"k")].concat()));
    shape(
        "keys that fall",
        two(at(1, class::KEY, b"s", &slice(b"k")), [&[1 << 3][..], &slice(b"j")].concat()),
    );
    let one = |register: Vec<u8>| [entity(1), register].concat();
    shape("a life register with a name", one(at(1, class::LIFE, b"x", &[])));
    shape("a name that is not UTF-8", one(at(1, class::FIELD, b"\xff", &[])));
    shape("a prefix without a length", one([&[1][..], &slice(&[class::FIELD])].concat()));
    shape("an empty prefix", one(vec![1, 0]));
    shape("a prefix shorter than its name", one([&[1][..], &slice(&[class::FIELD, 0, 2, b'x'])].concat()));
    shape(
        "a prefix longer than its name",
        one([&[1][..], &slice(&[class::FIELD, 0, 1, b'x', b'y'])].concat()),
    );
    shape("a key that is not UTF-8", one(at(1, class::KEY, b"s", &slice(&[0xff]))));
    shape("a key that is too long", one(at(1, class::KEY, b"s", &slice(&[b'k'; KEY_BYTES_MAX + 1]))));
    shape("a key of a later class that is too long", one(at(1, 200, b"s", &slice(&[0; KEY_BYTES_MAX + 1]))));
    shape("a counter's replica of too few bytes", one(at(1, class::COUNT, b"c", &[0, 1, 2, 3])));
    let entity =
        |kind: &[u8], id: &[u8]| [&[0, 0][..], &slice(kind), &slice(id), &[1], &field(1, "f")].concat();
    shape("an empty kind", entity(b"", b"t"));
    shape("a kind that is too long", entity(&[b'k'; KIND_BYTES_MAX + 1], b"t"));
    shape("a kind that is not UTF-8", entity(b"\xff", b"t"));
    shape("an id that is too long", entity(b"task", &[b'i'; ID_BYTES_MAX + 1]));
    shape("an id that is not UTF-8", entity(b"task", b"\xc3"));
}

fn times(name: &'static str, bad: Bad<'_>) {
    let mut stamps = |fault: &str, stamps: Vec<u8>| {
        let shape = [entity(1), field(1, "f")].concat();
        bad(fault, frame(name, &shape, &stamps, &[0xf6]), malformed(name));
    };
    let stamp = |ms: Vec<u8>, rest: Vec<u8>| [&[0][..], &[7; 16], &ms, &rest].concat();
    // 2^32 - 1 seconds are the end of time: 2^64 - 2^32 units.
    let end = (i64::from(u32::MAX)) * 1000;
    stamps("the time 2^64 - 2^32", stamp(zigzag(end), vec![0]));
    stamps("a time beyond 2^64", stamp(zigzag(end + 1), varint(1 << 32)));
    stamps("a time before 1970", stamp(zigzag(-1), vec![0]));
    stamps("a rest that leads beyond the end", stamp(vec![0], zigzag(-1)));
    stamps("a generation beyond 16 bits", [&[2][..], &[7; 16], &varint(1 << 16), &[0, 0, 0]].concat());
    let full = |floor: &[u8]| [&entity(1)[..], &field(7, "f"), &[1, 0], floor, &[0]].concat();
    let floor = |time: u64| [&[1, 0][..], &time.to_be_bytes(), &[0; 16]].concat();
    let mut floors = |fault: &str, floor: &[u8]| {
        bad(fault, frame(name, &full(floor), &edit(7, 1000), &[0xf6]), malformed(name));
    };
    floors("a floor at 2^64 - 2^32", &floor(u64::MAX - u64::from(u32::MAX)));
    floors("a floor at 2^64 - 1", &floor(u64::MAX));
    floors("a floor's generation beyond 16 bits", &[&[1][..], &varint(1 << 16), &[0; 24]].concat());
    let margin = [entity(1), field(6, "f"), vec![0], varint(u64::MAX)].concat();
    bad("a margin that reaches before 1970", frame(name, &margin, &edit(7, 1000), &[0xf6]), malformed(name));
    let seen = |ms: Vec<u8>| [edit(7, 1000), vec![0], vec![8; 16], ms].concat();
    let shape = [entity(1), field(7, "f"), vec![1, 1, 0, 0]].concat();
    let bytes = frame(name, &shape, &seen([vec![0], zigzag(end), vec![0]].concat()), &[0xf6]);
    bad("a seen entry at 2^64 - 2^32", bytes, malformed(name));
    let bytes = frame(name, &shape, &seen([varint(1 << 16), vec![0, 0]].concat()), &[0xf6]);
    bad("a seen entry's generation beyond 16 bits", bytes, malformed(name));
}

/// A full register of candidates at these (replica, ms) and seen entries, with a floor at this ms.
fn full(name: &str, floor: Option<u64>, alive: &[(u8, i64)], seen: &[(u8, i64)]) -> Vec<u8> {
    let mut shape = [entity(1), field(7, "f")].concat();
    shape.extend(varint(alive.len() as u64));
    shape.extend(varint(seen.len() as u64));
    match floor {
        None => shape.push(0),
        Some(ms) => {
            shape.extend([1, 0]);
            shape.extend(rivus_core::clock::ticks(ms).to_be_bytes());
            shape.extend([0; 16]);
        }
    }
    let (mut stamps, mut before) = (Vec::new(), 0);
    for (replica, ms) in alive {
        shape.push(0);
        stamps.extend(edit(*replica, ms - before));
        before = *ms;
    }
    for (replica, ms) in seen {
        stamps.push(0);
        stamps.extend([*replica; 16]);
        stamps.push(0);
        stamps.extend(zigzag(ms - before));
        stamps.push(0);
        before = *ms;
    }
    frame(name, &shape, &stamps, &vec![0xf6; alive.len()])
}

fn registers(name: &'static str, bad: Bad<'_>) {
    let mut breaks =
        |fault: &str, bytes: Vec<u8>, law: Malformed| bad(fault, bytes, Expect::Wire(law.into()));
    use Malformed::{
        BelowFloor, FloorAboveNewest, NoCandidate, SeenAboveNewest, SeenOfCandidate, TwoOfOneReplica,
        Unsorted,
    };
    breaks("a register without candidates", full(name, None, &[], &[]), NoCandidate);
    breaks("seen entries without candidates", full(name, None, &[], &[(1, 5)]), NoCandidate);
    breaks("a floor above the only candidate", full(name, Some(9), &[(1, 8)], &[]), FloorAboveNewest);
    breaks("a floor above all candidates", full(name, Some(9), &[(1, 7), (2, 8)], &[]), FloorAboveNewest);
    breaks("a candidate below the floor", full(name, Some(8), &[(1, 7), (2, 8)], &[]), BelowFloor);
    breaks("a seen entry below the floor", full(name, Some(8), &[(1, 9)], &[(2, 7)]), BelowFloor);
    breaks("candidates that fall", full(name, None, &[(1, 8), (2, 7)], &[]), Unsorted);
    breaks("a candidate twice", full(name, None, &[(1, 8), (1, 8)], &[]), Unsorted);
    breaks("seen entries that fall", full(name, None, &[(1, 9)], &[(3, 8), (2, 8)]), Unsorted);
    breaks("a replica seen twice", full(name, None, &[(1, 9)], &[(2, 7), (2, 8)]), Unsorted);
    breaks("two candidates of one replica", full(name, None, &[(1, 7), (1, 8)], &[]), TwoOfOneReplica);
    breaks(
        "two of one replica, another between",
        full(name, None, &[(1, 6), (2, 7), (1, 8)], &[]),
        TwoOfOneReplica,
    );
    breaks("a seen entry of a candidate", full(name, None, &[(1, 9)], &[(1, 8)]), SeenOfCandidate);
    breaks(
        "a seen entry of an older candidate",
        full(name, None, &[(2, 8), (1, 9)], &[(2, 7)]),
        SeenOfCandidate,
    );
    breaks("a seen entry of the newest time", full(name, None, &[(2, 9)], &[(1, 9)]), SeenAboveNewest);
    breaks("a seen entry above the newest", full(name, None, &[(1, 9)], &[(2, 10)]), SeenAboveNewest);
}

/// The heads of a push's edits.
fn edits(all: &mut Vec<BadFrame>) {
    let mut bad = |fault: &str, shape: &[u8]| {
        let bytes = [head("PUSH"), slice(shape), slice(&edit(7, 1000)), vec![0xf6]].concat();
        let expect = malformed("PUSH");
        all.push(BadFrame { name: format!("PUSH: {fault}"), state: State::AuthorityOpen, bytes, expect });
    };
    let one = [entity(1), field(1, "f")].concat();
    bad("an edit without entities", &[1, 0]);
    bad("an edit without entities after another", &[&[1, 1][..], &one, &[1, 0]].concat());
    bad("more entities than bytes", &[&[1, 100][..], &one].concat());
    bad("2^64 - 1 entities", &[&[1][..], &varint(u64::MAX), &one].concat());
    bad("one entity less than it says", &[&[1, 2][..], &one].concat());
    bad("two edits of one number", &[&[1, 1][..], &one, &[0, 1], &[1, 1, 1 << 3]].concat());
    bad(
        "an edit's number beyond 64 bits",
        &[&[1, 1][..], &one, &varint(u64::MAX), &[1, 1, 1, 1 << 3]].concat(),
    );
    bad("an edit cut after its number", &[&[1, 1][..], &one, &[1]].concat());
}
