//! Values that are not canonical, in a page of one register.

use rivus_core::value::{DEPTH_MAX, ValueError};

use super::rows::{edit, entity, field, frame, state_of};
use super::{BadFrame, Expect};

pub(super) fn add(all: &mut Vec<BadFrame>) {
    let shape = [entity(1), field(1, "f")].concat();
    for (fault, value, expect) in values() {
        for name in super::rows::FRAMES {
            let bytes = frame(name, &shape, &edit(7, 1000), &value);
            let expect = Expect::Wire(expect.clone().into());
            all.push(BadFrame {
                name: format!("{name}: the value is {fault}"),
                state: state_of(name),
                bytes,
                expect,
            });
        }
    }
}

fn values() -> Vec<(&'static str, Vec<u8>, ValueError)> {
    let mut all = vec![];
    let mut bad = |fault, value: &[u8], error| all.push((fault, value.to_vec(), error));
    let cut = |at| ValueError::Truncated { at };
    let unsupported = |at, byte| ValueError::Unsupported { at, byte };
    bad("missing", b"", cut(0));
    bad("an integer cut short", b"\x19\x01", cut(0));
    bad("a text cut short", b"\x63ab", cut(0));
    bad("bytes cut short", b"\x43\x01\x02", cut(0));
    bad("bytes of 2^64 - 1", b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff", cut(0));
    bad("a float cut short", b"\xfb\x00", cut(0));
    bad("a list cut short", b"\x82\x01", cut(0));
    bad("a list of 2^32 items", b"\x9b\x00\x00\x00\x01\x00\x00\x00\x00", cut(0));
    bad("a map cut short", b"\xa1\x61a", cut(3));
    bad("a map whose key is cut short", b"\xa1\x62a", cut(1));
    bad("a tag over nothing", b"\xd9\xff\x00", cut(3));
    bad("a tag over bytes cut short", b"\xd9\xff\x00\x43a", cut(3));
    bad("text that is not UTF-8", b"\x61\xff", ValueError::Utf8 { at: 0 });
    bad("a surrogate as text", b"\x63\xed\xa0\x80", ValueError::Utf8 { at: 0 });
    bad(
        "an integer above 2^63 - 1",
        b"\x1b\x80\x00\x00\x00\x00\x00\x00\x00",
        ValueError::IntegerBytes { at: 0 },
    );
    bad(
        "an integer below -2^63",
        b"\x3b\x80\x00\x00\x00\x00\x00\x00\x00",
        ValueError::IntegerBytes { at: 0 },
    );
    bad("a map with a number as key", b"\xa1\x01\x01", ValueError::KeyType { at: 1 });
    bad("a map with bytes as key", b"\xa1\x41a\x01", ValueError::KeyType { at: 1 });
    bad("a map with null as key", b"\xa1\xf6\x01", ValueError::KeyType { at: 1 });
    bad("the mark of absence in a list", b"\x81\xf7", unsupported(1, 0xf7));
    bad("the mark of absence in a map", b"\xa1\x61a\xf7", unsupported(3, 0xf7));
    bad("a simple value that means nothing", b"\xe0", unsupported(0, 0xe0));
    bad("a simple value of two bytes", b"\xf8\x20", unsupported(0, 0xf8));
    bad("a reserved length", b"\x1c", unsupported(0, 0x1c));
    bad("a break on its own", b"\xff", unsupported(0, 0xff));
    bad("a list without a length", b"\x9f\x01\xff", unsupported(0, 0x9f));
    bad("a map without a length", b"\xbf\xff", unsupported(0, 0xbf));
    bad("text without a length", b"\x7f\x61a\xff", unsupported(0, 0x7f));
    bad("bytes without a length", b"\x5f\xff", unsupported(0, 0x5f));
    let deep = [vec![0x81; DEPTH_MAX + 1], vec![0xf6]].concat();
    bad("lists in lists, one too deep", &deep, ValueError::TooDeep);
    let deep = [b"\xa1\x61a".repeat(DEPTH_MAX + 1), vec![0xf6]].concat();
    bad("maps in maps, one too deep", &deep, ValueError::TooDeep);
    let deep = vec![0x81; 1 << 20];
    bad("a million lists in lists", &deep, ValueError::TooDeep);
    let mut not_canonical = |fault, value: &[u8], at| {
        let rule = rule_of(value);
        all.push((fault, value.to_vec(), ValueError::NotCanonical { at, rule }));
    };
    not_canonical("a small integer in two bytes", b"\x18\x17", 0);
    not_canonical("an integer in three bytes for two", b"\x19\x00\xff", 0);
    not_canonical("an integer in five bytes for three", b"\x1a\x00\x00\xff\xff", 0);
    not_canonical("an integer in nine bytes for five", b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff", 0);
    not_canonical("a negative integer in two bytes for one", b"\x38\x00", 0);
    not_canonical("text with a long length", b"\x78\x01a", 0);
    not_canonical("bytes with a long length", b"\x58\x00", 0);
    not_canonical("a list with a long length", b"\x98\x00", 0);
    not_canonical("a map with a long length", b"\xb8\x00", 0);
    not_canonical("a float that fits 16 bits in 32", b"\xfa\x3f\x80\x00\x00", 0);
    not_canonical("a float that fits 16 bits in 64", b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00", 0);
    not_canonical("a float that fits 32 bits in 64", b"\xfb\x40\x09\x21\xfb\x60\x00\x00\x00", 0);
    not_canonical("minus zero", b"\xf9\x80\x00", 0);
    not_canonical("a NaN with a payload", b"\xf9\x7e\x01", 0);
    not_canonical("a negative NaN", b"\xf9\xfe\x00", 0);
    not_canonical("a NaN in 64 bits", b"\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00", 0);
    not_canonical("infinity in 32 bits", b"\xfa\x7f\x80\x00\x00", 0);
    not_canonical("a map with a key twice", b"\xa2\x61a\x01\x61a\x02", 4);
    not_canonical("a map whose keys fall", b"\xa2\x61b\x01\x61a\x02", 4);
    not_canonical("a map with a longer key before a shorter one", b"\xa2\x62aa\x01\x61b\x02", 5);
    all
}

/// The rule that the value breaks, in the words of whoever reads it: the table fixes where, the words may improve.
fn rule_of(value: &[u8]) -> &'static str {
    match rivus_core::value::check(value) {
        Err(ValueError::NotCanonical { rule, .. }) => rule,
        _ => "",
    }
}
