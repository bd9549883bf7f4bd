//! What bounds the engine from below: a hash map in which the newest write wins, and a bare upsert.

use std::collections::HashMap;
use std::path::Path;

use rivus_core::clock::{Clock, Force, Millis, Stamp};
use rivus_core::edit::{Action, Op};
use rivus_core::value::Value;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::workload::{ENTITIES, FIELDS, START_MS, ids, seeds};

/// One write as the floor sees it.
#[derive(Clone, Debug)]
pub struct Write {
    /// Which entity and which field.
    pub place: (u64, u32),
    /// When and by whom.
    pub stamp: Stamp,
    /// What.
    pub value: Value,
}

/// Registers in a hash map: no deltas, no digest, no positions, nothing pending, no bytes.
#[derive(Clone, Debug)]
pub struct NewestWins {
    registers: HashMap<(u64, u32), (Stamp, Value)>,
    clock: Clock,
}

impl NewestWins {
    /// A map in which every register of the workload is held.
    #[must_use]
    pub fn full() -> Self {
        let mut registers = HashMap::new();
        for entity in 0..ENTITIES as u64 {
            for field in 0..FIELDS.len() {
                let place = (entity, u32::try_from(field).unwrap());
                registers.insert(place, (Stamp::LOWEST, Value::Int(0)));
            }
        }
        Self { registers, clock: Clock::new(seeds(5).replica, 0) }
    }

    /// One local edit.
    pub fn edit(&mut self, place: (u64, u32), value: &Value) {
        let held = self.registers.get(&place).map(|(stamp, _)| stamp.instant());
        let stamp = self.clock.tick(Millis(START_MS), held, Force::No).unwrap();
        self.registers.insert(place, (stamp, value.clone()));
    }

    /// Joins writes of others.
    pub fn join(&mut self, writes: &[Write]) {
        for write in writes {
            let held = self.registers.entry(write.place).or_insert((Stamp::LOWEST, Value::Null));
            if held.0 < write.stamp {
                *held = (write.stamp, write.value.clone());
            }
        }
    }

    /// How many registers are held.
    #[must_use]
    pub fn count(&self) -> usize {
        self.registers.len()
    }
}

/// The same writes as the operations make.
#[must_use]
pub fn writes(ops: &[Op], stamps_of: u64) -> Vec<Write> {
    let index: HashMap<String, u64> = ids().into_iter().zip(0..).collect();
    let mut clock = Clock::new(seeds(stamps_of).replica, 0);
    let mut writes = Vec::new();
    for op in ops {
        let Action::Put(fields) = &op.action else { continue };
        for (name, value) in fields {
            let field = FIELDS.iter().position(|field| field == name).unwrap();
            let place = (*index.get(&op.id).unwrap(), u32::try_from(field).unwrap());
            let stamp = clock.tick(Millis(START_MS), None, Force::No).unwrap();
            writes.push(Write { place, stamp, value: value.clone() });
        }
    }
    writes
}

/// A packed row as it is in the table.
#[derive(Clone, Debug)]
pub struct PackedRow {
    /// The entity's kind.
    pub kind: String,
    /// The entity's id.
    pub id: String,
    /// The row's bytes.
    pub bytes: Vec<u8>,
}

/// A bare connection to a store's file, set up as the store sets up its own.
#[must_use]
pub fn connect(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 4000;
         PRAGMA cache_size = -8192;",
    )
    .unwrap();
    conn
}

/// Upserts the rows, `each` per transaction, each row with a seq of its own.
pub fn upsert(conn: &Connection, rows: &[PackedRow], each: usize) {
    let mut seq: i64 = conn.query_row("SELECT max(seq) FROM entity", [], |row| row.get(0)).unwrap();
    for rows in rows.chunks(each) {
        let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate).unwrap();
        let mut upsert = transaction
            .prepare_cached(
                "INSERT INTO entity (scope, kind, id, start, seq, state) VALUES (0, ?1, ?2, x'', ?3, ?4)
                 ON CONFLICT (kind, id, start) DO UPDATE SET seq = excluded.seq, state = excluded.state",
            )
            .unwrap();
        for row in rows {
            seq += 1;
            upsert.execute(params![row.kind, row.id, seq, row.bytes]).unwrap();
        }
        drop(upsert);
        transaction.commit().unwrap();
    }
}
