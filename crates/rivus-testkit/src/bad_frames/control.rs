//! Control frames: cut, of wrong types, beyond their bounds.

use rivus_core::address::{ID_BYTES_MAX, class};
use rivus_core::code::Code;
use rivus_core::id::ReplicaId;
use rivus_core::sketch::SYMBOLS_MAX;
use rivus_core::wire::{
    COLLECTED_KEYS_MAX, COLLECTED_MAX, FETCH_ENTITIES_MAX, FRAME_BYTES_MAX, Frame, GOAWAY_BYTES_MAX,
    GREETING_BYTES_MAX, IGNORED_BYTES_MAX, SCHEMA_BYTES_MAX, TOKEN_BYTES_MAX, WireError,
};

use super::parts::{Parts, varint};
use super::state::{SYMBOLS_FIRST, schema, symbols};
use super::{BadFrame, Expect, State, bound, malformed};

/// A control frame in its parts, and who takes it.
struct Sound {
    name: &'static str,
    state: State,
    parts: Parts,
}

fn hello() -> Parts {
    let before: [(_, &[u8]); 6] = [
        ("type", b"\x01"),
        ("map", b"\xa6"),
        ("lowest version", b"\x00\x01"),
        ("highest version", b"\x01\x01"),
        ("capabilities", b"\x02\x00"),
        ("about", b"\x03\xa6"),
    ];
    greeting(&before, &[("token", b"\x04\x64boss"), ("offers", b"\x05\xf5")])
}

fn welcome() -> Parts {
    let before: [(_, &[u8]); 5] = [
        ("type", b"\x02"),
        ("map", b"\xa6"),
        ("version", b"\x00\x01"),
        ("capabilities", b"\x01\x00"),
        ("about", b"\x02\xa6"),
    ];
    let after: [(_, &[u8]); 3] = [
        ("is an authority", b"\x03\xf4"),
        ("rank", b"\x04\x00"),
        ("known position", b"\x05\xa3\x00\x00\x01\x00\x02\x80"),
    ];
    greeting(&before, &after)
}

/// A frame with what both sides tell of themselves between its own parts.
fn greeting(before: &[(&'static str, &[u8])], after: &[(&'static str, &[u8])]) -> Parts {
    let fingerprint = [&[0x04, 0x50][..], &schema().fingerprint().to_be_bytes()].concat();
    let replicas = [&[0x01, 0x50][..], &ReplicaId::from_u128(7).0].concat();
    let about: [(_, &[u8]); 6] = [
        ("store id", b"\x00\x07"),
        ("replica ids", &replicas),
        ("incarnations", b"\x02\x81\x82\x18\x46\x01"),
        ("head", b"\x03\x05"),
        ("fingerprint", &fingerprint),
        ("clock", b"\x05\x1b\x00\x00\x01\x8b\xcf\xe5\x68\x00"),
    ];
    Parts::new(&[before, &about, after].concat())
}

fn reset() -> Parts {
    Parts::new(&[
        ("type", b"\x0c"),
        ("map", b"\xa3"),
        ("incarnation", b"\x00\x00"),
        ("seq", b"\x01\x00"),
        ("incarnations", b"\x02\x81\x82\x18\x46\x01"),
    ])
}

fn policies() -> Parts {
    Parts::new(&[
        ("type", b"\x04"),
        ("map", b"\xa1"),
        ("key", b"\x00"),
        ("list", b"\x81"),
        ("policy", b"\x83"),
        ("kind", b"\x64note"),
        ("field", b"\x64text"),
        ("words", b"\x65value"),
    ])
}

fn goaway() -> Parts {
    Parts::new(&[("type", b"\x03"), ("map", b"\xa2"), ("code", b"\x00\x00"), ("message", b"\x01\x60")])
}

/// The frames with bytes of their own.
fn packed() -> Vec<Sound> {
    let of = |name, state, parts: &[(&'static str, &[u8])]| Sound { name, state, parts: Parts::new(parts) };
    vec![
        of(
            "SUBSCRIBE",
            State::AuthorityOpen,
            &[
                ("type", b"\x05"),
                ("flags", b"\x05"),
                ("incarnation", b"\x01"),
                ("done", b"\x01"),
                ("at", b"\x00"),
                ("digest", &[0; 8]),
            ],
        ),
        of(
            "EQUAL",
            State::ClientOpen,
            &[
                ("type", b"\x06"),
                ("seq", b"\x05"),
                ("flag", b"\x01"),
                ("incarnation", &[0, 0, 0, 0, 0, 0, 0, 70]),
            ],
        ),
        of(
            "CHECKPOINT",
            State::ClientOpen,
            &[
                ("type", b"\x08"),
                ("seq", b"\x05"),
                ("digest", &[0; 16]),
                ("count", b"\x01"),
                ("flag", b"\x01"),
                ("incarnation", &[0; 8]),
                ("done", b"\x01"),
                ("at", b"\x00"),
            ],
        ),
        of(
            "ACK",
            State::ClientPushed,
            &[
                ("type", b"\x0a"),
                ("seq", b"\x06"),
                ("count", b"\x01"),
                ("clock", &[0; 8]),
                ("index", b"\x00"),
                ("code", &[0xad, 0x02]),
                ("message length", b"\x02"),
                ("message", b"no"),
            ],
        ),
        of(
            "FETCH",
            State::AuthorityOpen,
            &[
                ("type", b"\x0d"),
                ("count", b"\x01"),
                ("kind length", b"\x04"),
                ("kind", b"task"),
                ("id length", b"\x01"),
                ("id", b"t"),
            ],
        ),
        of("SYNCED", State::AuthorityOpen, &[("type", b"\x0b"), ("seq", &[0x80, 0x80, 0x01])]),
        of("WINDOW", State::AuthorityOpen, &[("type", b"\x11"), ("taken", &[0x80, 0x80, 0x01])]),
    ]
}

fn cbor() -> Vec<Sound> {
    let of = |name, state, parts| Sound { name, state, parts };
    vec![
        of("HELLO", State::AuthorityGreeting, hello()),
        of("WELCOME", State::ClientGreeting, welcome()),
        of("RESET", State::AuthorityOpen, reset()),
        of("SCHEMA", State::AuthoritySchema, policies()),
        of("GOAWAY", State::AuthorityOpen, goaway()),
    ]
}

pub(super) fn good() -> Vec<(&'static str, State, Vec<u8>)> {
    let all = cbor().into_iter().chain(packed());
    // SYNCED and WINDOW are sound in their form alone, GOAWAY ends the connection, and HELLO's token is for another server.
    all.filter(|sound| !["SYNCED", "WINDOW", "GOAWAY", "HELLO"].contains(&sound.name))
        .map(|sound| (sound.name, sound.state, sound.parts.bytes()))
        .chain([("HELLO", State::ServerGuarded, hello().bytes())])
        .chain(sketches().map(|(name, state, parts)| (name, state, parts.bytes())))
        .collect()
}

pub(super) fn add(all: &mut Vec<BadFrame>) {
    for Sound { name, state, parts } in &cbor() {
        let mut bad = |fault: String, bytes: Vec<u8>, expect: Expect| {
            all.push(BadFrame { name: format!("{name}: {fault}"), state: *state, bytes, expect });
        };
        for (fault, bytes) in cut_short(parts) {
            bad(fault, bytes, Expect::Cbor(name));
        }
        let whole = parts.bytes();
        bad("a byte too many".to_owned(), [&whole[..], &[0]].concat(), malformed(name));
        bad("no map".to_owned(), vec![first(&whole), 0x80], Expect::Cbor(name));
        bad("an empty map".to_owned(), vec![first(&whole), 0xa0], Expect::Cbor(name));
        bad("a reserved length".to_owned(), vec![first(&whole), 0xbc], Expect::Cbor(name));
        let deep = [&[first(&whole), 0xa1, 0x09], &[0x81; 16][..], &[0]].concat();
        bad("an unknown key with too deep a value".to_owned(), deep, bound("levels of nesting", 16));
    }
    types(all);
    bounds(all);
    bad_sketches(all);
    bad_leases(all);
    auth(all);
    for Sound { name, state, parts } in &packed() {
        let mut bad = |fault: String, bytes: Vec<u8>| {
            all.push(BadFrame {
                name: format!("{name}: {fault}"),
                state: *state,
                bytes,
                expect: malformed(name),
            });
        };
        cut_short(parts).into_iter().for_each(|(fault, bytes)| bad(fault, bytes));
        bad("a byte too many".to_owned(), [&parts.bytes()[..], &[0]].concat());
        let part = match *name {
            "SUBSCRIBE" => "done",
            "FETCH" => "count",
            "WINDOW" => "taken",
            _ => "seq",
        };
        bad("a number in more bytes than it needs".to_owned(), parts.with(part, &[0x81, 0x00]).bytes());
        bad("a number above 64 bits".to_owned(), parts.with(part, &[0xff; 10]).bytes());
        for flag in parts.names().filter(|name| ["flag", "flags"].contains(name)) {
            bad(
                "an unknown flag".to_owned(),
                parts.with(flag, &[if flag == "flags" { 13 } else { 2 }]).bytes(),
            );
        }
        if parts.names().any(|part| part == "done") {
            let bytes = parts.with("done", &varint(u64::MAX)).with("at", &[1]).bytes();
            bad("at beyond 64 bits".to_owned(), bytes);
        }
        if *name == "FETCH" {
            bad("of no entity".to_owned(), vec![0x0d, 0]);
            bad("more entities than bytes".to_owned(), parts.with("count", &varint(1 << 40)).bytes());
            bad("a kind that is not UTF-8".to_owned(), parts.with("kind", &[0xff; 4]).bytes());
            bad("an id longer than the frame".to_owned(), parts.with("id length", &[2]).bytes());
            let long = [&varint(ID_BYTES_MAX as u64 + 1)[..], &[b'x'; ID_BYTES_MAX]].concat();
            bad("an id that is too long".to_owned(), parts.with("id length", &long).bytes());
            let many =
                [&[0x0d][..], &varint(FETCH_ENTITIES_MAX as u64 + 1), &[0; 2 * FETCH_ENTITIES_MAX + 2]];
            bad("more entities than one may name".to_owned(), many.concat());
        }
        if *name == "ACK" {
            bad("an index beyond 32 bits".to_owned(), parts.with("index", &varint(1 << 32)).bytes());
            bad("a code beyond 16 bits".to_owned(), parts.with("code", &varint(1 << 17)).bytes());
            bad("a spot that is not there".to_owned(), parts.with("code", &varint((1 << 16) + 407)).bytes());
            bad("a message that is not UTF-8".to_owned(), parts.with("message", &[0xff, 0xff]).bytes());
            bad("a message longer than the frame".to_owned(), parts.with("message length", &[3]).bytes());
            all.extend(more_than_was_pushed(*state, parts));
        }
    }
}

/// More exceptions than an ACK can have.
fn more_than_was_pushed(state: State, parts: &Parts) -> [BadFrame; 2] {
    let many = [&[0x0a, 6][..], &varint(131_073), &[0; 8 + 3 * 131_073]].concat();
    let more = parts.with("count", &varint(1 << 40)).bytes();
    let bad = |fault: &str, bytes| {
        let expect = Expect::Refused(Code::UNEXPECTED, "ACK of more than was pushed");
        BadFrame { name: format!("ACK: {fault}"), state, bytes, expect }
    };
    [bad("more exceptions than bytes", more), bad("more exceptions than edits fit a push", many)]
}

/// The three frames that are called SKETCH.
fn sketches() -> impl Iterator<Item = (&'static str, State, Parts)> {
    let [one, two]: [&[u8]; 2] = [&[0, 0, 0, 0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 0, 0, 2]];
    let ask = Parts::new(&[("type", b"\x12"), ("form", b"\x00"), ("count", b"\x01")]);
    let lacks = Parts::new(&[
        ("type", b"\x12"),
        ("form", b"\x02"),
        ("count", b"\x02"),
        ("key", one),
        ("next key", two),
    ]);
    let all = symbols(SYMBOLS_FIRST);
    let rest = all.get(3 + 13..).unwrap_or_default();
    let tell = Parts::new(&[
        ("type", b"\x12"),
        ("form", b"\x01"),
        ("count", &[64]),
        ("keys", one),
        ("checks", all.get(11..15).unwrap_or_default()),
        ("number of keys", b"\x01"),
        ("other symbols", rest),
    ]);
    [
        ("SKETCH asks", State::ServerRead, ask),
        ("SKETCH tells", State::ClientLocating, tell),
        ("SKETCH lacks", State::ServerTold, lacks),
    ]
    .into_iter()
}

fn bad_sketches(all: &mut Vec<BadFrame>) {
    for (name, state, parts) in sketches() {
        let mut bad = |fault: &str, bytes: Vec<u8>| {
            let name = format!("{name}: {fault}");
            all.push(BadFrame { name, state, bytes, expect: malformed("SKETCH") });
        };
        cut_short(&parts).into_iter().for_each(|(fault, bytes)| bad(&fault, bytes));
        bad("a byte too many", [&parts.bytes()[..], &[0]].concat());
        bad("an unknown form", parts.with("form", &[3]).bytes());
        bad("a number in more bytes than it needs", parts.with("count", &[0x81, 0x00]).bytes());
        bad("a number above 64 bits", parts.with("count", &[0xff; 10]).bytes());
        bad("more than the frame holds", parts.with("count", &varint(1 << 40)).bytes());
        let many = |each: usize| {
            let head = [first(&parts.bytes()), parts.bytes().get(1).copied().unwrap_or_default()];
            [&head[..], &varint(SYMBOLS_MAX as u64 + 1), &vec![0; each * (SYMBOLS_MAX + 1)]].concat()
        };
        match name {
            "SKETCH asks" => {
                bad("for nothing", parts.with("count", &[0]).bytes());
                bad("for more symbols than there are", many(0));
            }
            "SKETCH tells" => {
                bad("nothing", vec![0x12, 1, 0]);
                bad("more symbols than there are", many(13));
                let long = parts.with("number of keys", &[0x81, 0x00]).bytes();
                bad("a number of keys in more bytes than it needs", long);
            }
            _ => {
                bad("more keys than can be found", many(8));
                bad("keys that fall", parts.with("next key", &[0; 8]).bytes());
                bad("a key twice", parts.with("next key", &[0, 0, 0, 0, 0, 0, 0, 1]).bytes());
            }
        }
    }
}

/// The three frames that are called LEASE.
fn bad_leases(all: &mut Vec<BadFrame>) {
    let cut = Parts::new(&[("type", b"\x16"), ("form", b"\x00"), ("seq", b"\x05")]);
    let collected = Parts::new(&[
        ("type", b"\x16"),
        ("form", b"\x01"),
        ("seq", b"\x05"),
        ("count", b"\x01"),
        ("kind length", b"\x04"),
        ("kind", b"task"),
        ("id length", b"\x01"),
        ("id", b"t"),
    ]);
    let keys = collected.with("form", &[2]).and(&[
        ("key count", b"\x02"),
        ("key length", b"\x05"),
        ("key", &[class::KEY, 0, 1, b'n', b'x']),
        ("second length", b"\x05"),
        ("second", &[class::KEY, 0, 1, b'n', b'y']),
    ]);
    let (quiet, pushed) = (State::ClientQuiet, State::ClientPushed);
    for (name, number, state, parts) in [
        ("a cut", "seq", quiet, cut),
        ("of a collection", "count", pushed, collected.clone()),
        ("of keys", "count", pushed, keys.clone()),
        ("of keys", "key count", quiet, keys.clone()),
    ] {
        assert!(Frame::decode(&parts.bytes()).is_ok(), "what is made worse is sound");
        let mut bad = |fault: &str, bytes: Vec<u8>| {
            // What is cut off early is the same of all three.
            if all.iter().all(|one| (one.state, &one.bytes) != (state, &bytes)) {
                let name = format!("LEASE tells {name}: {fault}, {number}");
                all.push(BadFrame { name, state, bytes, expect: malformed("LEASE") });
            }
        };
        cut_short(&parts).into_iter().for_each(|(fault, bytes)| bad(&fault, bytes));
        bad("a byte too many", [&parts.bytes()[..], &[0]].concat());
        bad("an unknown form", parts.with("form", &[3]).bytes());
        bad("a number in more bytes than it needs", parts.with(number, &[0x81, 0x00]).bytes());
        bad("a number above 64 bits", parts.with(number, &[0xff; 10]).bytes());
    }
    let mut bad = |fault: &str, bytes: Vec<u8>| {
        let name = format!("LEASE tells of a collection {fault}");
        all.push(BadFrame { name, state: State::ClientQuiet, bytes, expect: malformed("LEASE") });
    };
    bad("of nothing", vec![0x16, 1, 5, 0]);
    bad("of more than the frame holds", collected.with("count", &varint(1 << 40)).bytes());
    bad("with a kind that is not UTF-8", collected.with("kind", &[0xff; 4]).bytes());
    bad("with an id longer than the frame", collected.with("id length", &[2]).bytes());
    let long = [&varint(ID_BYTES_MAX as u64 + 1)[..], &[b'x'; ID_BYTES_MAX]].concat();
    bad("with an id that is too long", collected.with("id length", &long).bytes());
    let many = [&[0x16, 1, 5][..], &varint(COLLECTED_MAX as u64 + 1), &[0; 2 * COLLECTED_MAX + 2]];
    bad("of more than one frame may tell", many.concat());
    bad("of keys of nothing", vec![0x16, 2, 5, 0]);
    bad("of no keys", keys.with("key count", &[0]).bytes());
    bad("of keys that are not in order", keys.with("second", &[class::KEY, 0, 1, b'n', b'w']).bytes());
    bad("of a register that is no key", keys.with("key", &[class::FIELD, 0, 0, b'n', b'x']).bytes());
    bad("of a key that is not UTF-8", keys.with("second", &[class::KEY, 0, 1, b'n', 0xff]).bytes());
    bad("of keys with an id that is too long", keys.with("id length", &long).bytes());
    let key = [&[4][..], &[class::KEY, 0, 1, b'n']].concat();
    let many = [
        &[0x16, 2, 5, 1, 0, 0][..],
        &varint(COLLECTED_KEYS_MAX as u64 + 1),
        &key.repeat(COLLECTED_KEYS_MAX + 1),
    ];
    bad("of more keys than one frame may tell", many.concat());
}

fn first(bytes: &[u8]) -> u8 {
    bytes.first().copied().unwrap_or_default()
}

/// The frame cut before each part, and in its last byte if that is another cut.
fn cut_short(parts: &Parts) -> Vec<(String, Vec<u8>)> {
    let mut cuts: Vec<_> = parts.cuts().map(|(part, bytes)| (format!("cut before {part}"), bytes)).collect();
    let mut last = parts.bytes();
    last.pop();
    if cuts.iter().all(|(_, bytes)| *bytes != last) {
        cuts.push(("cut in its last byte".to_owned(), last));
    }
    cuts
}

/// The parts that are no key and value, or but the beginning of one.
const NOT_A_VALUE: [&str; 6] = ["type", "map", "about", "key", "list", "policy"];

/// Values of a wrong CBOR type, by part.
fn types(all: &mut Vec<BadFrame>) {
    for Sound { name, state, parts } in &cbor() {
        for part in parts.names().filter(|part| !NOT_A_VALUE.contains(part)) {
            // The key is the first byte of most parts; in SCHEMA there are items alone.
            let old = parts.names().position(|name| name == part).unwrap_or_default();
            let key: Vec<u8> = if *name == "SCHEMA" { vec![] } else { key_of(parts, old) };
            for (what, value) in
                [("a float", &b"\xfb\x3f\xf8\x00\x00\x00\x00\x00\x01"[..]), ("an empty map", b"\xa0")]
            {
                let bytes = parts.with(part, &[&key[..], value].concat()).bytes();
                let name_of = format!("{name}: {part} is {what}");
                all.push(BadFrame { name: name_of, state: *state, bytes, expect: Expect::Cbor(name) });
            }
        }
        for part in parts.names().filter(|part| !NOT_A_VALUE.contains(part)) {
            let is_optional = ["token", "known position"].contains(&part);
            if *name == "SCHEMA" || is_optional {
                continue;
            }
            let old = parts.names().position(|name| name == part).unwrap_or_default();
            let mut value = vec![0x18, 0x7f];
            value.extend(value_of(parts, old));
            let bytes = parts.with(part, &value).bytes();
            all.push(BadFrame {
                name: format!("{name}: {part} is missing, an unknown key in its place"),
                state: *state,
                bytes,
                expect: Expect::Cbor(name),
            });
        }
    }
}

fn part_bytes(parts: &Parts, at: usize) -> Vec<u8> {
    let all: Vec<_> = parts.cuts().map(|(_, bytes)| bytes.len()).chain([parts.bytes().len()]).collect();
    let start = at.checked_sub(1).and_then(|before| all.get(before)).copied().unwrap_or_default();
    let end = all.get(at).copied().unwrap_or_default();
    parts.bytes().get(start..end).unwrap_or_default().to_vec()
}

fn key_of(parts: &Parts, at: usize) -> Vec<u8> {
    part_bytes(parts, at).first().copied().into_iter().collect()
}

fn value_of(parts: &Parts, at: usize) -> Vec<u8> {
    part_bytes(parts, at).into_iter().skip(1).collect()
}

/// Sound CBOR that breaks the frame's own bounds.
/// Tokens on an open connection.
fn auth(all: &mut Vec<BadFrame>) {
    let mut bad = |fault: &str, state: State, bytes: &[u8], expect: Expect| {
        let name = format!("AUTH: {fault}");
        all.push(BadFrame { name, state, bytes: [&[0x10], bytes].concat(), expect });
    };
    let hub = State::AuthorityOpen;
    bad("cut short", hub, b"\xa1\x00", Expect::Cbor("AUTH"));
    bad("no map", hub, b"\x80", Expect::Cbor("AUTH"));
    bad("a token that is a number", hub, b"\xa1\x00\x01", Expect::Cbor("AUTH"));
    bad("a byte too many", hub, b"\xa1\x00\x64boss\x00", malformed("AUTH"));
    let long = [&b"\xa1\x00\x79"[..], &4097_u16.to_be_bytes(), &[b'x'; TOKEN_BYTES_MAX + 1]].concat();
    bad("too long a token", hub, &long, bound("a token's bytes", TOKEN_BYTES_MAX));
    bad("no token", hub, b"\xa0", Expect::Refused(Code::UNEXPECTED, "AUTH without a token"));
    bad("a token of nobody", hub, b"\xa1\x00\x64boss", Expect::Refused(Code::UNAUTHORISED, "grants nothing"));
    let nothing = Expect::Refused(Code::UNEXPECTED, "AUTH that grants nothing");
    bad("no rank", State::ClientPushed, b"\xa0", nothing);
    let order = Expect::Refused(Code::UNEXPECTED, "out of order");
    bad("before HELLO", State::AuthorityGreeting, b"\xa1\x00\x64boss", order);
}

fn unknown(all: &mut Vec<BadFrame>) {
    for tag in [0, 23, 40, 64, 100, 127] {
        all.push(BadFrame {
            name: format!("a frame of the unknown type {tag}"),
            state: State::AuthorityOpen,
            bytes: vec![tag, 0],
            expect: Expect::Wire(WireError::UnknownFrame { tag }),
        });
    }
}

fn bounds(all: &mut Vec<BadFrame>) {
    unknown(all);
    let incarnations = |count: u8| {
        let mut out = vec![0x02, 0x98, count];
        (1..=count).for_each(|n| out.extend([0x82, 0x18, 0xff, 0x18, n]));
        out
    };
    let replicas =
        |bytes: u16| [&[0x01, 0x59][..], &bytes.to_be_bytes(), &vec![7; usize::from(bytes)]].concat();
    for Sound { name, state, parts } in
        cbor().iter().filter(|sound| ["HELLO", "WELCOME"].contains(&sound.name))
    {
        let mut bad = |fault: &str, part: &str, bytes: &[u8], expect: Expect| {
            let bytes = parts.with(part, bytes).bytes();
            all.push(BadFrame { name: format!("{name}: {fault}"), state: *state, bytes, expect });
        };
        bad("no replica id", "replica ids", b"\x01\x40", malformed(name));
        bad("half a replica id", "replica ids", &replicas(24), malformed(name));
        bad("too many replica ids", "replica ids", &replicas(16 * 1025), bound("replica ids", 1024));
        bad("too many incarnations", "incarnations", &incarnations(33), bound("incarnations", 32));
        let far_too_many = [&[0x02, 0x99, 0x03, 0x00][..], &[0x82, 0x00, 0x01].repeat(0x300)].concat();
        bad("a list of nothing but incarnations", "incarnations", &far_too_many, malformed(name));
        bad("incarnations that fall", "incarnations", b"\x02\x82\x82\x01\x05\x82\x02\x04", malformed(name));
        bad(
            "two incarnations of one seq",
            "incarnations",
            b"\x02\x82\x82\x01\x05\x82\x02\x05",
            malformed(name),
        );
        bad("an incarnation of seq 0", "incarnations", b"\x02\x81\x82\x01\x00", malformed(name));
        bad("an incarnation of one number", "incarnations", b"\x02\x81\x81\x01", Expect::Cbor(name));
        bad("a head beyond 63 bits", "head", b"\x03\x1b\x80\x00\x00\x00\x00\x00\x00\x00", malformed(name));
        let short = [&[0x04, 0x4f][..], &[0; 15]].concat();
        bad("a fingerprint of 15 bytes", "fingerprint", &short, Expect::Cbor(name));
        bad(
            "a clock beyond 64 bits",
            "clock",
            b"\x05\x3b\x80\x00\x00\x00\x00\x00\x00\x00",
            Expect::Cbor(name),
        );
        bad("a negative store id", "store id", b"\x00\x20", Expect::Cbor(name));
        let version = if *name == "HELLO" { "lowest version" } else { "version" };
        bad("a version beyond 16 bits", version, b"\x00\x1a\x00\x01\x00\x00", Expect::Cbor(name));
    }
    let mut add = |name: &str, state: State, bytes: Vec<u8>, expect: Expect| {
        all.push(BadFrame { name: name.to_owned(), state, bytes, expect });
    };
    for (name, state, bytes) in [
        ("HELLO: about is a list", State::AuthorityGreeting, &b"\x01\xa1\x03\x80"[..]),
        ("WELCOME: about is a list", State::ClientGreeting, b"\x02\xa1\x02\x80"),
        ("SCHEMA: the policies are a text", State::AuthoritySchema, b"\x04\xa1\x00\x64note"),
        ("SCHEMA: a policy is a text", State::AuthoritySchema, b"\x04\xa1\x00\x81\x64note"),
        ("SCHEMA: a policy of four texts", State::AuthoritySchema, b"\x04\xa1\x00\x81\x84\x60\x60\x60\x60"),
    ] {
        add(name, state, bytes.to_vec(), Expect::Cbor(name.split(':').next().unwrap_or_default()));
    }
    let greeting = bound("bytes in a frame of this type", GREETING_BYTES_MAX);
    let (server, client) = (State::AuthorityGreeting, State::ClientGreeting);
    let long = |tag: u8, len: usize| [&[tag, 0x5a][..], &vec![0; len]].concat();
    add("HELLO: longer than strangers may send", server, long(1, GREETING_BYTES_MAX), greeting.clone());
    add("WELCOME: longer than strangers may send", client, long(2, GREETING_BYTES_MAX), greeting.clone());
    add(
        "RESET: longer than strangers may send",
        State::AuthorityOpen,
        long(12, GREETING_BYTES_MAX),
        greeting,
    );
    let schema = bound("bytes in a frame of this type", SCHEMA_BYTES_MAX);
    add("SCHEMA: longer than a schema may be", State::AuthoritySchema, long(4, SCHEMA_BYTES_MAX), schema);
    let ignored = bound("bytes in a frame of this type", IGNORED_BYTES_MAX);
    add("ignored but long", State::AuthorityOpen, long(200, IGNORED_BYTES_MAX), ignored);
    let goodbye = bound("bytes in a frame of this type", GOAWAY_BYTES_MAX);
    add("GOAWAY: too long", server, long(3, GOAWAY_BYTES_MAX), goodbye);
    let text = [&[0x04, 0x79, 0x10, 0x01][..], &[b'x'; TOKEN_BYTES_MAX + 1]].concat();
    let token = bound("a token's bytes", TOKEN_BYTES_MAX);
    add("HELLO: a token that is too long", server, hello().with("token", &text).bytes(), token);
    let not_text = hello().with("token", b"\x04\x64\xff\xff\xff\xff").bytes();
    add("HELLO: a token that is not UTF-8", server, not_text, Expect::Cbor("HELLO"));
    let rank = welcome().with("rank", b"\x04\x19\x01\x00").bytes();
    add("WELCOME: a rank beyond 8 bits", client, rank, Expect::Cbor("WELCOME"));
    let many = [&b"\x05\xa3\x00\x00\x01\x00"[..], &incarnations(33)].concat();
    let known = welcome().with("known position", &many).bytes();
    add("WELCOME: a known position with too many incarnations", client, known, bound("incarnations", 32));
    let many = reset().with("incarnations", &incarnations(33)).bytes();
    add("RESET: too many incarnations", State::AuthorityOpen, many, bound("incarnations", 32));
    let code = goaway().with("code", b"\x00\x1a\x00\x01\x00\x00").bytes();
    add("GOAWAY: a code beyond 16 bits", State::AuthorityOpen, code, Expect::Cbor("GOAWAY"));
    let retry = goaway().with("map", b"\xa3").with("message", b"\x01\x60\x02\x61x").bytes();
    add("GOAWAY: a pause that is no number", State::AuthorityOpen, retry, Expect::Cbor("GOAWAY"));
    let pair = policies().with("policy", b"\x82").with("words", b"").bytes();
    add("SCHEMA: a policy of two texts", State::AuthoritySchema, pair, Expect::Cbor("SCHEMA"));
    add("a frame without bytes", server, vec![], Expect::Wire(WireError::Empty));
    let huge = vec![0x80; FRAME_BYTES_MAX + 1];
    let too_large = Expect::Wire(WireError::TooLarge { bytes: FRAME_BYTES_MAX + 1 });
    add(
        "a frame longer than any may be, even of a type to be ignored",
        State::AuthorityOpen,
        huge,
        too_large,
    );
}
