//! Tables of views, in SQL: one for each kind that an application has asked for.
//!
//! Their names and columns are the application's: every name is quoted.

use rivus_core::projection::{Cell, Holds, Layout, ViewWrite, Which};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

/// Changes the tables as part of a commit.
pub(crate) fn write(conn: &Connection, writes: &[ViewWrite<'_>]) -> rusqlite::Result<()> {
    for write in writes {
        match write {
            ViewWrite::Make(layout) => make(conn, layout)?,
            ViewWrite::Finish(layout) => finish(conn, layout)?,
            ViewWrite::Row { layout, of, id, cells: None } => {
                let sql = format!("DELETE FROM {} WHERE id = ?1", name(layout, *of));
                conn.prepare_cached(&sql)?.execute([id])?;
            }
            ViewWrite::Row { layout, of, id, cells: Some(cells) } => {
                let marks = ", ?".repeat(cells.len());
                let sql = format!("INSERT OR REPLACE INTO {} VALUES (?{marks})", name(layout, *of));
                let id = Bound(ValueRef::Text(id.as_bytes()));
                let all = std::iter::once(id).chain(cells.iter().map(bound));
                conn.prepare_cached(&sql)?.execute(params_from_iter(all))?;
            }
        }
    }
    Ok(())
}

fn make(conn: &Connection, layout: &Layout) -> rusqlite::Result<()> {
    let table = name(layout, Which::Begun);
    let mut columns = String::from("id TEXT NOT NULL PRIMARY KEY");
    for column in &layout.columns {
        let ty = match column.holds {
            Holds::Any => "ANY",
            Holds::Json => "TEXT",
        };
        columns.push_str(&format!(", {} {ty}", quoted(&column.name)));
    }
    if let Some(more) = &layout.more {
        columns.push_str(&format!(", {} TEXT", quoted(more)));
    }
    conn.execute_batch(&format!(
        "DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({columns}) STRICT, WITHOUT ROWID;"
    ))
}

fn finish(conn: &Connection, layout: &Layout) -> rusqlite::Result<()> {
    let (begun, table) = (name(layout, Which::Begun), name(layout, Which::Table));
    conn.execute_batch(&format!("DROP TABLE IF EXISTS {table}; ALTER TABLE {begun} RENAME TO {table};"))?;
    for (number, columns) in (1..).zip(&layout.indexes) {
        let index = quoted(&format!("by_{number}_of_{}", layout.table));
        let columns: Vec<_> = columns.iter().map(|column| quoted(column)).collect();
        conn.execute_batch(&format!("CREATE INDEX {index} ON {table} ({});", columns.join(", ")))?;
    }
    Ok(())
}

/// The table's name, quoted.
fn name(layout: &Layout, which: Which) -> String {
    match which {
        Which::Table => quoted(&layout.table),
        Which::Begun => quoted(&format!("begun_{}", layout.table)),
    }
}

/// A name as SQL takes it whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

struct Bound<'c>(ValueRef<'c>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

fn bound(cell: &Cell) -> Bound<'_> {
    Bound(match cell {
        Cell::Null => ValueRef::Null,
        Cell::Int(value) => ValueRef::Integer(*value),
        Cell::Real(value) => ValueRef::Real(*value),
        Cell::Text(value) => ValueRef::Text(value.as_bytes()),
        Cell::Bytes(value) => ValueRef::Blob(value),
    })
}
