//! Looking at what is there.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Result, bail};
use rivus::rivus_core::address::{Parts, class};
use rivus::rivus_core::clock::Stamp;
use rivus::rivus_core::register::{Candidate, Register};
use rivus::rivus_core::row::{Confirmed, State};
use rivus::rivus_core::value::Json;
use rivus::{Db, Shown, Value, View};
use serde::{Serialize, Serializer};

use crate::args::Global;
use crate::database;
use crate::output::Output;
use crate::table::{self, Table, count, printable, when, writer};

/// `rivus show`.
pub(crate) fn entity(global: &Global, kind: &str, id: &str, out: &mut Output) -> Result<()> {
    let db = database::open(global)?;
    let Some(view) = db.view(kind, id)? else {
        let file = global.db.display();
        bail!("{kind} `{id}` is not in {file}: `list {kind}` tells what is, `sync` fetches what others have");
    };
    if out.is_json() {
        let mut registers = Vec::new();
        db.registers(kind, id, |parts, state| registers.push(RegisterJson::of(parts, state)))?;
        out.json(&EntityJson { kind, id, deleted: view.deleted, fields: &view, registers })?;
        return Ok(());
    }
    let written = Written::of(&db, kind, id, &view)?;
    let (kind, id) = (printable(kind), printable(id));
    if view.deleted {
        let by = match (written.rules.get(&None), written.life) {
            (Some(rule), _) => format!(" by {}", by_rule(rule)),
            (None, Some(stamp)) => format!(" by {} at {}", writer(stamp), when(stamp)),
            (None, None) => String::new(),
        };
        writeln!(out, "{kind} `{id}` is DELETED{by}; a revival would show:")?;
    } else {
        writeln!(out, "{kind} `{id}`")?;
    }
    let mut table = Table::new(["field", "value", "written by", "when"], [30, 60, 40, 24]);
    for (field, shown) in &view.fields {
        let (by, at) = match (written.rules.get(&Some(field.clone())), written.fields.get(field)) {
            // Nobody wrote that: `explain` tells what is in the registers.
            (Some(rule), _) => (by_rule(rule), String::new()),
            (None, Some(stamp)) => (writer(*stamp), when(*stamp)),
            (None, None) => Default::default(),
        };
        table.push([printable(field), table::shown(shown), by, at]);
        for beside in written.beside.get(field).into_iter().flatten() {
            table.push([String::new(), beside.text.clone(), writer(beside.stamp), when(beside.stamp)]);
        }
    }
    Ok(write!(out, "{table}")?)
}

/// `rivus list`.
pub(crate) fn kinds(global: &Global, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct KindJson<'k> {
        kind: &'k str,
        /// None if the schema does not declare the kind.
        entities: Option<usize>,
    }
    let db = database::open(global)?;
    let mut table = Table::new(["kind", "entities"], [60, 30]);
    for kind in &db.kinds()? {
        let entities = db.schema().kind(kind).map(|_| db.views(kind)).transpose()?.map(|views| views.len());
        if out.is_json() {
            out.json(&KindJson { kind, entities })?;
        }
        let shown = entities.map_or("not in the schema".to_owned(), |entities| entities.to_string());
        table.push([printable(kind), shown]);
    }
    if !out.is_json() {
        write!(out, "{table}")?;
    }
    Ok(())
}

/// `rivus list KIND`.
pub(crate) fn entities(global: &Global, kind: &str, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct ListedJson<'e> {
        kind: &'e str,
        id: &'e str,
        fields: &'e View,
    }
    let views = database::open(global)?.views(kind)?;
    if views.is_empty() && !out.is_json() {
        writeln!(out, "no entities of kind `{}`", printable(kind))?;
    }
    for (id, fields) in &views {
        let text = if out.is_json() { String::new() } else { serde_json::to_string(fields)? };
        let text = format_args!("{}  {}", printable(id), printable(&text)).to_string();
        out.say(text, &ListedJson { kind, id, fields })?;
    }
    Ok(())
}

/// `rivus status`.
pub(crate) fn status(global: &Global, out: &mut Output) -> Result<()> {
    let status = database::open(global)?.status()?;
    if out.is_json() {
        return Ok(out.json(&status)?);
    }
    writeln!(out, "database     {}", global.db.display())?;
    writeln!(out, "store        {}", status.store)?;
    writeln!(out, "writes as    {}", status.replica)?;
    writeln!(out, "digest       {}", status.digest)?;
    let registers = count(usize::try_from(status.registers).unwrap_or(usize::MAX), "register");
    writeln!(out, "holds        {} in {registers}", crate::evict::entities(status.entities))?;
    if status.evicted > 0 {
        let registers = count(usize::try_from(status.evicted_registers).unwrap_or(usize::MAX), "register");
        writeln!(
            out,
            "evicted      {} more at the hub, with {registers}",
            crate::evict::entities(status.evicted)
        )?;
    }
    for scope in &status.scopes {
        let registers = count(usize::try_from(scope.registers).unwrap_or(usize::MAX), "register");
        let followed = if scope.followed { ", followed" } else { "" };
        writeln!(out, "scope        `{}` with {registers}{followed}", printable(&scope.name))?;
    }
    writeln!(out, "last change  number {}", status.seq)?;
    let judge = match (&status.authority, status.is_authority) {
        (Some(authority), _) => format!("store {}, which granted rank {}", authority.store, authority.rank),
        (None, true) => "this store itself".to_owned(),
        (None, false) => "none met yet".to_owned(),
    };
    writeln!(out, "authority    {judge}")?;
    if let Some(leases) = &status.leases {
        let held = leases.held_by.as_ref().map_or(String::new(), |store| format!(", store {store} no more"));
        let (running, ended, cut) = (leases.running, leases.ended, leases.cut);
        writeln!(out, "leases       {running} running, {ended} ended; all have up to number {cut}{held}")?;
    }
    if let Some(ms) = status.authority.as_ref().map(|a| a.correction_ms).filter(|ms| *ms != 0) {
        writeln!(out, "clock        wrong by {ms} ms, the authority says: set this machine's clock")?;
    }
    if let Some(unresolved) = &status.unresolved {
        writeln!(out, "rules        are not evaluated: {unresolved}")?;
    }
    writeln!(out, "pending      {} for the authority's verdict", count(status.pending, "edit"))?;
    if status.rejected > 0 {
        writeln!(out, "refused      {} by the authority", count(status.rejected, "edit"))?;
    }
    if status.quarantined > 0 {
        writeln!(out, "set aside    {} stamped in the future", count(status.quarantined, "write"))?;
    }
    Ok(())
}

/// Who wrote what shows.
#[derive(Default)]
struct Written {
    fields: BTreeMap<String, Stamp>,
    /// The other writes that are still in the running.
    beside: BTreeMap<String, Vec<Beside>>,
    life: Option<Stamp>,
    /// The rules that show something else, by field; `None` for whether the entity shows.
    rules: BTreeMap<Option<String>, String>,
}

struct Beside {
    text: String,
    stamp: Stamp,
}

impl Written {
    fn of(db: &Db, kind: &str, id: &str, view: &View) -> Result<Self> {
        let explained = db.explain(kind, id, None)?.map(|found| found.fields).unwrap_or_default();
        let overlays = explained.into_iter().flat_map(|field| field.overlays);
        let rules = overlays.map(|overlay| (overlay.field, overlay.rule)).collect();
        let mut written = Self { rules, ..Self::default() };
        let declared = db.schema().kind(kind);
        db.registers(kind, id, |parts, state| {
            let register = &state.shown;
            match parts.class {
                class::LIFE => written.life = Some(register.newest().stamp),
                class::FIELD => written.add_field(parts.name, register, view),
                class::GROUP => {
                    for member in
                        declared.and_then(|kind| kind.group(parts.name)).iter().flat_map(|g| &g.members)
                    {
                        written.fields.insert(member.clone(), register.newest().stamp);
                    }
                }
                _ => {
                    // A set, map or counter: its last change.
                    let stamp = written.fields.entry(parts.name.to_owned()).or_default();
                    *stamp = register.newest().stamp.max(*stamp);
                }
            }
        })?;
        Ok(written)
    }

    fn add_field(&mut self, field: &str, register: &Register<'_>, view: &View) {
        let shows =
            |candidate: &&Candidate<'_>| match (Value::decode(candidate.value), view.fields.get(field)) {
                (Ok(value), Some(Shown::Value(shown))) => value == *shown,
                _ => false,
            };
        let winner = register.alive.iter().rev().find(shows).unwrap_or(register.newest());
        self.fields.insert(field.to_owned(), winner.stamp);
        let others = register.alive.iter().filter(|candidate| candidate.stamp != winner.stamp);
        let beside = others.map(|candidate| Beside {
            text: format!("beside {}, rank {}", value_text(candidate), candidate.rank),
            stamp: candidate.stamp,
        });
        self.beside.insert(field.to_owned(), beside.collect());
    }
}

fn by_rule(rule: &str) -> String {
    format!("rule `{}`", printable(rule))
}

fn value_text(candidate: &Candidate<'_>) -> String {
    Value::decode(candidate.value).map_or_else(|_| "absent".to_owned(), |value| table::value(&value))
}

#[derive(Serialize)]
struct EntityJson<'e> {
    kind: &'e str,
    id: &'e str,
    deleted: bool,
    fields: &'e View,
    registers: Vec<RegisterJson>,
}

#[derive(Serialize)]
struct RegisterJson {
    class: &'static str,
    name: String,
    /// The key of a set or map, the replica of a counter.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    floor: String,
    /// Whether an edit in it waits for the authority's verdict.
    pending: bool,
    /// Ascending by stamp.
    candidates: Vec<CandidateJson>,
}

#[derive(Serialize)]
struct CandidateJson {
    stamp: String,
    at: String,
    rank: u8,
    /// Absent where it takes an entry out.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_json")]
    value: Option<Value>,
}

impl RegisterJson {
    fn of(parts: Parts<'_>, state: &State<'_>) -> Self {
        let hex = |key: &[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect();
        let class = match parts.class {
            class::LIFE => "life",
            class::FIELD => "field",
            class::GROUP => "group",
            class::KEY => "key",
            class::COUNT => "count",
            class::CLAIM => "claim",
            _ => "unknown",
        };
        let key = match parts.text_key() {
            Some(text) if parts.class == class::KEY => Some(text.to_owned()),
            _ if parts.key.is_empty() => None,
            _ => Some(hex(parts.key)),
        };
        let candidate = |candidate: &Candidate<'_>| CandidateJson {
            stamp: candidate.stamp.to_string(),
            at: when(candidate.stamp),
            rank: candidate.rank,
            value: Value::decode(candidate.value).ok(),
        };
        Self {
            class,
            name: parts.name.to_owned(),
            key,
            floor: state.shown.floor.to_string(),
            pending: state.confirmed != Confirmed::Same,
            candidates: state.shown.alive.iter().map(candidate).collect(),
        }
    }
}

#[expect(clippy::ref_option, reason = "serde passes the field")]
fn as_json<S: Serializer>(value: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(Json).serialize(serializer)
}
