//! Writing entities to files.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rivus::{Db, Shown, Value, View};
use serde::Serialize;

use crate::args::{Export, Format, Global};
use crate::assignment::reads_as_json;
use crate::database;
use crate::import::{entities_text, format_of};
use crate::output::Output;
use crate::table::count;

/// `rivus export`.
pub(crate) fn run(global: &Global, export: &Export, out: &mut Output) -> Result<()> {
    let named = export.output.as_deref().and_then(format_of);
    let format = export.format.or(named).unwrap_or(Format::Json);
    if format == Format::Csv && export.kind.is_none() {
        return Err(crate::usage("CSV holds entities of one kind: name it, or take --format jsonl"));
    }
    let db = database::open(global)?;
    if export.pending {
        return write_pending(&db, export, out);
    }
    let Some(path) = &export.output else {
        write(&db, export, format, out)?;
        return Ok(());
    };
    let entities = into_file(path, |file| write(&db, export, format, file))?;
    #[derive(Serialize)]
    struct Done<'f> {
        file: &'f Path,
        entities: usize,
    }
    let text = format!("exported {} to {}", entities_text(entities), path.display());
    Ok(out.say(text, &Done { file: path, entities })?)
}

/// Writes the edits that no hub has accepted.
fn write_pending(db: &Db, export: &Export, out: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct Done<'f> {
        file: &'f Path,
        edits: usize,
    }
    let (edits, all) = (db.sync_state()?.pending + db.rejections()?.len(), db.export_pending()?);
    let Some(path) = &export.output else {
        serde_json::to_writer(&mut *out, &all)?;
        return Ok(writeln!(out)?);
    };
    into_file(path, |mut file| {
        serde_json::to_writer(&mut file, &all)?;
        writeln!(file)?;
        Ok(edits)
    })?;
    let text = format!("exported {} to {}", count(edits, "edit"), path.display());
    Ok(out.say(text, &Done { file: path, edits })?)
}

/// Writes a file beside the one at `path` and puts it in its place when it is complete.
fn into_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<usize>) -> Result<usize> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("{} cannot be written", path.display());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".rivus-export-");
    if let Some(permissions) = usual_permissions() {
        builder.permissions(permissions);
    }
    let mut file = BufWriter::new(builder.tempfile_in(folder).with_context(failed)?);
    let entities = fill(&mut file).with_context(failed)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    file.persist(path).map_err(|error| error.error).with_context(failed)?;
    Ok(entities)
}

/// What a file gets that is made in the ordinary way; a temporary one is its owner's alone.
#[cfg(unix)]
fn usual_permissions() -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    Some(Permissions::from_mode(0o666))
}

#[cfg(not(unix))]
fn usual_permissions() -> Option<Permissions> {
    None
}

fn write(db: &Db, export: &Export, format: Format, mut out: &mut dyn Write) -> Result<usize> {
    let kinds = match &export.kind {
        Some(kind) => vec![kind.clone()],
        None => db.kinds()?,
    };
    match format {
        Format::Json => as_json(db, &kinds, &mut out),
        Format::Jsonl => as_lines(db, &kinds, &mut out),
        Format::Csv => {
            let mut rows = 0;
            for kind in &kinds {
                rows += as_csv(&db.views(kind)?, &export.id, &mut out)?;
            }
            Ok(rows)
        }
    }
}

/// An object by kind, id and field, an entity a line.
fn as_json(db: &Db, kinds: &[String], out: &mut impl Write) -> Result<usize> {
    let (mut entities, mut kind_before) = (0, "");
    out.write_all(b"{")?;
    for kind in kinds {
        let views = db.views(kind)?;
        if views.is_empty() {
            continue;
        }
        out.write_all(kind_before.as_bytes())?;
        kind_before = ",";
        write_json(out, "\n", kind)?;
        let mut before = ":{\n";
        for (id, view) in &views {
            write_json(out, before, id)?;
            write_json(out, ":", view)?;
            before = ",\n";
        }
        out.write_all(b"}")?;
        entities += views.len();
    }
    out.write_all(b"}\n")?;
    Ok(entities)
}

fn write_json(out: &mut impl Write, before: &str, data: &(impl Serialize + ?Sized)) -> Result<()> {
    out.write_all(before.as_bytes())?;
    // Through io::Error, which tells a closed pipe from other failures.
    serde_json::to_writer(out, data).map_err(io::Error::from)?;
    Ok(())
}

fn as_lines(db: &Db, kinds: &[String], out: &mut impl Write) -> Result<usize> {
    #[derive(Serialize)]
    struct Line<'e> {
        kind: &'e str,
        id: &'e str,
        fields: &'e View,
    }
    let mut entities = 0;
    for kind in kinds {
        for (id, fields) in &db.views(kind)? {
            write_json(out, "", &Line { kind, id, fields })?;
            out.write_all(b"\n")?;
            entities += 1;
        }
    }
    Ok(entities)
}

fn as_csv(views: &[(String, View)], id_column: &str, out: &mut impl Write) -> Result<usize> {
    let columns: BTreeSet<&str> =
        views.iter().flat_map(|(_, view)| view.fields.keys()).map(String::as_str).collect();
    if columns.contains(id_column) {
        bail!("a field is named `{id_column}` as the id column is: give the column another name with --id");
    }
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(std::iter::once(id_column).chain(columns.iter().copied())).map_err(io_error)?;
    for (id, view) in views {
        csv.write_field(id).map_err(io_error)?;
        for column in &columns {
            let cell = view.fields.get(*column).map(cell).transpose()?;
            csv.write_field(cell.unwrap_or_default()).map_err(io_error)?;
        }
        csv.write_record(None::<&[u8]>).map_err(io_error)?;
    }
    csv.flush()?;
    Ok(views.len())
}

/// What stands in a cell: JSON, except that text stands as it is where nobody can take it for JSON or for no value.
fn cell(shown: &Shown) -> Result<String> {
    Ok(match shown {
        Shown::Value(Value::Text(text)) if !text.is_empty() && !reads_as_json(text) => text.clone(),
        other => serde_json::to_string(other)?,
    })
}

/// The failure beneath, so that a closed pipe is known for one.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
