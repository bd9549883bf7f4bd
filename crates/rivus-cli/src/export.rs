//! Writing entities to files.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rivus::{Damaged, Db, Shown, Value, View};
use serde::Serialize;

use crate::args::{Export, Format, Global};
use crate::assignment::reads_as_json;
use crate::import::{entities_text, format_of};
use crate::output::{Form, Output};
use crate::source::{OnDamage, Source};
use crate::table::{count, printable};

/// `rivus export`.
pub(crate) fn run(global: &Global, export: &Export, out: &mut Output) -> Result<ExitCode> {
    let named = export.output.as_deref().and_then(format_of);
    let format = export.format.or(named).unwrap_or(Format::Json);
    if format == Format::Csv && export.kind.is_none() {
        return Err(crate::usage("CSV holds entities of one kind: name it, or take --format jsonl"));
    }
    let on_damage = if export.skip_damaged { OnDamage::Skip } else { OnDamage::Fail };
    let source = Source::open(global, on_damage)?;
    if export.pending {
        write_pending(source.db(), export, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let kinds = kinds(source.db(), export.kind.as_deref())?;
    let mut written = Written { source: &source, entities: 0, left_out: Vec::new() };
    match &export.output {
        None => written.write(&kinds, export, format, out)?,
        Some(path) => {
            into_file(path, |file| written.write(&kinds, export, format, file))?;
            #[derive(Serialize)]
            struct Done<'f> {
                file: &'f Path,
                entities: usize,
                #[serde(skip_serializing_if = "<[_]>::is_empty")]
                left_out: &'f [Damaged],
            }
            let text = format!("exported {} to {}", entities_text(written.entities), path.display());
            let Written { entities, left_out, .. } = &written;
            out.say(text, &Done { file: path, entities: *entities, left_out })?;
        }
    }
    let form = Form::of(global);
    written.left_out.iter().for_each(|damaged| tell_left_out(damaged, form));
    Ok(if written.left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The kinds to write: all that are there, or the one that is named.
///
/// # Errors
/// One that is neither there nor in the schema.
fn kinds(db: &Db, named: Option<&str>) -> Result<Vec<String>> {
    let kinds = db.kinds()?;
    let Some(named) = named else { return Ok(kinds) };
    // Without a schema every kind is taken, so that declares none.
    let is_declared = db.schema().kinds().any(|kind| kind.name == named);
    if !is_declared && !kinds.iter().any(|kind| kind == named) {
        bail!("there is no kind `{}` here: `list` tells which there are", printable(named));
    }
    Ok(vec![named.to_owned()])
}

fn tell_left_out(damaged: &Damaged, form: Form) {
    let (kind, id) = (printable(&damaged.kind), printable(&damaged.id));
    crate::note(&format!("{kind} `{id}` is left out, it cannot be read: {}", damaged.reason), form);
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
        write_json(&mut file, "", &all)?;
        Ok(writeln!(file)?)
    })?;
    let text = format!("exported {} to {}", count(edits, "edit"), path.display());
    Ok(out.say(text, &Done { file: path, edits })?)
}

/// Writes a file beside the one at `path` and puts it in its place when it is complete.
///
/// # Errors
/// What `fill` fails with, as it is; or what keeps the file from being written. Nothing new is at `path` then.
fn into_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("{} cannot be written", path.display());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".rivus-export-");
    if let Some(permissions) = usual_permissions() {
        builder.permissions(permissions);
    }
    let mut file = BufWriter::new(builder.tempfile_in(folder).with_context(failed)?);
    fill(&mut file).map_err(|error| {
        // What cannot be read is no fault of the file.
        if error.is::<io::Error>() { error.context(failed()) } else { error }
    })?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    file.persist(path).map_err(|error| error.error).with_context(failed)?;
    Ok(())
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

/// What is written of a database, as it goes.
struct Written<'s> {
    source: &'s Source,
    entities: usize,
    left_out: Vec<Damaged>,
}

impl Written<'_> {
    fn write(
        &mut self,
        kinds: &[String],
        export: &Export,
        format: Format,
        mut out: &mut dyn Write,
    ) -> Result<()> {
        match format {
            Format::Json => self.as_json(kinds, &mut out),
            Format::Jsonl => self.as_lines(kinds, &mut out),
            Format::Csv => kinds.iter().try_for_each(|kind| {
                let views = self.views(kind)?;
                as_csv(&views, &export.id, &mut out)
            }),
        }
    }

    /// The entities of a kind, which are about to be written.
    fn views(&mut self, kind: &str) -> Result<Vec<(String, View)>> {
        let (views, damaged) = self.source.views(kind)?;
        self.entities += views.len();
        self.left_out.extend(damaged);
        Ok(views)
    }

    /// An object by kind, id and field, an entity a line.
    fn as_json(&mut self, kinds: &[String], out: &mut impl Write) -> Result<()> {
        // Nothing is begun before there is something that can be read.
        let mut before_kind = "{";
        for kind in kinds {
            let views = self.views(kind)?;
            if views.is_empty() {
                continue;
            }
            out.write_all(before_kind.as_bytes())?;
            before_kind = ",";
            write_json(out, "\n", kind)?;
            let mut before = ":{\n";
            for (id, view) in &views {
                write_json(out, before, id)?;
                write_json(out, ":", view)?;
                before = ",\n";
            }
            out.write_all(b"}")?;
        }
        Ok(out.write_all(if before_kind == "{" { b"{}\n" } else { b"}\n" })?)
    }

    fn as_lines(&mut self, kinds: &[String], out: &mut impl Write) -> Result<()> {
        #[derive(Serialize)]
        struct Line<'e> {
            kind: &'e str,
            id: &'e str,
            fields: &'e View,
        }
        for kind in kinds {
            for (id, fields) in &self.views(kind)? {
                write_json(out, "", &Line { kind, id, fields })?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    }
}

fn write_json(out: &mut impl Write, before: &str, data: &(impl Serialize + ?Sized)) -> Result<()> {
    out.write_all(before.as_bytes())?;
    // Through io::Error, which tells a closed pipe from other failures.
    serde_json::to_writer(out, data).map_err(io::Error::from)?;
    Ok(())
}

fn as_csv(views: &[(String, View)], id_column: &str, out: &mut impl Write) -> Result<()> {
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
    Ok(csv.flush()?)
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
