//! The database and the schema that the global options name.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use rivus::{Db, Schema};

use crate::args::Global;
use crate::output::Form;

const UNDECLARED: &str = "this database is used with a schema: without --schema its rules do not hold, and its sets, \
                          counters and the like show, and are written, as plain values";

/// Opens the database, which is made if there is none.
pub(crate) fn open_or_make(global: &Global) -> Result<Db> {
    let db = Db::open(&global.db, schema(global)?)?;
    if global.schema.is_none() && db.undeclared()? > 0 {
        crate::note(UNDECLARED, Form::of(global));
    }
    Ok(db)
}

/// The schema that is named, or the one that takes everything.
pub(crate) fn schema(global: &Global) -> Result<Schema> {
    match &global.schema {
        Some(path) => read_schema(path),
        None => Ok(Schema::open()),
    }
}

/// Opens the database; a name that was mistyped makes no new one.
pub(crate) fn open(global: &Global) -> Result<Db> {
    if !global.db.exists() {
        let path = global.db.display();
        bail!(
            "there is no database at {path}: name one with --db, or make one with `put`, `import` or `sync`"
        );
    }
    open_or_make(global)
}

/// Reads a schema, in TOML or JSON by the file's extension.
fn read_schema(path: &Path) -> Result<Schema> {
    let name = path.display();
    let read: fn(&str) -> Result<Schema, rivus::SchemaError> = match extension(path).as_deref() {
        Some("toml") => Schema::from_toml_str,
        Some("json") => Schema::from_json_str,
        _ => bail!("schema {name}: its extension must say what it is: .toml or .json"),
    };
    let text = fs::read_to_string(path).map_err(|error| anyhow!("schema {name} cannot be read: {error}"))?;
    read(&text).with_context(|| format!("schema {name}"))
}

/// The extension in lower case.
pub(crate) fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}
