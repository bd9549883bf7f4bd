mod random;

use super::*;

const HEADER: &str = r#"{"rivus":"replay/1","schema":{"kinds":{
  "task":{"life":"delete-wins","open":true,"fields":{
     "title":{}, "owner":{"margin_ms":5000,"resolver":"rank"}, "score":{"margin_ms":"inf","resolver":"max"},
     "tags":{"type":"set"}, "labels":{"type":"map"}, "views":{"type":"counter"}}},
  "note":{"life":"edit-revives","fields":{"text":{}}},
  "page":{"life":"newest","fields":{"text":{}}},
  "time_entry":{"fields":{"user":{},"start":{},"stop":{}},"groups":{"interval":["start","stop"]}}}}}"#;

const TWO: &str = r#"{"do":"replica","name":"a"}
{"do":"replica","name":"b"}"#;

/// A script of a header, on line 1, and what follows it.
fn script(header: &str, rest: &str) -> String {
    format!("{}\n{rest}", header.replace('\n', ""))
}

/// What a script prints and what it says on the side.
fn outcome(store: StoreChoice, text: &str) -> (String, String, Summary) {
    outcome_over(&mut Direct, store, text)
}

fn outcome_over(transport: &mut dyn Transport, store: StoreChoice, text: &str) -> (String, String, Summary) {
    let script = Script::parse(text.as_bytes()).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let summary = run(&script, store, transport, &mut out, &mut err, &mut |_, _| {}).unwrap();
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), summary)
}

/// The views that a script prints, each with the replica's name, and what was refused.
fn views(text: &str) -> (Vec<String>, String) {
    let (out, err, _) = outcome(StoreChoice::Memory, text);
    let view = |line: &str| {
        let (_, name) = line.split_once(r#"{"on":""#).unwrap();
        let (_, view) = line.split_once(r#""view":"#).unwrap();
        let (view, rest) = view.split_once(r#","conflicts":["#).unwrap();
        assert!(rest.ends_with(r#"],"overlays":[]}"#), "{rest}");
        format!("{} {view}", name.split_once('"').unwrap().0)
    };
    (out.lines().map(view).collect(), err)
}

/// What `a` shows after a history of two replicas, which must be what `b` shows.
fn converged(steps: &str) -> String {
    let (shown, err) = views(&script(HEADER, &format!("{TWO}\n{steps}\n{{\"do\":\"converge\"}}")));
    let [a, b] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!((a.strip_prefix("a "), err.as_str()), (b.strip_prefix("b "), ""), "{steps}");
    a.strip_prefix("a ").unwrap().to_owned()
}

#[test]
fn a_write_that_lost_is_a_conflict_of_its_author() {
    let steps = r#"{"do":"replica","name":"a"}
{"do":"replica","name":"b"}
{"do":"put","on":"a","at":1000,"kind":"task","id":"t1","set":{"title":"lost"}}
{"do":"put","on":"b","at":2000,"kind":"task","id":"t1","set":{"title":"won"}}
{"do":"sync","between":["a","b"]}
{"do":"put","on":"b","at":9000,"kind":"task","id":"t2","set":{"title":"x"}}
{"do":"sync","between":["a","b"]}
{"do":"put","on":"b","at":10000,"kind":"task","id":"t2","set":{"owner":"hidden"}}
{"do":"delete","on":"a","at":11000,"kind":"task","id":"t2"}
{"do":"converge"}"#;
    let (out, err, _) = outcome(StoreChoice::Memory, &script(HEADER, steps));
    let conflicts = |line: &str| {
        let rest = line.split_once(r#""conflicts":"#).unwrap().1.to_owned();
        rest.split_once(r#","overlays""#).unwrap().0.to_owned()
    };
    let found: Vec<_> = out.lines().map(conflicts).collect();
    let stamp = |seconds: u64, replica: u8| format!("0.{}@{replica:032x}", seconds << 32);
    let a =
        format!(r#"[{{"kind":"task","id":"t1","field":"title","value":"lost","winner":"{}"}}]"#, stamp(2, 2));
    let b = format!(
        r#"[{{"kind":"task","id":"t2","field":"owner","value":"hidden","winner":"{}"}}]"#,
        stamp(11, 1)
    );
    assert_eq!((found, err.as_str()), (vec![a, b], ""));
}

#[test]
fn the_example_of_the_format_prints_this() {
    let steps = r#"{"do":"replica","name":"a","rank":0}
{"do":"replica","name":"hub","rank":9}
{"do":"put","on":"a","at":1000,"kind":"task","id":"t1","set":{"title":"x","owner":null}}
{"do":"add","on":"a","at":1001,"kind":"task","id":"t1","field":"tags","key":"red"}
{"do":"set_key","on":"a","at":1001,"kind":"task","id":"t1","field":"labels","key":"k","value":3}
{"do":"show","on":"a"}
{"do":"remove","on":"a","at":1002,"kind":"task","id":"t1","field":"tags","key":"red"}
{"do":"inc","on":"a","at":1003,"kind":"task","id":"t1","field":"views","by":2}
{"do":"delete","on":"a","at":1004,"kind":"task","id":"t1"}
{"do":"show","on":"a"}
{"do":"revive","on":"a","at":1005,"kind":"task","id":"t1"}
{"do":"sync","from":"a","to":"hub"}
{"do":"sync","between":["a","hub"]}
{"do":"restart","on":"a"}
{"do":"show","on":"a"}
{"do":"converge"}
"#;
    let last = r#""digest":"4ff1836fa67fefb5cb6b21ea1fbf93ae","view":{"task":{"t1":{"labels":{"k":3},"owner":null,"title":"x","views":2}}},"conflicts":[],"overlays":[]}"#;
    let expected = format!(
        r#"{{"on":"a","digest":"35fb89249bfdd750e140d1fe75590eb4","view":{{"task":{{"t1":{{"labels":{{"k":3}},"owner":null,"tags":["red"],"title":"x"}}}}}},"conflicts":[],"overlays":[]}}
{{"on":"a","digest":"5d5dfc6bd52ede14de6c318e28593a8c","view":{{}},"conflicts":[],"overlays":[]}}
{{"on":"a",{last}
{{"on":"a",{last}
{{"on":"hub",{last}
"#
    );
    for store in [StoreChoice::Memory, StoreChoice::Sqlite] {
        let (out, err, summary) = outcome(store, &script(HEADER, steps));
        assert_eq!((out, err.as_str()), (expected.clone(), ""), "{store:?}");
        assert_eq!((summary.steps, summary.edits, summary.moved), (16, 7, 6));
    }
}

#[test]
fn views_are_sorted_and_values_keep_their_types() {
    let steps = r#"{"do":"put","on":"a","kind":"task","id":"z","set":{"é":1,"b":1.0,"a":[null,true,{"$bytes":"AQI="}],"c":{"$f64":"NaN"},"score":-0.0}}
{"do":"put","on":"b","kind":"task","id":"Z","set":{"title":"\u00e9\n"}}
{"do":"put","on":"b","kind":"note","id":"1","set":{}}
{"do":"put","on":"b","kind":"time_entry","id":"1","set":{"start":5}}
{"do":"add","on":"b","kind":"task","id":"Z","field":"tags","key":"b"}
{"do":"add","on":"a","kind":"task","id":"Z","field":"tags","key":"B"}
{"do":"inc","on":"a","kind":"task","id":"Z","field":"views","by":9223372036854775807}
{"do":"inc","on":"b","kind":"task","id":"Z","field":"views","by":9223372036854775807}"#;
    let shown = r#"{"note":{"1":{}},"task":{"Z":{"tags":["B","b"],"title":"é\n","views":18446744073709551614},"z":{"a":[null,true,{"$bytes":"AQI="}],"b":1.0,"c":{"$f64":"NaN"},"score":0.0,"é":1}},"time_entry":{"1":{"start":5,"stop":null}}}"#;
    assert_eq!(converged(steps), shown);
}

#[test]
fn a_delete_against_an_edit_ends_as_the_life_of_the_kind_says() {
    let ends = [("task", "title", "{}"), ("note", "text", "shown"), ("page", "text", "{}")];
    for (kind, field, end) in ends {
        let steps = format!(
            r#"{{"do":"put","on":"a","at":1000,"kind":"{kind}","id":"1","set":{{"{field}":"x"}}}}
{{"do":"sync","from":"a","to":"b"}}
{{"do":"put","on":"a","at":2000,"kind":"{kind}","id":"1","set":{{"{field}":"y"}}}}
{{"do":"delete","on":"b","at":3000,"kind":"{kind}","id":"1"}}"#
        );
        let shown = format!(r#"{{"{kind}":{{"1":{{"{field}":"y"}}}}}}"#);
        assert_eq!(converged(&steps), if end == "shown" { &shown } else { end }, "{kind}");
    }
}

#[test]
fn a_delete_against_a_revival_ends_as_the_life_of_the_kind_says() {
    // The revival of a deletion that both saw, against a second deletion of somebody who saw another revival.
    for (kind, field, revived_at, is_shown) in [
        ("task", "title", 9000, false),
        ("note", "text", 5000, true),
        ("page", "text", 5000, false),
        ("page", "text", 9000, true),
    ] {
        let on = |who: &str, at: i64, step: &str| {
            format!(r#"{{"do":"{step}","on":"{who}","at":{at},"kind":"{kind}","id":"1"}}"#)
        };
        let steps = [
            format!(r#"{{"do":"put","on":"a","at":1,"kind":"{kind}","id":"1","set":{{"{field}":"x"}}}}"#),
            on("a", 1000, "delete"),
            r#"{"do":"sync","from":"a","to":"b"}"#.to_owned(),
            on("b", 5000, "revive"),
            on("b", 6000, "delete"),
            on("a", revived_at, "revive"),
        ];
        let shown = format!(r#"{{"{kind}":{{"1":{{"{field}":"x"}}}}}}"#);
        let expected = if is_shown { &shown } else { "{}" };
        assert_eq!(converged(&steps.join("\n")), expected, "{kind}, revived at {revived_at}");
    }
}

#[test]
fn an_edit_of_what_is_deleted_here_revives_where_the_kind_says_so() {
    let steps = r#"{"do":"put","on":"a","kind":"note","id":"1","set":{"text":"x"}}
{"do":"delete","on":"a","kind":"note","id":"1"}
{"do":"put","on":"a","kind":"note","id":"1","set":{"text":"x"}}"#;
    assert_eq!(converged(steps), r#"{"note":{"1":{"text":"x"}}}"#);
}

#[test]
fn within_the_margin_the_rank_decides_and_beyond_it_the_time() {
    for (at, owner) in [(5999, "boss"), (6001, "staff")] {
        let text = format!(
            r#"{{"do":"replica","name":"boss","rank":9}}
{{"do":"replica","name":"staff"}}
{{"do":"put","on":"boss","at":1000,"kind":"task","id":"1","set":{{"owner":"boss"}}}}
{{"do":"put","on":"staff","at":{at},"kind":"task","id":"1","set":{{"owner":"staff"}}}}
{{"do":"converge"}}"#
        );
        let (shown, _) = views(&script(HEADER, &text));
        assert_eq!(shown[0], format!(r#"boss {{"task":{{"1":{{"owner":"{owner}"}}}}}}"#), "at {at}");
    }
}

#[test]
fn equal_times_go_to_the_replica_declared_later_and_clocks_stand_still() {
    let put = |on: &str, at: &str, title: &str| {
        format!(r#"{{"do":"put","on":"{on}",{at}"kind":"task","id":"1","set":{{"title":"{title}"}}}}"#)
    };
    let both = [put("b", r#""at":7,"#, "b"), put("a", r#""at":7,"#, "a")].join("\n");
    assert_eq!(converged(&both), r#"{"task":{"1":{"title":"b"}}}"#);
    // The second edit of `a` is one tick after 7 ms, its first.
    let both = [put("a", r#""at":7,"#, "a"), put("a", "", "a2"), put("b", r#""at":7,"#, "b")].join("\n");
    assert_eq!(converged(&both), r#"{"task":{"1":{"title":"a2"}}}"#);
    let before = [put("a", r#""at":-9,"#, "a"), put("b", r#""at":-1,"#, "b")].join("\n");
    assert_eq!(converged(&before), r#"{"task":{"1":{"title":"b"}}}"#);
}

#[test]
fn a_clock_set_back_across_a_restart_still_overwrites_what_was_seen() {
    let steps = r#"{"do":"put","on":"a","at":900000,"kind":"task","id":"1","set":{"title":"x"}}
{"do":"restart","on":"a"}
{"do":"put","on":"a","at":5,"kind":"task","id":"1","set":{"title":"y"}}
{"do":"put","on":"b","at":899999,"kind":"task","id":"1","set":{"title":"z"}}"#;
    assert_eq!(converged(steps), r#"{"task":{"1":{"title":"y"}}}"#);
}

#[test]
fn a_sync_to_one_side_gives_the_other_nothing() {
    let steps = r#"{"do":"put","on":"a","kind":"note","id":"1","set":{"text":"a"}}
{"do":"put","on":"b","kind":"note","id":"2","set":{"text":"b"}}
{"do":"sync","from":"a","to":"b"}
{"do":"show","on":"a"}
{"do":"show","on":"b"}
{"do":"sync","between":["b","a"]}
{"do":"show","on":"a"}"#;
    let (shown, _) = views(&script(HEADER, &format!("{TWO}\n{steps}")));
    assert_eq!(
        shown,
        [
            r#"a {"note":{"1":{"text":"a"}}}"#,
            r#"b {"note":{"1":{"text":"a"},"2":{"text":"b"}}}"#,
            r#"a {"note":{"1":{"text":"a"},"2":{"text":"b"}}}"#
        ]
    );
}

#[test]
fn a_register_from_the_future_is_shown_once_its_time_has_come() {
    let header = HEADER.replacen("{", r#"{"max_drift_ms":1000,"#, 1);
    let steps = r#"{"do":"put","on":"a","at":50000,"kind":"note","id":"1","set":{"text":"a"}}
{"do":"sync","from":"a","to":"b"}
{"do":"show","on":"b","at":48999}
{"do":"restart","on":"b","at":49000}
{"do":"show","on":"b"}"#;
    let (shown, _) = views(&script(&header, &format!("{TWO}\n{steps}")));
    assert_eq!(shown, ["b {}", r#"b {"note":{"1":{"text":"a"}}}"#]);
    let (shown, _) = views(&script(HEADER, &format!("{TWO}\n{steps}")));
    assert_eq!(shown[0], r#"b {"note":{"1":{"text":"a"}}}"#, "admission is off unless the header says");
}

#[test]
fn refused_edits_are_told_with_their_line_and_the_run_goes_on() {
    let steps = r#"{"do":"put","on":"a","kind":"none","id":"1","set":{}}
{"do":"put","on":"a","kind":"note","id":"1","set":{"none":1}}
{"do":"delete","on":"a","kind":"note","id":"1"}
{"do":"revive","on":"a","kind":"note","id":"1"}
{"do":"inc","on":"a","kind":"task","id":"x\ny","field":"views","by":1}
{"do":"delete","on":"a","kind":"task","id":"x\ny"}

{"do":"put","on":"a","kind":"task","id":"x\ny","set":{"title":"x"}}
{"do":"add","on":"b","kind":"task","id":"1","field":"views","key":"k"}
{"do":"put","on":"b","kind":"task","id":"1","set":{"title":"x"}}
{"do":"put","on":"b","kind":"task","id":"1","set":{"title":"x"}}"#;
    let (out, err, summary) = outcome(StoreChoice::Memory, &script(HEADER, &format!("{TWO}\n{steps}")));
    let expected = "line 4: refused: kind `none` is not declared: add it to the schema
line 5: refused: kind `note` has no field `none`: declare it, or make the kind open
line 6: refused: note `1` does not exist or is deleted
line 7: refused: note `1` is not deleted
line 11: refused: task `x y` is deleted: revive it first
line 12: refused: `add` does not fit field `views` of kind `task`, which is: counter (`inc` changes it)
";
    assert_eq!((out.as_str(), err.as_str()), ("", expected));
    let Summary { steps, edits, unchanged, refused, moved } = summary;
    assert_eq!((steps, edits, unchanged, refused, moved), (12, 3, 1, 6, 0));
}

#[test]
fn every_fault_of_a_script_is_refused_with_its_line() {
    let put = r#"{"do":"put","on":"a","kind":"note","id":"1","set":{}}"#;
    let with = |from: &str, to: &str| {
        let changed = put.replace(from, to);
        assert_ne!(changed, put);
        changed
    };
    let on = |step: &str, keys: &str| format!(r#"{{"do":"{step}","on":"a","kind":"task","id":"1"{keys}}}"#);
    let cases = [
        ("nothing".to_owned(), "not one JSON object (expected ident, column 2): each"),
        ("[]".to_owned(), "not one JSON object (invalid type: sequence, expected an object, column 0)"),
        (format!("{put} {put}"), "not one JSON object (trailing characters, column 55)"),
        (with(r#""id""#, r#""kind":"k","id""#), "not one JSON object (key `kind` is there twice"),
        (r#"{"on":"a"}"#.to_owned(), "a step needs the key `do`: add it"),
        (with("put", "push"), "unknown step `push`: use one of replica, put, add"),
        (with(r#""set":{}"#, r#""set":{},"when":3"#), "put takes no key `when`: remove it"),
        (with(r#","set":{}"#, ""), "put needs the key `set`: add it"),
        (with(r#""on":"a","#, ""), "put needs the key `on`: add it"),
        (with(r#""a""#, r#""c""#), "no replica `c` is declared above"),
        (with(r#""1""#, "1"), "`id` cannot be read (invalid type: integer `1`, expected a string)"),
        (with("{}", "[]"), "`set` cannot be read (invalid type: sequence, expected an object)"),
        (with("{}", r#"{"x":1,"x":1}"#), "`set` cannot be read (key `x` is there twice)"),
        (with("{}", r#"{"x":9223372036854775808}"#), "`x` holds no value ("),
        (with("{}", r#"{"x":{"$f64":"1"}}"#), "`x` holds no value ("),
        (with(r#""kind""#, r#""at":1.5,"kind""#), "`at` cannot be read (invalid type: floating point"),
        (with(r#""kind""#, r#""at":null,"kind""#), "`at` cannot be read (invalid type: null"),
        (with(r#""kind""#, r#""at":4294967294001,"kind""#), "`at` is 4294967294001, but clocks end in 2106"),
        (on("inc", r#","field":"views","by":1.0"#), "`by` cannot be read (invalid type: floating point"),
        (on("inc", r#","field":"views""#), "inc needs the key `by`"),
        (on("set_key", r#","field":"labels","key":"k""#), "set_key needs the key `value`"),
        (on("set_key", r#","field":"labels","key":"k","value":1e999"#), "`value` holds no value ("),
        (on("add", r#","field":"tags","key":"k","value":1"#), "add takes no key `value`"),
        (on("remove", r#","field":"tags","key":3"#), "`key` cannot be read ("),
        (on("delete", r#","set":{}"#), "delete takes no key `set`"),
        (r#"{"do":"show","on":"a","id":"1"}"#.to_owned(), "show takes no key `id`"),
        (r#"{"do":"restart","on":"c"}"#.to_owned(), "no replica `c` is declared above"),
        (r#"{"do":"converge","at":1}"#.to_owned(), "converge takes no key `at`"),
        (r#"{"do":"replica","name":"b"}"#.to_owned(), "replica `b` is declared twice"),
        (r#"{"do":"replica","name":"c","rank":256}"#.to_owned(), "`rank` cannot be read (invalid value"),
        (r#"{"do":"replica"}"#.to_owned(), "replica needs the key `name`"),
        (r#"{"do":"sync","from":"a"}"#.to_owned(), "sync needs the key `to`"),
        (r#"{"do":"sync","from":"a","to":"a"}"#.to_owned(), "`a` cannot sync with itself"),
        (r#"{"do":"sync","from":"a","to":"c"}"#.to_owned(), "no replica `c` is declared above"),
        (r#"{"do":"sync","between":["a"]}"#.to_owned(), "`between` cannot be read (invalid length 1"),
        (r#"{"do":"sync","between":["a","b"],"to":"a"}"#.to_owned(), "sync takes no key `to`"),
    ];
    Script::parse(script(HEADER, &format!("{TWO}\n{put}")).as_bytes()).unwrap();
    for (line, fault) in cases {
        let error = Script::parse(script(HEADER, &format!("{TWO}\n{line}\n{put}")).as_bytes()).unwrap_err();
        let (error, fault) = (error.to_string(), format!("line 4: {fault}"));
        assert!(error.starts_with(&fault), "{line}\n{error}\n{fault}");
    }
}

#[test]
fn every_fault_of_a_header_is_refused() {
    let rule = r#"{"rivus":"replay/1","schema":{"kinds":{"k":{"rules":[{"rule":"unique","name":"one","group":[]}]}}}}"#;
    let cases = [
        ("", "the script is empty: "),
        ("\n \r\n", "the script is empty: "),
        (r#"{"do":"converge"}"#, "line 1: the header needs the key `rivus`"),
        (
            r#"{"rivus":"replay/2","steps":[]}"#,
            "line 1: the version is `replay/2`, this program reads `replay/1`",
        ),
        (r#"{"rivus":1}"#, "line 1: `rivus` cannot be read ("),
        (r#"{"rivus":"replay/1"}"#, "line 1: the header needs the key `schema`"),
        ("\n{\"rivus\":\"replay/1\",\"schema\":[]}", "line 2: the schema cannot be read: "),
        (r#"{"rivus":"replay/1","schema":{"kinds":{}},"x":1}"#, "line 1: the header takes no key `x`"),
        (
            r#"{"rivus":"replay/1","schema":{"kinds":{}},"max_drift_ms":-1}"#,
            "line 1: `max_drift_ms` cannot be read (invalid value: integer `-1`",
        ),
        (rule, "line 1: rule `one` of kind `k`"),
    ];
    for (text, expected) in cases {
        let error = Script::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}\n{error}");
    }
}

#[test]
fn bytes_that_are_no_text_and_endless_lines_are_refused_with_their_line() {
    let mut bytes = script(HEADER, "").into_bytes();
    bytes.extend(b"{\"do\":\"\xff\"}");
    let error = Script::parse(&bytes[..]).unwrap_err().to_string();
    assert_eq!(error, "line 2: not UTF-8: save the script as UTF-8");
    let endless = std::io::BufReader::new(std::io::repeat(b' '));
    let error = Script::parse(endless).unwrap_err().to_string();
    assert_eq!(error, "line 1: longer than 67108864 bytes: make several edits of it");
}

/// Claims that each sync moved a register, or that it failed.
struct Broken(Result<Moved, TransportError>);

impl Transport for Broken {
    fn sync(&mut self, _: &End, _: &End, _: Way) -> Result<Moved, TransportError> {
        self.0.clone()
    }
}

#[test]
fn a_failing_or_endless_sync_ends_the_run_with_its_line_and_keeps_what_was_shown() {
    let text = script(HEADER, &format!("{TWO}\n{{\"do\":\"show\",\"on\":\"a\"}}\n{{\"do\":\"converge\"}}"));
    let script = Script::parse(text.as_bytes()).unwrap();
    let broken = [
        (Err(TransportError::Connection("the plug is out".to_owned())), "line 5: the plug is out"),
        (Ok(Moved { registers: 1 }), "line 5: after 8 rounds of syncs something still moves"),
    ];
    for (result, expected) in broken {
        let (mut out, mut err, mut heard) = (Vec::new(), Vec::new(), Vec::new());
        let mut listen = |done, total| heard.push((done, total));
        let mut transport = Broken(result);
        let ended = run(&script, StoreChoice::Memory, &mut transport, &mut out, &mut err, &mut listen);
        let error = ended.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(out.ends_with(b"\"overlays\":[]}\n"));
        assert_eq!(heard, [(1, 4), (2, 4), (3, 4)]);
    }
}

#[test]
fn an_output_that_cannot_be_written_ends_the_run() {
    let text = script(HEADER, &format!("{TWO}\n{{\"do\":\"show\",\"on\":\"a\"}}"));
    let script = Script::parse(text.as_bytes()).unwrap();
    let (mut full, mut err) = ([0_u8; 10], Vec::new());
    let mut out = &mut full[..];
    let ended = run(&script, StoreChoice::Memory, &mut Direct, &mut out, &mut err, &mut |_, _| {});
    assert!(matches!(ended, Err(ReplayError::Write(_))), "{ended:?}");
}
