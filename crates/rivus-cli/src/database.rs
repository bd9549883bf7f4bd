//! The database and the schema that the global options name.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use rivus::{Db, Schema, StoreError};

use crate::args::Global;
use crate::output::Form;

const UNDECLARED: &str = "this database is used with a schema: without --schema its rules do not hold, and its sets, \
                          counters and the like show, and are written, as plain values";

/// Opens the database, which is made if there is none.
pub(crate) fn open_or_make(global: &Global) -> Result<Db> {
    let db = open_file(global)?;
    if global.schema.is_none() && db.undeclared()? > 0 {
        crate::note(UNDECLARED, Form::of(global));
    }
    Ok(db)
}

fn open_file(global: &Global) -> Result<Db> {
    let is_new = !global.db.exists();
    Db::open(&global.db, schema(global)?).map_err(|error| match error {
        // What can be read of a file that cannot even be opened nobody can export.
        rivus::Error::Store(StoreError::Damaged(what)) => {
            anyhow!("{what}: it is damaged or not a Rivus store: name another with --db, or restore a backup")
        }
        rivus::Error::Store(StoreError::Io(what)) if !is_new && is_read_only(&global.db) => anyhow!(
            "{what}: this file, or its folder, cannot be written, and reading it needs to write beside it; copy the \
             file to where that can be done, and name the copy with --db"
        ),
        other => other.into(),
    })
}

/// Whether the system keeps this process from writing the file, or beside it.
fn is_read_only(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::OpenOptions::new().append(true).open(path).is_err() || tempfile::tempfile_in(folder).is_err()
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
    refuse_missing(global)?;
    open_or_make(global)
}

/// Opens the database for what is the same with and without its schema: nothing is said if that is left out.
pub(crate) fn open_as_it_is(global: &Global) -> Result<Db> {
    refuse_missing(global)?;
    open_file(global)
}

fn refuse_missing(global: &Global) -> Result<()> {
    if !global.db.exists() {
        bail!(
            "there is no database at {}: name one with --db, or make one with `put`, `import`, `sync`, `live` or `serve`",
            global.db.display()
        );
    }
    Ok(())
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
