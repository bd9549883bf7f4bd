//! Tables of views equal the views, row by row, whoever wrote what.

use std::collections::BTreeMap;
use std::sync::Arc;

use rivus_core::clock::{Admission, Millis};
use rivus_core::edit::{Action, EditError, Op};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::projection::{Projection, ProjectionError};
use rivus_core::replica::{OpenOptions, Replica};
use rivus_core::schema::{KindBuilder, Life, Margin, OnClash, OnGone, Resolver, Schema, Side};
use rivus_core::session::pair::{End, run};
use rivus_core::session::{Grants, Role, Session, SessionOptions, Want};
use rivus_core::store::{Chunk, MemoryStore};
use rivus_core::value::Value;
use rivus_core::view::{Shown, View};
use rusqlite::types::Value as Cell;

use super::*;

type Row = BTreeMap<String, Cell>;

fn seeds(n: u64) -> Seeds {
    Seeds { store: StoreId(n), replica: ReplicaId::from_u128(n.into()), incarnation: Incarnation(n) }
}

fn replica<S: Store>(store: S, n: u64, slot: u32, schema: &Schema) -> Replica<S> {
    let options = OpenOptions { seeds: seeds(n), slot, admission: Admission::Off, rank: 0 };
    Replica::open(store, Arc::new(schema.clone()), options).unwrap()
}

/// An opening of a file that keeps tables of all kinds of the schema.
fn keeper(path: &Path, n: u64, schema: &Schema) -> Replica<SqliteStore> {
    let mut keeper = other(path, n, schema);
    let all: Vec<_> = schema.kinds().map(|kind| Projection::new(kind.name.as_str())).collect();
    keeper.project(&all).unwrap();
    keeper
}

/// An opening of a file that keeps no tables.
fn other(path: &Path, n: u64, schema: &Schema) -> Replica<SqliteStore> {
    let store = open(path);
    let slot = store.slot();
    replica(store, n, slot, schema)
}

/// What is in a table, by id.
fn table(conn: &Connection, name: &str) -> BTreeMap<String, Row> {
    let name = name.replace('"', "\"\"");
    let mut select = conn.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
    let columns: Vec<String> = select.column_names().map(str::to_owned).collect();
    let mut rows = select.query([]).unwrap();
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next().unwrap() {
        let cell = |(at, name): (usize, &String)| (name.clone(), row.get::<_, Cell>(at).unwrap());
        let mut cells: Row = columns.iter().enumerate().map(cell).collect();
        let Some(Cell::Text(id)) = cells.remove("id") else { panic!("an id is text") };
        found.insert(id, cells);
    }
    found
}

/// What a view is as a row.
fn as_row(columns: &[(String, String)], is_open: bool, view: &View) -> Row {
    let json = |shown: &Shown| Cell::Text(serde_json::to_string(shown).unwrap());
    let cell = |shown: &Shown| match shown {
        Shown::Value(Value::Null) => Cell::Null,
        Shown::Value(Value::Bool(value)) => Cell::Integer((*value).into()),
        Shown::Value(Value::Int(value)) => Cell::Integer(*value),
        Shown::Value(Value::Float(value)) => Cell::Real(*value),
        Shown::Value(Value::Text(value)) => Cell::Text(value.clone()),
        Shown::Value(Value::Bytes(value)) => Cell::Blob(value.clone()),
        Shown::Counter(sum) => Cell::Integer((*sum).try_into().unwrap()),
        shown => json(shown),
    };
    let declared = columns
        .iter()
        .map(|(field, column)| (column.clone(), view.fields.get(field).map_or(Cell::Null, cell)));
    let mut row: Row = declared.collect();
    if is_open {
        let is_more = |(field, _): &(&String, &Shown)| !columns.iter().any(|(of, _)| of == *field);
        let more: BTreeMap<_, _> = view.fields.iter().filter(is_more).collect();
        row.insert("more".to_owned(), Cell::Text(serde_json::to_string(&more).unwrap()));
    }
    row
}

/// Compares each table with the views, as its keeper sees them.
fn assert_tables(keeper: &Replica<SqliteStore>, when: &str) {
    for layout in keeper.layouts() {
        let columns: Vec<_> =
            layout.columns.iter().map(|column| (column.field.clone(), column.name.clone())).collect();
        let mut views = BTreeMap::new();
        for id in keeper.store().ids(&layout.kind, None, usize::MAX).unwrap() {
            let view = keeper.view(&layout.kind, &id).unwrap().unwrap();
            if !view.deleted {
                views.insert(id, as_row(&columns, layout.more.is_some(), &view));
            }
        }
        let found = table(&keeper.store().conn, &layout.table);
        assert_eq!(found, views, "{when}: table {}", layout.table);
    }
}

/// The numbers of SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        let at = self.below(of.len() as u64);
        of[usize::try_from(at).unwrap()].clone()
    }
}

/// Every type of field, and every type of rule.
fn schema() -> Schema {
    let entry = |k: KindBuilder| {
        k.open()
            .value("user")
            .value("text")
            .value("start")
            .value("stop")
            .value("project")
            .value("late")
            .value("early")
            .set("tags")
            .map("labels")
            .counter("views")
            .multi("notes")
            .max("top")
            .flag("done")
            .value_with("owner", Margin::Ms(500), Resolver::Min)
            .value("from")
            .value("to")
            .group("span", ["from", "to"])
            .at_most_one("one running", ["user"], "stop", "start")
            .reference("of a project", "project", "project", OnGone::Nullify)
            .expr("late after early", "late", Side::AtLeast, "early")
    };
    let project = |k: KindBuilder| {
        k.life(Life::EditRevives)
            .value("name")
            .value("client")
            .unique("one name", [] as [&str; 0], "name")
            .reference("of a client", "client", "client", OnGone::Cascade)
    };
    let client = |k: KindBuilder| {
        k.value("size").value("parent").bound("size", "size", Some(0.into()), Some(10.into())).reference(
            "of a parent",
            "parent",
            "client",
            OnGone::Keep,
        )
    };
    let coupon =
        |k: KindBuilder| k.value("code").unique_with("one code", [] as [&str; 0], "code", OnClash::Alias);
    Schema::builder()
        .kind("coupon", coupon)
        .kind("entry", entry)
        .kind("project", project)
        .kind("client", client)
        .build()
        .unwrap()
}

fn value(random: &mut Random) -> Value {
    match random.below(7) {
        0 => Value::Null,
        1 => Value::Bool(random.below(2) == 0),
        2 => Value::Float(1.5),
        3 => Value::Bytes(vec![0, 255]),
        4 => Value::List(vec![Value::from(1), Value::Null]),
        5 => Value::Text("a \"text\"".to_owned()),
        _ => Value::from(i64::try_from(random.below(20)).unwrap() - 5),
    }
}

fn op(random: &mut Random) -> Op {
    let kind = random.pick(&["entry", "entry", "project", "client", "coupon"]);
    let id = |random: &mut Random| random.pick(&["a", "b", "c", "d"]).to_owned();
    let small = |random: &mut Random| Value::from(i64::try_from(random.below(4)).unwrap());
    let target = |random: &mut Random| random.pick(&[Value::Null, "a".into(), "b".into(), "c".into()]);
    let action = match (kind, random.below(12)) {
        (_, 0) => Action::Delete,
        (_, 1) if random.below(3) == 0 => Action::Alias { to: id(random) },
        (_, 1) => Action::Revive,
        ("entry", 2) => Action::Add { field: "tags".to_owned(), key: id(random) },
        ("entry", 3) => {
            Action::Remove { field: random.pick(&["tags", "labels"]).to_owned(), key: id(random) }
        }
        ("entry", 4) => Action::SetKey { field: "labels".to_owned(), key: id(random), value: value(random) },
        ("entry", 5) => Action::Inc { field: "views".to_owned(), by: 3 },
        ("entry", 6..8) => {
            let field = random.pick(&["text", "notes", "top", "done", "owner", "from", "to", "free", "late"]);
            Action::Put(vec![(field.to_owned(), value(random))])
        }
        ("entry", 8) => Action::Put(vec![
            ("late".to_owned(), small(random)),
            ("early".to_owned(), small(random)),
            ("project".to_owned(), target(random)),
        ]),
        ("entry", _) => Action::Put(vec![
            ("user".to_owned(), random.pick(&["u".into(), "v".into(), Value::Null])),
            ("start".to_owned(), small(random)),
            ("stop".to_owned(), random.pick(&[Value::Null, Value::Null, 9.into()])),
        ]),
        ("project", _) => Action::Put(vec![
            ("name".to_owned(), random.pick(&["n".into(), "m".into(), Value::Null])),
            ("client".to_owned(), target(random)),
        ]),
        ("coupon", _) => {
            Action::Put(vec![("code".to_owned(), random.pick(&["x".into(), "y".into(), Value::Null]))])
        }
        _ => Action::Put(vec![("size".to_owned(), value(random)), ("parent".to_owned(), target(random))]),
    };
    Op::new(kind, id(random), action)
}

fn edit<S: Store>(on: &mut Replica<S>, random: &mut Random, now: &mut i64) {
    *now += i64::try_from(random.below(3)).unwrap();
    let ops: Vec<_> = (0..=random.below(3)).map(|_| op(random)).collect();
    // What is refused changes nothing, and so it is with one operation of it.
    if let Err(EditError::Commit(error)) = on.edit(Millis(*now), &ops) {
        panic!("{error}");
    }
    if let Err(EditError::Commit(error)) = on.edit(Millis(*now), &ops[..1]) {
        panic!("{error}");
    }
}

fn sync<A: Store, B: Store>(one: &mut Replica<A>, other: &mut Replica<B>, now: i64) {
    let session = |role| {
        Session::new(SessionOptions {
            role,
            want: Want::Once,
            offers: true,
            seeds: seeds(99),
            capabilities: 0,
        })
    };
    let mut client = session(Role::Client { token: None });
    let mut server = session(Role::server(Grants::everybody()));
    let now = Millis(now);
    let mut one = End { replica: one, session: &mut client, now };
    run(&mut one, &mut End { replica: other, session: &mut server, now }, usize::MAX).unwrap();
}

#[test]
fn tables_equal_the_views_after_each_edit_and_join() {
    for seed in 0..30 {
        let (folder, schema, mut random) = (folder(), schema(), Random(seed));
        let mut here = keeper(&folder.path().join("a.db"), 1, &schema);
        let mut there = replica(MemoryStore::new(), 2, 0, &schema);
        let mut now = 1_000;
        for step in 0..60 {
            match random.below(5) {
                0 => sync(&mut here, &mut there, now),
                1 | 2 => edit(&mut there, &mut random, &mut now),
                _ => edit(&mut here, &mut random, &mut now),
            }
            assert_tables(&here, &format!("seed {seed}, step {step}"));
        }
    }
}

#[test]
fn tables_equal_the_views_of_a_device_whose_edits_are_refused() {
    for seed in 0..15 {
        let (folder, schema, mut random) = (folder(), schema(), Random(seed));
        let mut hub = keeper(&folder.path().join("hub.db"), 1, &schema);
        hub.become_authority().unwrap();
        let mut device = keeper(&folder.path().join("device.db"), 2, &schema);
        let mut now = 1_000;
        for step in 0..40 {
            match random.below(6) {
                0 => sync(&mut device, &mut hub, now),
                1 => edit(&mut hub, &mut random, &mut now),
                2 => {
                    // Beyond what the other holds of it: a stranger's register under a pending edit.
                    now += 1;
                    edit(&mut device, &mut random, &mut now);
                }
                _ => edit(&mut device, &mut random, &mut now),
            }
            let when = format!("seed {seed}, step {step}");
            assert_tables(&device, &when);
            assert_tables(&hub, &when);
        }
    }
}

#[test]
fn tables_follow_other_programs_with_and_without_rules_and_tables() {
    let bare = Schema::builder().open().build().unwrap();
    for seed in 0..40 {
        let (folder, schema, mut random) = (folder(), schema(), Random(seed));
        let path = folder.path().join("a.db");
        let mut here = keeper(&path, 1, &schema);
        let mut ruled = other(&path, 2, &schema);
        let mut plain = other(&path, 3, &bare);
        let mut second = keeper(&path, 4, &schema);
        let mut there = replica(MemoryStore::new(), 5, 0, &schema);
        let mut now = 1_000;
        for step in 0..50 {
            match random.below(8) {
                0 => sync(&mut here, &mut there, now),
                1 => edit(&mut there, &mut random, &mut now),
                2 | 3 => edit(&mut ruled, &mut random, &mut now),
                4 => edit(&mut plain, &mut random, &mut now),
                5 => edit(&mut second, &mut random, &mut now),
                6 => {
                    here = {
                        drop(here);
                        keeper(&path, 100 + step, &schema)
                    }
                }
                _ => edit(&mut here, &mut random, &mut now),
            }
            let when = format!("seed {seed}, step {step}");
            here.follow().unwrap();
            assert_tables(&here, &when);
            second.follow().unwrap();
            assert_tables(&second, &when);
        }
    }
}

#[test]
fn a_commit_that_fails_leaves_neither_row_nor_view() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let schema = Schema::builder().kind("task", |k| k.value("title")).build().unwrap();
    let mut here = keeper(&path, 1, &schema);
    let put = |title: &str| Op::new("task", "a", Action::Put(vec![("title".to_owned(), title.into())]));
    here.edit(Millis(1), &[put("before")]).unwrap();
    let fails = "CREATE TEMP TRIGGER fails BEFORE INSERT ON view_task BEGIN SELECT RAISE(ABORT, 'no'); END";
    here.store().conn.execute_batch(fails).unwrap();
    let head = here.head().unwrap();
    assert!(here.edit(Millis(2), &[put("after")]).is_err());
    assert_eq!(here.head().unwrap(), head);
    here.store().conn.execute_batch("DROP TRIGGER fails").unwrap();
    assert_tables(&here, "after a failed commit");
    assert_eq!(table(&here.store().conn, "view_task")["a"]["title"], Cell::Text("before".to_owned()));
    here.edit(Millis(3), &[put("after")]).unwrap();
    assert_tables(&here, "after one that does not");
}

/// A store that fails after some commits.
struct Fused {
    store: SqliteStore,
    left: usize,
}

macro_rules! inner {
    ($self:expr, $store:ident => $do:expr) => {{
        let $store = &$self.store;
        $do
    }};
}

impl Store for Fused {
    rivus_core::forward_reads!(inner);

    fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError> {
        self.store.load(kind, id, address)
    }

    fn projects(&self) -> bool {
        true
    }

    fn others(&self) -> Result<Option<i64>, StoreError> {
        self.store.others()
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| StoreError::Io("the process died".to_owned()))?;
        self.store.commit(batch)
    }
}

#[test]
fn a_table_that_was_half_made_is_made_to_the_end() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let schema = Schema::builder().kind("task", |k| k.value("title")).build().unwrap();
    let mut writer = other(&path, 1, &schema);
    for n in 0..50 {
        let ops: Vec<_> = (0..100)
            .map(|m| Op::new("task", format!("{n}-{m}"), Action::Put(vec![("title".to_owned(), n.into())])))
            .collect();
        writer.edit(Millis(n), &ops).unwrap();
    }
    drop(writer);
    // Dies at each commit of the making, one after the other, as if killed.
    for commits in 0..3 {
        let store = open(&path);
        let mut keeper = replica(Fused { store, left: usize::MAX }, 1, 0, &schema);
        keeper.store_mut().left = commits;
        assert!(matches!(keeper.project(&["task".into()]), Err(ProjectionError::Store(_))), "{commits}");
        let exists = "SELECT count(*) FROM sqlite_schema WHERE name = 'view_task'";
        let there: i64 = keeper.store().store.conn.query_row(exists, [], |row| row.get(0)).unwrap();
        assert_eq!(there, 0, "no half of a table is ever seen");
    }
    let here = keeper(&path, 1, &schema);
    assert_tables(&here, "after all");
    assert_eq!(table(&here.store().conn, "view_task").len(), 5_000);
}

#[test]
fn a_new_schema_makes_a_new_table() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let first = Schema::builder().kind("task", |k| k.value("title").value("size")).build().unwrap();
    let second = Schema::builder()
        .kind("task", |k| k.value("title").value("due").bound("small", "due", None, Some(9.into())))
        .build()
        .unwrap();
    let mut old = keeper(&path, 1, &first);
    let put = |field: &str, to: i64| Op::new("task", "a", Action::Put(vec![(field.to_owned(), to.into())]));
    old.edit(Millis(1), &[put("title", 1), put("size", 2)]).unwrap();
    let mut new = keeper(&path, 2, &second);
    assert_tables(&new, "a field less and one more");
    new.edit(Millis(2), &[put("due", 20)]).unwrap();
    assert_tables(&new, "a rule");
    assert_eq!(table(&new.store().conn, "view_task")["a"]["due"], Cell::Integer(9));
    // The old program goes on; the table is the new one's, which follows it.
    old.edit(Millis(3), &[put("title", 3), put("size", 4)]).unwrap();
    new.follow().unwrap();
    assert_tables(&new, "an edit of the old program");
    drop((old, new));
    let renamed = Schema::builder()
        .kind("task", |k| {
            k.value("name").renamed("name", "title").value("size").value("unit").default_value("unit", "kg")
        })
        .build()
        .unwrap();
    let mut newest = keeper(&path, 4, &renamed);
    assert_tables(&newest, "a rename and a default");
    let row = table(&newest.store().conn, "view_task").remove("a").unwrap();
    assert_eq!((&row["name"], &row["unit"]), (&Cell::Integer(3), &Cell::Text("kg".to_owned())));
    newest.edit(Millis(4), &[put("name", 3)]).unwrap();
    drop(newest);
    let again = keeper(&path, 3, &first);
    assert_tables(&again, "back");
    assert_eq!(table(&again.store().conn, "view_task")["a"]["size"], Cell::Integer(4));
}

#[test]
fn names_may_be_anything() {
    let hostile = [
        "id",
        "ID",
        "more",
        "MORE",
        "select",
        "\"",
        "\"\"; DROP TABLE entity; --",
        "a b",
        "ä",
        "Ä",
        "rowid",
        "_rowid_",
        "a\0b",
        "?1",
        "x_2",
        "X",
        "x",
        "[y]",
        "`",
        "'",
        "\n",
        "🦀",
        "sqlite_x",
        "null",
    ];
    let folder = folder();
    let path = folder.path().join("a.db");
    let kinds = ["task", "Task", "TASK", "\"; DROP TABLE head; --", "ä", "a\0b", "group", "🦀"];
    let declare = |k: KindBuilder| hostile.into_iter().fold(k.open(), KindBuilder::value);
    let builder = kinds.into_iter().fold(Schema::builder(), |schema, kind| schema.kind(kind, declare));
    let mut here = keeper(&path, 1, &builder.build().unwrap());
    for (n, kind) in (0_i64..).zip(kinds) {
        let field = |(m, field): (i64, &str)| (field.to_owned(), Value::from(100 * n + m));
        let fields: Vec<_> = (0..).zip(hostile).map(field).chain([("extra".to_owned(), n.into())]).collect();
        here.edit(Millis(1), &[Op::new(kind, "i\"d", Action::Put(fields))]).unwrap();
        assert_tables(&here, kind);
    }
    let tables: std::collections::BTreeSet<_> =
        here.layouts().map(|layout| layout.table.to_lowercase()).collect();
    assert_eq!(tables.len(), kinds.len());
    for layout in here.layouts() {
        assert_eq!(table(&here.store().conn, &layout.table).len(), 1);
    }
    here.store().integrity_check().unwrap();
}

#[test]
fn a_projection_says_what_is_wrong_with_it() {
    let schema = Schema::builder().kind("task", |k| k.value("title")).build().unwrap();
    let mut memory = replica(MemoryStore::new(), 1, 0, &schema);
    assert_eq!(memory.project(&["task".into()]), Err(ProjectionError::NoTables));
    let folder = folder();
    let mut here = other(&folder.path().join("a.db"), 1, &schema);
    let unknown = here.project(&["note".into()]);
    assert_eq!(unknown, Err(ProjectionError::UndeclaredKind { kind: "note".to_owned() }));
    let unknown = here.project(&[Projection::new("task").index(["title", "due"])]);
    let field = "due".to_owned();
    assert_eq!(unknown, Err(ProjectionError::UndeclaredField { kind: "task".to_owned(), field }));
    here.project(&[Projection::new("task").index(["title"])]).unwrap();
    let plan = "EXPLAIN QUERY PLAN SELECT id FROM view_task WHERE title = 'x'";
    let plan: String = here.store().conn.query_row(plan, [], |row| row.get(3)).unwrap();
    assert!(plan.contains("by_1_of_view_task"), "{plan}");
}

#[test]
fn a_read_connection_only_reads() {
    let folder = folder();
    let schema = Schema::builder().kind("task", |k| k.value("title")).build().unwrap();
    let here = keeper(&folder.path().join("a.db"), 1, &schema);
    let reader = here.store().read_connection().unwrap();
    assert!(table(&reader, "view_task").is_empty());
    assert!(reader.execute_batch("DELETE FROM entity").is_err());
    assert!(reader.execute_batch("PRAGMA query_only = OFF; DELETE FROM entity").is_err());
    assert!(SqliteStore::open_in_memory().unwrap().read_connection().is_err());
}
