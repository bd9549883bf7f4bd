//! Random scripts: what they print depends on nothing but the script, and replicas converge.

use std::fmt::Write as _;

use super::super::WebSocket;
use super::{StoreChoice, outcome, outcome_over, script};

const HEADERS: [&str; 2] = ["", r#""max_drift_ms":3000,"#];

const SCHEMA: &str = r#""schema":{"kinds":{
  "task":{"open":true,"fields":{"title":{},"owner":{"margin_ms":2000,"resolver":"rank"},
     "first":{"margin_ms":700,"resolver":"oldest"},"score":{"type":"max"},"all":{"type":"multi"},
     "tags":{"type":"set","wins":"remove"},"labels":{"type":"map"},"views":{"type":"counter"}}},
  "note":{"life":"edit-revives","fields":{"title":{},"tags":{"type":"set"},"labels":{"type":"map"},
     "views":{"type":"counter"}}},
  "page":{"life":"newest","fields":{"title":{},"owner":{},"tags":{"type":"set"},"labels":{"type":"map"},
     "views":{"type":"counter"}},"groups":{"both":["title","owner"]}}}}}"#;

/// splitmix64.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    /// A pair of different replicas.
    fn pair(&mut self, replicas: u64) -> (u64, u64) {
        let from = self.below(replicas);
        (from, (from + 1 + self.below(replicas - 1)) % replicas)
    }

    fn edit(&mut self, on: u64, at: i64) -> String {
        let kind = self.one(&["task", "note", "page"]);
        let (id, value) = (self.below(3), self.below(4));
        let (field, key) =
            (self.one(&["title", "owner", "first", "score", "all", "new"]), self.one(&["x", "y"]));
        let (step, rest) = match self.below(10) {
            0..4 => ("put", format!(r#","set":{{"{field}":{value}}}"#)),
            4 => ("add", format!(r#","field":"tags","key":"{key}""#)),
            5 => ("remove", format!(r#","field":"{}","key":"{key}""#, self.one(&["tags", "labels"]))),
            6 => ("set_key", format!(r#","field":"labels","key":"{key}","value":{value}"#)),
            7 => ("inc", format!(r#","field":"views","by":{}"#, value.cast_signed() - 1)),
            8 => ("delete", String::new()),
            _ => ("revive", String::new()),
        };
        let at = if self.below(4) == 0 { String::new() } else { format!(r#""at":{at},"#) };
        format!(r#"{{"do":"{step}","on":"r{on}",{at}"kind":"{kind}","id":"{id}"{rest}}}"#)
    }

    fn script(&mut self) -> (String, usize) {
        let replicas = 2 + self.below(3);
        let mut steps = String::new();
        for replica in 0..replicas {
            writeln!(steps, r#"{{"do":"replica","name":"r{replica}","rank":{}}}"#, self.below(3)).unwrap();
        }
        let skews: Vec<i64> = (0..replicas).map(|_| self.below(8000).cast_signed() - 2000).collect();
        for step in 0..60_i64 {
            let (from, to) = self.pair(replicas);
            let at = step * 200 + skews[usize::try_from(from).unwrap()];
            let line = match self.below(12) {
                0 => format!(r#"{{"do":"sync","from":"r{from}","to":"r{to}"}}"#),
                1 => format!(r#"{{"do":"sync","between":["r{from}","r{to}"]}}"#),
                2 => format!(r#"{{"do":"restart","on":"r{from}"}}"#),
                3 => format!(r#"{{"do":"show","on":"r{from}"}}"#),
                _ => self.edit(from, at),
            };
            writeln!(steps, "{line}").unwrap();
        }
        writeln!(steps, r#"{{"do":"converge"}}"#).unwrap();
        // What was set aside until now is due then.
        for replica in 0..replicas {
            writeln!(steps, r#"{{"do":"show","on":"r{replica}","at":1000000}}"#).unwrap();
        }
        writeln!(steps, r#"{{"do":"converge"}}"#).unwrap();
        let header = format!("{{\"rivus\":\"replay/1\",{}{SCHEMA}", self.one(&HEADERS));
        (script(&header, &steps), usize::try_from(replicas).unwrap())
    }
}

#[test]
fn random_scripts_converge_and_print_the_same_from_all_stores_and_transports() {
    let mut sockets = WebSocket::new().unwrap();
    let (mut edits, mut refused) = (0, 0);
    for seed in 0..SEEDS {
        let (text, replicas) = Seeded(seed).script();
        let memory = outcome(StoreChoice::Memory, &text);
        assert_eq!(memory, outcome(StoreChoice::Sqlite, &text), "seed {seed}\n{text}");
        let socket = outcome_over(&mut sockets, StoreChoice::Memory, &text);
        // How many registers cross each other on the way depends on the timing; what comes of them does not.
        assert_eq!((&memory.0, &memory.1), (&socket.0, &socket.1), "seed {seed}\n{text}");
        // Conflicts are each replica's own.
        let lines: Vec<_> = memory.0.lines().map(shown_by_all).collect();
        let last = &lines[lines.len() - replicas..];
        assert!(last.iter().all(|line| *line == last[0]), "seed {seed}: {last:#?}\n{text}");
        edits += memory.2.edits;
        refused += memory.2.refused;
    }
    assert!(edits > 240 && refused > 60, "{edits} edits and {refused} refusals are no history");
}

/// Digest and view of a line.
fn shown_by_all(line: &str) -> &str {
    let (_, shown) = line.split_once(',').unwrap();
    shown.split_once(r#","conflicts":"#).unwrap().0
}

const SEEDS: u64 = 12;
