//! The demo: a hub and two devices edit offline, come back, and show the same.
//!
//! Owns the folder and what is printed. What happens is in [`story`]; what is told of it, [`rows`] reads off the
//! registers.

mod rivals;
mod rows;
mod story;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use rivus::Schema;
use serde::Serialize;

use crate::output::Output;
use crate::table::Table;
use rivals::Rival;
use rows::Row;
use story::Told;

/// Who takes part, the devices last.
const NAMES: [&str; 3] = ["hub", "phone", "laptop"];

const SCHEMA: &str = include_str!("demo/schema.toml");

/// `rivus demo`.
pub(crate) fn run(dir: Option<&Path>, out: &mut Output) -> Result<ExitCode> {
    let folder = make_folder(dir)?;
    let schema_file = folder.join("schema.toml");
    fs::write(&schema_file, SCHEMA)
        .with_context(|| format!("{} cannot be written", schema_file.display()))?;
    let schema = Schema::from_toml_str(SCHEMA)?;
    let told = crate::wait(story::act(&folder, &schema))?;
    let rows = rows::of(&told, &schema)?;
    let rivals = rivals::of(&told)?;
    let mut digests = BTreeMap::new();
    for (name, db) in NAMES.iter().zip(&told.cast) {
        digests.insert(*name, db.status()?.digest);
    }
    let mut different = digests.values();
    let first = different.next();
    let equal = different.all(|digest| Some(digest) == first)
        && rows.iter().all(Row::is_agreed)
        && rivals.iter().all(Rival::is_agreed);
    if out.is_json() {
        out.json(&DemoJson { folder: &folder, rows: &rows, rivals: &rivals, digests: &digests, equal })?;
    } else {
        tell(&folder, &told, &rows, out)?;
        tell_of_rivals(&rivals, out)?;
        writeln!(out, "\nDigests of all that they hold:")?;
        for name in NAMES {
            writeln!(out, "  {name:6}  {}", digests.get(name).map_or("", String::as_str))?;
        }
        writeln!(out, "  {}", if equal { "equal" } else { "DIFFERENT: this is a fault, please report it" })?;
        suggest(&folder, out)?;
    }
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the folder, which must be new.
fn make_folder(dir: Option<&Path>) -> Result<PathBuf> {
    let numbered = (1..=FOLDERS_MAX).map(|number| PathBuf::from(format!("rivus-demo-{number}")));
    let candidates = dir.map_or_else(|| numbered.collect(), |dir| vec![dir.to_owned()]);
    for folder in candidates {
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(anyhow!("{} cannot be made: {error}", folder.display())),
        }
    }
    match dir {
        Some(dir) => bail!("{} exists already: give a folder that does not", dir.display()),
        None => {
            bail!("rivus-demo-1 to rivus-demo-{FOLDERS_MAX} exist: remove some, or give another with --dir")
        }
    }
}

/// How many folders are tried.
const FOLDERS_MAX: usize = 1000;

#[derive(Serialize)]
struct DemoJson<'d> {
    folder: &'d Path,
    rows: &'d [Row],
    rivals: &'d [Rival],
    digests: &'d BTreeMap<&'static str, String>,
    equal: bool,
}

fn tell(folder: &Path, told: &Told, rows: &[Row], out: &mut Output) -> Result<()> {
    let [_, phone, laptop] = NAMES;
    let ([phone_rank, laptop_rank], folder) = (told.ranks, folder.display());
    writeln!(
        out,
        "A hub, a {phone} (rank {phone_rank}) and a {laptop} (rank {laptop_rank}), each with a database in \
         {folder}, synced over WebSocket.\n\
         Then the hub stopped. A sync now says: {}\n\
         Both devices edited all the same; times count from there. The hub came back, and they synced.\n",
        told.offline,
    )?;
    let mut table = Table::new(["field", phone, laptop, "all show", "why"], [18, 24, 24, 16, 38]);
    for row in rows {
        table.push(row.cells());
    }
    write!(out, "{table}")?;
    Ok(())
}

fn tell_of_rivals(rivals: &[Rival], out: &mut Output) -> Result<()> {
    writeln!(
        out,
        "\nTwo timers of one user were started and two projects got one name. Rules hold in every view, and nothing \
         is written to keep them:\n\
         what was entered stays beneath.\n"
    )?;
    let mut table = Table::new(["what", "entered", "all show", "why"], [18, 34, 20, 44]);
    for rival in rivals {
        table.push(rival.cells());
    }
    write!(out, "{table}")?;
    Ok(())
}

/// Prints what can be done next with the files.
fn suggest(folder: &Path, out: &mut Output) -> Result<()> {
    let rivus = invocation();
    let command = |file: &str, rest: &str| {
        let (file, schema) = (folder.join(file), folder.join("schema.toml"));
        let (file, schema) = (quoted(&file.to_string_lossy()), quoted(&schema.to_string_lossy()));
        format!("  {rivus} --db {file} --schema {schema} {rest}")
    };
    writeln!(out, "\nThe files are in {}. Try next:", folder.display())?;
    for (file, rest) in [
        ("phone.db", "show task offer"),
        ("hub.db", "list task"),
        ("laptop.db", "revive task visit"),
        ("laptop.db", "put task offer status=accepted --inc hours=1"),
    ] {
        writeln!(out, "{}", command(file, rest))?;
    }
    writeln!(out, "and sync again, the hub in a terminal of its own:")?;
    let serve = format!("serve --grant {}=5 --open", story::TOKEN);
    writeln!(out, "{}", command("hub.db", &serve))?;
    writeln!(out, "{}", command("laptop.db", "sync ws://127.0.0.1:7171"))?;
    writeln!(out, "{}", command("phone.db", &format!("sync ws://127.0.0.1:7171 --token {}", story::TOKEN)))?;
    Ok(())
}

/// How this program was started.
fn invocation() -> String {
    // Cargo tells the programs that it runs whose they are.
    if std::env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == env!("CARGO_PKG_NAME")) {
        let profile = if cfg!(debug_assertions) { "" } else { "--release " };
        return format!("cargo run {profile}--");
    }
    std::env::args().next().map_or_else(|| "rivus".to_owned(), |name| quoted(&name))
}

/// The text as one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_./-".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
